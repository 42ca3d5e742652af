"""What commands say on standard error: lines of four levels, for people or, by --log-json, for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias

import click
import msgspec

from edge.errors import UsageError, one_line
from edge.terminal import CLEAR, has_colours, has_terminal

Level: TypeAlias = Literal["error", "warning", "info", "debug"]
Say: TypeAlias = Callable[[str], None]

LEVELS: tuple[Level, ...] = ("error", "warning", "info", "debug")
"""From what is always said to what is said when asked only."""
COLOURS: dict[Level, str] = {"error": "31", "warning": "33"}
"""Level → the terminal's number of its colour."""
NOTICE_LEVELS: dict[str, Level] = {
    "source-open": "info",
    "source-stalled": "warning",
    "source-lost": "warning",
    "source-ended": "warning",
    "source-done": "info",
    "engine-failed": "warning",
    "engine-reopened": "warning",
    "variant-changed": "warning",
    "frame-failed": "warning",
    "guarantee-withdrawn": "warning",
    "endpoint-lost": "warning",
    "endpoint-back": "info",
    "governor": "info",
    "control": "info",
}


class LogRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A line of --log-json: when it was said (UTC, to the millisecond), how grave it is, which command says it, and what."""

    at: str
    level: Level
    command: str
    text: str


def log_schema() -> dict[str, Any]:
    """The published JSON Schema of a line of --log-json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-run log line"} | msgspec.json.schema(
        LogRecord
    )


@dataclass(frozen=True, slots=True)
class Style:
    """How this process says its lines: down to `level`, and whether as JSON."""

    level: Level = "info"
    as_json: bool = False


_style = Style()


def style() -> Style:
    """The one in force; a child process is handed it, and calls `adopt`."""
    return _style


def adopt(chosen: Style) -> None:
    """Say all lines this way from now on."""
    global _style
    _style = chosen


@contextmanager
def restored() -> Iterator[None]:
    """Let the style be, afterwards, what it was before: a command's choice ends with the command."""
    before = _style
    try:
        yield
    finally:
        adopt(before)


def says(level: Level) -> bool:
    """Whether lines of this level are said."""
    return LEVELS.index(level) <= LEVELS.index(_style.level)


def rewrites() -> bool:
    """Whether a line that is rewritten has a place: a terminal for people, with nobody asking for quiet or for JSON."""
    return says("info") and not _style.as_json and has_terminal()


def notice_level(kind: str) -> Level:
    """How grave a notice of the loop is (edge.types.NoticeKind)."""
    return NOTICE_LEVELS.get(kind, "info")


class Speaker:
    """Says one line on standard error at once, under the command's name; a Callable[[str], None] that knows levels."""

    def __init__(self, name: str, level: Level = "info") -> None:
        self._name, self._level = name, level

    def __call__(self, text: str, *, level: Level | None = None, aligned: bool = False) -> None:
        """Say it; `aligned` keeps the spaces of a table's row."""
        level = level or self._level
        if sys.stderr is None or not says(level):  # None as a service started with 2>&- has it
            return
        with suppress(OSError, ValueError):  # nobody listens any more: that ends nothing
            sys.stderr.write(self._line(text.rstrip() if aligned else one_line(text), level))
            sys.stderr.flush()

    def at(self, level: Level) -> Speaker:
        """The same, at another level."""
        return Speaker(self._name, level)

    def _line(self, text: str, level: Level) -> str:
        if _style.as_json:
            at = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            spoken = text.encode("utf-8", "replace").decode()  # file names are bytes, JSON is UTF-8
            return msgspec.json.encode(LogRecord(at, level, self._name, spoken)).decode() + "\n"
        clear = CLEAR if has_terminal() else ""  # a line that is rewritten may stand there
        prefix = f"{self._name}:"
        if level in COLOURS and has_colours():
            prefix = f"\x1b[{COLOURS[level]}m{prefix}\x1b[0m"
        return f"{clear}{prefix} {text}\n"


def at_level(say: Say, level: Level) -> Say:
    """`say` at a level, where it is one of ours; whatever else hears lines knows no levels."""
    return say.at(level) if isinstance(say, Speaker) else say


def log_options() -> list[click.Option]:
    """The options that every command has; they set the style at once and reach no function."""
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_quiet,
            help="Say warnings and errors only, and show no progress: --log-level warning.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LEVELS),
            expose_value=False,
            is_eager=True,
            callback=_log_level,
            help="Say lines down to this level on standard error.  [default: info]",
        ),
        click.Option(
            ["--log-json"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_log_json,
            help="Say each line on standard error as one JSON object: at, level, command, text.",
        ),
    ]


def _quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        _choose(context, parameter, "warning")


def _log_level(context: click.Context, parameter: click.Parameter, value: Level | None) -> None:
    if value is not None:
        _choose(context, parameter, value)


def _log_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        adopt(replace(_style, as_json=True))


def _choose(context: click.Context, parameter: click.Parameter, level: Level) -> None:
    """Take a level, given once in one place; the command line, whose options come first, goes before a configuration."""
    place = context.get_parameter_source(str(parameter.name))
    first = context.meta.setdefault(__name__, (parameter.name, place))
    if first == (parameter.name, place):
        adopt(replace(_style, level=level))
    elif first[1] == place:
        raise UsageError("--quiet is --log-level warning; give one of the two")
