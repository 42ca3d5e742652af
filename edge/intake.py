"""Frames of several sources, side by side, for whoever infers: fair by turns, and never a growing queue.

Each source is read by a thread of its own. Of a live source the newest frame waits, and replaces an older one that
nobody has taken; of one that waits there is at most `AHEAD`, so that a file is decoded while the engine works.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.errors import CaptureError, EdgeError
from edge.pace import Pace
from edge.protocols import Source
from edge.types import Frame, Notice

AHEAD = 1
STUCK_S = 1.0
PACED_S = 0.25
"""Who waits for the pace looks at least this often whether it has changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A frame on its way: its number among all that were taken, whose it is, and whether the scene is still."""

    ticket: int
    source: int
    frame: Frame
    still: bool


class Intake:
    """Starts reading `sources` as it is entered, and stops and leaves them as it is left; they are open already.

    `look` sees every frame first, on the source's own thread: it may paint over the picture, and says whether the scene
    is still. A frame that replaces one which was not still is not still either. `limit` frames are given out at most.
    `pace` says which frames come too early: those of a live source are let go before anything looks at them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        look: Callable[[int, Frame], bool] = lambda source, frame: False,
        limit: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.failures: list[EdgeError] = []
        self._sources = sources
        self._look = look
        self._left = limit
        self._pace = pace or Pace(len(sources))
        self._waiting: list[deque[tuple[Frame, bool]]] = [deque() for _ in sources]
        self._changed = threading.Condition()
        self._reading = len(sources)
        self._turn = 0
        self._tickets = 0
        self._closed = False
        self._stopped_s = 0.0
        self._threads = [
            threading.Thread(target=self._feed, args=(number,), name=f"source {source.name}", daemon=True)
            for number, source in enumerate(sources)
        ]

    def __enter__(self) -> Intake:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        for thread in self._threads:
            thread.join(timeout=1.0)  # a file's decoder that never returns is left to its daemon thread

    def close(self) -> None:
        """Take no more, from any thread; sources are told to stop."""
        for source in self._sources:
            source.stop()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it gives out no more because it was closed."""
        return self._closed

    def take(self, most: int = 1) -> list[Taken]:
        """Wait for frames: at least one, at most one of each source and `most` in all; none when there will be no more."""
        with self._changed:
            while True:
                if self._left == 0 or self._closed:
                    return []
                batch = self._ready(most if self._left is None else min(most, self._left))
                if batch:
                    if self._left is not None:
                        self._left -= len(batch)
                    self._changed.notify_all()
                    return batch
                if self._reading == 0:
                    return []
                self._changed.wait(STUCK_S)
                if self._stuck():
                    return []

    def _stuck(self) -> bool:
        """Whether all sources were told to stop a while ago, and one of them cannot hear it: a read that never returns."""
        if not all(source.stopped for source in self._sources):
            return False
        now_s = time.monotonic()
        self._stopped_s = self._stopped_s or now_s
        return now_s - self._stopped_s >= STUCK_S

    def _ready(self, most: int) -> list[Taken]:
        batch: list[Taken] = []
        for step in range(len(self._sources)):
            number = (self._turn + step) % len(self._sources)
            if self._waiting[number] and len(batch) < most:
                frame, still = self._waiting[number].popleft()
                batch.append(Taken(self._tickets, number, frame, still))
                self._tickets += 1
        if batch:
            self._turn = (batch[-1].source + 1) % len(self._sources)
        return batch

    def _wait(self, number: int) -> None:
        """Wait until a source that waits may be asked for its next frame."""
        while (early_s := self._pace.early_s(number, time.monotonic())) > 0:
            with self._changed:
                if self._closed or self._sources[number].stopped:
                    return
                self._changed.wait(min(early_s, PACED_S))

    def _feed(self, number: int) -> None:
        source, waiting = self._sources[number], self._waiting[number]
        delivered = False
        try:
            if not source.live:
                self._wait(number)
            for frame in source:
                delivered = True
                if source.live and self._pace.early_s(number, time.monotonic()) > 0:
                    self._pace.paced[number] += 1
                    del frame
                    continue
                still = self._look(number, frame)
                with self._changed:
                    if source.live:
                        if waiting:
                            still = waiting.pop()[1] and still
                            source.dropped += 1
                    else:
                        while len(waiting) >= AHEAD and not self._closed:
                            self._changed.wait()
                    waiting.append((frame, still))
                    self._changed.notify_all()
                    if self._closed:
                        return
                del frame  # else its memory were held until the next one comes
                if not source.live:
                    self._wait(number)
            if len(self._sources) > 1 and not source.stopped:
                source.notices.append(Notice("source-done", source.name, "has ended, the others go on", time.time()))
        except Exception as error:
            fault = f"{source.name}: a fault in the loop: {type(error).__name__}: {error}"
            failure = error if isinstance(error, EdgeError) else CaptureError(fault)
            if failure is not error:
                failure.__cause__ = error
            self.failures.append(failure)
            if delivered or len(self._sources) > 1 or failure is not error:  # else the command's own line says it all
                source.notices.append(Notice("source-ended", source.name, str(failure), time.time()))
        finally:
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()
