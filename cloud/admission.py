"""What is let in: bytes that are held at once, and requests that can be answered in time."""

from __future__ import annotations

from types import TracebackType

from cloud.batching import Batcher
from cloud.errors import BusyError


class Budget:
    """Bytes of requests in memory, over all requests; used from one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def share(self) -> Share:
        """A request's part of it, given back when left."""
        return Share(self)


class Share:
    """What one request holds; a context manager that gives it back."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._mine = 0

    def take(self, size: int) -> None:
        """Hold `size` more bytes. Raises BusyError when that is more than there is."""
        if self._budget.held + size > self._budget.limit:
            raise BusyError("too many bytes are held by requests under way; try again in a second", 1.0)
        self._budget.held += size
        self._mine += size

    def __enter__(self) -> Share:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._budget.held -= self._mine
        self._mine = 0


def check_wait(batcher: Batcher, max_wait_s: float) -> None:
    """Raises BusyError when a picture that comes now would wait longer than `max_wait_s` for its turn."""
    wait_s = batcher.expected_wait_s
    if wait_s > max_wait_s:
        raise BusyError.wait(wait_s, max_wait_s)
