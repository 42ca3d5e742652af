"""What an endpoint's answer means: its tensors as a result in the pixels of the frame that was sent."""

from __future__ import annotations

import numpy as np

from edge.oip import InferResponse
from edge.types import Classes, Detections, Float32, Geometry, Result

UNKNOWN_CLASS = -1
"""The id of a class that another model named: labels are all that two models share."""


def wanted(result: Result) -> list[str]:
    """The outputs to ask for when the local answer is `result`."""
    return ["boxes", "labels", "scores"] if isinstance(result, Detections) else ["labels", "scores"]


def read_answer(response: InferResponse, local: Result, geometry: Geometry) -> Result:
    """The answer to one picture, of the kind that `local` is; `geometry` is the map from the frame to that picture.

    Raises KeyError for an output that is missing, and ValueError and TypeError for one that makes no sense.
    """
    labels = tuple(_text(label) for label in response.outputs["labels"].data)
    scores = np.array(response.outputs["scores"].data, np.float32).reshape(-1)
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels and {len(scores)} scores")
    if not ((scores >= 0) & (scores <= 1)).all() or (np.diff(scores) > 0).any():
        raise ValueError("its scores are no probabilities, best first")
    class_ids = np.full(len(labels), UNKNOWN_CLASS, np.int64)
    if isinstance(local, Detections):
        return Detections(_boxes(response, len(labels), geometry), scores, class_ids, labels)
    if not labels:
        raise ValueError("0 labels and 0 scores")
    return Classes(class_ids, scores, labels)


def _boxes(response: InferResponse, count: int, geometry: Geometry) -> Float32:
    boxes = np.array(response.outputs["boxes"].data, np.float32)
    if boxes.size != count * 4 or boxes.shape[-1:] != (4,):
        raise ValueError(f"boxes {list(boxes.shape)} for {count} labels")
    boxes = boxes.reshape(-1, 4)
    if not (boxes[:, :2] <= boxes[:, 2:]).all():
        raise ValueError("a box whose corners are swapped")
    return geometry.to_original(boxes)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
