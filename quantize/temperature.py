"""The temperature that makes a variant's confidence mean what it says."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

LOWEST, HIGHEST = 0.05, 20.0
STEPS = 60


def fit_temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
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


def negative_log_likelihood(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], temperature: float) -> float:
    """The mean of -log softmax(logits / temperature)[truth], in nats."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    chosen = scaled[np.arange(len(truth)), truth]
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - chosen))


def fit_score_temperature(scores: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """The T for which sigmoid(logit(scores [n]) / T) is most likely to be right [n]: a softmax of two classes, one at 0."""
    odds = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    logits = np.stack([np.zeros_like(odds), np.log(odds / (1 - odds))], axis=1)
    return fit_temperature(logits.astype(np.float32), right.astype(np.int64))
