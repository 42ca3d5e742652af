"""What every source shares: a name, a context, and being told to stop from elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from edge.types import Frame, Notice, NoticeKind

NOTICES = 100
"""More than these at once are told by nobody: the oldest are forgotten."""
Kind = TypeVar("Kind", bound="BaseSource")


class BaseSource(ABC):
    """Implements all of the Source seam but `frames`, which yields until it is done or `stopped` is set."""

    live = False

    def __init__(self, name: str, fps: float | None = None) -> None:
        self.name = name
        self.fps = fps
        self.dropped = 0
        self.skipped: list[str] = []
        self.notices: deque[Notice] = deque(maxlen=NOTICES)
        self.stopped = False

    def __enter__(self: Kind) -> Kind:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def stop(self) -> None:
        """End the iteration soon, from any thread or signal handler: a flag, since a handler may not wait for a lock."""
        self.stopped = True

    def note(self, kind: NoticeKind, text: str) -> None:
        """Put a notice about this source on `notices`."""
        self.notices.append(Notice(kind, self.name, text, time.time()))

    def open(self) -> None:  # noqa: B027 -- not every source has something to open
        """Take hold of the device or file. Raises SourceError."""

    def close(self) -> None:  # noqa: B027
        """Let go of it; may be called twice."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield frames in order. Raises CaptureError or SourceError."""
