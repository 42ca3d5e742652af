"""Holding a measured value below a limit by taking less, and giving back what can be: docs/decisions/0019-governor.md."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gains:
    """How a Regulator reacts; an error is in the value's own unit, a share in [0, 1].

    The setpoint lies `margin` below the limit, and from there down to `band` below it nothing changes. `gain` is the share
    for each unit of error, `integral` that for each unit and second. A value is smoothed over `smooth_s`, and where it rises,
    as it did for `slope_s`, it counts as what it will be `ahead_s` from now. With `room` to spare, more is safe.
    """

    margin: float
    band: float
    gain: float
    integral: float
    smooth_s: float
    room: float
    slope_s: float = 0.0
    ahead_s: float = 0.0
    settle_s: float = 0.0
    """After a step the slope is not looked at for so long: what follows at once says nothing of what comes later."""


class Regulator:
    """A PI controller of the share of all work that keeps a value below `limit`, with a slope fed forward."""

    def __init__(self, limit: float, gains: Gains) -> None:
        self.limit = limit
        self._gains = gains
        self._sum = 1.0
        self._error = 0.0
        self._smooth: float | None = None
        self._recent: deque[tuple[float, float]] = deque()
        self._now_s = self._settled_s = -math.inf

    @property
    def urgent(self) -> bool:
        """Whether half the margin is gone."""
        return self._smooth is not None and self._smooth > self.limit - self._gains.margin / 2

    @property
    def roomy(self) -> bool:
        """Whether there is room to spare."""
        return self._error > self._gains.room

    def update(self, value: float, now_s: float) -> float:
        """The share that this value, measured now, allows."""
        gains = self._gains
        passed_s = 0.0 if self._smooth is None else max(0.0, now_s - self._now_s)
        self._now_s = now_s
        weight = 1.0 if self._smooth is None else 1 - math.exp(-passed_s / gains.smooth_s)
        before = value if self._smooth is None else self._smooth
        self._smooth = before + weight * (value - before)
        if now_s >= self._settled_s:
            self._recent.append((now_s, value))
        while self._recent and now_s - self._recent[0][0] > gains.slope_s:
            self._recent.popleft()
        below = self.limit - gains.margin - self._smooth - max(0.0, self._slope()) * gains.ahead_s
        self._error = below if below < 0 else max(0.0, below - gains.band)
        self._sum = min(1.0, max(0.0, self._sum + gains.integral * self._error * passed_s))
        return min(1.0, max(0.0, self._sum + gains.gain * self._error))

    def start(self, most: float) -> None:
        """Allow this much from now on, whatever was allowed before."""
        self._sum = min(1.0, most)

    def follow(self, most: float) -> None:
        """Keep what is allowed from running ahead of what is done: `most` is a little above that."""
        self._sum = min(self._sum, most)

    def stepped(self) -> None:
        """What is done has just changed, and the value will."""
        self._recent.clear()
        self._settled_s = self._now_s + self._gains.settle_s

    def _slope(self) -> float:
        """Least squares over the recent values, a second; 0 while they span less than half the time that they should."""
        count = len(self._recent)
        if count < 3 or self._recent[-1][0] - self._recent[0][0] < self._gains.slope_s / 2:
            return 0.0
        mean_s = sum(at_s for at_s, _ in self._recent) / count
        mean = sum(value for _, value in self._recent) / count
        spread = sum((at_s - mean_s) ** 2 for at_s, _ in self._recent)
        return sum((at_s - mean_s) * (value - mean) for at_s, value in self._recent) / spread if spread else 0.0


class Ladder:
    """Turns a wanted share into one of `rungs`, with dwell times, so that it neither flutters nor swings for ever.

    Going down waits `down_s` after the last step, going up `up_s`, or `sure_s` where it is sure not to be regretted. A step
    up that has to be taken back within `REGRET_S` doubles `up_s` for the next, to `MOST_UP_S`; one that lasted halves it.
    """

    REGRET_S = 1800.0
    MOST_UP_S = 3600.0
    EDGE = 0.75
    """How far into another rung a wanted share must be before that is gone to."""

    def __init__(self, rungs: int, *, down_s: float, up_s: float, sure_s: float) -> None:
        self.rungs = self.rung = rungs
        self._down_s, self._up_s, self._sure_s = down_s, up_s, sure_s
        self._least_up_s = up_s
        self._stepped_s = -math.inf
        self._raised_s = -math.inf

    @property
    def share(self) -> float:
        """What is done now, of all."""
        return self.rung / self.rungs

    @property
    def most(self) -> float:
        """What a regulator may allow, at most, before the next step."""
        return (self.rung + self.EDGE) / self.rungs

    def start(self, rung: int, now_s: float) -> None:
        """Begin on this rung, or go to it at once."""
        self.rung, self._stepped_s = min(self.rungs, max(1, rung)), now_s

    def step(self, wanted: float, now_s: float, *, urgent: bool = False, sure: bool = False) -> None:
        """Go to another rung, if the wanted share asks for it and it is time; `urgent`: down by one at least."""
        position, since_s = wanted * self.rungs, now_s - self._stepped_s
        if self.rung > 1 and (urgent or position <= self.rung - self.EDGE):
            if since_s < self._down_s:
                return
            if now_s - self._raised_s < self.REGRET_S:
                self._up_s = min(self.MOST_UP_S, 2 * self._up_s)
            self._raised_s = -math.inf  # regretted or not, once
            self.start(min(self.rung - 1, round(position)), now_s)
        elif self.rung < self.rungs and position >= self.rung + self.EDGE and since_s >= (self._sure_s if sure else self._up_s):
            if self.REGRET_S < now_s - self._raised_s < math.inf:
                self._up_s = max(self._least_up_s, self._up_s / 2)
            self.start(self.rung + 1, now_s)
            self._raised_s = now_s
