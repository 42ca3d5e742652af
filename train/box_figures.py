"""How sure a detector's average precision is, and what its score threshold trades: precision against recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.boxes_data import BoxSample
from edge.detection_metrics import true_positives
from edge.types import Bools, Detections, Float64, Int64

RESAMPLES = 400
RECALLS = np.linspace(0, 1, 101)
"""Where COCO's average precision reads the curve."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """One class's detections over all pictures, best first: which are right [n], their scores, and their pictures' numbers.

    `objects` are the labelled ones of each picture [pictures].
    """

    right: Bools
    scores: Float64
    pictures: Int64
    objects: Int64


def ranked(truth: Sequence[BoxSample], found: Sequence[Detections], class_ids: Sequence[int]) -> list[Ranked]:
    """The detections of each of these classes, what found an ignored object left out."""
    matched = [true_positives(sample, detections) for sample, detections in zip(truth, found, strict=True)]
    lists = []
    for class_id in class_ids:
        chosen = [(found[i].class_ids == class_id) & counted for i, (_, counted) in enumerate(matched)]
        scores = np.concatenate([found[i].scores[kept] for i, kept in enumerate(chosen)]).astype(np.float64)
        right = np.concatenate([matched[i][0][kept] for i, kept in enumerate(chosen)])
        pictures = np.repeat(np.arange(len(truth)), [int(kept.sum()) for kept in chosen])
        objects = np.array([int(((one.class_ids == class_id) & ~one.ignored).sum()) for one in truth], np.int64)
        order = np.argsort(-scores, kind="stable")
        lists.append(Ranked(right[order], scores[order], pictures[order], objects))
    return lists


def average_precision(of: Ranked, times: Int64) -> float:
    """AP at IoU 0.5 of one class when each picture counts so many `times` [pictures]; not a number without an object.

    COCO's definition: the mean over 101 recalls of the best precision at that recall or a higher one.
    """
    objects = int(of.objects @ times)
    if objects == 0:
        return float("nan")
    weights = times[of.pictures]
    hits, seen = np.cumsum(weights * of.right), np.cumsum(weights)
    precision = np.maximum.accumulate((hits / np.maximum(seen, 1))[::-1])[::-1]
    places = np.searchsorted(hits / objects, RECALLS, side="left")
    return float(np.append(precision, 0.0)[places].mean())


def ap50_interval(classes: Sequence[Ranked], ap50: float, seed: int = 0) -> tuple[float, float]:
    """The 95% interval of `ap50` over the classes, by drawing as many pictures with replacement 400 times (Efron, 1979)."""
    count = len(classes[0].objects)
    own = _mean(classes, np.ones(count, np.int64))
    random = np.random.default_rng(seed)
    drawn = [_mean(classes, random.multinomial(count, np.full(count, 1 / count)).astype(np.int64)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5)) - own + ap50
    return max(0.0, min(float(low), ap50)), min(1.0, max(float(high), ap50))


def _mean(classes: Sequence[Ranked], times: Int64) -> float:
    values = np.array([average_precision(one, times) for one in classes])
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def trade(classes: Sequence[Ranked]) -> tuple[Float64, Float64, Float64]:
    """Thresholds [n], falling, with the precision and the recall over all classes of reporting from each score."""
    scores = np.concatenate([one.scores for one in classes])
    right = np.concatenate([one.right for one in classes])
    objects = max(1, int(sum(one.objects.sum() for one in classes)))
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)[: len(scores)])  # of equal scores all are reported
    return scores[last], hits[last] / (last + 1), hits[last] / objects
