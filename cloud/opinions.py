"""Two opinions about one picture: the model's answer and what the device said, and how far they differ."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edge.events import ClassRecord, ObjectRecord, ResultRecord
from edge.types import Box, Classes, Detections, Result

IOU = 0.5
"""Objects of one label that overlap as much are one object."""


def disagreement(ours: ResultRecord, theirs: ResultRecord) -> float:
    """How far two opinions differ, in [0, 1].

    Of classes it is the total variation distance of their probabilities, what neither names being one more class; of
    objects 1 - 2m / (a + b), where m of a and b objects have a partner of the same label with an IoU of 0.5.
    """
    if isinstance(ours.classes, list) and isinstance(theirs.classes, list):
        p, q = ({one.label: one.score for one in record} for record in (ours.classes, theirs.classes))
        named = [abs(p.get(label, 0.0) - q.get(label, 0.0)) for label in p.keys() | q.keys()]
        rest = abs(sum(p.values()) - sum(q.values()))
        return min(1.0, (sum(named) + rest) / 2)
    if isinstance(ours.objects, list) and isinstance(theirs.objects, list):
        total = len(ours.objects) + len(theirs.objects)
        return 1.0 - 2 * _matches(ours.objects, theirs.objects) / total if total else 0.0
    return 1.0


def _matches(ours: Sequence[ObjectRecord], theirs: Sequence[ObjectRecord]) -> int:
    free = list(theirs)
    count = 0
    for one in ours:
        partner = max(
            (other for other in free if other.label == one.label), key=lambda o: _iou(o.box_xyxy, one.box_xyxy), default=None
        )
        if partner is not None and _iou(partner.box_xyxy, one.box_xyxy) >= IOU:
            free.remove(partner)
            count += 1
    return count


def _iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def record_of(result: Result) -> ResultRecord:
    """A result as events have it."""
    if isinstance(result, Classes):
        pairs = zip(result.labels, result.scores.tolist(), strict=True)
        return ResultRecord(classes=[ClassRecord(label, round(score, 6)) for label, score in pairs])
    assert isinstance(result, Detections)
    boxes = np.round(result.boxes_xyxy.astype(np.float64), 2).tolist()
    rows = zip(result.labels, result.scores.tolist(), boxes, strict=True)
    return ResultRecord(objects=[ObjectRecord(label, round(score, 6), tuple(box), None) for label, score, box in rows])


def opinion(text: object) -> ResultRecord | None:
    """The device's result record; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        return msgspec.json.decode(text, type=ResultRecord)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
