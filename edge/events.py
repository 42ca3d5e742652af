"""An event, or a notice, as one line of JSON, with a published schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from edge.types import NOTHING, Box, Classes, Detections, Event, Int16, Mask, Notice, NoticeKind, Opinion, Result


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
    """One object, its calibrated score and its box: left, top, right, bottom in pixels of the frame.

    `keypoints` are x and y in pixels of the frame and a score, in the order of the card's names, where there are any.
    `cloud` is what the endpoint has answered about this track, for an earlier frame; `label` and `score` stay the local ones.
    """

    label: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    track: int | None
    keypoints: list[tuple[float, float, float]] | msgspec.UnsetType = msgspec.UNSET
    cloud: ClassRecord | msgspec.UnsetType = msgspec.UNSET


class SegmentRecord(msgspec.Struct, forbid_unknown_fields=True):
    """All cells of one class: their share of the mask, their mean score, and the box around them in pixels of the frame."""

    label: str
    class_id: int
    share: float
    score: float
    box_xyxy: tuple[float, float, float, float]


class MaskRecord(msgspec.Struct, forbid_unknown_fields=True):
    """The class of each cell of a grid of `width` x `height` over the part `box_xyxy` of the frame, in its pixels.

    `runs` are class id and length of one run of equal cells after another, row by row; the id is -1 for background and what
    was filtered out.
    """

    width: int
    height: int
    box_xyxy: tuple[float, float, float, float]
    runs: list[tuple[int, int]]


class ChangeRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What became of a tracked object in this frame."""

    kind: Literal["enter", "leave", "change"]
    track: int
    label: str


class ResultRecord(msgspec.Struct, forbid_unknown_fields=True):
    """What was seen, of one kind: a classifier's most probable `classes` or a detector's `objects`, best first, or a
    segmentation's `segments`, largest first, with their `mask`.
    """

    classes: list[ClassRecord] | msgspec.UnsetType = msgspec.UNSET
    objects: list[ObjectRecord] | msgspec.UnsetType = msgspec.UNSET
    segments: list[SegmentRecord] | msgspec.UnsetType = msgspec.UNSET
    mask: MaskRecord | msgspec.UnsetType = msgspec.UNSET


KINDS = (["classes"], ["objects"], ["segments", "mask"])
ONE_KIND = msgspec.Meta(extra_json_schema={"oneOf": [{"required": kind} for kind in KINDS]})


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
    """A line of `--events` about the loop itself: what happened, to which source, variant or endpoint, when and in words."""

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
        captured_at=iso_8601(event.captured_at_s),
        age_ms=round(event.age_ms, 3),
        model=event.model,
        variant=event.variant,
        served_by=event.served_by,
        decision=DecisionRecord(event.decision.action, event.decision.reason, round(event.decision.confidence, 6)),
        result=_result_record(event.result, event.opinions),
        timings_ms=TimingsRecord(*(round(ms, 3) for ms in (timings.capture, timings.prepare, timings.infer, timings.decode))),
        revises=event.revises,
        changes=[ChangeRecord(change.kind, change.track, change.label) for change in event.changes],
    )


def notice_record(notice: Notice) -> NoticeRecord:
    """The record of a notice."""
    return NoticeRecord(notice.kind, utf8(notice.about), iso_8601(notice.at_s), utf8(notice.text))


def iso_8601(at_s: float) -> str:
    """UTC with milliseconds, of seconds since 1970."""
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _result_record(result: Result, opinions: Mapping[int, Opinion]) -> ResultRecord:
    if isinstance(result, Mask):
        return _mask_records(result)
    scores = [round(score, 6) for score in result.scores.tolist()]
    if isinstance(result, Classes):
        return ResultRecord(classes=[ClassRecord(label, score) for label, score in zip(result.labels, scores, strict=True)])
    boxes = [_rounded(box) for box in result.boxes_xyxy.tolist()]
    tracks = [None] * len(result) if result.tracks is None else [track or None for track in result.tracks.tolist()]
    points, cloud = _keypoints(result), [_cloud(opinions.get(track or 0)) for track in tracks]
    return ResultRecord(
        objects=[ObjectRecord(*item) for item in zip(result.labels, scores, boxes, tracks, points, cloud, strict=True)]
    )


def _cloud(opinion: Opinion | None) -> ClassRecord | msgspec.UnsetType:
    return msgspec.UNSET if opinion is None else ClassRecord(opinion.label, round(opinion.score, 6))


def _keypoints(objects: Detections) -> list[list[tuple[float, float, float]] | msgspec.UnsetType]:
    if objects.keypoints is None:
        return [msgspec.UNSET] * len(objects)
    return [[(round(x, 2), round(y, 2), round(score, 6)) for x, y, score in points] for points in objects.keypoints.tolist()]


def _mask_records(mask: Mask) -> ResultRecord:
    segments = [
        SegmentRecord(one.label, one.class_id, round(one.share, 6), round(one.score, 6), _rounded(one.box_xyxy))
        for one in mask.segments()
    ]
    height, width = mask.class_ids.shape
    return ResultRecord(
        segments=segments, mask=MaskRecord(width, height, _rounded(mask.area_xyxy), run_lengths(mask.class_ids))
    )


def run_lengths(class_ids: Int16) -> list[tuple[int, int]]:
    """Class id and length of each run of equal cells of [h, w], row by row."""
    cells = class_ids.ravel()
    starts = np.flatnonzero(np.diff(cells, prepend=np.int16(NOTHING - 1)))
    lengths = np.diff(starts, append=len(cells))
    return list(zip(cells[starts].tolist(), lengths.tolist(), strict=True))


def _rounded(box_xyxy: Sequence[float]) -> Box:
    left, top, right, bottom = (round(edge, 2) for edge in box_xyxy)
    return left, top, right, bottom


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
