"""One configuration run until the board is as warm as it gets: what is left of its speed then."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from edge.bench.measure import Setup, Watch
from edge.bench.messages import Measured
from edge.bench.plan import Configuration
from edge.errors import EngineError
from edge.progress import clock as time_of

SETTLED_C_MIN = 0.2
WINDOW_S = 180.0
"""A slope is judged over this: at 0.2 °C a minute it takes that long to move by a step of a Raspberry Pi's sensor."""


@dataclass(slots=True)
class Sustained:
    """How it ended: `settled` is None without a temperature sensor, False when the time was up first."""

    seconds: float
    settled: bool | None
    p50_ms: float
    first_p50_ms: float
    temperature_c: float | None
    hottest_c: float | None
    slope_c_min: float | None


@dataclass(slots=True)
class Trend:
    """Temperatures of the last three minutes."""

    readings: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now_s: float, celsius: float) -> None:
        """One reading; those older than the window are forgotten."""
        self.readings.append((now_s, celsius))
        while now_s - self.readings[0][0] > WINDOW_S:
            self.readings.popleft()

    @property
    def slope_c_min(self) -> float | None:
        """Degrees a minute by least squares; None until the window is full."""
        if len(self.readings) < 3 or self.readings[-1][0] - self.readings[0][0] < 0.95 * WINDOW_S:
            return None
        times, values = np.array(self.readings).T
        return float(np.polyfit((times - times[0]) / 60, values, 1)[0])


def sustain(
    setup: Setup,
    of: Configuration,
    watch: Watch,
    most_s: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Sustained:
    """Run one configuration flat out until its temperature settles, `most_s` at the most. Raises EngineError."""
    trend, slices = Trend(), list[tuple[float, Sequence[float]]]()
    began_s, hottest_c, slope = clock(), None, None
    with closing(setup.talk(setup.request("sustain", of))) as messages:
        for message in messages:
            if not isinstance(message, Measured):
                continue
            now_s, celsius = clock(), watch.look().temperature_c
            slices.append((now_s, message.frame_ms))
            if celsius is not None:
                trend.add(now_s, celsius)
                hottest_c = celsius if hottest_c is None else max(hottest_c, celsius)
            slope = trend.slope_c_min
            warmth = "no temperature sensor" if celsius is None else f"{celsius:.1f} °C"
            left = time_of(max(0.0, most_s - (now_s - began_s)))
            tell(f"sustained: {of}, {median(message.frame_ms):.1f} ms a frame, {warmth}; at most {left} left")
            if (slope is not None and abs(slope) < SETTLED_C_MIN) or now_s - began_s >= most_s:
                break
    if not slices:
        raise EngineError(f"{of}: its process ended without an answer")
    end_s, celsius = slices[-1][0], watch.end.temperature_c
    last = [value for now_s, values in slices for value in values if end_s - now_s <= WINDOW_S / 3]
    return Sustained(
        seconds=end_s - began_s,
        settled=None if hottest_c is None else slope is not None and abs(slope) < SETTLED_C_MIN,
        p50_ms=median(last),
        first_p50_ms=median(slices[0][1]),
        temperature_c=celsius,
        hottest_c=hottest_c,
        slope_c_min=slope,
    )
