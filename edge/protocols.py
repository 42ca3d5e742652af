"""The seams: what a source, an engine, a task, a policy and a sink must do. Nothing else varies."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from edge.types import Decision, Event, Frame, Outputs, Result, Tensor


class Source(Protocol):
    """Frames in order; a context manager that holds the device or file while it is open.

    `live` sources keep the newest frame and count the rest in `dropped`; the others wait, and
    what they could not read is on `skipped`, a line each. Raises SourceError when it
    cannot be opened and CaptureError when it stops delivering.
    """

    name: str
    live: bool
    dropped: int
    skipped: list[str]
    fps: float | None

    def __enter__(self) -> Source: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def stop(self) -> None:
        """End the iteration soon, from any thread or signal handler."""


class Engine(Protocol):
    """A loaded model: float32 outputs by name that the caller owns. Raises EngineError."""

    name: str
    threads: int

    def infer(self, tensor: Tensor) -> Outputs: ...
    def close(self) -> None: ...


class Task(Protocol):
    """The only preprocessing there is, and its counterpart; pure functions of their arguments and the card."""

    def prepare(self, frame: Frame) -> Tensor: ...
    def decode(self, outputs: Outputs, tensor: Tensor) -> Result: ...


class Policy(Protocol):
    """Whether a local result is good enough; time is passed in, on the clock of `Frame.captured_s`."""

    def decide(self, result: Result, now_s: float) -> Decision: ...


class Sink(Protocol):
    """Somewhere events go. `emit` must not raise for trouble of its own: it counts what it lost in `lost`."""

    lost: int

    def emit(self, event: Event) -> None: ...
    def close(self) -> None: ...
