"""edge-run's options as keywords of a function: the same names with underscores, the same values, the same checks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypedDict

import click

from edge.commands.option_types import Checked
from edge.commands.options import RunOptions
from edge.commands.run_options import OPTIONS, check_options
from edge.errors import UsageError

UNFIT = {"source", "camera", "summary_path"}
"""Options that are arguments of their own, or attributes of a Run."""
EXAMPLES = {"mask": "'0.1,0.5,0.9,1'", "roi": "'0.1,0.5,0.9,1'", "score_threshold": "'person=0.6'", "mqtt_qos": "'events=0'"}
"""Keyword → what it may be, where another type may have been meant."""


class RunKeywords(TypedDict, total=False):
    """What `edge.run` takes beside a source; each is what the option of that name is."""

    size: str | tuple[int, int]
    rate: float
    pixels: str
    camera_timeout: float
    frozen_after: float
    variant: str
    threads: int
    lanes: int
    spin: bool
    engine_timeout: float
    second_look: Literal["confidence", "answer"]
    score_threshold: Sequence[str] | str | float
    classes: Sequence[str] | str
    roi: Sequence[str] | str
    mask: Sequence[str] | str
    motion_gate: bool
    refresh: float
    track: bool
    events: str
    rotate_mb: float
    keep: int
    video: str
    webhook: str
    webhook_on: Literal["changes", "all"]
    store: str
    keep_days: float
    offload: str
    policy: Literal["threshold", "budget", "guarantee"]
    threshold: float
    offload_budget: str
    offload_price: float
    max_error: float
    offload_deadline: float
    offload_send: Literal["frame", "crop", "tensor"]
    redact: Sequence[str] | str
    spool: str
    spool_mb: float
    spool_days: float
    offload_ca: str
    offload_pin: str
    offload_cert: str
    offload_key: str
    offload_token_file: str
    max_temp: float | Literal["auto"]
    max_watts: float
    target_fps: float
    quiet_hours: str
    min_battery: float
    web: str | int
    web_token_file: str
    web_cert: str
    web_key: str
    web_fps: float
    mqtt: str
    mqtt_topic: str
    mqtt_user: str
    mqtt_password_file: str
    mqtt_ca: str
    mqtt_cert: str
    mqtt_key: str
    mqtt_on: Literal["changes", "all", "none"]
    mqtt_qos: Sequence[str] | str | int
    mqtt_queue: int
    mqtt_commands: str
    home_assistant: bool
    home_assistant_prefix: str
    max_frames: int


def options_of(given: Mapping[str, Any]) -> RunOptions:
    """The options that these keywords name, checked as those of a command line.

    Raises UsageError for a value that cannot be, and TypeError, as Python does, for a name that is none.
    """
    command = _command()
    parameters = {_keyword(parameter): parameter for parameter in command.params if parameter.name in _fields()}
    known = [name for name in parameters if parameters[name].name not in UNFIT]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in parameters or (name not in known and name != "source"):
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"edge.run() got an unexpected keyword argument {name!r}{hint}")
        parameter = parameters[name]
        if value is not None and parameter.name is not None:
            values[parameter.name] = _taken(name, parameter, value)
    try:
        context = command.make_context("edge.run", [], default_map=values)
    except click.BadParameter as error:
        name = _keyword(error.param) if error.param is not None else ""
        raise UsageError(f"edge.run: {name}: {error.message}") from None
    check_options(context, all_sources=False)  # edge.run may have some of its own
    return RunOptions(**context.params)


def _command() -> click.Command:
    function = click.command("edge.run")
    command: Any = lambda **given: None  # noqa: E731 -- click hangs the options on it
    for option in reversed(OPTIONS):
        command = option(command)
    made: click.Command = function(command)
    return made


def _keyword(parameter: click.Parameter) -> str:
    return parameter.opts[0].removeprefix("--").replace("-", "_")


def _fields() -> set[str | None]:
    return set(RunOptions.__dataclass_fields__)


def _taken(name: str, parameter: click.Parameter, value: Any) -> Any:
    """The value as an option's default. Raises UsageError for one that would be turned into text without a sense."""
    several = isinstance(value, (list, tuple))
    if parameter.multiple:
        return [_text(name, one) for one in (value if several else [value])]
    if several and "," in str(parameter.metavar):
        return ",".join(_name(name, one) for one in value)
    if isinstance(parameter.type, type(click.INT)) and not _whole(value):
        raise UsageError(f"edge.run: {name}: {value!r:.80}: expected a whole number")
    if isinstance(parameter.type, (type(click.STRING), Checked)):
        return _text(name, value)
    return str(value) if isinstance(value, Path) else value


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Path)):
        example = EXAMPLES.get(name, "")
        raise UsageError(f"edge.run: {name}: {value!r:.80}: expected text{example and f', as {name}={example}'}")
    return str(value)


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str) or "," in value:
        raise UsageError(f"edge.run: {name}: {value!r:.80}: expected names of classes, none with a comma")
    return value


def _whole(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\s*[+-]?\d+\s*", value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
