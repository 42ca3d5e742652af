"""A sink on a thread of its own, behind a bounded queue: a slow or hung one does not hold up the loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from edge.errors import one_line
from edge.protocols import Sink
from edge.sinks.jsonl import ReaderGoneError
from edge.types import Event, Notice

DEPTH = 256
PATIENCE_S = 10.0
"""How long a sink that must lose nothing may stand still before it loses something after all."""
DRAIN_S = 5.0
LONGEST_DRAIN_S = 30.0
"""In the end, for a sink that may lose events: even one that makes progress must not hold up the end for minutes."""
PARTING_S = 1.0
IDLE_S = 0.5

NO_PICTURE = np.empty((0, 0, 3), np.uint8)
NO_PICTURE.flags.writeable = False


@runtime_checkable
class Choosy(Protocol):
    """A sink that does nothing with some events: they need no place in the queue. Called on the loop's thread."""

    def wants(self, event: Event | Notice) -> bool: ...


@runtime_checkable
class Idling(Protocol):
    """A sink that puts work off. `idle` is called on its thread when no event has come for half a second.

    It says whether to be called again after another one.
    """

    def idle(self) -> bool: ...


@runtime_checkable
class Stoppable(Protocol):
    """A sink that may sleep in `emit`; `stop`, called from any thread, ends that soon, and the sink counts its loss."""

    def stop(self) -> None: ...


def without_picture(event: Event) -> Event:
    """The event with an empty image in its frame, so that the picture's memory can be used again."""
    return replace(event, frame=replace(event.frame, image=NO_PICTURE))


class QueuedSink:
    """Hands events to `sink`, in order and at once, on a thread of its own; `sink` is also closed there.

    When `depth` events wait, the oldest of them is dropped and counted in `lost`, and that is said, once an outage. With
    `waits`, `emit` waits for room first, for as long as the sink makes progress at least every ten seconds. `lossy` is
    for a sink that shows the newest event only: what it misses is neither counted nor said. `sink` may also be Choosy,
    Idling or Stoppable.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        say: Callable[[str], None],
        *,
        depth: int = DEPTH,
        waits: bool,
        lossy: bool = False,
    ) -> None:
        self.wants_images = sink.wants_images
        self._sink = sink
        self._name = name
        self._say = say
        self._depth = depth
        self._waits = waits
        self._lossy = lossy
        self._wants = sink.wants if isinstance(sink, Choosy) else None
        self._idle = sink.idle if isinstance(sink, Idling) else None
        self._waiting: deque[Event | Notice] = deque()
        self._wake = threading.Condition()
        self._busy = False
        self._closing = False
        self._reader_gone = False
        self._moved_s = time.monotonic()
        self._dropped = 0
        self._slow = False
        self._said: set[type[Exception]] = set()
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many events were dropped here, and how many the sink has lost by now, on whichever thread."""
        return self._dropped + self._sink.lost

    def emit(self, event: Event | Notice) -> None:
        """Queue an event. Raises ReaderGoneError when the sink has met it with an earlier one."""
        if self._wants is not None and not self._wants(event):
            return
        if not self.wants_images and isinstance(event, Event):
            event = without_picture(event)
        newly_slow = False
        with self._wake:
            if self._waits:
                self._wait_for_room()
            if self._reader_gone:
                raise ReaderGoneError
            if self._closing:
                self._drop(1)
                return
            if not self._waiting and not self._busy:
                self._moved_s = time.monotonic()  # it had nothing to do until now
            if len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self._drop(1)
                newly_slow = not self._slow and not self._lossy
                self._slow = True
            self._waiting.append(event)
            self._wake.notify_all()
            lost = self.lost
        if newly_slow:
            self._say(f"{self._name}: slow; {lost} lost so far")

    def close(self) -> None:
        """Let the queue drain for as long as the sink makes progress every five seconds, and close the sink.

        What it does not take is counted and said; one that hangs is left to its thread, which ends with the process.
        """
        with self._wake:
            if self._closing:
                return
            self._closing = True
            begun_s = self._moved_s = time.monotonic()
            longest_s = float("inf") if self._waits else LONGEST_DRAIN_S
            self._wake.notify_all()
            while self._waiting or self._busy:
                left_s = min(self._moved_s + DRAIN_S, begun_s + longest_s) - time.monotonic()
                if left_s <= 0:
                    break
                self._wake.wait(left_s)
            drained = not self._waiting and not self._busy
            left = len(self._waiting)
            self._waiting.clear()
            self._drop(left)
        if not drained and isinstance(self._sink, Stoppable):
            self._sink.stop()
        self._thread.join(DRAIN_S if drained else PARTING_S)  # a video is finished by its closing
        with self._wake:
            if self._busy:  # else the sink has written it or counted it
                left += 1
                self._drop(1)
        if left and not self._lossy:
            self._say(f"{self._name}: {left} events could not be written before the end and are lost")
        elif drained and self._thread.is_alive():
            self._say(f"{self._name}: was not finished within {DRAIN_S:g} s; it may be incomplete")

    def _wait_for_room(self) -> None:
        while len(self._waiting) >= self._depth and not self._reader_gone and not self._closing:
            left_s = self._moved_s + PATIENCE_S - time.monotonic()
            if left_s <= 0:
                return
            self._wake.wait(left_s)

    def _drop(self, count: int) -> None:
        """Count events as lost; with the lock held."""
        self._dropped += 0 if self._lossy else count

    def _work(self) -> None:
        while self._hand_over():
            pass
        try:
            self._sink.close()
        except Exception as error:
            self._say(f"{self._name}: {one_line(f'{type(error).__name__}: {error}')}")

    def _hand_over(self) -> bool:
        """Give the sink one event, waiting for it; False when there will be no more. On return no event is referred to."""
        event = self._next()
        if event is None:
            return False
        failed = reader_gone = False
        try:
            self._sink.emit(event)
        except ReaderGoneError:
            reader_gone = True
        except Exception as error:  # whatever it is, the thread lives on and the event is counted
            failed = True
            self._say_failure(error)
        with self._wake:
            self._busy = False
            self._moved_s = time.monotonic()
            self._drop(int(failed))
            if reader_gone:  # nobody misses what is left
                self._reader_gone = True
                self._waiting.clear()
            caught_up = self._slow and not self._waiting
            if caught_up:
                self._slow = False
            lost = self.lost
            self._wake.notify_all()
        if caught_up and not self._lossy and not reader_gone:
            self._say(f"{self._name}: has caught up; {lost} lost so far")
        return True

    def _next(self) -> Event | Notice | None:
        """The oldest event that waits; None at the end."""
        while self._idle is not None and not self._something_within(IDLE_S):
            try:
                if not self._idle():
                    break
            except Exception as error:
                self._say_failure(error)
                break
        self._something_within(None)
        with self._wake:
            if not self._waiting:
                return None
            self._busy = True
            self._moved_s = time.monotonic()
            event = self._waiting.popleft()
            self._wake.notify_all()
            return event

    def _something_within(self, seconds: float | None) -> bool:
        """Whether an event or the end comes within `seconds`."""
        with self._wake:
            return self._wake.wait_for(lambda: bool(self._waiting) or self._closing, seconds)

    def _say_failure(self, error: Exception) -> None:
        """Say an unexpected failure, once for each kind."""
        if type(error) not in self._said:
            self._said.add(type(error))
            self._say(f"{self._name}: {one_line(f'{type(error).__name__}: {error}')}; the loop goes on")
