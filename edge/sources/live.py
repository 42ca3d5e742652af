"""Live sources: read in a process of their own, watched, and opened again for as long as it takes."""

from __future__ import annotations

import mmap
import os
import random
import select
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from edge.buffers import leased
from edge.capture.devices import DeviceSpec
from edge.capture.forkserver import FORK_SERVER
from edge.capture.reader import (
    FRAME,
    FRAME_KIND,
    STARTED_KIND,
    STARVED,
    STARVED_KIND,
    Failed,
    Opened,
    ReaderSpec,
    slot_pictures,
)
from edge.errors import SourceError
from edge.sources.base import BaseSource
from edge.types import Frame, UInt8

SLOTS = 12
"""Pictures that may be under way: in the loop, in the queues of sinks and on their way to the cloud."""
STOP_WITHIN_S = 0.1
HINT = "; try --source demo"
"""For somebody who begins; not for a board that waits."""
SETTLE_S = 2.0
"""A reader's first pictures may be those that froze, as a dark one: it has this long to show another."""
LOADING_S = 60.0
"""For the server to load OpenCV, once, on a small board that boots."""
HEALTHY_S = 5.0
"""A reader that delivered for this long had been well: the next pause is the shortest again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a source counts as stalled and when it is given up and opened again; seconds.

    `stalled` without a frame is said; `opening` and `reading` end the reader (a slow camera has ten of its frame
    periods). The same picture, bit for bit, for `frozen` is no picture any more; 0 lets it be. The pauses before the
    second and later attempts double from `pause[0]` to `pause[1]`, each shortened by up to a half by chance.
    """

    stalled: float = 1.5
    opening: float = 10.0
    reading: float = 3.0
    frozen: float = 10.0
    pause: tuple[float, float] = (0.1, 1.5)


@dataclass(slots=True)
class _Session:
    """One reader's life, as far as it is known."""

    number: int
    link: socket.socket
    begun_s: float
    fresh_s: float
    started: bool = False
    opened: Opened | None = None
    opened_s: float = 0.0
    pictures: list[UInt8] = field(default_factory=list)
    frames: int = 0
    dropped: int = 0
    checksum: int = -1
    changed_s: float = 0.0
    stalled: bool = False


class LiveSource(BaseSource):
    """A device or stream that never hangs the loop, never repeats a frame and comes back by itself.

    `patient` also waits for one that has never been there; else that raises SourceError. `missing` may say in advance,
    in one line and without opening anything, that it is not there.
    """

    live = True

    def __init__(
        self,
        name: str,
        device: DeviceSpec,
        *,
        limits: Limits | None = None,
        patient: bool = False,
        missing: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__(name)
        self.patient = patient
        self._spec = ReaderSpec(device, SLOTS)
        self._limits = limits or Limits()
        self._missing = missing
        self._sequence = 0
        self._reader = 0
        self._lost_s: float | None = None
        self._frozen: int | None = None

    def open(self) -> None:
        """Start the server that readers are forked from. Raises SourceError for a device that is plainly not there."""
        problem = self._missing()
        if problem is not None and not self.patient:
            raise SourceError(f"{self.name}: {problem}")
        FORK_SERVER.start()

    def frames(self) -> Iterator[Frame]:
        """Each frame as it comes, for as long as it is not stopped. Raises SourceError if it never was there."""
        attempts = 0
        while not self.stopped:
            problem = self._missing()
            if problem is not None:
                self._note_lost(problem, ever=self._sequence > 0)
                self._pause(self._limits.pause[0])  # a look at the file system costs nothing
                continue
            try:
                session = self._begin()
            except OSError as error:  # out of memory, processes or descriptors: that passes, or others end it
                self._note_lost(f"no reader can be started: {error.strerror}", ever=self._sequence > 0)
                self._pause(self._limits.pause[1])
                continue
            try:
                failed = yield from self._deliver(session)
            finally:
                self._end(session)
            if failed is None:
                return
            self._note_lost(failed.reason, ever=self._sequence > 0)
            well = session.frames > 0 and session.fresh_s - session.begun_s > HEALTHY_S
            attempts = 0 if well else attempts + 1
            if not (failed.at_once and well):
                shortest, longest = self._limits.pause
                self._pause(min(longest, shortest * 2 ** min(attempts, 10)) * random.uniform(0.5, 1.0))

    def _begin(self) -> _Session:
        self._reader, link = FORK_SERVER.open(self._spec, after=self._reader)
        now_s = time.monotonic()
        return _Session(self._reader, link, begun_s=now_s, fresh_s=now_s)

    def _end(self, session: _Session) -> None:
        session.link.close()
        FORK_SERVER.kill(session.number)

    def _deliver(self, session: _Session) -> Generator[Frame, None, Failed | None]:
        """Frames until the reader fails, which is returned as a Failed, or until the source is stopped: None."""
        poll = select.poll()
        poll.register(session.link, select.POLLIN)
        while not self.stopped:
            if not poll.poll(STOP_WITHIN_S * 1e3):
                if (failed := self._overdue(session)) is not None:
                    return failed
                continue
            message, descriptors = _receive(session.link)
            if not message:
                return Failed("its reader died: a fault in a driver or decoder")
            if message[0] == STARVED_KIND:  # whoever holds all pictures is slow, the device is well
                self._alive(session, STARVED.unpack(message)[1])
                continue
            if message[0] == STARTED_KIND:  # until then OpenCV was loading, which is no fault of the device
                session.started, session.fresh_s = True, time.monotonic()
                continue
            if message[0] != FRAME_KIND:
                said = msgspec.json.decode(message, type=Opened | Failed)
                if isinstance(said, Failed):
                    return said
                try:
                    self._map(session, said, descriptors[0])
                except OSError as error:
                    return Failed(f"its pictures cannot be shared: {error.strerror}")
                continue
            frame = self._frame(session, message)
            if frame is not None:
                yield frame
                frame = None  # its slot may be free before the next one comes
            elif session.frames or time.monotonic() - session.opened_s > SETTLE_S:
                return self._frozen_for_long(session)
        return None

    def _map(self, session: _Session, opened: Opened, descriptor: int) -> None:
        size = opened.size_wh[0] * opened.size_wh[1] * 3 * SLOTS
        try:
            memory = mmap.mmap(descriptor, size)  # lives for as long as a picture in it
        finally:
            os.close(descriptor)
        session.opened_s = time.monotonic()
        session.opened, session.pictures = opened, slot_pictures(memory, opened.size_wh)
        self.fps = opened.fps

    def _frame(self, session: _Session, message: bytes) -> Frame | None:
        """The frame that a message tells of; None for one that is a repetition past believing."""
        _, slot, captured_s, capture_ms, dropped, checksum = FRAME.unpack(message)
        now_s = time.monotonic()
        image = leased(session.pictures[slot], _giving_back(session.link, slot))
        self._alive(session, dropped)
        if checksum != session.checksum:
            session.checksum, session.changed_s = checksum, now_s
        frozen_s = self._limits.frozen
        if frozen_s and (now_s - session.changed_s > frozen_s or checksum == self._frozen):
            return None
        self._frozen = None
        session.frames += 1
        if session.frames == 1:
            self._note_open(session)
        self._sequence += 1
        return Frame(image, self._sequence - 1, captured_s, self.name, capture_ms)

    def _alive(self, session: _Session, dropped: int) -> None:
        self.dropped += dropped - session.dropped
        session.dropped = dropped
        now_s = time.monotonic()
        if session.stalled and session.frames:  # else it has not been open yet, and is told when it is
            self.note("source-open", f"frames again after {now_s - session.fresh_s:.1f} s")
        session.fresh_s, session.stalled = now_s, False

    def _overdue(self, session: _Session) -> Failed | None:
        """What to say, and whether to give up, when nothing has come for a while."""
        if (problem := self._missing()) is not None:  # its number is not free for its return while the reader has it open
            return Failed(problem)
        silent_s = time.monotonic() - session.fresh_s
        what = "no frame" if session.opened else "no answer"
        slow_s = 10 / self.fps if self.fps else 0.0
        if not session.started:
            return Failed(f"no reader for {silent_s:.0f} s") if silent_s > LOADING_S else None
        if silent_s > (max(self._limits.reading, slow_s) if session.frames else max(self._limits.opening, slow_s)):
            return Failed(f"{what} for {silent_s:.0f} s")
        if silent_s > max(self._limits.stalled, slow_s / 3) and not session.stalled:
            session.stalled = True
            if self._lost_s is None:
                self.note("source-stalled", f"{what} for {silent_s:.1f} s")
        return None

    def _frozen_for_long(self, session: _Session) -> Failed:
        self._frozen = session.checksum
        return Failed(f"the same picture for {self._limits.frozen:g} s") if session.frames else Failed("still the same picture")

    def _note_open(self, session: _Session) -> None:
        assert session.opened is not None
        away = "" if self._lost_s is None else f", back after {time.monotonic() - self._lost_s:.1f} s"
        self._lost_s = None
        self.note("source-open", f"{session.opened.text}{away}")

    def _note_lost(self, reason: str, ever: bool) -> None:
        """Say it once an outage. Raises SourceError for a source that never was there, unless that is waited for."""
        reason = reason.removeprefix(f"{self.name}: ")  # some devices say it themselves
        if not ever and not self.patient:
            raise SourceError(f"{self.name}: {reason}")
        if self._lost_s is None:
            self._lost_s = time.monotonic()
            self.note("source-lost", f"{reason.removesuffix(HINT)}; trying again until it is {'back' if ever else 'there'}")

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while not self.stopped and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, STOP_WITHIN_S))


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    for _ in range(2):
        try:
            message, descriptors, _flags, _address = socket.recv_fds(link, 65536, 1)
        except ConnectionResetError:  # it ended with slots of ours unread; what it said before comes at the second look
            continue
        return message, descriptors
    return b"", []


def _giving_back(link: socket.socket, slot: int) -> Callable[[], None]:
    def give_back() -> None:
        with suppress(OSError):  # its reader has ended, and the memory with it
            link.send(bytes([slot]), socket.MSG_DONTWAIT)

    return give_back
