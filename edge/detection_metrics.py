"""How well detections agree with labelled boxes: COCO's average precision, and which detections are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.boxes import box_iou
from edge.boxes_data import BoxSample
from edge.classification_metrics import Tally
from edge.errors import DataError, UsageError
from edge.types import Bools, Detections

MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class AveragePrecisions:
    """At IoU 0.5, the mean over IoU 0.5, 0.55, ... 0.95, and at IoU 0.5 of each class that is labelled, by its id."""

    ap50: float
    ap: float
    class_ap50: dict[int, float]


def detection_ap(truth: Sequence[BoxSample], detections: Sequence[Detections]) -> tuple[float, float]:
    """`average_precisions` over all classes: at IoU 0.5, and the mean over IoU 0.5, 0.55, ... 0.95."""
    precisions = average_precisions(truth, detections)
    return precisions.ap50, precisions.ap


def average_precisions(truth: Sequence[BoxSample], detections: Sequence[Detections]) -> AveragePrecisions:
    """Average precision over the classes that the truth has, and of each.

    COCO's definition (cocodataset.org/#detection-eval) with at most 100 detections a picture, computed by
    faster-coco-eval; the two lists stand picture by picture. Raises DataError when the truth has no box, and UsageError
    when the package is not installed.
    """
    if len(truth) != len(detections):
        raise ValueError(f"expected detections for each of {len(truth)} pictures, got {len(detections)}")
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UsageError(f"average precision needs faster-coco-eval ({error}); pip install faster-coco-eval") from None
    if not any((~sample.ignored).any() for sample in truth):
        raise DataError(f"none of {len(truth)} pictures has a labelled box: there is nothing to measure; label some")
    annotations = [item for number, sample in enumerate(truth, start=1) for item in _annotations(number, sample)]
    for number, item in enumerate(annotations, start=1):
        item["id"] = number
    classes = sorted({int(class_id) for sample in truth for class_id in sample.class_ids})
    dataset = {
        "info": {},
        "images": [{"id": number} for number in range(1, len(truth) + 1)],
        "annotations": annotations,
        "categories": [{"id": class_id, "name": str(class_id)} for class_id in classes],
    }
    known = COCO(dataset)
    found = known.loadRes([item for number, given in enumerate(detections, start=1) for item in _results(number, given)])
    evaluation = COCOeval_faster(known, found, iouType="bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    curves = evaluation.eval["precision"][0, :, :, 0, -1]  # of IoU 0.5, any size and all detections: [recalls, classes]
    measured = {class_id: float(curves[:, k].mean()) for k, class_id in enumerate(classes) if curves[0, k] >= 0}
    return AveragePrecisions(float(evaluation.stats[1]), float(evaluation.stats[0]), measured)


def true_positives(sample: BoxSample, detections: Detections) -> tuple[Bools, Bools]:
    """Which detections [n] are right, and which count at all, those that found an ignored object being neither.

    Best first, each takes the free labelled box of its class that it overlaps most, by an IoU of at least 0.5.
    """
    right = np.zeros(len(detections), np.bool_)
    counted = np.ones(len(detections), np.bool_)
    iou = box_iou(detections.boxes_xyxy, sample.boxes_xyxy)
    iou[detections.class_ids[:, None] != sample.class_ids[None, :]] = 0
    free = ~sample.ignored
    for i in np.argsort(-detections.scores, kind="stable").tolist():
        overlaps = np.where(free, iou[i], 0)
        best = int(overlaps.argmax()) if len(overlaps) else 0
        if len(overlaps) and overlaps[best] >= MATCH_IOU:
            right[i], free[best] = True, False
        else:
            counted[i] = not (iou[i, sample.ignored] >= MATCH_IOU).any()
    return right, counted


def detection_tally(truth: Iterable[BoxSample], reported: Iterable[Detections]) -> Tally:
    """The labelled objects of all pictures and the reported ones, by class; what is to be ignored is in neither."""
    objects, answers, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    for sample, detections in zip(truth, reported, strict=True):
        correct, counted = true_positives(sample, detections)
        objects.append(sample.class_ids[~sample.ignored])
        answers.append(detections.class_ids[counted])
        right.append(correct[counted])
    return Tally(np.concatenate(objects), np.concatenate(answers), np.concatenate(right))


def _annotations(image: int, sample: BoxSample) -> list[dict[str, Any]]:
    sizes = sample.boxes_xyxy[:, 2:] - sample.boxes_xyxy[:, :2]
    return [
        {
            "image_id": image,
            "category_id": class_id,
            "bbox": [*corner, *size],
            "area": size[0] * size[1],
            "iscrowd": int(ignored),
        }
        for corner, size, class_id, ignored in zip(
            sample.boxes_xyxy[:, :2].tolist(), sizes.tolist(), sample.class_ids.tolist(), sample.ignored.tolist(), strict=True
        )
    ]


def _results(image: int, detections: Detections) -> list[dict[str, Any]]:
    sizes = detections.boxes_xyxy[:, 2:] - detections.boxes_xyxy[:, :2]
    return [
        {"image_id": image, "category_id": class_id, "bbox": [*corner, *size], "score": score}
        for corner, size, class_id, score in zip(
            detections.boxes_xyxy[:, :2].tolist(),
            sizes.tolist(),
            detections.class_ids.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]
