"""What Prometheus scrapes: the monitor's status and the tally's counts, put into metrics when somebody asks and not before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import edge
from devices.heat import PI_FLAGS
from edge.events import utf8
from edge.monitor import Monitor
from edge.protocols import Source
from edge.status import Answered, SourceState, Status
from edge.summary import AGE_BOUNDS_S, CONFIDENCE_BOUNDS, Buckets, Counts
from edge.types import Action, NoticeKind
from edge.web import metric_families as of
from edge.web.metric_families import FAMILIES, Family, Labels, Value

BREAKER_STATES = ("closed", "open", "half-open")
VERSIONS = ("", "0.0.1", "0.0.4", "1.0.0")
"""Of the formats, those that may be asked for; choose_encoder would promise any other, or stumble over it."""
Samples = Iterator[tuple[Family, Labels, Value]]


def exposition(monitor: Monitor, accept: str) -> tuple[bytes, str]:
    """All metrics now and their content type: OpenMetrics 1.0 where the Accept header asks for it, else the text format 0.0.4.

    May be called from any thread. Besides ours it has the `process_` metrics that Prometheus' clients share.
    """
    encode, content_type = choose_encoder(",".join(filter(_offered, accept.split(","))))
    registry = CollectorRegistry()
    registry.register(_Scrape(monitor))
    ProcessCollector(registry=registry)
    return encode(registry), content_type


def _offered(media_range: str) -> bool:
    version = re.search(r";\s*version\s*=\s*([^;\s]*)", media_range)
    return version is None or version[1] in VERSIONS


class _Scrape(Collector):
    """The families of one moment, those left out that have nothing to tell."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        samples: dict[Family, dict[Labels, Value]] = {family: {} for family in FAMILIES}
        status = self._monitor.status()
        counts = self._monitor.tally.counts()
        names = source_labels(self._monitor.sources)
        for part in (
            _running(status),
            _sources(status, names),
            _results(counts, names, offloads=status.offload is not None),
            _offload(self._monitor, status, counts),
            _losses(status, counts),
            _board(status),
            _controls(status),
        ):
            for family, labels, value in part:
                samples[family][tuple(map(utf8, labels))] = value
        return (family.metric(values) for family, values in samples.items() if values)


def source_labels(sources: Sequence[Source]) -> dict[str, str]:
    """Each source's name → its label: the name in Unicode, with the source's number where another one looks the same."""
    shown = [utf8(source.name) for source in sources]
    return {
        source.name: text if shown.count(text) == 1 else f"{text} ({number})"
        for number, (source, text) in enumerate(zip(sources, shown, strict=True), 1)
    }


def _running(status: Status) -> Samples:
    yield of.BUILD, (edge.__version__,), 1
    yield of.BOARD, (status.board.title,), 1
    yield of.MODEL, (status.model.name, status.model.variant, status.model.engine), 1
    yield of.THREADS, (), status.model.threads


def _sources(status: Status, names: Mapping[str, str]) -> Samples:
    for source, name in zip(status.sources, names.values(), strict=True):
        yield of.DROPPED, (name,), source.dropped
        yield of.SKIPPED, (name,), source.skipped
        yield of.PACED, (name,), source.paced
        yield from _states(of.SOURCE_STATE, get_args(SourceState), source.state, (name,))
        if source.result is not None:
            yield of.LAST_RESULT, (name,), _came_at_s(source.result)


def _results(counts: Counts, names: Mapping[str, str], *, offloads: bool) -> Samples:
    for source, name in names.items():
        decisions = {action: counts.decisions.get((source, action), 0) for action in get_args(Action)}
        yield of.FRAMES, (name,), counts.by_source.get(source, 0)
        yield of.STILL, (name,), decisions["skip"]
        for action, count in decisions.items():
            yield of.DECISIONS, (name, action), count
        yield of.SOURCE_LOST, (name,), counts.notices.get(("source-lost", source), 0)
        yield of.CONFIDENCE, (name,), counts.confidences.get(source) or Buckets(CONFIDENCE_BOUNDS)
        yield of.AGES, (name, "local"), counts.ages_s.get((source, "local")) or Buckets(AGE_BOUNDS_S)
        if offloads:
            yield of.AGES, (name, "cloud"), counts.ages_s.get((source, "cloud")) or Buckets(AGE_BOUNDS_S)
    for stage, buckets in counts.stages_s.items():
        yield of.STAGES, (stage,), buckets


def _offload(monitor: Monitor, status: Status, counts: Counts) -> Samples:
    offloader, offload = monitor.offloader, status.offload
    if offloader is None or offload is None:
        return
    yield of.ENDPOINT, (offload.endpoint,), 1
    yield of.SUBMITTED, (), offload.submitted
    yield of.OUTCOMES, ("revised",), counts.revised
    yield of.OUTCOMES, ("late",), offload.late
    yield of.OUTCOMES, ("failed",), offload.failed
    yield of.OUTCOMES, ("given_up",), offload.given_up
    yield of.OUTCOMES, ("withheld",), offload.withheld
    yield of.DECLINED, (), offload.declined
    yield of.PENDING, (), offload.asking
    yield of.SENT, (), offload.sent_bytes
    yield from _states(of.BREAKER, BREAKER_STATES, offload.breaker)
    yield of.SPOOL_WAITING, (), offload.spool_waiting
    yield of.SPOOLED, (), offloader.spooled
    yield of.SPOOL_SENT, (), offloader.spool_sent
    yield of.SPOOL_LOST, (), offloader.spool_lost


def _losses(status: Status, counts: Counts) -> Samples:
    yield of.EVENTS_LOST, (), status.events_lost
    for kind in get_args(NoticeKind):
        yield of.NOTICES, (kind,), sum(count for (other, _), count in counts.notices.items() if other == kind)


def _board(status: Status) -> Samples:
    board, governor = status.board, status.governor
    yield of.TEMPERATURE_LIMIT, (), board.limit_c
    for flag in PI_FLAGS:
        yield of.THROTTLED, (flag,), flag in board.throttled
    for family, value in (
        (of.TEMPERATURE, board.temperature_c),
        (of.WATTS, board.watts),
        (of.BATTERY, board.battery),
        (of.LOAD, board.load),
        (of.RUNG, None if governor is None else governor.rung),
        (of.RUNGS, None if governor is None else governor.rungs),
    ):
        if value is not None:
            yield family, (), value


def _controls(status: Status) -> Samples:
    controls = status.controls
    for family, value in (
        (of.PAUSED, controls.paused),
        (of.THRESHOLD, controls.threshold),
        (of.SCORE_THRESHOLD, controls.score_threshold),
        (of.GATE, controls.gate),
    ):
        if value is not None:
            yield family, (), value


def _states(family: Family, states: Sequence[str], now: str, labels: Labels = ()) -> Samples:
    for state in states:
        yield family, (*labels, state), state == now


def _came_at_s(result: Answered) -> float:
    """By the event's own clock, so that it is the same at each scrape until the next result."""
    captured_at = datetime.fromisoformat(result.captured_at.replace("Z", "+00:00"))
    return captured_at.timestamp() + result.shown_age_ms / 1e3
