"""The seams: what a source, an engine, a task, a policy and a sink must do. Nothing else varies."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol

from edge.types import Decision, Event, Frame, Notice, Outputs, Result, Tensor


class Source(Protocol):
    """Frames in order; a context manager that holds the device or file while it is open.

    The frames of a `live` source must be taken as they come: the newest replaces an older one that nobody has taken, and
    `dropped` counts those. The others wait, and what they could not read is on `skipped`, a line each. `notices` are what
    befell it, oldest first; whoever reads them takes them off. A picture's memory may be leased (edge.buffers): it is
    used again once nothing refers to the frame any more. Raises SourceError when it cannot be opened and CaptureError
    when it ends for good before its time.
    """

    name: str
    live: bool
    stopped: bool
    dropped: int
    skipped: list[str]
    fps: float | None
    notices: deque[Notice]

    def __enter__(self) -> Source: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def stop(self) -> None:
        """End the iteration soon, from any thread or signal handler."""


class Engine(Protocol):
    """A loaded model: float32 outputs by name that the caller owns. Raises EngineError.

    `infer` may be called from `lanes` threads at once, and takes up to `batch` pictures in one tensor.
    """

    name: str
    threads: int
    lanes: int
    batch: int

    def infer(self, tensor: Tensor) -> Outputs: ...
    def close(self) -> None: ...


class Task(Protocol):
    """The only preprocessing there is, and its counterpart; pure functions of their arguments and the card."""

    def prepare(self, frame: Frame) -> Tensor: ...
    def decode(self, outputs: Outputs, tensor: Tensor) -> Result: ...


class Policy(Protocol):
    """Whether a local result is good enough; time is passed in, on the clock of `Frame.captured_s`.

    `notices` are what became of it, oldest first; whoever reads them takes them off.
    """

    notices: deque[Notice]

    def decide(self, result: Result, now_s: float) -> Decision: ...
    def declined(self, now_s: float) -> None:
        """The frame of the decision at `now_s` could not be offloaded: nobody was asked."""

    def answered(self, tracks: Sequence[int]) -> None:
        """The cloud has answered about objects of these identities."""


class Sink(Protocol):
    """Somewhere events and notices go. `emit` must not raise for trouble of its own: it counts what it lost in `lost`.

    It runs on a thread of the sink's own (edge.sinks.queued), so that it may take its time. `wants_images` says whether
    it looks at `event.frame.image`; for one that does not, the picture's buffer goes back to the camera at once.
    """

    wants_images: bool

    @property
    def lost(self) -> int: ...

    def emit(self, event: Event | Notice) -> None: ...
    def close(self) -> None: ...
