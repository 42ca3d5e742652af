"""ONNX's Resize and Upsample as torch, in every coordinate system that exporters write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from quantize.onnx_module import Array, Constant, Node, Value, tensor

Kernel = Callable[[Array], Array]

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS: dict[str, Kernel] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - np.float32(0.5)),
    "round_prefer_ceil": lambda at: np.floor(at + np.float32(0.5)),
}


def resize(node: Node, value: Value, *more: Value) -> Tensor:
    """Resize of any operator set, and Upsample. Coordinates are as in the ONNX specification of Resize."""
    x = tensor(value)
    shape = [int(size) for size in x.shape]
    axes = [axis % len(shape) for axis in node.attribute("axes", range(len(shape)))]
    scales, sizes = _resize_target(node, more)
    if len(shape) != 4 or node.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise node.refused("resizes by an aspect ratio, or what is not [n, c, h, w]")
    full: list[tuple[int, float]] = [(size, 1.0) for size in shape]
    for i, axis in enumerate(axes):
        if axis == 0:  # the batch, however many there are
            continue
        if sizes:
            full[axis] = (sizes[i], sizes[i] / shape[axis])
        elif scales:
            full[axis] = (_scaled(shape[axis], scales[i]), scales[i])
    if full[1][0] != shape[1]:
        raise node.refused("resizes channels")
    return _resized(node, x, full)


def _resize_target(node: Node, more: Sequence[Value]) -> tuple[list[float] | None, list[int] | None]:
    if node.step.op == "Upsample" or len(more) == 1:
        given = more[0] if more else None
        found = given.array.reshape(-1).tolist() if isinstance(given, Constant) else node.attribute("scales")
        if found is None or (given is not None and not isinstance(given, Constant)):
            raise node.refused("computes its scales while it runs")
        return [float(scale) for scale in found], None
    for given in more[1:3]:
        if given is not None and not isinstance(given, Constant):
            raise node.refused("computes its size while it runs")
    if len(more) > 2 and isinstance(more[2], Constant) and more[2].array.size:
        return None, more[2].integers()
    assert isinstance(more[1], Constant)
    return [float(scale) for scale in more[1].array.reshape(-1)], None


def _resized(node: Node, x: Tensor, full: Sequence[tuple[int, float]]) -> Tensor:
    mode = node.attribute("mode", b"nearest").decode()
    is_old = node.step.op == "Upsample" or node.opset < 11
    how = "asymmetric" if is_old else node.attribute("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = "floor" if is_old else node.attribute("nearest_mode", b"round_prefer_floor").decode()
    if how not in COORDINATES or node.attribute("antialias", 0) or node.attribute("exclude_outside", 0):
        raise node.refused(f"has coordinate_transformation_mode {how!r}, antialias or exclude_outside")
    sizes = (int(x.shape[2]), int(x.shape[3]))
    resized = (full[2][0], full[3][0])
    rows, columns = (_coordinates(size, *to, how) for size, to in zip(sizes, full[2:], strict=True))
    if mode == "nearest":
        return _nearest(node, x, ROUNDINGS[rounding](rows), ROUNDINGS[rounding](columns))
    if mode == "linear" and how != "asymmetric" and min(resized) > 1:
        is_exact = all(scale == new / old for old, (new, scale) in zip(sizes, full[2:], strict=True))
        if is_exact or how == "align_corners":
            return F.interpolate(x, resized, mode="bilinear", align_corners=how == "align_corners")
    kernel = _linear if mode == "linear" else _cubic(node.attribute("cubic_coeff_a", -0.75))
    across = node.buffer("columns", lambda: _matrix(columns, sizes[1], kernel).T)
    return torch.matmul(torch.matmul(node.buffer("rows", lambda: _matrix(rows, sizes[0], kernel)), x), across)


def _nearest(node: Node, x: Tensor, rows: Array, columns: Array) -> Tensor:
    is_as_torch = True
    indices = []
    for axis, at in ((2, rows), (3, columns)):
        size = int(x.shape[axis])
        indices.append(at.clip(0, size - 1).astype(np.int64))
        is_as_torch &= np.array_equal(indices[-1], np.arange(len(at)) * size // len(at))
    if is_as_torch:
        return F.interpolate(x, (len(rows), len(columns)), mode="nearest")
    down = x.index_select(2, node.buffer("rows", lambda: indices[0]))
    return down.index_select(3, node.buffer("columns", lambda: indices[1]))


def _scaled(size: int, scale: float) -> int:
    return int(np.floor(np.float32(size) * np.float32(scale)))


def _coordinates(size: int, resized: int, scale: float, how: str) -> Array:
    """Where each of `resized` elements lies among `size`; in float32, as ONNX Runtime rounds."""
    at: Array = np.arange(resized, dtype=np.float32)
    if how == "align_corners":
        at = at * np.float32(size - 1) / np.float32(max(resized - 1, 1))
    elif how == "asymmetric":
        at = at / np.float32(scale)
    elif how == "half_pixel" or resized > 1:
        at = (at + np.float32(0.5)) / np.float32(scale) - np.float32(0.5)
    return at


def _linear(distance: Array) -> Array:
    near: Array = np.clip(1 - np.abs(distance), 0, None)
    return near


def _cubic(a: float) -> Kernel:
    """Keys, 1981, "Cubic convolution interpolation for digital image processing"."""

    def kernel(distance: Array) -> Array:
        d = np.abs(distance)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return kernel


def _matrix(at: Array, size: int, kernel: Kernel) -> Array:
    """Interpolation along one axis as a matrix [resized, size]; elements beyond an edge are the edge's."""
    matrix: Array = np.zeros((len(at), size), np.float32)
    for offset in (-1, 0, 1, 2):
        index = np.floor(at) + offset
        np.add.at(matrix, (np.arange(len(at)), index.clip(0, size - 1).astype(int)), kernel(at - index))
    return matrix
