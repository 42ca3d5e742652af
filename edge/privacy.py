"""What of a picture may not leave the device: objects of some classes, and whatever the model did not look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge.protocols import Task
from edge.regions import check_classes, outside
from edge.types import Detections, Float32, Frame, Outputs, Result, Tensor

GROWN = 0.1
"""Of a box's width and height, on each side."""


class Private:
    """A task that marks what is private before anything is filtered: it stands innermost, next to the detector.

    Objects of `classes`, their boxes grown by a tenth on each side, and what lies outside of the part that the model was
    shown. A result that is no Detections stays as it is: it cannot say where something is. Raises UsageError for a class
    that the model does not know.
    """

    def __init__(self, task: Task, classes: frozenset[str], *, labels: Sequence[str]) -> None:
        check_classes(classes, labels)
        self._task, self._classes = task, classes

    def prepare(self, frame: Frame) -> Tensor:
        """The task's input."""
        return self._task.prepare(frame)

    def decode(self, outputs: Outputs, tensor: Tensor) -> Result:
        """The task's result with its `private_xyxy`."""
        result = self._task.decode(outputs, tensor)
        if not isinstance(result, Detections):
            return result
        chosen = np.array([label in self._classes for label in result.labels], np.bool_)
        height, width = tensor.data.shape[1:3]
        shown = tensor.geometry.to_original(np.array([[0, 0, width, height]], np.float32))[0].tolist()
        private = np.concatenate((grown(result.boxes_xyxy[chosen]), outside(shown, tensor.geometry.original_wh)))
        return replace(result, private_xyxy=private)


def grown(boxes_xyxy: Float32) -> Float32:
    """Boxes [n, 4] with a tenth of their width and height more on each side."""
    by = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * np.float32(GROWN)
    wider: Float32 = np.concatenate((boxes_xyxy[:, :2] - by, boxes_xyxy[:, 2:] + by), axis=1)
    return wider
