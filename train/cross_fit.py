"""What a temperature would make of the confidence, each half of the pictures judged by what the other half says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.calibration import fit_score_temperature, fit_temperature
from edge.evaluate import Scored, scored_detections
from edge.tasks.classify import softmax
from edge.tasks.detect import calibrated
from edge.types import Bools
from train.evaluation import Boxes, Classification, Evaluation

FEWEST = 10
"""Pictures, or detections, in each half below which no temperature is fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """Confidence after a temperature that was fitted to other pictures: each half's by what the other half says.

    `temperatures` are those fitted to the first and to the second half, of `counts` pictures, or detections.
    """

    temperatures: tuple[float, float]
    counts: tuple[int, int]
    scored: Scored


def halves(paths: Sequence[Path]) -> Bools:
    """Which pictures [n] are in the second half: by a hash of their folder's and file's name, whatever their order."""
    names = ("/".join(path.parts[-2:]) for path in paths)
    return np.array([hashlib.sha256(name.encode(errors="surrogateescape")).digest()[0] & 1 for name in names], np.bool_)


def cross_fit(evaluation: Evaluation) -> CrossFit | None:
    """What a temperature would make of the confidence, judged on pictures that it was not fitted to; None of too few."""
    second = halves(evaluation.paths)
    return _cross_classes(evaluation, second) if isinstance(evaluation, Classification) else _cross_boxes(evaluation, second)


def _cross_classes(evaluation: Classification, second: Bools) -> CrossFit | None:
    counts = (int((~second).sum()), int(second.sum()))
    if min(counts) < FEWEST:
        return None
    logits, truth = evaluation.logits, evaluation.truth
    fitted = (fit_temperature(logits[~second], truth[~second]), fit_temperature(logits[second], truth[second]))
    scaled = [softmax(row, fitted[0] if late else fitted[1]) for row, late in zip(logits, second.tolist(), strict=True)]
    probabilities = np.array(scaled)
    right: Bools = probabilities.argmax(axis=1) == truth
    return CrossFit(fitted, counts, Scored(probabilities.max(axis=1), right))


def _cross_boxes(evaluation: Boxes, second: Bools) -> CrossFit | None:
    parts = [
        scored_detections([evaluation.truth[i] for i in part], [evaluation.found[i] for i in part])
        for part in (np.flatnonzero(~second).tolist(), np.flatnonzero(second).tolist())
    ]
    if min(len(part.right) for part in parts) < FEWEST or any(part.right.all() or not part.right.any() for part in parts):
        return None
    first, last = (fit_score_temperature(part.confidence, part.right) for part in parts)
    confidence = (calibrated(parts[0].confidence, last), calibrated(parts[1].confidence, first))
    right = np.concatenate([part.right for part in parts])
    counts = (len(parts[0].right), len(parts[1].right))
    return CrossFit((first, last), counts, Scored(np.concatenate(confidence), right))
