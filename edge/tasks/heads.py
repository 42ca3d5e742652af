"""Detection heads by name: what a detector's raw outputs mean, as pure functions.

Each gives the candidates that reach a raw score, before non-maximum suppression, one class a box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge.boxes import xywh_to_xyxy
from edge.errors import EngineError
from edge.types import Float32, Int64, Outputs


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What a head must know: the model's size in pixels, the number of classes and of keypoints, and the card's options."""

    size_wh: tuple[int, int]
    classes: int
    strides: tuple[int, ...] = (8, 16, 32)
    class_offset: int = 0
    cell_offset: float = 0.5
    keypoints: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """n boxes in model pixels float32 [n, 4], their raw scores float32 [n] and classes int64 [n], in the model's order.

    A pose head has `keypoints` float32 [n, k, 3], too: x and y in model pixels, and a score in [0, 1].
    """

    boxes_xyxy: Float32
    scores: Float32
    class_ids: Int64
    keypoints: Float32 | None = None


Head: TypeAlias = Callable[[Outputs, HeadSpec, float], Candidates]
"""outputs, spec, least raw score → candidates. Raises EngineError for outputs that are not this head's, or not finite."""


def yolox(outputs: Outputs, spec: HeadSpec, score_threshold: float) -> Candidates:
    """Grid-relative boxes, objectness and class probabilities [1, cells, 5 + classes] (Ge et al., 2021, YOLOX).

    centre = (xy + cell) * stride, size = exp(wh) * stride, score = objectness * class probability.
    """
    cells, strides = grid(spec.size_wh, spec.strides)
    rows = _rows(outputs, "yolox", (len(cells), 5 + spec.classes))
    objectness = rows[:, 4]
    _check_finite(objectness)
    likely = np.flatnonzero(objectness >= score_threshold)  # a product with a probability is no larger
    rows, cells, strides = rows[likely], cells[likely], strides[likely]
    class_ids = rows[:, 5:].argmax(axis=1)
    scores = rows[:, 4] * rows[np.arange(len(rows)), 5 + class_ids]
    kept = np.flatnonzero(~(scores < score_threshold))
    rows, stride = rows[kept], strides[kept, None]
    centres = (rows[:, :2] + cells[kept]) * stride
    sizes = np.exp(np.minimum(rows[:, 2:4], 20)) * stride
    return _candidates(xywh_to_xyxy(np.concatenate((centres, sizes), axis=1)), scores[kept], class_ids[kept])


def yolov8(outputs: Outputs, spec: HeadSpec, score_threshold: float) -> Candidates:
    """Decoded boxes and class probabilities, [1, 4 + classes, n] or its transpose: centre, size in pixels (Ultralytics).

    The end-to-end heads' [1, n, 6], corners with score and class, is told by its shape; not where there are two classes,
    whose raw predictions have six columns, too.
    """
    predictions = _squeezed(outputs["predictions"], "yolov8", 2)
    width = 4 + spec.classes
    if predictions.shape[1] == 6 and predictions.shape[0] != width and width != 6:
        scores = predictions[:, 4]
        _check_finite(scores)
        kept = np.flatnonzero(scores >= score_threshold)
        return _candidates(predictions[kept, :4], scores[kept], _class_ids(predictions[kept, 5], 0, spec.classes))
    if predictions.shape[0] != width:
        predictions = predictions.T
    if predictions.shape[0] != width:
        raise _unlike("yolov8", f"[1, {width}, n] for {spec.classes} classes", outputs["predictions"].shape)
    return _best_columns(predictions, score_threshold)[0]


def yolov8_pose(outputs: Outputs, spec: HeadSpec, score_threshold: float) -> Candidates:
    """As yolov8, with x, y and visibility of k keypoints below the classes: [1, 4 + classes + 3 k, n] or its transpose."""
    predictions = _squeezed(outputs["predictions"], "yolov8-pose", 2)
    boxes, width = 4 + spec.classes, 4 + spec.classes + 3 * spec.keypoints
    if predictions.shape[0] != width:
        predictions = predictions.T
    if predictions.shape[0] != width:
        expected = f"[1, {width}, n] for {spec.classes} classes and {spec.keypoints} keypoints"
        raise _unlike("yolov8-pose", expected, outputs["predictions"].shape)
    found, kept = _best_columns(predictions[:boxes], score_threshold)
    keypoints = predictions[boxes:, kept].T.reshape(-1, spec.keypoints, 3)
    _check_finite(keypoints)
    keypoints[..., 2] = keypoints[..., 2].clip(0, 1)  # integer outputs may overshoot
    return replace(found, keypoints=keypoints)


def _best_columns(columns: Float32, score_threshold: float) -> tuple[Candidates, Int64]:
    """Of [4 + classes, n], centre, size and class probabilities, those that reach the score, and which they are."""
    best = columns[4:].max(axis=0)
    _check_finite(best)
    kept = np.flatnonzero(best >= score_threshold)
    class_ids = columns[4:, kept].argmax(axis=0)
    return _candidates(xywh_to_xyxy(columns[:4, kept].T), best[kept], class_ids), kept


def nanodet(outputs: Outputs, spec: HeadSpec, score_threshold: float) -> Candidates:
    """Class probabilities and four distance distributions [1, cells, classes + 4 (reg_max + 1)] (RangiLyu/nanodet).

    A distance is the mean of its distribution, softmax over 0 .. reg_max, times the stride (Li et al., 2020,
    Generalized Focal Loss), to the left, top, right and bottom of (cell + cell_offset) * stride.
    """
    cells, strides = grid(spec.size_wh, spec.strides)
    predictions = _squeezed(outputs["predictions"], "nanodet", 2)
    bins, left = divmod(predictions.shape[1] - spec.classes, 4)
    if len(predictions) != len(cells) or left or bins < 2:
        expected = f"[1, {len(cells)}, {spec.classes} + 4 (reg_max + 1)]"
        raise _unlike("nanodet", expected, outputs["predictions"].shape)
    best = predictions[:, : spec.classes].max(axis=1)
    _check_finite(best)
    kept = np.flatnonzero(best >= score_threshold)
    rows, stride = predictions[kept], strides[kept, None]
    distributions = rows[:, spec.classes :].reshape(-1, 4, bins)
    weights = np.exp(distributions - distributions.max(axis=2, keepdims=True))
    distances = (weights @ np.arange(bins, dtype=np.float32)) / weights.sum(axis=2) * stride
    centres = (cells[kept] + np.float32(spec.cell_offset)) * stride
    boxes = np.concatenate((centres - distances[:, :2], centres + distances[:, 2:]), axis=1)
    return _candidates(boxes, best[kept], rows[:, : spec.classes].argmax(axis=1))


def fastestdet(outputs: Outputs, spec: HeadSpec, score_threshold: float) -> Candidates:
    """Objectness, box and class probabilities [1, 5 + classes, h, w] of one grid (dog-qiuqiu/FastestDet).

    centre = (tanh(xy) + cell) / grid, size = sigmoid(wh), both in parts of the model's size;
    score = objectness^0.6 * class probability^0.4.
    """
    predictions = _squeezed(outputs["predictions"], "fastestdet", 3)
    if len(predictions) != 5 + spec.classes:
        raise _unlike("fastestdet", f"[1, {5 + spec.classes}, h, w]", outputs["predictions"].shape)
    height, width = predictions.shape[1:]
    columns = predictions.reshape(5 + spec.classes, -1)
    objectness = columns[0]
    _check_finite(objectness)
    likely = np.flatnonzero(objectness >= score_threshold ** (1 / 0.6))  # as if the class were certain
    columns = columns[:, likely]
    class_ids = columns[5:].argmax(axis=0)
    probabilities = columns[5 + class_ids, np.arange(len(likely))]
    scores = np.maximum(columns[0], 0) ** np.float32(0.6) * np.maximum(probabilities, 0) ** np.float32(0.4)
    kept = np.flatnonzero(~(scores < score_threshold))
    cells = np.stack((likely[kept] % width, likely[kept] // width), axis=1).astype(np.float32)
    size_wh = np.array(spec.size_wh, np.float32)
    centres = (np.tanh(columns[1:3, kept].T) + cells) / np.array((width, height), np.float32) * size_wh
    sizes = size_wh / (1 + np.exp(-np.clip(columns[3:5, kept].T, -80, 80)))
    return _candidates(xywh_to_xyxy(np.concatenate((centres, sizes), axis=1)), scores[kept], class_ids[kept])


def ssd(outputs: Outputs, spec: HeadSpec, score_threshold: float) -> Candidates:
    """What TensorFlow Lite's detection post-processing gives: it has suppressed overlaps already.

    `boxes` [1, n, 4] are top, left, bottom, right in parts of the model's size, `classes` and `scores` [1, n], `count`
    [1] says how many of the n there are; a label's index is class + class_offset.
    """
    boxes = _squeezed(outputs["boxes"], "ssd", 2)
    classes, scores = outputs["classes"].reshape(-1), outputs["scores"].reshape(-1)
    count = outputs["count"].reshape(-1)
    if boxes.shape[1] != 4 or not len(boxes) == len(classes) == len(scores) or len(count) != 1:
        shapes = " ".join(str(list(outputs[role].shape)) for role in ("boxes", "classes", "scores", "count"))
        raise EngineError(f"head ssd expects boxes [1, n, 4], classes [1, n], scores [1, n] and count [1], got {shapes}")
    _check_finite(count)
    found = min(max(int(count[0]), 0), len(scores))
    _check_finite(scores[:found])
    kept = np.flatnonzero(scores[:found] >= score_threshold)
    size = np.array(spec.size_wh * 2, np.float32)
    class_ids = _class_ids(classes[kept], spec.class_offset, spec.classes)
    return _candidates(boxes[kept][:, [1, 0, 3, 2]] * size, scores[kept], class_ids)


HEADS: dict[str, Head] = {
    "yolox": yolox,
    "yolov8": yolov8,
    "nanodet": nanodet,
    "fastestdet": fastestdet,
    "ssd": ssd,
    "yolov8-pose": yolov8_pose,
}
"""The card's `head` → how it is decoded."""


@lru_cache(maxsize=8)
def grid(size_wh: tuple[int, int], strides: tuple[int, ...]) -> tuple[Float32, Float32]:
    """Column and row [cells, 2] and stride [cells] of each cell of the grids, row by row, one grid after another."""
    cells, widths = [], []
    for stride in strides:
        columns, rows = -(-size_wh[0] // stride), -(-size_wh[1] // stride)
        x, y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
        cells.append(np.stack((x.ravel(), y.ravel()), axis=1))
        widths.append(np.full(columns * rows, stride, np.float32))
    found = np.concatenate(cells), np.concatenate(widths)
    for array in found:
        array.flags.writeable = False  # everybody gets the same
    return found


def _squeezed(values: Float32, head: str, dimensions: int) -> Float32:
    if values.ndim != dimensions + 1 or values.shape[0] != 1:
        raise _unlike(head, f"a batch of one and {dimensions} dimensions more", values.shape)
    squeezed: Float32 = values[0]
    return squeezed


def _rows(outputs: Outputs, head: str, shape: tuple[int, int]) -> Float32:
    rows = outputs["predictions"]
    if rows.shape != (1, *shape):
        raise _unlike(head, str([1, *shape]), rows.shape)
    return _squeezed(rows, head, 2)


def _unlike(head: str, expected: str, actual: tuple[int, ...]) -> EngineError:
    return EngineError(
        f"head {head} expects {expected}, the model gives {list(actual)}; correct size, strides or labels in the card"
    )


def _class_ids(numbers: Float32, offset: int, classes: int) -> Int64:
    """Class numbers as label indices. Raises EngineError for one without a label."""
    _check_finite(numbers)
    ids = np.rint(numbers).astype(np.int64) + offset
    if len(ids) and not (ids.min() >= 0 and ids.max() < classes):
        stray = int(ids[(ids < 0) | (ids >= classes)][0])
        raise EngineError(
            f"the model gives a class that would be label {stray} of {classes}; correct class_offset or the labels"
        )
    return ids


def _candidates(boxes_xyxy: Float32, scores: Float32, class_ids: npt.NDArray[np.intp]) -> Candidates:
    _check_finite(boxes_xyxy)
    _check_finite(scores)
    return Candidates(
        boxes_xyxy.astype(np.float32, copy=False), scores.astype(np.float32, copy=False), class_ids.astype(np.int64, copy=False)
    )


def _check_finite(values: Float32) -> None:
    if not np.isfinite(values.sum()):  # one that is not makes the sum so
        raise EngineError("the model gives detections that are not finite; choose another --variant")
