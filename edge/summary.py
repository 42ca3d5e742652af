"""What a run did, counted in bounded memory however long it runs."""

from __future__ import annotations

import math
import os
import resource
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from edge.types import Action, Event, Notice, NoticeKind, ServedBy

STAGES = ("capture", "prepare", "infer", "decode")
STAGE_BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0),
)
AGE_BOUNDS_S = (
    *(0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0),
)
CONFIDENCE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Histogram:
    """Durations in milliseconds in logarithmic bins of 2%: percentiles to 1%, from 1 µs to a day, in 10 kB."""

    _BASE = math.log(1.02)
    _BINS = 1300

    def __init__(self) -> None:
        self._counts = [0] * self._BINS
        self.count = 0

    def add(self, ms: float) -> None:
        """Count one duration."""
        position = int(math.log(max(ms, 1e-3) * 1e3) / self._BASE)
        self._counts[min(position, self._BINS - 1)] += 1
        self.count += 1

    def percentile(self, percent: float) -> float:
        """The duration in ms that `percent` of those added do not exceed; 0 when there are none."""
        wanted = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for position, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return math.exp((position + 0.5) * self._BASE) / 1e3
        return 0.0


class Buckets:
    """How many values were at most each of `bounds` and more than the one before, the rest in one more, and their `sum`.

    The bounds are Prometheus' `le`, which the bins of a Histogram would meet only to 2%. Less than 0 and no number is 0.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        if not value > 0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def __copy__(self) -> Buckets:
        copied = Buckets(self.bounds)
        copied.counts, copied.sum = self.counts.copy(), self.sum
        return copied


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(histogram: Histogram) -> Percentiles:
        """The three percentiles of a histogram, to the microsecond."""
        return Percentiles(*(round(histogram.percentile(percent), 3) for percent in (50, 95, 99)))


class Latencies(msgspec.Struct, frozen=True):
    """From capture to event, and by stage."""

    end_to_end: Percentiles
    capture: Percentiles
    prepare: Percentiles
    infer: Percentiles
    decode: Percentiles


class SourceCounts(msgspec.Struct, frozen=True):
    """One source's share: events, frames replaced by newer ones, pictures that could not be read, times it was lost, and
    frames that the governor, or a pause, let go.
    """

    name: str
    frames: int
    dropped: int
    skipped: int
    lost: int
    paced: int


class RungTime(msgspec.Struct, frozen=True):
    """A rung of the governor: how much of what can be done is done there, and how much of the time it was."""

    rate: float
    share: float


class Governed(msgspec.Struct, frozen=True):
    """What the governor did: its steps, the highest temperature it read, and the rungs that it was on, the highest first.

    `held_back` is the share of frames that were let go or made to wait.
    """

    steps: int
    max_temperature_c: float | None
    rungs: list[RungTime]
    held_back: float


class Summary(msgspec.Struct, frozen=True):
    """What `--summary` writes. `seconds` run from the first capture to the last event.

    `fps` is n - 1 frames over the time between the first event and the last, so start-up is not in it.

    `dropped` frames were replaced by newer ones, `skipped` ones could not be read, `offloaded` were sent to the
    endpoint, `revised` came back in time, `late` did not, `offload_failed` not at all, `offload_given_up` had waited for it
    in a full queue, `withheld` were not sent because what is private could not be redacted, `offload_declined` were
    uncertain while the endpoint was away or the governor spared the board. `spooled` were written to the disk, `spool_sent`
    sent from there, this run's or an earlier one's, `spool_lost` given up or not written, and `spool_waiting` are there in
    the end. `events_lost` events and video frames could not be written. `still` frames carry an earlier result,
    `failed` ones had none because the engine failed, and `engine_reopened` says how often that was mended. `threads` is
    the engine's share of the board, spread over `lanes` frames at a time. `paced` frames were let go while it was paused, or by
    the `governor`, which is null where there is none. `sources` are told one by one, too. CPU time
    and peak memory are this process's; `reader_cpu_seconds` are those of the processes that read cameras.
    """

    source: str
    model: str
    variant: str
    engine: str
    threads: int
    lanes: int
    sources: list[SourceCounts]
    frames: int
    still: int
    failed: int
    engine_reopened: int
    seconds: float
    fps: float
    dropped: int
    skipped: int
    paced: int
    offloaded: int
    revised: int
    offload_given_up: int
    offload_failed: int
    late: int
    withheld: int
    offload_declined: int
    spooled: int
    spool_sent: int
    spool_lost: int
    spool_waiting: int
    events_lost: int
    latency_ms: Latencies
    first_result_s: float
    cpu_seconds: float
    reader_cpu_seconds: float
    peak_rss_mb: float
    governor: Governed | None
    ended: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a Tally has counted at one moment: its counters and Buckets, which are this one's own."""

    revised: int
    by_source: Mapping[str, int]
    notices: Mapping[tuple[str, str], int]
    decisions: Mapping[tuple[str, Action], int]
    ages_s: Mapping[tuple[str, ServedBy], Buckets]
    confidences: Mapping[str, Buckets]
    stages_s: Mapping[str, Buckets]


@dataclass(slots=True)
class Tally:
    """The running counts behind a Summary. One thread adds; any may take `counts`, which agree with each other.

    `decisions` are by source and action, `ages_s` by source and who served, revising events as well, and `confidences` by
    source, of what was looked at; `stages_s` are by stage.
    """

    frames: int = 0
    still: int = 0
    revised: int = 0
    by_source: Counter[str] = field(default_factory=Counter)
    notices: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_result_s: float = 0.0
    started_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    end_to_end: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in STAGES})
    decisions: Counter[tuple[str, Action]] = field(default_factory=Counter)
    ages_s: defaultdict[tuple[str, ServedBy], Buckets] = field(
        default_factory=lambda: defaultdict(partial(Buckets, AGE_BOUNDS_S))
    )
    confidences: defaultdict[str, Buckets] = field(default_factory=lambda: defaultdict(partial(Buckets, CONFIDENCE_BOUNDS)))
    stages_s: dict[str, Buckets] = field(default_factory=lambda: {stage: Buckets(STAGE_BOUNDS_S) for stage in STAGES})
    _adding: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, event: Event | Notice) -> None:
        """Count one event or notice."""
        with self._adding:
            if isinstance(event, Notice):
                self.notices[event.kind, event.about] += 1
            else:
                self._add_event(event)

    def counts(self) -> Counts:
        """Everything at one moment, between two events."""
        with self._adding:
            return Counts(
                self.revised,
                self.by_source.copy(),
                self.notices.copy(),
                self.decisions.copy(),
                {key: copy(buckets) for key, buckets in self.ages_s.items()},
                {key: copy(buckets) for key, buckets in self.confidences.items()},
                {key: copy(buckets) for key, buckets in self.stages_s.items()},
            )

    def _add_event(self, event: Event) -> None:
        source, age_ms = event.frame.source, event.age_ms
        self.ages_s[source, event.served_by].add(age_ms / 1e3)
        if event.revises:
            self.revised += 1
            return
        if self.frames == 0:
            self.started_s = event.frame.captured_s - event.frame.capture_ms / 1e3
            self.first_s = event.emitted_s
            self.first_result_s = process_age_s()
        self.frames += 1
        self.by_source[source] += 1
        self.decisions[source, event.decision.action] += 1
        self.last_s = event.emitted_s
        self.end_to_end.add(age_ms)
        if event.decision.action == "skip":
            self.still += 1
            return
        self.confidences[source].add(event.decision.confidence)
        for stage in STAGES:
            ms = getattr(event.timings, stage)
            self.stages[stage].add(ms)
            self.stages_s[stage].add(ms / 1e3)

    def noticed(self, *kinds: NoticeKind) -> int:
        """How many notices of these kinds there were."""
        return sum(count for (kind, _), count in self.notices.items() if kind in kinds)

    @property
    def seconds(self) -> float:
        """From the start of the first capture to the last event."""
        return self.last_s - self.started_s

    @property
    def fps(self) -> float:
        """Frames per second between the first event and the last; 0 for fewer than two."""
        between_s = self.last_s - self.first_s
        return (self.frames - 1) / between_s if between_s > 0 else 0.0

    def latencies(self) -> Latencies:
        """The percentiles so far."""
        return Latencies(Percentiles.of(self.end_to_end), *(Percentiles.of(self.stages[stage]) for stage in STAGES))


def process_age_s() -> float:
    """Seconds since this process was started, by the kernel's account; 0 where it keeps none."""
    try:
        with open("/proc/self/stat", "rb") as file:
            started_ticks = int(file.read().rpartition(b")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return 0.0


def cpu_seconds(whose: int = resource.RUSAGE_SELF) -> float:
    """User and system time of this process so far, or of those that it has waited for."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


def peak_rss_mb() -> float:
    """The most memory this process has held, in MB of 2^20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def resident_bytes() -> int:
    """Resident memory of this process (proc(5), statm); 0 where the kernel tells nothing."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def summary_schema() -> dict[str, Any]:
    """The published JSON Schema of `--summary`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-run summary"} | msgspec.json.schema(
        Summary
    )
