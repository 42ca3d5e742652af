"""A circuit breaker: when an endpoint that fails is left in peace, and how it is tried again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Literal

FAILURES = 3
PAUSES_S = (0.5, 30.0)
LONGEST_REST_S = 300.0
"""The most that a Retry-After is believed."""

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Opens after three failures in a row, then admits one probe after 0.5 s, 1 s, ... 30 s, with jitter (Nygard, 2007).

    Closed it admits everything. A probe that succeeds closes it, one that fails doubles the pause. Time is passed in,
    in seconds on any one clock; it may be used from several threads.
    """

    def __init__(self, *, jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25)) -> None:
        self._jitter = jitter
        self._lock = threading.Lock()
        self._open = False
        self._probing = False
        self._failures_in_row = 0
        self._pauses_in_row = 0
        self._until_s = 0.0

    def state(self, now_s: float) -> State:
        """Half-open is open with the pause over."""
        return "closed" if not self._open else "half-open" if now_s >= self._until_s else "open"

    @property
    def until_s(self) -> float:
        """Nothing is admitted before."""
        return self._until_s

    def admits(self, now_s: float) -> bool:
        """Whether an attempt begun now would be admitted."""
        return now_s >= self._until_s and not self._probing

    def enter(self, now_s: float) -> bool:
        """Begin an attempt, which while half-open is the one probe; False where none may begin."""
        with self._lock:
            if not self.admits(now_s):
                return False
            self._probing = self._open
            return True

    def succeeded(self) -> bool:
        """The endpoint answered; whether that closed the breaker."""
        with self._lock:
            was_open, self._open = self._open, False
            self._probing = False
            self._failures_in_row = self._pauses_in_row = 0
            return was_open

    def failed(self, now_s: float, *, rest_s: float = 0.0, at_once: bool = False) -> bool:
        """The endpoint failed and, if it said so, wants `rest_s` seconds of peace; whether that opened the breaker.

        `at_once` is for failures that another attempt will not mend.
        """
        with self._lock:
            self._until_s = max(self._until_s, now_s + min(rest_s, LONGEST_REST_S))
            if self._open and not self._probing:
                return False  # it was under way when the breaker opened
            self._failures_in_row += 1
            if not self._open and not at_once and self._failures_in_row < FAILURES:
                return False
            was_open, self._open, self._probing = self._open, True, False
            first_s, longest_s = PAUSES_S
            pause_s = min(longest_s, first_s * 2 ** min(self._pauses_in_row, 10)) * self._jitter()
            self._pauses_in_row += 1
            self._until_s = max(self._until_s, now_s + pause_s)
            return not was_open

    def left(self) -> None:
        """An attempt ended that says nothing about the endpoint: if it was the probe, another one may be."""
        with self._lock:
            self._probing = False
