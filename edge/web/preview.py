"""What viewers are shown: each picture is drawn and encoded once, with words on it or without, and only for who waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from edge.sinks.queued import without_picture
from edge.sinks.video import annotate
from edge.types import Event, UInt8
from edge.web.bell import Bell

LONGEST_SIDE = 960
QUALITY = 80
FRESH_S = 1.0
"""A picture that was drawn for one viewer serves others for so long."""
REVISION_S = 2.0
"""For so long the cloud's answer stands in the pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An encoded frame; `captured_s` and `shown_s` are on the monotonic clock."""

    jpeg: bytes
    seq: int
    captured_s: float
    shown_s: float


class Preview:
    """The newest picture of each source, numbered from 0, for as many viewers as there are.

    `due` and `revised` are called on the loop's thread, `show` on the sink's, `next` in the server's loop. The result
    stands on a picture in words only for those who ask so: the page has it below. `encoded` counts pictures. Once it has
    `ended`, nobody waits any more.
    """

    def __init__(self, sources: int, fps: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.encoded = 0
        self.ended = False
        self.bells = [Bell() for _ in range(sources)]
        self._interval_s, self._clock = 1 / fps, clock
        self._waiting = [{False: 0, True: 0} for _ in range(sources)]
        self._due_s = [0.0] * sources
        self._newest: list[dict[bool, Picture]] = [{} for _ in range(sources)]
        self._revisions: list[Event | None] = [None] * sources

    def due(self, source: int) -> bool:
        """Whether somebody waits for a picture, and it is time for one."""
        return self.waiting(source) > 0 and self._clock() >= self._due_s[source]

    def waiting(self, source: int) -> int:
        """How many wait."""
        return self._waiting[source][True] + self._waiting[source][False]

    def revised(self, source: int, event: Event) -> None:
        """The cloud has answered: the next pictures say so."""
        self._revisions[source] = without_picture(event)

    def show(self, source: int, event: Event) -> None:
        """Draw and encode an event's picture, and hand it to those who wait."""
        now_s = self._clock()
        late_s = now_s - self._due_s[source]
        # frames come at times of their own: a wait for the next one must not lower the rate
        self._due_s[source] = self._interval_s + (self._due_s[source] if late_s < self._interval_s else now_s)
        revision = self._revisions[source]
        if revision is not None and now_s - revision.emitted_s > REVISION_S:
            self._revisions[source] = revision = None
        for words in (False, True):
            if self._waiting[source][words]:
                jpeg = encoded(drawn(event, LONGEST_SIDE, revision, words=words), QUALITY)
                self.encoded += 1
                self._newest[source][words] = Picture(jpeg, event.frame.sequence, event.frame.captured_s, self._clock())
        self.bells[source].ring()

    async def next(self, source: int, after: int | None, patience_s: float, *, words: bool = False) -> Picture | None:
        """The newest picture, once it is another one than number `after`; None: none came in time.

        One that is not fresh is given only when no other comes, as from a source that stands still.
        """
        until_s = self._clock() + patience_s
        while True:
            newest, now_s = self._newest[source].get(words), self._clock()
            is_other = newest is not None and newest.seq != after
            if newest is not None and is_other and now_s - newest.shown_s <= FRESH_S:
                return newest
            self._waiting[source][words] += 1
            try:
                rang = await self.bells[source].wait(until_s - now_s)
            finally:
                self._waiting[source][words] -= 1
            if not rang or self.ended or self._clock() >= until_s:
                newest = self._newest[source].get(words)
                return newest if newest is not None and newest.seq != after else None

    def age_ms(self, picture: Picture) -> float:
        """How old the scene in a picture is."""
        return (self._clock() - picture.captured_s) * 1e3


def drawn(event: Event, longest_side: int, revision: Event | None = None, *, words: bool = False) -> UInt8:
    """An annotated copy of an event's picture, no larger than that; the original is not written into."""
    image = event.frame.image
    height, width = image.shape[:2]
    scale = longest_side / max(width, height)
    if scale >= 1:
        copy: UInt8 = image.copy()
    else:
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        # to halves and less, linear interpolation would skip pixels; above, areas cost four times as much
        interpolation = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR
        copy = cv2.resize(image, size_wh, interpolation=interpolation)  # type: ignore[assignment]
    return annotate(copy, event, revision, words)


def encoded(picture: UInt8, quality: int) -> bytes:
    """A picture as JPEG."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of {picture.shape} cannot be encoded")
    return data.tobytes()
