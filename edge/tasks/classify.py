"""Classification: a picture in, calibrated class probabilities out."""

from __future__ import annotations

import numpy as np

from edge.card import Card, Variant
from edge.errors import EngineError
from edge.geometry import prepare
from edge.types import Classes, Float32, Frame, Int64, Outputs, Tensor


def softmax(logits: Float32, temperature: float) -> Float32:
    """Probabilities of logits [k] divided by `temperature` (Guo et al., 2017, On Calibration of Modern Neural Networks)."""
    exponents = np.exp((logits - logits.max()) / np.float32(temperature))
    probabilities: Float32 = exponents / np.float32(exponents.sum(dtype=np.float64))
    return probabilities


def best_k(scores: Float32, k: int) -> Int64:
    """Indices of the k largest scores, best first; ties in index order."""
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, np.int64)
    candidates = np.flatnonzero(scores >= np.partition(scores, -k)[-k])  # k, and all that tie with the last of them
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k].astype(np.int64)


class Classify:
    """The `softmax` head: logits to the `k` best classes, with the variant's own temperature."""

    def __init__(self, card: Card, variant: Variant, k: int = 5) -> None:
        self._spec = card.input
        self._labels = tuple(label.name for label in card.labels)
        self._temperature = variant.temperature
        self._k = k

    def prepare(self, frame: Frame) -> Tensor:
        """Crop, resize and order the colours of a frame: uint8 [1, height, width, 3]."""
        return prepare(frame, self._spec)

    def decode(self, outputs: Outputs, tensor: Tensor) -> Classes:
        """The best classes of logits [1, classes]. Raises EngineError when their number differs from the labels'."""
        logits = outputs["logits"].reshape(-1)
        if len(logits) != len(self._labels):
            raise EngineError(f"the model gives {len(logits)} classes, its card names {len(self._labels)}; rebuild the bundle")
        if not np.isfinite(logits.sum()):  # one that is not makes the sum so
            raise EngineError("the model gives logits that are not finite; choose another --variant")
        scores = softmax(logits, self._temperature)
        ids = best_k(scores, self._k)
        return Classes(ids, scores[ids], tuple(self._labels[i] for i in ids.tolist()))
