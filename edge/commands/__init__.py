"""The commands. Each turns every failure that a user can cause into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from edge import __version__
from edge.errors import EdgeError, one_line
from edge.packaged import DEFAULT_BUNDLE

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

bundle_option = click.option(
    "--model",
    "model_path",
    metavar="BUNDLE",
    type=Path,
    default=DEFAULT_BUNDLE,
    help="Bundle folder or .edge file.  [default: the ImageNet classifier in the package]",
)
threads_option = click.option("--threads", type=click.IntRange(1, 64), help="Engine threads.  [default: the board's profile]")
second_look_option = click.option(
    "--second-look",
    type=click.Choice(["confidence", "answer"]),
    help="Let a classifier look once more, at the middle of the picture: to tell better how sure its answer is, or to answer "
    "by both looks. Twice the inferences.",
)
version_option = click.version_option(__version__)


class OneLineCommand(click.Command):
    """A command whose errors are one line each: `NAME: what, where, next command`.

    Exit codes: 0 done, 1 runtime failure, 2 bad usage or bad input, 3 gate not met, 130 interrupted.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a broken pipe is seen here, because click itself would make it exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _leave_quietly()

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run and leave the process with the exit code."""
        name = self.name or "edge-run"
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False, "prog_name": name}))
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk can still be reported
            sys.exit(code if isinstance(code, int) else 0)
        except EdgeError as error:
            fail(name, str(error), error.exit_code)
        except click.UsageError as error:
            fail(name, f"{error.format_message().rstrip('.')}; see {name} --help", 2)
        except click.ClickException as error:
            fail(name, error.format_message(), 2)
        except (KeyboardInterrupt, click.Abort):
            fail(name, "interrupted", 130)
        except BrokenPipeError:
            _leave_quietly()
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else "standard output: "
            if error.filename is None:
                _discard(1)
            fail(name, f"{where}{error.strerror or error}", 1)


def _leave_quietly() -> NoReturn:
    """Our reader went away, as head does: that is its right."""
    _discard(1)
    _discard(2)
    sys.exit(0)


def _discard(descriptor: int) -> None:
    """Let what is still buffered go nowhere, so that the interpreter's last flush cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def has_terminal() -> bool:
    """Whether standard error is a terminal that can rewrite a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def rewrite_line(line: str) -> None:
    """Let a line stand in the place of the last one on the terminal; "" clears it."""
    with suppress(OSError, ValueError):  # nobody listens any more: that ends nothing
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def fail(name: str, line: str, code: int) -> NoReturn:
    """Say one line on standard error and exit."""
    speaker(name)(line)
    sys.exit(code)


def speaker(name: str) -> Callable[[str], None]:
    """A function that says one line on standard error at once, under the command's name."""

    def say(text: str) -> None:
        if sys.stderr is None:  # as a service started with 2>&- has it
            return
        with suppress(OSError, ValueError):  # nobody listens any more: that ends nothing
            clear = "\r\x1b[K" if has_terminal() else ""  # a status line may stand there
            sys.stderr.write(f"{clear}{name}: {one_line(text)}\n")
            sys.stderr.flush()

    return say


class Skipped:
    """Says each line about an unreadable picture once, however often the picture is met; `lines` are those said."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.lines: set[str] = set()
        self._say = say

    def __call__(self, line: str) -> None:
        if line not in self.lines:
            self.lines.add(line)
            self._say(f"skipped {line}")
