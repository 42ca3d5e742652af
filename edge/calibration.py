"""Whether confidence means what it says: calibration error, reliability by bin, and the temperature that mends it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.types import Bools, Float32, Float64, Int64

ECE_BINS = 15
LOWEST, HIGHEST = 0.05, 20.0
"""The limits of a temperature."""
STEPS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Per bin of confidence the mean `confidence` and the `accuracy` [bins], 0 where a bin is empty, and the `count`."""

    confidence: Float64
    accuracy: Float64
    count: Int64


def calibration_bins(confidence: Float32) -> Int64:
    """The bin of each confidence [n] among 15 equal ones, each of which holds its upper end and the first zero, too."""
    return np.clip(np.ceil(np.asarray(confidence, np.float64) * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)


def expected_calibration_error(confidence: Float32, correct: Bools) -> float:
    """The mean gap between confidence [n] and accuracy over 15 equal bins, weighted by their share (Guo et al., 2017)."""
    if len(confidence) == 0:
        return 0.0
    gaps = np.bincount(calibration_bins(confidence), weights=np.asarray(correct, np.float64) - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(confidence: Float32, correct: Bools) -> Reliability:
    """The bins of confidence [n] that `expected_calibration_error` is made of."""
    bins = calibration_bins(confidence)
    count = np.bincount(bins, minlength=ECE_BINS)
    filled = np.maximum(count, 1)
    means = [np.bincount(bins, np.asarray(values, np.float64), ECE_BINS) / filled for values in (confidence, correct)]
    return Reliability(means[0], means[1], count)


def fit_temperature(logits: Float32, truth: Int64) -> float:
    """The T for which softmax(logits / T) gives `truth` the highest likelihood: [n, classes] and [n].

    Guo et al., On Calibration of Modern Neural Networks (ICML 2017). The loss is convex in 1 / T, so a golden-section
    search finds its minimum; between 0.05 and 20.
    """
    golden = (math.sqrt(5) - 1) / 2
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if negative_log_likelihood(logits, truth, 1 / left) < negative_log_likelihood(logits, truth, 1 / right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def negative_log_likelihood(logits: Float32, truth: Int64, temperature: float) -> float:
    """The mean of -log softmax(logits / temperature)[truth], in nats."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    chosen = scaled[np.arange(len(truth)), truth]
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - chosen))


def fit_score_temperature(scores: Float32, right: Bools) -> float:
    """The T for which sigmoid(logit(scores [n]) / T) is most likely to be right [n]: a softmax of two classes, one at 0."""
    odds = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    logits = np.stack([np.zeros_like(odds), np.log(odds / (1 - odds))], axis=1)
    return fit_temperature(logits.astype(np.float32), right.astype(np.int64))
