"""edge-run's options as keywords of a function: the same names with underscores, the same values, the same checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypedDict

import click

from edge.commands.run_options import OPTIONS, RunOptions, check_idle
from edge.errors import UsageError

UNFIT = {"source", "camera", "summary_path"}
"""Options that are arguments of their own, or attributes of a Run."""


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
    classes: str
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
    redact: str
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
            values[parameter.name] = _listed(value) if parameter.multiple else str(value) if _is_path(value) else value
    try:
        context = command.make_context("edge.run", [], default_map=values)
    except click.BadParameter as error:
        name = _keyword(error.param) if error.param is not None else ""
        raise UsageError(f"edge.run: {name}: {error.message}") from None
    check_idle(context)
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


def _is_path(value: object) -> bool:
    return isinstance(value, Path)


def _listed(value: Any) -> list[str]:
    many = value if isinstance(value, (list, tuple)) else [value]
    return [str(one) for one in many]
