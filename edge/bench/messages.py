"""What the bench and its child say to each other, a line of JSON each."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to do: `judge` a variant's answers, `measure` for so many seconds, or `sustain` until it is ended."""

    do: Literal["judge", "measure", "sustain"]
    bundle: str
    variant: str
    accelerator: str
    options: tuple[tuple[str, str], ...]
    threads: int
    spin: bool
    seconds: float = 0.0
    data: str | None = None
    limit: int | None = None


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """It has come to this; also a sign of life."""

    name: Literal["opening", "warming", "measuring", "judging"]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot be done, and why."""

    line: str


class Judged(msgspec.Struct, frozen=True, tag="judged"):
    """How far the golden outputs are off, whether their best class is the same, and the `figure` of labelled pictures.

    `figure` is a classifier's top-1 accuracy or a detector's AP50, over `images`.
    """

    difference: float
    tolerance: float
    same_best: bool | None = None
    figure: float | None = None
    images: int = 0


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """Milliseconds of each inference, and of each prepare + infer + decode; `load_s` is what opening took."""

    engine_ms: list[float]
    frame_ms: list[float]
    wall_s: float
    load_s: float
    memory_mb: float


Message: TypeAlias = Phase | Refused | Judged | Measured
