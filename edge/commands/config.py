"""edge.toml and the environment: what edge-run's options are where the command line does not say.

A key is a long flag without its dashes, a variable is EDGE_RUN_ and the same in capitals. Both are checked whole, by the
types of the flags.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from edge.commands.option_types import Checked

PREFIX = "EDGE_RUN_"
NOT_KEYS = frozenset({"help", "version", "config", "print-config", "completion"})
LARGEST_FILE = 1 << 18


@dataclass(frozen=True, slots=True)
class Setting:
    """What one option was given, as its flag would take it, and where: `FILE:LINE`, a variable, or the command line."""

    value: str | bool | list[str]
    origin: str


Options = Mapping[str, click.Option]
Settings = dict[str, Setting]


def options_by_key(command: click.Command) -> dict[str, click.Option]:
    """Every option that edge.toml can hold, by its key, in the order of --help."""
    found = {}
    for option in command.params:  # without --help, which click would keep as this call makes it
        key = max(option.opts, key=len).lstrip("-")
        if isinstance(option, click.Option) and key not in NOT_KEYS:
            found[key] = option
    return found


def variable(key: str) -> str:
    """The environment variable of a key."""
    return PREFIX + key.upper().replace("-", "_")


class Problems(Exception):  # noqa: N818 - several, each a line
    """What is wrong with a file or the environment, a line each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("; ".join(self.lines))


def read_file(path: str, options: Options, asked_by: str = "--config") -> Settings:
    """The settings in a TOML file, which `asked_by` names. Raises Problems."""
    from edge.commands.config_lines import statements

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    text = _text_of(path, asked_by)
    found = list(statements(text))
    try:
        values = tomllib.loads(text)
    except RecursionError:
        deep = max((statement.line for statement in found), default=1)
        raise Problems([f"{path}:{deep}: lists in lists in lists: that is no configuration"]) from None
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits
        line, said = _where(str(error), text)
        first: dict[str, int] = {}
        for statement in found:
            if statement.line <= line and not statement.rest and not statement.table:
                before = first.setdefault(statement.name, statement.line)
                if before != statement.line:
                    twice = f"{path}:{statement.line}: {statement.name}: given twice, first in line {before}"
                    raise Problems([twice]) from None
        raise Problems([f"{path}:{line}: not TOML: {said}"]) from None
    lines = {statement.name: (statement.line, statement.table) for statement in reversed(found)}
    settings, problems = {}, []
    for key, value in values.items():
        line, table = lines.get(key, (1, False))
        origin = f"{path}:{line}"
        try:
            option = options.get(key)
            if isinstance(value, dict) or (table and isinstance(value, list)):
                raise _ValueError(_about_table(key, value, options))
            if option is None:
                raise _ValueError(_unknown(key, options))
            settings[key] = Setting(_checked(option, value), origin)
        except _ValueError as wrong:
            problems.append((line, f"{origin}: {f'[{key}]' if table else key}: {wrong}"))
    if problems:
        raise Problems(line for _, line in sorted(problems))
    return settings


def read_environment(environ: Mapping[str, str], options: Options) -> tuple[Settings, list[str]]:
    """The settings in variables EDGE_RUN_..., of which an empty one is none; and a line about each that means nothing.

    Raises Problems. A repeatable option is split as a shell splits words.
    """
    known = {variable(key): key for key in options}
    settings, hints, problems = {}, [], []
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        if not environ[name] or name == variable("config"):
            continue
        if name not in known:
            near = _nearest(name.removeprefix(PREFIX).lower(), list(options))
            hint = f"did you mean {variable(near)}?" if near else "it is left out"
            hints.append(f"{name} is no option of edge-run; {hint}")
            continue
        try:
            settings[known[name]] = Setting(_checked(options[known[name]], environ[name], environment=True), name)
        except _ValueError as wrong:
            problems.append(f"{name}: {wrong}")
    if problems:
        raise Problems(problems)
    return settings, hints


class _ValueError(ValueError):
    """What is wrong with one value."""


def _text_of(path: str, asked_by: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a path that is none
        raise Problems([f"{asked_by} {path}: {getattr(error, 'strerror', None) or error}; give a TOML file"]) from None
    if len(data) > LARGEST_FILE:
        raise Problems([f"{asked_by} {path}: more than {LARGEST_FILE >> 10} KiB: that is no configuration"])
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Problems([f"{path}:{line}: not UTF-8; save it as UTF-8"]) from None


def _where(said: str, text: str) -> tuple[int, str]:
    """The line that a message of the parser is about, and the message without it."""
    last = text.rstrip("\n").count("\n") + 1
    found = re.fullmatch(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", said, re.DOTALL)
    if found is None:
        return last, said
    message = found[1] + ("; text stands in quotes" if found[1] == "Invalid value" else "")
    return (int(found[2]), f"column {found[3]}: {message}") if found[2] else (last, f"{message} at its end")


def _about_table(key: str, value: Any, options: Options) -> str:
    inner = value if isinstance(value, dict) else next(iter(value), {})
    flat = [f"{key}-{name}" for name in inner if f"{key}-{name}" in options] + [name for name in inner if name in options]
    example = f"; write {flat[0]} = ... above all tables" if flat else f" as in {key} = ..." * (key in options)
    return f"a table; each option is a key of its own{example}"


def _unknown(key: str, options: Options) -> str:
    if key in NOT_KEYS:
        return "on the command line only"
    off = {flag.lstrip("-"): known for known, option in options.items() for flag in option.secondary_opts}
    near = _nearest(key, [*options, *off])
    if near is None:
        return "no such option; edge-run --help lists them"
    return f"no such option; did you mean {f'{off[near]} = false' if near in off else near}?"


def _nearest(name: str, known: list[str]) -> str | None:
    from difflib import get_close_matches

    like = name.lower().replace("_", "-")
    return like if like in known else next(iter(get_close_matches(like, known, 1)), None)


def _checked(option: click.Option, value: Any, *, environment: bool = False) -> str | bool | list[str]:
    """The value as the flag would take it. Raises _ValueError."""
    if option.is_flag:
        if environment:
            try:
                return bool(click.BOOL.convert(value, None, None))
            except click.BadParameter:
                raise _ValueError(f"expected true or false, got {_shown(value)}") from None
        if not isinstance(value, bool):
            raise _ValueError(f"expected true or false, got {_shown(value)}")
        return value
    if not option.multiple:
        return _converted(option, value)
    if environment:
        try:
            value = shlex.split(value)
        except ValueError as error:
            raise _ValueError(f"{str(error).lower()}: {_shown(value)}") from None
    return [_converted(option, part) for part in (value if isinstance(value, list) else [value])]


def _converted(option: click.Option, value: Any) -> str:
    """The text of one value, which the type of the option takes. Raises _ValueError."""
    if isinstance(value, bool) and isinstance(option.type, (type(click.STRING), click.types.FuncParamType, Checked)):
        raise _ValueError(f"expected text, got {_shown(value)}")
    if not isinstance(value, (str, int, float)):
        wanted = "text or a number" if option.multiple else "one value"
        raise _ValueError(f"expected {wanted}, got {_shown(value)}")
    whole = isinstance(option.type, type(click.INT))
    text = _shown(value) if isinstance(value, bool) else _number(value, whole) if isinstance(value, (int, float)) else value
    if "\0" in text:
        raise _ValueError("holds a NUL character, which no option may")
    if whole and not re.fullmatch(r"[+-]?\d+", text.strip()):
        raise _ValueError(f"{text!r}: expected a whole number")
    try:
        option.type.convert(text, None, None)
    except click.BadParameter as error:
        raise _ValueError(error.message.rstrip(".")) from None
    return text


def _number(value: float, whole: bool) -> str:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _ValueError("a number of more than 64 bits")
    if whole and isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return str(value)


def _shown(value: Any) -> str:
    """A value of TOML in a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value:.40}"'
    if isinstance(value, (int, float)):
        return f"{value!s:.40}"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a table"
    return "a date or time; put it in quotes"
