"""What asking another model about the least certain answers brings: accuracy against the share that is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.detection_metrics import detection_ap
from edge.types import Bools, Detections, Float32, Float64, Result

STEPS = 10
"""The curve is told at so many shares that are asked about, and at none."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Labelled pictures as a model names their classes, which are its labels, and what it said of those it could read."""

    labels: Sequence[Label]
    samples: Sequence[Sample] | Sequence[BoxSample]
    results: Mapping[Path, Result]


def offload_curve(local: Answered, remote: Answered) -> dict[str, Any]:
    """`accuracy` when the remote answers for the least certain `share` of the pictures: top-1 of a classifier, with the
    `efficiency` of its confidence; AP50 of the boxes that a detector reports, which is less than that of all it could.
    """
    shares = [step / STEPS for step in range(STEPS + 1)]
    if isinstance(local.samples[0], BoxSample):
        accuracy = _ap50s(local, remote, shares)
        return {"share": shares, "accuracy": [round(value, 6) for value in accuracy]}
    both = [path for path in local.results if path in remote.results]
    value = np.array([1 - local.results[path].confidence for path in both], np.float32)
    rights = _right(local, both), _right(remote, both)
    curve = accuracy_curve(value, *rights)
    accuracy = [float(curve[round(share * len(both))]) for share in shares]
    efficiency = deferral_efficiency(value, *rights)
    return {"share": shares, "accuracy": [round(value, 6) for value in accuracy], "efficiency": round(efficiency, 4)}


def _right(answered: Answered, paths: Sequence[Path]) -> Bools:
    truth = {sample.path: sample.class_id for sample in answered.samples if isinstance(sample, Sample)}
    return np.array([answered.results[path].class_ids[0] == truth[path] for path in paths], np.bool_)


def _ap50s(local: Answered, remote: Answered, shares: Sequence[float]) -> list[float]:
    truth = [sample for sample in local.samples if isinstance(sample, BoxSample) and sample.path in local.results]
    own = [_detections(local.results[sample.path]) for sample in truth]
    names = {label.name: number for number, label in enumerate(local.labels)}
    theirs = [_renumbered(_detections(remote.results[sample.path]), names) for sample in truth]
    order = np.argsort([found.confidence for found in own], kind="stable").tolist()
    accuracy = []
    for share in shares:
        asked = set(order[: round(share * len(order))])
        accuracy.append(detection_ap(truth, [theirs[i] if i in asked else own[i] for i in range(len(truth))])[0])
    return accuracy


def _detections(result: Result) -> Detections:
    assert isinstance(result, Detections)
    return result


def _renumbered(found: Detections, names: Mapping[str, int]) -> Detections:
    """Objects whose labels the local model knows, with its class ids."""
    known = found[np.array([label in names for label in found.labels], np.bool_)]
    class_ids = np.array([names[label] for label in known.labels], np.int64)
    return Detections(known.boxes_xyxy, known.scores, class_ids, known.labels)


def accuracy_curve(value: Float32, local: Bools, remote: Bools) -> Float64:
    """Accuracy [n + 1] when the 0, 1, ... n answers of the greatest `value` [n] are the remote's.

    `local` [n] and `remote` [n] say which answers are right. Answers of one value go by the mean over their orders.
    """
    order = np.argsort(-value, kind="stable")
    gain = (remote.astype(np.float64) - local)[order]
    _, group, count = np.unique(-value[order], return_inverse=True, return_counts=True)
    gain = (np.bincount(group, gain) / count)[group]
    curve: Float64 = np.concatenate(([0.0], np.cumsum(gain))) / len(value) + local.mean()
    return curve


def deferral_efficiency(value: Float32, local: Bools, remote: Bools) -> float:
    """The area of the accuracy curve above random deferral's, over that of an oracle, which knows who is right; 1 at best.

    The oracle asks first where only the remote is right and last where only the local is. 0 when nothing can be gained.
    """
    oracle = accuracy_curve((remote.astype(np.float32) - local), local, remote)
    chance = np.linspace(local.mean(), remote.mean(), len(value) + 1)
    possible = float((oracle - chance).mean())
    return float((accuracy_curve(value, local, remote) - chance).mean()) / possible if possible > 0 else 0.0
