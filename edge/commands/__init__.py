"""The commands. Each turns every failure that a user can cause into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import click

from edge import __version__
from edge.commands.completion import complete_values, completion_option
from edge.commands.logs import Level, Speaker, adopt, at_level, log_options, restored, says, style
from edge.errors import EdgeError
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

    Exit codes: 0 done, 1 runtime failure, 2 bad usage or bad input, 3 gate not met, 130 interrupted. Each has --quiet,
    --log-level, --log-json and --completion.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += log_options()
        if " " not in (self.name or ""):  # a shell completes programs, not their subcommands
            self.params.append(completion_option())
        complete_values(self.params)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a broken pipe is seen here, because click itself would make it exit code 1."""
        speaker(self.name or "")(f"{__version__}, Python {sys.version.split()[0]}, {sys.executable}", level="debug")
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _leave_quietly()
        except KeyboardInterrupt:  # click would say an empty line first
            raise click.Abort from None

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run and leave the process with the exit code."""
        with restored():
            if self.wants_json(list(args[0] if args and args[0] is not None else kwargs.get("args") or sys.argv[1:])):
                adopt(replace(style(), as_json=True))
            self._main(*args, **kwargs)

    def wants_json(self, words: Sequence[str]) -> bool:
        """Whether JSON is asked for: known before the words are parsed, so that what is wrong with them is JSON, too."""
        return "--log-json" in takewhile(lambda word: word != "--", words)

    def _main(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = self.name or "edge-run"
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False, "prog_name": name}))
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk can still be reported
            sys.exit(code if isinstance(code, int) else 0)
        except EdgeError as error:
            _say_where(name, error)
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


def _say_where(name: str, error: EdgeError) -> None:
    """At the level debug: where in the code an error comes from, and what was beneath it."""
    if says("debug"):
        last = traceback.extract_tb(error.__traceback__)[-1]
        beneath = error.__cause__ or error.__context__
        cause = "" if beneath is None else f", after {type(beneath).__name__}: {beneath}"
        speaker(name)(f"{type(error).__name__} from {last.filename}:{last.lineno}, {last.name}{cause}", level="debug")


def fail(name: str, line: str, code: int) -> NoReturn:
    """Say one line on standard error and exit."""
    speaker(name)(line, level="error")
    sys.exit(code)


@contextmanager
def interruptible_import(name: str) -> Iterator[None]:
    """While a command imports its parts, Ctrl-C ends it at once: numpy and others turn its exception into another."""

    def leave(number: int, frame: object) -> None:
        speaker(name)("interrupted", level="error")
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def speaker(name: str, level: Level = "info") -> Speaker:
    """What says one line on standard error at once, under the command's name."""
    return Speaker(name, level)


class Skipped:
    """Warns of each unreadable picture once, however often it is met; `lines` are those said."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.lines: set[str] = set()
        self._say = at_level(say, "warning")

    def __call__(self, line: str) -> None:
        if line not in self.lines:
            self.lines.add(line)
            self._say(f"skipped {line}")
