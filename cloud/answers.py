"""What a task takes and gives, as tensors of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.card import Card
from edge.oip import NamedTensor
from edge.types import Detections, Outputs, Result

CLASSES_LIMIT = 5


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as the model's metadata describes it; -1 in `shape` is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def as_json(self) -> dict[str, object]:
        """The protocol's metadata_tensor."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


class Answers(Protocol):
    """A task's outputs: what they are, and how they are made of what the engine and the task gave for each picture."""

    specs: tuple[TensorSpec, ...]

    def tensors(self, answers: Sequence[tuple[Outputs, Result]]) -> Mapping[str, NamedTensor]: ...


class ClassAnswers:
    """`logits` as the model gave them, and the best five classes: `labels` and calibrated `scores`, best first."""

    def __init__(self, card: Card) -> None:
        best = min(CLASSES_LIMIT, len(card.labels))
        self.specs: tuple[TensorSpec, ...] = (
            TensorSpec("logits", "FP32", (-1, len(card.labels))),
            TensorSpec("labels", "BYTES", (-1, best)),
            TensorSpec("scores", "FP32", (-1, best)),
        )

    def tensors(self, answers: Sequence[tuple[Outputs, Result]]) -> Mapping[str, NamedTensor]:
        """The three outputs of a batch, by name."""
        labels = [label.encode() for _, result in answers for label in result.labels]
        scores = np.stack([result.scores for _, result in answers])
        logits = np.stack([outputs["logits"].reshape(-1) for outputs, _ in answers])
        return {
            "logits": NamedTensor.of("logits", logits),
            "labels": NamedTensor("labels", "BYTES", scores.shape, labels),
            "scores": NamedTensor.of("scores", scores),
        }


class DetectAnswers:
    """Each picture's objects, best first, in pixels of the picture that came: `boxes` xyxy, `labels`, `scores`.

    A batch is padded to its longest answer with boxes of zeros, empty labels and scores of 0; `count` says how many are
    objects. A batch of one has no padding.
    """

    def __init__(self, card: Card) -> None:
        self.specs: tuple[TensorSpec, ...] = (
            TensorSpec("boxes", "FP32", (-1, -1, 4)),
            TensorSpec("labels", "BYTES", (-1, -1)),
            TensorSpec("scores", "FP32", (-1, -1)),
            TensorSpec("count", "INT32", (-1,)),
        )

    def tensors(self, answers: Sequence[tuple[Outputs, Result]]) -> Mapping[str, NamedTensor]:
        """The four outputs of a batch, by name."""
        found = [result for _, result in answers if isinstance(result, Detections)]
        longest = max((len(result) for result in found), default=0)
        boxes = np.zeros((len(found), longest, 4), np.float32)
        scores = np.zeros((len(found), longest), np.float32)
        labels: list[bytes] = []
        for row, result in enumerate(found):
            boxes[row, : len(result)] = result.boxes_xyxy
            scores[row, : len(result)] = result.scores
            labels += [label.encode() for label in result.labels] + [b""] * (longest - len(result))
        return {
            "boxes": NamedTensor.of("boxes", boxes),
            "labels": NamedTensor("labels", "BYTES", scores.shape, labels),
            "scores": NamedTensor.of("scores", scores),
            "count": NamedTensor.of("count", np.array([len(result) for result in found], np.int32)),
        }


ANSWERS: dict[str, Callable[[Card], Answers]] = {"classify": ClassAnswers, "detect": DetectAnswers}
"""The card's task → its answers."""


def input_specs(card: Card) -> tuple[TensorSpec, TensorSpec]:
    """The two inputs, of which a request brings one.

    `image` is one encoded JPEG or PNG an element; `tensor` is what Task.prepare makes of a picture: model resolution,
    the card's colour order.
    """
    return (
        TensorSpec("image", "BYTES", (-1,)),
        TensorSpec("tensor", "UINT8", (-1, card.input.height, card.input.width, 3)),
    )
