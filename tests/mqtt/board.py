"""A board as its monitor would have it, and the options that publish it."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from edge.commands.options import RunOptions
from edge.commands.run import main
from edge.controls import Controls
from edge.monitor import Monitor
from edge.motion import MotionGate
from edge.pace import Pace
from edge.policies import Threshold
from edge.status import (
    Answered,
    BoardStatus,
    ControlsStatus,
    History,
    ModelStatus,
    OffloadStatus,
    SourceStatus,
    StageTimes,
    Status,
)

ANSWER = Answered(7, "daisy 72%", "daisy", 0.72, "accept", "local", "2026-01-01T00:00:00.000Z", 31.5)
SOURCE = SourceStatus(1, "camera:0", True, "open", "", 0.1, 9.8, 120, 3, 0, 0, ANSWER, None)
OFFLOAD = OffloadStatus("cloud.example:443", "closed", 0, 5, 4, 1, 0, 0, 0, 0, 0, 123456)
BOARD = BoardStatus("Raspberry Pi 5", 61.5, 80.0, [], None, None, 0.7, 150_000_000, 0.85)
STATUS = Status(
    at="2026-01-01T00:00:00.000Z",
    seconds=60.0,
    model=ModelStatus("flowers", "int8-arm", "onnx", 4),
    sources=[SOURCE],
    fps=9.8,
    stages_ms=StageTimes(1.0, 2.0, 20.0, 0.5, 31.5),
    history=History(60, [9] * 60, [31.5] * 60, [20.0] * 60, [0.7] * 60, [0] * 60),
    offload=OFFLOAD,
    governor=None,
    board=BOARD,
    controls=ControlsStatus(False, None, None, None),
    notices=2,
    events_lost=0,
)


class Board:
    """Stands for a Monitor: `change` what its status says; its controls are real."""

    def __init__(self, *, sources: int = 1, offload: bool = True) -> None:
        gate = MotionGate()
        self.controls = Controls(Pace(sources), [Threshold(0.5)], [gate], score_threshold=0.25)
        several = [msgspec.structs.replace(SOURCE, number=n, name=f"camera:{n - 1}") for n in range(1, sources + 1)]
        self._status = msgspec.structs.replace(STATUS, sources=several, offload=OFFLOAD if offload else None)

    def change(self, **what: Any) -> None:
        self._status = msgspec.structs.replace(self._status, **what)

    def show(self, label: str | None, number: int = 1, **more: Any) -> None:
        """A result with this label on source `number`."""
        sources = list(self._status.sources)
        answer = msgspec.structs.replace(ANSWER, label=label, caption=f"{label} 50%", confidence=0.5)
        sources[number - 1] = msgspec.structs.replace(sources[number - 1], result=answer, **more)
        self.change(sources=sources)

    def status(self) -> Status:
        controls = self.controls
        now = ControlsStatus(controls.paused, controls.threshold, controls.score_threshold, controls.gate)
        return msgspec.structs.replace(self._status, controls=now)

    @property
    def monitor(self) -> Monitor:
        return cast(Monitor, self)


def options(url: str, *more: object) -> RunOptions:
    """What `edge-run --mqtt URL ...` is given."""
    arguments = ["--source", "demo", "--mqtt", url, *map(str, more)]
    return RunOptions(**main.make_context("edge-run", arguments).params)
