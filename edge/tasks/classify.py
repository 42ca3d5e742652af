"""Classification: a picture in, calibrated class probabilities out."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from edge.card import Card, Variant
from edge.errors import EngineError, UsageError
from edge.geometry import prepare
from edge.protocols import Task
from edge.types import Classes, Float32, Frame, Int64, Outputs, Tensor, UInt8


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


def are_probabilities(values: Float32, within: float) -> bool:
    """Whether values are those of a softmax: none below zero, and a sum of 1 but for `within`."""
    return bool((values >= 0).all()) and abs(float(values.sum(dtype=np.float64)) - 1) <= within


HALF_STEP = 1 / 512
"""Half of what an 8-bit probability can differ by: one that is told as 0 is not impossible."""


class Classify:
    """The heads `softmax` and `probability`: the `k` best classes, with the variant's own temperature."""

    def __init__(self, card: Card, variant: Variant, k: int = 5) -> None:
        self._spec = card.input
        self._labels = tuple(label.name for label in card.labels)
        self._temperature = variant.temperature
        self._head = card.head
        self._k = k

    def prepare(self, frame: Frame) -> Tensor:
        """Crop, resize and order the colours of a frame: uint8 [1, height, width, 3]."""
        return prepare(frame, self._spec)

    def decode(self, outputs: Outputs, tensor: Tensor) -> Classes:
        """The best classes of outputs [1, classes]. Raises EngineError when their number differs from the labels'."""
        return self.best(self.probabilities(self.logits(outputs)))

    def logits(self, outputs: Outputs) -> Float32:
        """The logits [n, classes] of n pictures, or the logarithm of their probabilities. Raises EngineError."""
        values = outputs["probabilities" if self._head == "probability" else "logits"]
        logits = values.reshape(len(values), -1)
        if logits.shape[1] != len(self._labels):
            raise EngineError(
                f"the model gives {logits.shape[1]} classes, its card names {len(self._labels)}; rebuild the bundle"
            )
        if not np.isfinite(logits.sum()):  # one that is not makes the sum so
            raise EngineError("the model gives logits that are not finite; choose another --variant")
        return np.log(np.maximum(logits, 0) + np.float32(HALF_STEP)) if self._head == "probability" else logits

    def probabilities(self, logits: Float32) -> Float32:
        """The calibrated probabilities [classes] of one picture's logits [1, classes]."""
        return softmax(logits[0], self._temperature)

    def best(self, scores: Float32) -> Classes:
        """The k classes of the best scores [classes]."""
        ids = best_k(scores, self._k)
        return Classes(ids, scores[ids], tuple(self._labels[i] for i in ids.tolist()))


Look: TypeAlias = Literal["confidence", "answer"]


class SecondLook:
    """A classifier that looks at the frame, and once more at the middle of it: what both agree on is more likely right.

    Small models are confident of what the second look takes back, so that the score of the answer, the geometric mean of
    its two probabilities, tells better what to ask the cloud about (docs/decisions/0015). The answer is the first look's,
    or, if `look` is `answer`, that of both on average.
    """

    SIDE = 0.65
    """The middle's part of the width and the height."""

    def __init__(self, task: Classify, look: Look) -> None:
        self._task, self._look = task, look

    def prepare(self, frame: Frame) -> Tensor:
        """Both looks: uint8 [2, height, width, 3]."""
        first = self._task.prepare(frame)
        second = self._task.prepare(replace(frame, image=middle(frame.image, self.SIDE)))
        return Tensor(np.concatenate((first.data, second.data)), first.geometry)

    def decode(self, outputs: Outputs, tensor: Tensor) -> Classes:
        """The best classes of two rows of outputs; scores are those of the answer's look, all scaled alike."""
        logits = self._task.logits(outputs)
        first, second = (self._task.probabilities(logits[row : row + 1]) for row in range(2))
        scores = first if self._look == "confidence" else (first + second) / 2
        answer = int(scores.argmax())
        return self._task.best(scores * np.sqrt(first[answer] * second[answer]) / scores[answer])


def looking_twice(task: Task, look: Look | None) -> Task:
    """A classifier's task with a second look, if there is to be one. Raises UsageError for another task."""
    if look is None:
        return task
    if not isinstance(task, Classify):
        raise UsageError("--second-look is for classifiers, and the model is none; leave it out")
    return SecondLook(task, look)


def middle(image: UInt8, side: float) -> UInt8:
    """The middle of a picture, `side` of its width and height, at least a pixel; a view."""
    height, width = image.shape[:2]
    tall, wide = max(1, round(height * side)), max(1, round(width * side))
    top, left = (height - tall) // 2, (width - wide) // 2
    return image[top : top + tall, left : left + wide]
