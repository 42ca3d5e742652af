"""The metrics that Prometheus gets, as data: their names, kinds, labels and units are an interface (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from edge.summary import Buckets

Kind = Literal["counter", "gauge", "histogram", "info"]
Labels = tuple[str, ...]
Value = float | Buckets


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: `name` without the suffix that its kind adds (`suffixed`), its `labels`, and its `unit`, if any, which ends
    the name. `when` says where there is one.
    """

    kind: Kind
    name: str
    help: str
    labels: Labels = ()
    unit: str = ""
    when: str = "always"

    @property
    def suffixed(self) -> str:
        """The name as a query has it; a histogram's has `_bucket`, `_sum` and `_count` in addition."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    def metric(self, samples: Mapping[Labels, Value]) -> Metric:
        """What prometheus_client encodes, of a value for each combination of label values."""
        if self.kind == "info":
            info = InfoMetricFamily(self.name, self.help)
            for values in samples:
                info.add_metric([], dict(zip(self.labels, values, strict=True)))
            return info
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(self.name, self.help, labels=self.labels, unit=self.unit)
            for values, buckets in samples.items():
                assert isinstance(buckets, Buckets)
                histogram.add_metric(values, _cumulative(buckets), buckets.sum)
            return histogram
        plain = (CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily)(
            self.name, self.help, labels=self.labels, unit=self.unit
        )
        for values, value in samples.items():
            assert not isinstance(value, Buckets)
            plain.add_metric(values, value)
        return plain


def _cumulative(buckets: Buckets) -> list[tuple[str, float]]:
    """As `le` and how many were at most that; the last is +Inf and how many there are."""
    total, told = 0, []
    for bound, count in zip((*map(str, buckets.bounds), "+Inf"), buckets.counts, strict=True):
        total += count
        told.append((bound, float(total)))
    return told


SOURCE = ("source",)
OFFLOAD = "--offload"
GOVERNED = "a limit is set"

BUILD = Family("info", "edge_build", "Version of edge-run.", ("version",))
BOARD = Family("info", "edge_board", "The board it runs on.", ("board",))
MODEL = Family(
    "info", "edge_model", "What runs; another variant may take over when an engine fails.", ("model", "variant", "engine")
)
THREADS = Family("gauge", "edge_engine_threads", "Threads of the engine, over all frames that it infers at once.")

FRAMES = Family("counter", "edge_frames", "Frames that have a result.", SOURCE)
DROPPED = Family("counter", "edge_frames_dropped", "Frames of a live source that a newer one replaced unseen.", SOURCE)
SKIPPED = Family("counter", "edge_frames_skipped", "Pictures that could not be read.", SOURCE)
PACED = Family("counter", "edge_frames_paced", "Frames let go unseen for the governor's pace, or while paused.", SOURCE)
STILL = Family("counter", "edge_frames_still", "Frames that carry an earlier result, because the scene was still.", SOURCE)
DECISIONS = Family("counter", "edge_decisions", "Frames by what was decided: accept, offload, or skip.", ("source", "action"))
CONFIDENCE = Family(
    "histogram",
    "edge_confidence_ratio",
    "The confidence in [0, 1] that decisions looked at, still frames left out.",
    SOURCE,
    "ratio",
)
AGES = Family(
    "histogram",
    "edge_result_age_seconds",
    "From capture to result, of local results and of the endpoint's answers.",
    ("source", "served_by"),
    "seconds",
)
STAGES = Family(
    "histogram",
    "edge_stage_seconds",
    "What a stage took for one frame: capture, prepare, infer or decode.",
    ("stage",),
    "seconds",
)
LAST_RESULT = Family(
    "gauge",
    "edge_last_result_timestamp_seconds",
    "When the newest local result came, in seconds since 1970.",
    SOURCE,
    "seconds",
    "after the first result",
)
SOURCE_STATE = Family(
    "gauge",
    "edge_source_state",
    "1 for the state that a source is in: starting, open, stalled, lost or ended.",
    ("source", "state"),
)
SOURCE_LOST = Family("counter", "edge_source_lost", "Times that a source was lost and opened anew.", SOURCE)

SUBMITTED = Family("counter", "edge_offload_submitted", "Frames handed to the offload client.", when=OFFLOAD)
OUTCOMES = Family(
    "counter",
    "edge_offload_outcomes",
    "What became of submitted frames: revised, late, failed, given_up by a full queue, or withheld for privacy.",
    ("outcome",),
    when=OFFLOAD,
)
DECLINED = Family(
    "counter",
    "edge_offload_declined",
    "Uncertain frames not submitted, because the endpoint was away or the governor spared the board.",
    when=OFFLOAD,
)
PENDING = Family("gauge", "edge_offload_pending_frames", "Frames that wait for the endpoint or are under way.", when=OFFLOAD)
SENT = Family(
    "counter", "edge_offload_sent_bytes", "Sent to the endpoint, every attempt and the spool's frames.", (), "bytes", OFFLOAD
)
BREAKER = Family(
    "gauge",
    "edge_offload_breaker_state",
    "1 for the state of the circuit breaker: closed, open or half-open.",
    ("state",),
    when=OFFLOAD,
)
ENDPOINT = Family("info", "edge_offload_endpoint", "The endpoint's host and port.", ("endpoint",), when=OFFLOAD)
SPOOL_WAITING = Family(
    "gauge", "edge_offload_spool_waiting_frames", "Frames on the disk that wait for the endpoint.", when=OFFLOAD
)
SPOOLED = Family("counter", "edge_offload_spooled", "Frames written to the disk.", when=OFFLOAD)
SPOOL_SENT = Family("counter", "edge_offload_spool_sent", "Frames sent from the disk, an earlier run's as well.", when=OFFLOAD)
SPOOL_LOST = Family(
    "counter", "edge_offload_spool_lost", "Frames that were given up, or could not be written to the disk.", when=OFFLOAD
)

EVENTS_LOST = Family("counter", "edge_events_lost", "Events and video frames that sinks could not take or write.")
NOTICES = Family("counter", "edge_notices", "Notices by kind, as in the events.", ("kind",))

TEMPERATURE = Family(
    "gauge", "edge_temperature_celsius", "The hottest of the board's sensors that count.", (), "celsius", "a sensor is there"
)
TEMPERATURE_LIMIT = Family(
    "gauge", "edge_temperature_limit_celsius", "What the board should be held below, by its data.", (), "celsius"
)
THROTTLED = Family(
    "gauge", "edge_throttled", "1 while the firmware or kernel holds the board back; 0 also where nothing tells.", ("flag",)
)
WATTS = Family("gauge", "edge_power_watts", "Power of the board, its rails or its processor.", (), "watts", "a sensor is there")
BATTERY = Family("gauge", "edge_battery_ratio", "Charge of the battery in [0, 1].", (), "ratio", "a battery is there")
LOAD = Family("gauge", "edge_load_ratio", "The minute's load average by core; 1 is all cores.", (), "ratio", "the kernel tells")
RUNG = Family("gauge", "edge_governor_rung", "The governor's rung; on the highest all frames are taken.", when=GOVERNED)
RUNGS = Family("gauge", "edge_governor_rungs", "How many rungs there are.", when=GOVERNED)

PAUSED = Family("gauge", "edge_paused", "1 while frames are let go without a look.")
THRESHOLD = Family(
    "gauge", "edge_offload_threshold_ratio", "Less confident frames are offloaded.", (), "ratio", "a threshold decides"
)
SCORE_THRESHOLD = Family(
    "gauge", "edge_score_threshold_ratio", "Objects are reported from this score.", (), "ratio", "the model detects"
)
GATE = Family("gauge", "edge_motion_gate_enabled", "1 while still scenes are skipped.", when="--motion-gate")

FAMILIES = (
    *(BUILD, BOARD, MODEL, THREADS),
    *(FRAMES, DROPPED, SKIPPED, PACED, STILL, DECISIONS, CONFIDENCE, AGES, STAGES, LAST_RESULT, SOURCE_STATE, SOURCE_LOST),
    *(SUBMITTED, OUTCOMES, DECLINED, PENDING, SENT, BREAKER, ENDPOINT, SPOOL_WAITING, SPOOLED, SPOOL_SENT, SPOOL_LOST),
    *(EVENTS_LOST, NOTICES),
    *(TEMPERATURE, TEMPERATURE_LIMIT, THROTTLED, WATTS, BATTERY, LOAD, RUNG, RUNGS),
    *(PAUSED, THRESHOLD, SCORE_THRESHOLD, GATE),
)
"""In the order of the exposition."""
