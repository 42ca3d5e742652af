"""How large a picture the uplink can take, learned from the requests that went over it."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of the ladder: the picture's longest side in pixels, and JPEG's quality from 0 to 100.

    `share` is roughly how many bytes it makes of each byte of the first rung's, on photographs.
    """

    longest_side: int
    quality: int
    share: float


LADDER = (
    Rung(1280, 90, 1.0),
    Rung(1280, 75, 0.55),
    Rung(960, 75, 0.34),
    Rung(640, 75, 0.18),
    Rung(480, 65, 0.107),
    Rung(320, 60, 0.052),
)
TYPICAL_BYTES = 250e3
"""Of a photograph at the first rung, before any was seen."""
KEPT = 0.85
"""What an observation still weighs when the next one comes."""
PATIENCE = 8
"""Requests in a row that must have fitted before a larger picture is tried."""
SPREAD = 0.1
"""Sizes that differ by less than this part of their mean tell nothing about what a byte takes."""


class Uplink:
    """Seconds of a request as overhead + bytes / rate, smoothed, and the rung whose requests fit in `budget_s`.

    It goes down as far as needed at once, and up a rung after eight requests in a row that fitted. Where all sizes are
    alike, all of the time counts as that of the bytes; once they differ, a slow server is told from a slow uplink by
    weighted least squares, and its pictures grow again. How long a late request would have taken nobody knows: it
    takes the rung down, and stays out of that.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._lock = threading.Lock()
        self._place = 0
        self._fitting = 0
        self._first_rung_bytes = 0.0
        self._expected_bytes = TYPICAL_BYTES
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    @property
    def rung(self) -> Rung:
        """What the next picture should be."""
        return LADDER[self._place]

    @property
    def request_bytes(self) -> float:
        """What the next picture will take, by those so far."""
        return (self._first_rung_bytes or self._expected_bytes) * self.rung.share

    def expect(self, first_rung_bytes: int) -> None:
        """Take it that pictures are of this size at the first rung, until one was sent."""
        self._expected_bytes = float(first_rung_bytes)

    @property
    def overhead_s(self) -> float:
        """What a request takes beside its bytes."""
        return self._line()[0]

    @property
    def bytes_per_s(self) -> float:
        """The uplink's rate; infinite while nothing is known."""
        per_byte_s = self._line()[1]
        return 1 / per_byte_s if per_byte_s > 0 else float("inf")

    def note(self, rung: Rung, sent_bytes: int, seconds: float) -> None:
        """Learn from a request that took `seconds` to be answered."""
        with self._lock:
            y, x = seconds, float(sent_bytes)
            for name, value in (("_n", 1.0), ("_x", x), ("_y", y), ("_xx", x * x), ("_xy", x * y)):
                setattr(self, name, KEPT * getattr(self, name) + value)
            self._see(rung, sent_bytes)
            self._climb()

    def late(self, rung: Rung, sent_bytes: int, seconds: float) -> None:
        """Learn from a request that was given up after `seconds`: down a rung, further where even those are too many."""
        with self._lock:
            self._see(rung, sent_bytes)
            most = rung.share * self._budget_s / max(seconds, self._budget_s)
            lower = range(LADDER.index(rung) + 1, len(LADDER))
            self._place = max(self._place, next((place for place in lower if LADDER[place].share <= most), len(LADDER) - 1))
            self._fitting = 0

    def _see(self, rung: Rung, sent_bytes: int) -> None:
        seen = sent_bytes / rung.share
        self._first_rung_bytes = seen if not self._first_rung_bytes else 0.7 * self._first_rung_bytes + 0.3 * seen

    def _climb(self) -> None:
        overhead_s, per_byte_s = self._line()
        # where the server alone takes longer, smaller pictures would not help
        left_s = max(self._budget_s - overhead_s, self._budget_s / 4)
        fits = [per_byte_s * self._first_rung_bytes * rung.share <= left_s for rung in LADDER]
        if not fits[self._place]:
            lower = range(self._place + 1, len(LADDER))
            self._place = next((place for place in lower if fits[place]), len(LADDER) - 1)
            self._fitting = 0
            return
        self._fitting = self._fitting + 1 if self._place and fits[self._place - 1] else 0
        if self._fitting >= PATIENCE:
            self._place -= 1
            self._fitting = 0

    def _line(self) -> tuple[float, float]:
        """Overhead in seconds and seconds a byte, neither below zero."""
        if not self._n:
            return 0.0, 0.0
        x, y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - x * x
        if variance <= (SPREAD * x) ** 2:
            return 0.0, y / x
        per_byte_s = max(0.0, (self._xy / self._n - x * y) / variance)
        overhead_s = y - per_byte_s * x
        return (overhead_s, per_byte_s) if overhead_s >= 0 else (0.0, y / x)
