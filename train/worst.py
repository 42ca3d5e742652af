"""The pictures that are answered most confidently wrong, as thumbnails for people to look at."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np

from edge.boxes import box_iou
from edge.boxes_data import BoxSample
from edge.datasets import HasPath, labelled_frames
from edge.detection_metrics import true_positives
from edge.types import Bools, Detections, Float32, UInt8
from train.evaluation import Boxes, Classification

THUMBNAIL, BOXES_THUMBNAIL = 224, 320
"""The longer side in pixels; where boxes are drawn there is more to see."""
QUALITY = 78
MOST = 24
RIGHT_BGR, FALSE_BGR, MISSED_BGR = (110, 190, 60), (40, 40, 235), (0, 200, 255)
"""What is drawn thin and green is right, thick and red is not there, thick and yellow was missed."""


class Wrong(msgspec.Struct, kw_only=True):
    """A picture that is answered wrong: a JPEG thumbnail in base64, the truth and the answer in words.

    `confidence` is that of the wrong answer. Of a detector's picture `truth` is what was missed, `answer` what was reported
    and is not there, and `confidence` the highest of the latter, or 0.
    """

    picture: str
    jpeg_base64: str
    truth: str
    answer: str
    confidence: float


def worst_classes(evaluation: Classification, most: int = MOST) -> list[Wrong]:
    """The wrongly answered pictures of which the classifier was surest."""
    scored, tally = evaluation.scored, evaluation.tally
    wrong = np.flatnonzero(~scored.right)
    found: list[Wrong] = []
    for index in wrong[np.argsort(-scored.confidence[wrong], kind="stable")].tolist():
        if len(found) == most:
            break
        sample = evaluation.samples[index]
        jpeg = _thumbnail(sample)
        if jpeg is None:
            continue
        answer, confidence = evaluation.labels[int(tally.answers[index])].name, float(scored.confidence[index])
        own = float(evaluation.probabilities[index, sample.class_id])
        found.append(
            Wrong(
                picture=_short(sample.path),
                jpeg_base64=jpeg,
                truth=f"{evaluation.labels[sample.class_id].name} {own:.0%}",
                answer=f"{answer} {confidence:.0%}",
                confidence=confidence,
            )
        )
    return found


def worst_boxes(evaluation: Boxes, most: int = MOST) -> tuple[int, list[Wrong]]:
    """How many pictures have an object missed or reported that is not there, and those where it is worst.

    The worst has the largest sum of the scores of what is not there and of 1 for each missed object.
    """
    ranks = []
    for index, (sample, reported) in enumerate(zip(evaluation.truth, evaluation.reported, strict=True)):
        right, counted = true_positives(sample, reported)
        false = counted & ~right
        missed = _missed(sample, reported, right)
        badness = float(reported.scores[false].sum()) + int(missed.sum())
        if badness:
            ranks.append((badness, index, right, false, missed))
    found: list[Wrong] = []
    for _, index, right, false, missed in sorted(ranks, key=lambda rank: (-rank[0], rank[1])):
        if len(found) == most:
            break
        sample, reported = evaluation.truth[index], evaluation.reported[index]
        drawn = (
            (reported.boxes_xyxy[right], RIGHT_BGR, 1),
            (reported.boxes_xyxy[false], FALSE_BGR, 2),
            (sample.boxes_xyxy[missed], MISSED_BGR, 2),
        )
        jpeg = _thumbnail(sample, BOXES_THUMBNAIL, drawn)
        if jpeg is None:
            continue
        names = [evaluation.labels[i].name for i in sample.class_ids[missed].tolist()]
        false_names = [reported.labels[i] for i in np.flatnonzero(false).tolist()]
        confidence = float(reported.scores[false].max(initial=0.0))
        sure = f", {'up to ' if len(false_names) > 1 else ''}{confidence:.0%} sure" if false_names else ""
        found.append(
            Wrong(
                picture=_short(sample.path),
                jpeg_base64=jpeg,
                truth=_counted(names),
                answer=_counted(false_names) + sure,
                confidence=confidence,
            )
        )
    return len(ranks), found


def _missed(sample: BoxSample, reported: Detections, right: Bools) -> Bools:
    """Which labelled objects [n] no right detection took, in the order of `true_positives`; ignored ones are not missed."""
    missed = ~sample.ignored
    iou = box_iou(reported.boxes_xyxy, sample.boxes_xyxy)
    iou[reported.class_ids[:, None] != sample.class_ids[None, :]] = 0
    for i in np.argsort(-reported.scores, kind="stable").tolist():
        if right[i]:
            missed[int(np.where(missed, iou[i], 0).argmax())] = False
    return missed


def _counted(names: Sequence[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.most_common()) or "nothing"


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _thumbnail(
    sample: HasPath, side: int = THUMBNAIL, drawn: Iterable[tuple[Float32, tuple[int, int, int], int]] = ()
) -> str | None:
    """A small JPEG in base64 with boxes in their colour and width drawn; None of what can no longer be read."""
    frame = next((frame for frame, _ in labelled_frames([sample], lambda line: None)), None)
    if frame is None:
        return None
    picture = frame.image
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small: UInt8 = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    for boxes, color, width in drawn:
        for left, top, right, bottom in (boxes * scale).round().astype(int).tolist():
            cv2.rectangle(small, (left, top), (right, bottom), color, width)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(encoded.tobytes()).decode()
