"""The governor: fewer frames while the board is too hot, draws too much, runs low or should be quiet, and back again.

It reads the sensors once a second and steps a ladder of frame rates (edge.regulator); docs/decisions/0019-governor.md.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devices.sensors import Reading
from edge.motion import MotionGate
from edge.pace import Pace
from edge.protocols import Source
from edge.regulator import Gains, Ladder, Regulator
from edge.sources.demo import DemoSource
from edge.types import Notice

PERIOD_S = 1.0
RUNGS = 16
DOWN_S, UP_S, SURE_S = 5.0, 60.0, 15.0

TEMPERATURE = Gains(
    margin=2.0, band=3.0, gain=0.05, integral=0.0004, smooth_s=5.0, room=4.0, slope_s=30.0, ahead_s=30.0, settle_s=15.0
)  # °C
POWER = Gains(margin=0.02, band=0.1, gain=0.2, integral=0.05, smooth_s=5.0, room=0.1)  # parts of the limit
FIRMWARE = Gains(margin=0.0, band=0.0, gain=0.0, integral=0.01, smooth_s=1.0, room=0.0)  # 1 while it throttles, else 0
HEAT_FLAGS = frozenset({"throttled", "soft-temperature-limit"})
POWER_FLAGS = frozenset({"under-voltage"})

START_C = 40.0
"""So far below the limit, a board begins with all frames, and else with a share of them: their heat shows seconds later."""
GATE = 1.0
"""On the lowest rung a motion gate's thresholds are nearly 1 + this times the usual."""
BUSY = 1.5
"""The load, by core, from which more frames would only age."""
BATTERY_BACK = 0.05
COST_WEIGHT = 0.02
"""Of the newest frame in the mean of what one costs the engine."""
COST_FRAMES = 3
"""So many have to be timed before it is known what the engine can do."""
UNKNOWN_FPS = 10.0
"""At most so many are all frames, until it is known what they are."""
BELIEVED = 0.9
"""So much of what a live source says it has must come, or what comes counts: cameras slow down in the dark."""
HOPELESS_S = 60.0
BACK_S = 60.0
"""A sensor that vanishes is said again only if it had been there for so long."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours of the day, in minutes since midnight, local time; an `end` before the `start` is the next day's."""

    start: int
    end: int
    text: str

    @classmethod
    def parse(cls, text: str) -> Quiet | None:
        """Of HH:MM-HH:MM; None for anything else."""
        found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)", text, re.ASCII)
        if not found:
            return None
        return cls(int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4]), text)

    def now(self, at_s: float) -> bool:
        """Whether it is quiet at `at_s`, seconds since 1970."""
        local = time.localtime(at_s)
        minute = local.tm_hour * 60 + local.tm_min
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


@dataclass(frozen=True, slots=True)
class Limits:
    """What the governor holds; None where there is no such limit.

    `battery` in [0, 1] counts while the board runs on it; `target_fps` is what is wanted of each source, never exceeded.
    """

    temperature_c: float | None = None
    watts: float | None = None
    target_fps: float | None = None
    quiet: Quiet | None = None
    battery: float | None = None


class Governor:
    """Holds `limits` by the pace of the sources, the thresholds of the motion gates, and leave to offload.

    `read` looks at the sensors; no rung has fewer frames than `least_fps`, or all there are. `notices` are the steps;
    `seconds` were spent on each rung, the lowest first, and `hottest_c` was the highest temperature.
    """

    def __init__(
        self,
        limits: Limits,
        read: Callable[[], Reading],
        sources: Sequence[Source],
        gates: Sequence[MotionGate] = (),
        *,
        least_fps: float = 0.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.pace = Pace(len(sources))
        self.notices: deque[Notice] = deque()
        self.steps = 0
        self.hottest_c: float | None = None
        self.seconds = [0.0] * RUNGS
        self._limits, self._read, self._gates, self._wall_clock = limits, read, gates, wall_clock
        self._ladder = Ladder(RUNGS, down_s=DOWN_S, up_s=UP_S, sure_s=SURE_S)
        self._regulators: dict[str, Regulator] = {}
        if limits.temperature_c is not None:
            self._regulators["temperature"] = Regulator(limits.temperature_c, TEMPERATURE)
        if limits.watts is not None:
            self._regulators["power"] = Regulator(1.0, POWER)
        if self._regulators:
            self._regulators["firmware"] = Regulator(0.5, FIRMWARE)
        self._rates = _Rates(self.pace, sources, limits.target_fps, least_fps)
        self._read_s: float | None = None
        self._resting = "start"
        self._why = "temperature"
        self._discharging = False
        self._hot_s = 0.0
        self._present_s: dict[str, float] = {}
        self._vague = False
        self._apply()

    @property
    def holds(self) -> bool:
        """Whether there is any limit."""
        return self._limits != Limits()

    @property
    def rung(self) -> int:
        """From 1 to `RUNGS`, where all frames are taken."""
        return self._ladder.rung

    @property
    def offloads(self) -> bool:
        """Whether frames may be sent: not before the first look, nor from the lowest rung: all else is saved there."""
        return not self._resting and self._ladder.rung > 1

    def saw(self, cost_s: float) -> None:
        """A frame took the engine so many seconds."""
        self._rates.saw(cost_s)

    def tick(self, now_s: float) -> None:
        """Look, and step, once a second, and do nothing in between; `now_s` is on the monotonic clock."""
        passed_s = 0.0 if self._read_s is None else now_s - self._read_s
        if self._read_s is not None and passed_s < PERIOD_S:
            return
        self._read_s = now_s
        reading = self._read()
        if reading.temperature_c is not None:
            hottest_c = reading.temperature_c if self.hottest_c is None else self.hottest_c
            self.hottest_c = max(reading.temperature_c, hottest_c)
        self.seconds[self.rung - 1] += passed_s
        before = self.rung
        resting, self._resting = self._resting, self._rest(reading)
        blind = self._blind(reading, now_s)
        why = self._regulate(reading, now_s, blind=blind)
        if self._resting:
            why = self._resting
            self._ladder.start(1, now_s)
        elif resting:
            why = "temperature" if resting == "start" else resting
            self._ladder.start(self.rung if blind else self._first_rung(reading), now_s)
            for regulator in self._regulators.values():
                regulator.start(self._ladder.most)
        for regulator in self._regulators.values():
            regulator.follow(self._ladder.most)
            if self.rung != before:
                regulator.stepped()
        self._apply()
        if self.rung != before:
            self.steps += 1
            if self.rung < before or resting:
                self._why = why
            elif self._why not in self._regulators:  # up from where it was started after a rest
                self._why = next(iter(self._regulators))
            self._note(self._why, self._cause(self._why, reading))
            self._vague = self._vaguely()
        elif self._vague and not blind and not self._vaguely():
            self._note(self._why, self._cause(self._why, reading))
            self._vague = False
        self._despair(reading, passed_s)

    def _rest(self, reading: Reading) -> str:
        """Why there should be as little as possible; empty: there need not."""
        least = self._limits.battery
        if least is not None and reading.battery is not None:
            enough = least + (BATTERY_BACK if self._discharging else 0.0)
            self._discharging = reading.on_battery is not False and reading.battery < enough
        if self._discharging:
            return "battery"
        if self._limits.quiet is not None and self._limits.quiet.now(self._wall_clock()):
            return "quiet-hours"
        return ""

    def _first_rung(self, reading: Reading) -> int:
        limit_c, now_c = self._limits.temperature_c, reading.temperature_c
        if limit_c is None or now_c is None:
            return RUNGS
        return round(RUNGS * (limit_c - TEMPERATURE.margin - now_c) / START_C)

    def _regulate(self, reading: Reading, now_s: float, *, blind: bool) -> str:
        """Take a step if the readings ask for one; which of them is the tightest."""
        values = self._values(reading)
        shares = {name: self._regulators[name].update(value, now_s) for name, value in values.items() if value is not None}
        if not shares:
            return ""
        tightest = min(shares, key=lambda name: shares[name])
        wanted = shares[tightest]
        if blind or (reading.load is not None and reading.load >= BUSY):
            wanted = min(wanted, self._ladder.share)
        self._ladder.step(
            wanted,
            now_s,
            urgent=any(self._regulators[name].urgent for name in shares if name != "firmware"),
            sure=all(self._regulators[name].roomy for name in shares),
        )
        return tightest

    def _blind(self, reading: Reading, now_s: float) -> bool:
        """Whether the sensor of a limit is gone, which is said unless it comes and goes."""
        limits, blind = self._limits, False
        for name, limit, value in (
            ("temperature", limits.temperature_c, reading.temperature_c),
            ("power", limits.watts, reading.watts),
            ("battery", limits.battery, reading.battery),
        ):
            if limit is None:
                continue
            since_s = self._present_s.setdefault(name, -math.inf)
            if value is None:
                blind = True
                if now_s - since_s >= BACK_S:
                    self._note(name, "the sensor gives nothing any more; no step up until it does")
                self._present_s[name] = math.inf
            elif since_s == math.inf:
                self._present_s[name] = now_s
        return blind

    def _values(self, reading: Reading) -> dict[str, float | None]:
        """What each regulator looks at; None where the sensor gives nothing."""
        values: dict[str, float | None] = {}
        flags: frozenset[str] = frozenset()
        if self._limits.temperature_c is not None:
            values["temperature"] = reading.temperature_c
            flags |= HEAT_FLAGS
        if self._limits.watts is not None:
            values["power"] = None if reading.watts is None else reading.watts / self._limits.watts
            flags |= POWER_FLAGS
        if values:
            values["firmware"] = float(bool(reading.throttled & flags))
        return values

    def _apply(self) -> None:
        """Make the pace and the gates what the rung says."""
        share = self._ladder.share
        self._rates.apply(share)
        for gate in self._gates:
            gate.tolerance = 1 + GATE * (1 - share)

    def _despair(self, reading: Reading, passed_s: float) -> None:
        """Say, once, that the lowest rung does not help."""
        limit_c, now_c = self._limits.temperature_c, reading.temperature_c
        if limit_c is None or now_c is None or now_c <= limit_c or self.rung > 1:
            self._hot_s = 0.0
            return
        before_s, self._hot_s = self._hot_s, self._hot_s + passed_s
        if before_s < HOPELESS_S <= self._hot_s:
            self._note(
                "temperature", f"{now_c:.1f} °C of {limit_c:g} on the lowest rung, nothing is left to save; cool the board"
            )

    def _cause(self, why: str, reading: Reading) -> str:
        if why == "temperature" and reading.temperature_c is not None:
            return f"{reading.temperature_c:.1f} °C of {self._limits.temperature_c:g}: {self._doing()}"
        if why == "power" and reading.watts is not None:
            return f"{reading.watts:.1f} W of {self._limits.watts:g}: {self._doing()}"
        if why == "battery" and reading.battery is not None:
            return f"{reading.battery:.0%} of {self._limits.battery:.0%}: {self._doing()}"
        if why == "quiet-hours" and self._limits.quiet is not None:
            return f"{self._limits.quiet.text}{'' if self._resting else ' is over'}: {self._doing()}"
        flags = " and ".join(sorted(reading.throttled)) or "no throttling any more"
        return f"{flags}: {self._doing()}"

    def _vaguely(self) -> bool:
        """Whether what is done can be said only as a part of what is not known yet."""
        return self._ladder.share < 1 and not self._rates.known

    def _doing(self) -> str:
        """What is done on this rung, in words."""
        gates = f", gate {self._gates[0].tolerance:.1f}x" if any(gate.enabled for gate in self._gates) else ""
        return f"{self._rates.words(self._ladder.share)}{gates}"

    def _note(self, why: str, text: str) -> None:
        self.notices.append(Notice("governor", why, text, self._wall_clock()))


class _Rates:
    """What "all frames" is of each source, so that a share of it means something: the target, the source's own rate, or what
    the engine can do, whichever is least.

    A source's own rate is what it says, for a live one that says nothing or too much how often its frames come; pictures
    have none.
    """

    def __init__(self, pace: Pace, sources: Sequence[Source], target_fps: float | None, least_fps: float) -> None:
        self._pace, self._sources, self._target_fps, self._least_fps = pace, sources, target_fps, least_fps
        self._cost_s = 0.0
        self._costs = 0

    @property
    def known(self) -> bool:
        """Whether enough frames have come to tell."""
        return self._costs >= COST_FRAMES and None not in map(self._own_fps, range(len(self._sources)))

    def saw(self, cost_s: float) -> None:
        """A frame cost the engine so long."""
        self._costs += 1
        self._cost_s += (cost_s - self._cost_s) * max(COST_WEIGHT, 1 / self._costs)

    def apply(self, share: float) -> None:
        """Let each source's frames through at this share of its rate."""
        rates = map(self._target_of, self._sources) if share == 1 else self._rates(share)
        self._pace.intervals_s = [1 / fps if fps else 0.0 for fps in rates]

    def words(self, share: float) -> str:
        """As in "12 frames/s", or "5 to 12 frames/s" where sources differ."""
        if share == 1:
            return f"up to {_fps(self._target_fps)} frames/s" if self._target_fps else "all frames"
        if not self.known:
            return f"{share * RUNGS:.0f}/{RUNGS} of all frames"
        rates = self._rates(share)
        low, high = _fps(min(rates)), _fps(max(rates))
        return f"{low} frames/s" if low == high else f"{low} to {high} frames/s"

    def _target_of(self, source: Source) -> float | None:
        """None where all frames are as many: the demo is never faster than it says."""
        slower = isinstance(source, DemoSource) and source.fps and self._target_fps and source.fps <= self._target_fps
        return None if slower else self._target_fps

    def _own_fps(self, number: int) -> float | None:
        """None as long as it is not known."""
        source = self._sources[number]
        if not source.live:
            return source.fps or math.inf
        said_fps, coming_fps = source.fps, self._pace.coming_fps[number]
        if said_fps and coming_fps:
            return coming_fps if coming_fps < BELIEVED * said_fps else said_fps
        return said_fps or coming_fps

    def _rates(self, share: float) -> list[float]:
        most_fps = self._target_fps or math.inf
        if self._cost_s:
            most_fps = min(most_fps, 1 / (self._cost_s * len(self._sources)))
        own_fps = [self._own_fps(number) or UNKNOWN_FPS for number in range(len(self._sources))]
        unsure_fps = math.inf if self._costs >= COST_FRAMES else UNKNOWN_FPS
        all_fps = [min(fps, most_fps, unsure_fps) for fps in own_fps]
        return [max(fps * share, min(fps, self._least_fps)) for fps in all_fps]


def _fps(fps: float) -> str:
    return f"{fps:.0f}" if fps >= 100 else f"{fps:.3g}"
