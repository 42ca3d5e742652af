"""Pictures on which an int8 variant and float32 report different things, for people to look at."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.boxes import box_iou
from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.errors import DataError
from edge.pictures import read_picture
from edge.types import Classes, Detections, Result, UInt8
from quantize.data import Picture
from quantize.record import Disagreement

THUMBNAIL = 224
MOST = 12
"""Pictures a variant."""
SAME_IOU = 0.5
FLOAT_BGR, INT8_BGR = (80, 200, 80), (60, 110, 240)


def disagreements(
    name: str, float32: Mapping[Path, Result], int8: Mapping[Path, Result], samples: Sequence[Picture], labels: Sequence[Label]
) -> list[Disagreement]:
    """Those on which float32 was surest of what int8 does not say, at most twelve."""
    gaps = {path: gap for path, want in float32.items() if path in int8 and (gap := _gap(want, int8[path])) > 0}
    truth = {sample.path: sample for sample in samples}
    found = []
    for path in sorted(gaps, key=lambda path: (-gaps[path], str(path)))[:MOST]:
        try:
            picture = _thumbnail(path, float32[path], int8[path])
        except DataError:
            continue
        found.append(
            Disagreement(
                variant=name,
                picture="/".join(path.parts[-2:]),
                jpeg_base64=picture,
                float32=_said(float32[path]),
                int8=_said(int8[path]),
                truth=_truth(truth[path], labels),
            )
        )
    return found


def _gap(want: Result, got: Result) -> float:
    """How sure the surer of the two was of what the other does not report; 0 when they agree."""
    if isinstance(want, Classes) and isinstance(got, Classes):
        return 0.0 if want.class_ids[0] == got.class_ids[0] else max(want.confidence, got.confidence)
    assert isinstance(want, Detections)
    assert isinstance(got, Detections)
    return max(_unmatched(want, got), _unmatched(got, want))


def _unmatched(these: Detections, those: Detections) -> float:
    """The best score in `these` of which `those` have nothing of its class and place."""
    if not len(these):
        return 0.0
    iou = box_iou(these.boxes_xyxy, those.boxes_xyxy) * (these.class_ids[:, None] == those.class_ids[None, :])
    alone = iou.max(axis=1, initial=0.0) < SAME_IOU
    return float(np.max(these.scores, where=alone, initial=0.0))


def _said(result: Result) -> str:
    if isinstance(result, Classes):
        return f"{result.labels[0]} {result.confidence:.0%}"
    return _counted(result.labels)


def _truth(sample: Picture, labels: Sequence[Label]) -> str:
    if isinstance(sample, Sample):
        return labels[sample.class_id].name
    assert isinstance(sample, BoxSample)
    return _counted([labels[index].name for index in sample.class_ids.tolist()])


def _counted(names: Sequence[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.most_common()) or "nothing"


def _thumbnail(path: Path, float32: Result, int8: Result) -> str:
    """A small JPEG in base64, with float32's boxes in green and int8's, thinner, in orange."""
    picture = read_picture(path)
    scale = THUMBNAIL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small: UInt8 = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    for result, color, width in ((float32, FLOAT_BGR, 2), (int8, INT8_BGR, 1)):
        if isinstance(result, Detections):
            for left, top, right, bottom in (result.boxes_xyxy * scale).round().astype(int).tolist():
                cv2.rectangle(small, (left, top), (right, bottom), color, width)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(encoded.tobytes()).decode()
