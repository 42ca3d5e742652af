"""Accuracy, calibration and speed of a loaded model on labelled pictures, through the code that runs on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from edge.datasets import Sample, frames
from edge.errors import DataError
from edge.model import Model
from edge.types import Float32, Int64

ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured over `images` pictures: fractions in [0, 1], and the median prepare + infer + decode time."""

    images: int
    skipped: int
    top1: float
    top5: float
    ece: float
    ms_per_image: float


def expected_calibration_error(confidence: Float32, correct: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """The mean gap between confidence [n] and accuracy over 15 equal bins, weighted by their share (Guo et al., 2017)."""
    if len(confidence) == 0:
        return 0.0
    bins = np.clip(np.ceil(np.asarray(confidence, np.float64) * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=np.asarray(correct, np.float64) - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def evaluate(model: Model, samples: Iterable[Sample], bad: Callable[[str], None] = lambda line: None) -> Report:
    """Run every picture through `model`; unreadable ones are named to `bad`. Raises DataError when none is readable."""
    truth: list[int] = []
    best: list[Int64] = []
    confidence: list[float] = []
    seconds: list[float] = []
    skipped: list[str] = []

    def skip(line: str) -> None:
        skipped.append(line)
        bad(line)

    for frame, class_id in frames(samples, skip):
        started = time.perf_counter()
        tensor = model.task.prepare(frame)
        result = model.task.decode(model.engine.infer(tensor), tensor)
        seconds.append(time.perf_counter() - started)
        truth.append(class_id)
        best.append(result.class_ids)
        confidence.append(result.confidence)
    if not truth:
        raise DataError(f"none of {len(skipped)} pictures could be read; the first: {skipped[0] if skipped else 'none given'}")
    correct = np.array([ids[0] == want for ids, want in zip(best, truth, strict=True)])
    return Report(
        images=len(truth),
        skipped=len(skipped),
        top1=float(correct.mean()),
        top5=float(np.mean([want in ids for ids, want in zip(best, truth, strict=True)])),
        ece=expected_calibration_error(np.array(confidence, np.float32), correct),
        ms_per_image=float(np.median(seconds) * 1e3),
    )
