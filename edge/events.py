"""An event, or a notice, as one line of JSON, with a published schema."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

import msgspec

from edge.types import Detections, Event, Notice, NoticeKind, Result


class DecisionRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What was decided, why, and on which confidence in [0, 1]."""

    action: Literal["accept", "offload", "skip"]
    reason: str
    confidence: float


class ClassRecord(msgspec.Struct, forbid_unknown_fields=True):
    """One class and its calibrated probability."""

    label: str
    score: float


class ObjectRecord(msgspec.Struct, forbid_unknown_fields=True):
    """One object, its calibrated score and its box: left, top, right, bottom in pixels of the frame."""

    label: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    track: int | None


class ChangeRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What became of a tracked object in this frame."""

    kind: Literal["enter", "leave", "change"]
    track: int
    label: str


class ResultRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What was seen: a classifier's most probable `classes` or a detector's `objects`, never both; best first."""

    classes: list[ClassRecord] | msgspec.UnsetType = msgspec.UNSET
    objects: list[ObjectRecord] | msgspec.UnsetType = msgspec.UNSET


ONE_KIND = msgspec.Meta(extra_json_schema={"oneOf": [{"required": ["classes"]}, {"required": ["objects"]}]})


class TimingsRecord(msgspec.Struct, forbid_unknown_fields=True):
    """Milliseconds of each stage; a revising event repeats those of the local answer."""

    capture: float
    prepare: float
    infer: float
    decode: float


class EventRecord(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag="frame"):
    """A frame's line of `--events`. One with `revises: true` is the cloud's later answer to the frame of the same `seq`.

    The decision `skip` marks a result carried over from an earlier frame, because the scene was still. `changes` are
    those of tracked objects; without a tracker there are none.
    """

    seq: int
    source: str
    file: str | None
    captured_at: str
    age_ms: float
    model: str
    variant: str
    served_by: Literal["local", "cloud"]
    decision: DecisionRecord
    result: Annotated[ResultRecord, ONE_KIND]
    timings_ms: TimingsRecord
    revises: bool
    changes: list[ChangeRecord]


class NoticeRecord(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag="notice"):
    """A line of `--events` about the loop itself: what happened, to which source or variant, when and in words."""

    notice: NoticeKind
    about: str
    at: str
    text: str


def event_record(event: Event) -> EventRecord:
    """The record of an event."""
    timings = event.timings
    return EventRecord(
        seq=event.frame.sequence,
        source=utf8(event.frame.source),
        file=None if event.frame.name is None else utf8(event.frame.name),
        captured_at=_iso_8601(event.captured_at_s),
        age_ms=round(event.age_ms, 3),
        model=event.model,
        variant=event.variant,
        served_by=event.served_by,
        decision=DecisionRecord(event.decision.action, event.decision.reason, round(event.decision.confidence, 6)),
        result=_result_record(event.result),
        timings_ms=TimingsRecord(*(round(ms, 3) for ms in (timings.capture, timings.prepare, timings.infer, timings.decode))),
        revises=event.revises,
        changes=[ChangeRecord(change.kind, change.track, change.label) for change in event.changes],
    )


def notice_record(notice: Notice) -> NoticeRecord:
    """The record of a notice."""
    return NoticeRecord(notice.kind, utf8(notice.about), _iso_8601(notice.at_s), utf8(notice.text))


def _iso_8601(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _result_record(result: Result) -> ResultRecord:
    scores = [round(score, 6) for score in result.scores.tolist()]
    if not isinstance(result, Detections):
        return ResultRecord(classes=[ClassRecord(label, score) for label, score in zip(result.labels, scores, strict=True)])
    boxes = [tuple(round(edge, 2) for edge in box) for box in result.boxes_xyxy.tolist()]
    tracks = [None] * len(result) if result.tracks is None else [track or None for track in result.tracks.tolist()]
    return ResultRecord(objects=[ObjectRecord(*item) for item in zip(result.labels, scores, boxes, tracks, strict=True)])


def utf8(text: str) -> str:
    """The text with a question mark for what is no Unicode: file names are bytes, JSON is UTF-8."""
    return text.encode("utf-8", "replace").decode()


def encode_event(event: Event | Notice) -> bytes:
    """One line of JSON, newline included."""
    record = notice_record(event) if isinstance(event, Notice) else event_record(event)
    return msgspec.json.encode(record) + b"\n"


def event_schema() -> dict[str, Any]:
    """The published JSON Schema of a line of `--events`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-run event"} | msgspec.json.schema(
        EventRecord | NoticeRecord
    )
