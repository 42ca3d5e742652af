"""Controls, turned by a request: everything that it asks for, or nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from edge.controls import ABSENT, Controls
from edge.errors import one_line

WHO = "web"


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What may be asked for."""

    paused: bool | msgspec.UnsetType = msgspec.UNSET
    threshold: float | msgspec.UnsetType = msgspec.UNSET
    score_threshold: float | msgspec.UnsetType = msgspec.UNSET
    gate: bool | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Turned:
    """The status of the answer, and what was wrong in one line, if anything was."""

    status: int = 200
    trouble: str = ""


def turn(controls: Controls, body: bytes) -> Turned:
    """Do what a JSON object asks for: 400 where it makes no sense, 409 where there is nothing to set."""
    try:
        wish = msgspec.json.decode(body, type=Wish)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        return Turned(400, one_line(str(error)))
    asked = {name: value for name in Wish.__struct_fields__ if (value := getattr(wish, name)) is not msgspec.UNSET}
    if not asked:
        return Turned(400, f"expected one of {', '.join(Wish.__struct_fields__)}")
    for name, value in asked.items():
        if isinstance(value, float) and not (math.isfinite(value) and 0 <= value <= 1):
            return Turned(400, f"{name}: {value:g}: expected a number from 0 to 1")
        if name in ABSENT and getattr(controls, name) is None:
            return Turned(409, ABSENT[name])
    try:
        if not isinstance(wish.paused, msgspec.UnsetType):
            controls.pause(wish.paused, WHO)
        if not isinstance(wish.threshold, msgspec.UnsetType):
            controls.set_threshold(wish.threshold, WHO)
        if not isinstance(wish.score_threshold, msgspec.UnsetType):
            controls.set_score_threshold(wish.score_threshold, WHO)
        if not isinstance(wish.gate, msgspec.UnsetType):
            controls.set_gate(wish.gate, WHO)
    except ValueError as error:
        return Turned(409, one_line(str(error)))
    return Turned()
