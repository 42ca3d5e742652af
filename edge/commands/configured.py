"""A command whose options can also stand in a file and in the environment, and which prints what is in effect.

What stands there becomes click's defaults: the command line is stronger, and an option from a file counts as given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from edge.commands import OneLineCommand, interruptible_import, speaker
from edge.commands.config import Problems, Setting, options_by_key, read_environment, read_file, variable
from edge.commands.option_types import RefusedValue
from edge.errors import InputError, UsageError

COMMAND_LINE = "command line"
MOST_PROBLEMS = 20
SETTINGS, PRINTING = "edge.config.settings", "edge.config.printing"


class ConfiguredCommand(OneLineCommand):
    """A command whose options can also stand in a file and in the environment."""

    def wants_json(self, words: Sequence[str]) -> bool:
        """Whether the command line or the environment asks for JSON; a file is not read yet."""
        with suppress(click.BadParameter):  # it is told when all are checked
            if click.BOOL.convert(os.environ.get(variable("log-json")) or False, None, None):
                return True
        return super().wants_json(words)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line over what the file and the environment say."""
        if ctx.resilient_parsing:  # a shell asks what could follow
            return super().parse_args(ctx, args)
        with interruptible_import(self.name or "edge-run"):  # of what checks some values
            return self._parse_args(ctx, args)

    def _parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        say = speaker(self.name or "edge-run")
        given, _, order = self.make_parser(ctx).parse_args(list(args))
        options = options_by_key(self)
        keys = {option.name: key for key, option in options.items()}
        if any(option.name not in {*keys, "config", "print_config"} for option in order):  # --help and its like
            return super().parse_args(ctx, args)
        asked_by = "--config" if "config" in given else variable("config")
        path = given.get("config", os.environ.get(variable("config")) or None)
        try:
            settings = {} if path is None else read_file(path, options, asked_by)
            environment, hints = read_environment(os.environ, options)
        except Problems as problems:
            *others, last = problems.lines[:MOST_PROBLEMS]
            for line in others:
                say(line, level="error")
            raise InputError(last) from None
        settings |= environment
        for one, other in (("quiet", "log-level"), ("log-level", "quiet")):  # the same, twice: the stronger place has it
            stronger = one in environment and other not in environment and environment[one].value
            if options[one].name in given or stronger:
                settings.pop(other, None)
        ctx.default_map = {options[key].name: setting.value for key, setting in settings.items()}
        for name in given.keys() & keys.keys():
            settings[keys[name]] = Setting(_as_given(options[keys[name]], given[name]), COMMAND_LINE)
        ctx.meta[SETTINGS] = settings
        try:
            left = super().parse_args(ctx, args)
        except click.BadParameter as error:  # an option that is checked by more than its type
            key = keys.get(error.param.name, "") if error.param is not None else ""
            if key not in settings or settings[key].origin == COMMAND_LINE:
                if isinstance(error, RefusedValue):
                    raise UsageError(error.line) from None
                raise
            raise InputError(f"{settings[key].origin}: {key}: {error.message.rstrip('.')}") from None
        for hint in hints:
            say(hint, level="warning")  # now, as --quiet and --log-json want it
        return left


def given_as(context: click.Context, name: str) -> str:
    """How the option of a parameter was given, for messages: its flag, or the file's line or the variable, and its key."""
    key = next(key for key, option in options_by_key(context.command).items() if option.name == name)
    setting = context.meta.get(SETTINGS, {}).get(key)
    return f"--{key}" if setting is None or setting.origin == COMMAND_LINE else f"{setting.origin}: {key}"


def print_config(context: click.Context) -> bool:
    """Print the effective configuration if --print-config asks for it; whether it does."""
    if not context.meta.get(PRINTING):
        return False
    from edge.commands.config_text import config_text

    click.echo(config_text(options_by_key(context.command), context.meta[SETTINGS]), nl=False)
    return True


def _note_printing(context: click.Context, option: click.Parameter, value: bool) -> None:
    context.meta[PRINTING] = value


CONFIG_OPTIONS = (
    click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        help="Take options from this TOML file; the command line and EDGE_RUN_... are stronger.  [default: EDGE_RUN_CONFIG]",
    ),
    click.option(
        "--print-config",
        is_flag=True,
        expose_value=False,
        callback=_note_printing,
        help="Print what is in effect, as such a file, and where each value comes from; open nothing.",
    ),
)


def _as_given(option: click.Option, value: Any) -> str | bool | list[str]:
    """What click's parser holds for an option of the command line; a flag that was given no value has its own."""
    if isinstance(value, (list, tuple)):
        return [str(part) for part in value]
    return value if isinstance(value, (str, bool)) else str(option.flag_value)
