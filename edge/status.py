"""What the loop looks like now, for whoever asks: the live page, Prometheus, MQTT."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SourceState = Literal["starting", "open", "stalled", "lost", "ended"]


class Answered(msgspec.Struct, frozen=True):
    """The newest result of a source: in a few words, its best label if there is one, and on which confidence in [0, 1] the
    decision was made; `shown_age_ms` is how old its picture was when the result came.
    """

    seq: int
    caption: str
    label: str | None
    confidence: float
    action: Literal["accept", "offload", "skip"]
    served_by: Literal["local", "cloud"]
    captured_at: str
    shown_age_ms: float


class SourceStatus(msgspec.Struct, frozen=True):
    """One source. `quiet_s` is how long ago its last result came, `fps` is of the last seconds; `cloud` is the endpoint's
    newest answer. `trouble` says in words why it is not open.
    """

    number: int
    name: str
    live: bool
    state: SourceState
    trouble: str
    quiet_s: float | None
    fps: float
    frames: int
    dropped: int
    skipped: int
    paced: int
    result: Answered | None
    cloud: Answered | None


class ModelStatus(msgspec.Struct, frozen=True):
    """What runs, and on what."""

    name: str
    variant: str
    engine: str
    threads: int


class StageTimes(msgspec.Struct, frozen=True):
    """Mean milliseconds of the last seconds, of each stage and from capture to event (`age`)."""

    capture: float
    prepare: float
    infer: float
    decode: float
    age: float


class OffloadStatus(msgspec.Struct, frozen=True):
    """The endpoint, by host and port only; `asking` frames wait or are under way, the others are counts as in the summary."""

    endpoint: str
    breaker: Literal["closed", "open", "half-open"]
    asking: int
    submitted: int
    revised: int
    failed: int
    late: int
    given_up: int
    withheld: int
    declined: int
    spool_waiting: int
    sent_bytes: int


class BoardStatus(msgspec.Struct, frozen=True):
    """The board and this process on it; null where there is no sensor. `cpu_share` is of one core, since the last look."""

    title: str
    temperature_c: float | None
    limit_c: float
    throttled: list[str]
    watts: float | None
    battery: float | None
    load: float | None
    memory_bytes: int
    cpu_share: float | None


class GovernorStatus(msgspec.Struct, frozen=True):
    """The rung of so many, and what it holds back in words, as the last notice had it."""

    rung: int
    rungs: int
    words: str


class ControlsStatus(msgspec.Struct, frozen=True):
    """Where the controls stand; null: there is nothing to set, or nobody who has paused."""

    paused: bool
    threshold: float | None
    score_threshold: float | None
    gate: bool | None
    paused_by: str | None = None


class History(msgspec.Struct, frozen=True):
    """A value for each of the last seconds, oldest first, the running one left out; null where no frame came.

    The newest is of second `end`, counted from the first.
    """

    end: int
    fps: list[int]
    age_ms: list[float | None]
    infer_ms: list[float | None]
    confidence: list[float | None]
    offloaded: list[int]


class Status(msgspec.Struct, frozen=True):
    """Everything at once; `at` is UTC, `seconds` since the loop was opened."""

    at: str
    seconds: float
    model: ModelStatus
    sources: list[SourceStatus]
    fps: float
    stages_ms: StageTimes | None
    history: History
    offload: OffloadStatus | None
    governor: GovernorStatus | None
    board: BoardStatus
    controls: ControlsStatus
    notices: int
    events_lost: int


def status_schema() -> dict[str, Any]:
    """The published JSON Schema of a status."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-run status"} | msgspec.json.schema(Status)
