"""The waiting line: a bounded number of requests, one thread that serves them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from cloud.errors import RefusedError

T = TypeVar("T")
PLACES = 16


class Line:
    """At most `places` requests at once, whether their body is arriving, they wait, or they are served.

    One thread serves, because engines are not reentrant; the event loop stays free. Used from one event loop.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._free = places
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="inference")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place. Raises RefusedError 503 when there is none."""
        if self._free == 0:
            raise RefusedError(503, "too many requests are waiting; try again in a second", {"Retry-After": "1"})
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, called on the one thread after what came before it."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Wait for what is under way and end the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)
