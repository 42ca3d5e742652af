"""Configurations measured by turns, A B C A B C, so that what the machine does beside hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Protocol

import numpy as np

from devices import Reading
from edge.bench.messages import Judged, Measured, Message, Phase, Request
from edge.bench.plan import Configuration
from edge.errors import EdgeError, EngineError
from edge.progress import clock

ROUNDS = 3
IDLE_S, IDLE_EACH_S = 3.0, 0.25

Talk = Callable[[Request], Generator[Message | None, None, None]]


class HasReading(Protocol):
    """What tells heat, power and throttling: devices.Sensors, or a test's."""

    def read(self) -> Reading: ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What all configurations of one bench share."""

    bundle: str
    spin: bool
    seconds: float
    rounds: int
    talk: Talk
    data: str | None = None
    limit: int | None = None

    def request(self, do: str, of: Configuration, **more: object) -> Request:
        """What to ask a child for."""
        return Request(
            do=do,  # type: ignore[arg-type]
            bundle=self.bundle,
            variant=of.variant,
            accelerator=of.accelerator,
            options=of.options,
            threads=of.threads,
            spin=self.spin,
            **more,  # type: ignore[arg-type]
        )


class Watch:
    """Reads the sensors along the way, and remembers what throttled."""

    def __init__(self, sensors: HasReading) -> None:
        self._sensors = sensors
        self.throttled: set[str] = set()
        self.begin = self.end = self.look()
        self.idle_watts: float | None = None

    def look(self) -> Reading:
        """One reading."""
        self.end = self._sensors.read()
        self.throttled |= self.end.throttled
        return self.end

    @property
    def throttled_meanwhile(self) -> frozenset[str]:
        """What held the board back since the begin, also where no reading saw it."""
        return frozenset(self.throttled | (self.end.throttled_since_boot - self.begin.throttled_since_boot))

    def rest(self, seconds: float = IDLE_S, sleep: Callable[[float], None] = time.sleep) -> None:
        """Measure what the board draws while nothing runs; at once where it has no sensor for that."""
        found = []
        for number in range(round(seconds / IDLE_EACH_S)):
            sleep(IDLE_EACH_S)
            watts = self.look().watts
            if watts is not None:
                found.append(watts)
            elif number and not found:
                break
        self.idle_watts = fmean(found) if found else None


@dataclass(slots=True)
class Row:
    """What was measured of one configuration, a list a round."""

    configuration: Configuration
    judged: Judged
    engine_ms: list[list[float]] = field(default_factory=list)
    frame_ms: list[list[float]] = field(default_factory=list)
    load_s: list[float] = field(default_factory=list)
    frame_mj: list[float] = field(default_factory=list)
    memory_mb: float = 0.0

    def add(self, measured: Measured, watts: Sequence[float], idle_watts: float | None) -> None:
        """One more round."""
        self.engine_ms.append(measured.engine_ms)
        self.frame_ms.append(measured.frame_ms)
        self.load_s.append(measured.load_s)
        self.memory_mb = max(self.memory_mb, measured.memory_mb)
        if watts and idle_watts is not None:
            self.frame_mj.append((fmean(watts) - idle_watts) * measured.wall_s * 1e3 / len(measured.frame_ms))

    @property
    def engine(self) -> tuple[float, float, float]:
        """p50, p95 and p99 of the inference, in ms."""
        return percentiles(self.engine_ms)

    @property
    def frame(self) -> tuple[float, float, float]:
        """p50, p95 and p99 of prepare + infer + decode, in ms."""
        return percentiles(self.frame_ms)

    @property
    def energy_mj(self) -> float | None:
        """Millijoules a frame beyond what the idle board draws; None without a sensor."""
        return median(self.frame_mj) if self.frame_mj else None


def percentiles(rounds: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The median of the rounds' medians, and the 95th and 99th percentile of all."""
    p95, p99 = np.percentile(np.concatenate([np.asarray(one) for one in rounds]), (95, 99))
    return median(median(one) for one in rounds), float(p95), float(p99)


def judge(
    setup: Setup, configurations: Sequence[Configuration], say: Callable[[str], None], tell: Callable[[str], None]
) -> list[Row]:
    """A row for each configuration whose variant agrees with its golden check; the others are said and left out.

    The answers do not depend on the threads: each variant on each accelerator is judged once.
    """
    judged: dict[tuple[str, str], Judged | None] = {}
    for of in configurations:
        key = (of.variant, of.where)
        if key in judged:
            continue
        judged[key] = None
        tell(f"checking {of.variant} on {of.where}")
        try:
            judged[key] = _judged(setup, of)
        except EdgeError as error:
            say(f"{of.variant} on {of.where} left out: {error}")
    rows = ((of, judged[of.variant, of.where]) for of in configurations)
    return [Row(of, answer) for of, answer in rows if answer is not None]


def _judged(setup: Setup, of: Configuration) -> Judged:
    with closing(setup.talk(setup.request("judge", of, data=setup.data, limit=setup.limit))) as messages:
        for message in messages:
            if isinstance(message, Judged):
                return message
    raise EngineError("its process ended without an answer")


def measure(
    setup: Setup, rows: Sequence[Row], watch: Watch, say: Callable[[str], None], tell: Callable[[str], None]
) -> list[Row]:
    """Measure all rows by turns; those left, for one that fails is said and left out. `tell` hears how far it is."""
    left = list(rows)
    turns, began_s = 0, time.monotonic()
    for number in range(setup.rounds):
        for row in list(left):
            to_do = len(left) * (setup.rounds - number) - left.index(row)
            each_s = (time.monotonic() - began_s) / turns if turns else setup.seconds / setup.rounds + 3.0
            tell(f"round {number + 1} of {setup.rounds}: {row.configuration}; about {clock(each_s * to_do)} left")
            try:
                _turn(setup, row, watch)
            except EdgeError as error:
                say(f"{row.configuration} left out: {error}")
                left.remove(row)
            turns += 1
    return left


def _turn(setup: Setup, row: Row, watch: Watch) -> None:
    request = setup.request("measure", row.configuration, seconds=setup.seconds / setup.rounds)
    watts: list[float] = []
    measuring = False
    with closing(setup.talk(request)) as messages:
        for message in messages:
            reading = watch.look()
            if isinstance(message, Measured):
                row.add(message, watts, watch.idle_watts)
                return
            if isinstance(message, Phase):
                measuring = message.name == "measuring"  # this reading is still of the warming
            elif measuring and reading.watts is not None:
                watts.append(reading.watts)
    raise EngineError("its process ended without an answer")
