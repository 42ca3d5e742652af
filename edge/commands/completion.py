"""What the shell can complete: the names of options, and the values of those that are one of several, a file or a camera."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")
DEVICES = Path("/dev")
Completer = Callable[[click.Context, str], list["CompletionItem[str]"]]


def complete_values(params: Iterable[click.Parameter]) -> None:
    """Let options that take a file, a folder, a camera or a source complete it; their metavar says which do."""
    for option in params:
        if not isinstance(option, click.Option):
            continue
        words = set(re.split(r"\W+", option.metavar or ""))
        complete = next((COMPLETERS[word] for word in COMPLETERS if word in words), None)
        if "--camera" in option.opts:
            complete = _cameras
        if complete is not None:
            # here, since the options are shared by commands and click takes the function only where one is declared
            option.shell_complete = complete  # type: ignore[method-assign, assignment]


def _files(context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(incomplete, type="file")]


def _folders(context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(incomplete, type="dir")]


def _cameras(context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    found = sorted(DEVICES.glob("video*"), key=lambda path: (len(path.name), path.name))
    names = [str(path) for path in found]
    if incomplete[:1].isdecimal():
        names = [path.name[len("video") :] for path in found]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _sources(context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    named = [name for name in ("demo", "camera:", "picamera:", "rtsp://", "http://", "gst:") if name.startswith(incomplete)]
    return [CompletionItem(name) for name in named] if incomplete and named else _files(context, incomplete)


COMPLETERS: dict[str, Completer] = {"FILE": _files, "PATH": _files, "BUNDLE": _files, "DIR": _folders, "URI": _sources}
"""Word of a metavar → what completes it."""


def _print_script(context: click.Context, option: click.Parameter, shell: str | None) -> None:
    if shell is None or context.resilient_parsing:
        return
    name = context.command.name or "edge-run"
    completer = get_completion_class(shell)
    if completer is None:  # a click that no longer knows it
        raise click.UsageError(f"--completion {shell}: this version of click cannot")
    variable = f"_{name}_COMPLETE".replace("-", "_").upper()
    click.echo(completer(context.command, {}, name, variable).source())
    context.exit()


def completion_option() -> click.Option:
    """The option that every command has."""
    return click.Option(
        ["--completion"],
        type=click.Choice(SHELLS),
        is_eager=True,
        expose_value=False,
        callback=_print_script,
        help="Print a script that completes this command in this shell.",
    )
