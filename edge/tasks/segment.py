"""Segmentation: a picture in, the class of each cell of a grid out, with its calibrated probability."""

from __future__ import annotations

import math

import numpy as np

from edge.card import BACKGROUND, Card, Variant
from edge.errors import EngineError
from edge.geometry import prepare
from edge.types import NOTHING, Box, Float32, Frame, Int16, Mask, Outputs, Tensor


class Segmentation:
    """The `argmax` head: logits to the best class of each cell; the first label is nothing where it is named background."""

    def __init__(self, card: Card, variant: Variant) -> None:
        self._spec = card.input
        self._labels = tuple(label.name for label in card.labels)
        self._temperature = variant.temperature
        self._has_background = self._labels[0].lower() == BACKGROUND

    def prepare(self, frame: Frame) -> Tensor:
        """Resize, pad and order the colours of a frame: uint8 [1, height, width, 3]."""
        return prepare(frame, self._spec)

    def decode(self, outputs: Outputs, tensor: Tensor) -> Mask:
        """The mask of what the model saw of the picture, without the padding. Raises EngineError for other outputs."""
        grid = one_reading(outputs["logits"], len(self._labels))
        rows, columns, area_xyxy = seen(tensor, (grid.shape[-1], grid.shape[-2]))
        part: Float32 = grid[..., rows, columns]
        if part.ndim == 3:
            class_ids, scores = best_classes(part, self._temperature)
        else:
            class_ids, scores = _checked(part, len(self._labels)), np.ones(part.shape, np.float32)
        if self._has_background:
            class_ids[class_ids == 0] = NOTHING
        return Mask(class_ids, scores, self._labels, area_xyxy)


def one_reading(values: Float32, classes: int) -> Float32:
    """Logits [1, classes, h, w] or [1, h, w, classes] as [classes, h, w]; ids [1, h, w], [1, 1, h, w], [1, h, w, 1] as [h, w].

    Raises EngineError for what is none of them, or more than one.
    """
    readings: list[Float32] = []
    if values.ndim == 3 and len(values) == 1:
        readings = [values[0]]
    elif values.ndim == 4 and len(values) == 1:
        first, last = values.shape[1], values.shape[3]
        readings += [values[0]] * (first == classes) + [values[0].transpose(2, 0, 1)] * (last == classes)
        readings += [values[0, 0]] * (first == 1) + [values[0, :, :, 0]] * (last == 1)
    if len(readings) != 1 or not values.size:
        expected = f"[1, {classes}, h, w] or [1, h, w, {classes}] for {classes} labels, or class ids [1, h, w]"
        which = "which can be read in two ways" if len(readings) > 1 else "which is neither"
        raise EngineError(f"head argmax expects {expected}, the model gives {list(values.shape)}, {which}")
    return readings[0]


def best_classes(logits: Float32, temperature: float) -> tuple[Int16, Float32]:
    """The best class int16 [h, w] of logits [classes, h, w], and its softmax probability at `temperature` float32 [h, w]."""
    best = logits.max(axis=0)
    if not np.isfinite(best).all():
        raise EngineError("the model gives logits that are not finite; choose another --variant")
    total = np.zeros(best.shape, np.float32)
    with np.errstate(over="ignore"):  # of what is infinitely less likely
        for plane in logits:
            total += np.exp((plane - best) / np.float32(temperature))
    probabilities: Float32 = np.reciprocal(total)
    return logits.argmax(axis=0).astype(np.int16), probabilities


def seen(tensor: Tensor, cells_wh: tuple[int, int]) -> tuple[slice, slice, Box]:
    """The rows and columns of a grid over the model's input whose centres show the picture, and the part that they show.

    At least one of each; the part is left, top, right, bottom in pixels of the original picture.
    """
    geometry = tensor.geometry
    model_wh = (tensor.data.shape[2], tensor.data.shape[1])
    columns, rows = (
        _between(
            geometry.offset_xy[axis] / model_wh[axis] * cells_wh[axis],
            (geometry.offset_xy[axis] + geometry.original_wh[axis] * geometry.scale_xy[axis]) / model_wh[axis] * cells_wh[axis],
            cells_wh[axis],
        )
        for axis in (0, 1)
    )
    edges = np.array([[columns.start, rows.start, columns.stop, rows.stop]], np.float32)
    cell = np.array(model_wh, np.float32) / np.array(cells_wh, np.float32)
    left, top, right, bottom = geometry.to_original(edges * np.tile(cell, 2))[0].tolist()
    return rows, columns, (left, top, right, bottom)


def _between(low: float, high: float, cells: int) -> slice:
    """The cells whose centres lie from `low` to before `high`, both in cells; the one in the middle where none does."""
    low, high = max(low, 0.0), min(high, float(cells))
    first, stop = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if first >= stop:
        first = min(math.floor((low + high) / 2), cells - 1)
        stop = first + 1
    return slice(first, stop)


def _checked(numbers: Float32, classes: int) -> Int16:
    """Class numbers as label indices. Raises EngineError for one without a label."""
    ids = np.rint(numbers)
    known = (ids >= 0) & (ids < classes)  # not a number is not
    if not known.all():
        raise EngineError(f"the model gives the class id {ids[~known][0]:g}, there are {classes} labels; correct the labels")
    return ids.astype(np.int16)
