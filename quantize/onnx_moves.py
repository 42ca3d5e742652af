"""ONNX operators that only move data, as torch: padding, slicing, joining, reshaping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from quantize.onnx_module import Constant, Node, Operator, Value, tensor


def pad(node: Node, value: Value, pads: Value = None, fill: Value = None, axes: Value = None) -> Tensor:
    x = tensor(value)
    given = node.integers("pads", pads)
    assert given is not None
    chosen = [axis % x.dim() for axis in node.integers("axes", axes) or range(x.dim())]
    before, after = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = given[i], given[i + len(chosen)]
    mode = node.attribute("mode", b"constant").decode()
    first = next((axis for axis in range(x.dim()) if before[axis] or after[axis]), None)
    if first is None:
        return x
    amounts = [amount for axis in reversed(range(first, x.dim())) for amount in (before[axis], after[axis])]
    if mode == "constant":
        number = fill.array.item() if isinstance(fill, Constant) and fill.array.size else node.attribute("value", 0.0)
        if fill is not None and not isinstance(fill, Constant):
            raise node.refused("computes its padding value while it runs")
        return F.pad(x, amounts, value=number)
    if mode not in ("reflect", "edge") or first < x.dim() - 2 or x.dim() < 3 or min(amounts) < 0:
        raise node.refused(f"pads axis {first} by {mode!r}")
    amounts += [0] * (2 * (x.dim() - 2) - len(amounts)) if x.dim() <= 4 else []
    return F.pad(x, amounts, mode="reflect" if mode == "reflect" else "replicate")


def concat(node: Node, *values: Value) -> Tensor:
    return torch.cat([tensor(value) for value in values], node.attribute("axis", 1))


def split(node: Node, value: Value, sizes: Value = None) -> Sequence[Tensor]:
    x = tensor(value)
    axis = node.attribute("axis", 0)
    given = node.integers("split", sizes)
    if given is None:
        parts = len(node.step.outputs)
        each = -(-x.shape[axis] // parts)
        return torch.split(x, each, axis)
    return torch.split(x, given, axis)


def slice_(
    node: Node, value: Value, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None
) -> Tensor:
    x = tensor(value)
    begin, end = node.integers("starts", starts), node.integers("ends", ends)
    assert begin is not None
    assert end is not None
    chosen = node.integers("axes", axes) or list(range(len(begin)))
    every = node.integers("steps", steps) or [1] * len(begin)
    for axis, first, last, step in zip(chosen, begin, end, every, strict=True):
        length = x.shape[axis]
        picked = range(*slice(first, last if step > 0 or last >= -length else None, step).indices(length))
        x = _take(x, axis, picked)
    return x


def _take(x: Tensor, axis: int, picked: range) -> Tensor:
    """The elements of an arithmetic progression along an axis."""
    if picked.step < 0:
        return _take(x, axis, picked[::-1]).flip(axis)
    if len(picked) == x.shape[axis]:
        return x
    at = [slice(None)] * (axis % x.dim()) + [slice(picked.start, picked.stop, picked.step)]
    return x[tuple(at)]


def gather(node: Node, value: Value, indices: Value) -> Tensor:
    x = tensor(value)
    axis = node.attribute("axis", 0) % x.dim()
    if not isinstance(indices, Constant):
        at = tensor(indices)
        flat = x.index_select(axis, torch.where(at < 0, at + x.shape[axis], at).reshape(-1))
        return flat.reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])
    array = np.where(indices.array < 0, indices.array + x.shape[axis], indices.array).astype(np.int64)
    if array.ndim == 0:
        return x.select(axis, int(array))
    flat_array = array.reshape(-1)
    step = int(flat_array[1] - flat_array[0]) if array.size > 1 else 1
    picked = range(int(flat_array[0]), int(flat_array[0]) + step * array.size, step) if step > 0 else range(0)
    if array.size and np.array_equal(flat_array, np.array(picked, np.int64)):
        y = _take(x, axis, picked)
    else:
        y = x.index_select(axis, node.buffer("index", lambda: flat_array))
    return y if array.ndim == 1 else y.reshape(*x.shape[:axis], *array.shape, *x.shape[axis + 1 :])


def gather_elements(node: Node, value: Value, indices: Value) -> Tensor:
    x, at = tensor(value), tensor(indices)
    axis = node.attribute("axis", 0) % x.dim()
    return torch.gather(x, axis, torch.where(at < 0, at + x.shape[axis], at))


def gather_nd(node: Node, value: Value, indices: Value) -> Tensor:
    if node.attribute("batch_dims", 0):
        raise node.refused("has batch dimensions")
    found: Tensor = tensor(value)[tensor(indices).unbind(-1)]
    return found


def scatter_nd(node: Node, value: Value, indices: Value, updates: Value) -> Tensor:
    if node.attribute("reduction", b"none") != b"none":
        raise node.refused("reduces what it scatters")
    return tensor(value).index_put(tensor(indices).unbind(-1), tensor(updates))


def reshape(node: Node, value: Value, shape: Value = None) -> Tensor:
    """A leading 1 stands for the batch where the value has one, too."""
    x = tensor(value)
    target = node.integers("shape", shape)
    assert target is not None
    if not node.attribute("allowzero", 0):
        target = [x.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return x.reshape(_with_batch(node, x, target))


def _with_batch(node: Node, x: Tensor, target: list[int]) -> list[int]:
    if target and target[0] == 1 and x.dim() and node.attribute("batch_first", 0):
        return [x.shape[0], *target[1:]]
    return target


def flatten(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    axis = node.attribute("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    return x.flatten(0, axis - 1).flatten(1) if axis < x.dim() else x.reshape(-1, 1)


def transpose(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    return x.permute(node.attribute("perm", list(reversed(range(x.dim())))))


def squeeze(node: Node, value: Value, axes: Value = None) -> Tensor:
    x = tensor(value)
    given = node.integers("axes", axes)
    return x.squeeze() if given is None else x.squeeze([axis % x.dim() for axis in given])


def unsqueeze(node: Node, value: Value, axes: Value = None) -> Tensor:
    x = tensor(value)
    given = node.integers("axes", axes)
    assert given is not None
    rank = x.dim() + len(given)
    for axis in sorted(axis % rank for axis in given):
        x = x.unsqueeze(axis)
    return x


def expand(node: Node, value: Value, shape: Value) -> Tensor:
    x = tensor(value)
    target = node.integers("shape", shape)
    assert target is not None
    rank = max(x.dim(), len(target))
    sizes, wanted = [1] * (rank - x.dim()) + list(x.shape), [1] * (rank - len(target)) + target
    return x.expand([size if want == 1 else want for size, want in zip(sizes, wanted, strict=True)])


def tile(node: Node, value: Value, repeats: Value) -> Tensor:
    given = node.integers("repeats", repeats)
    assert given is not None
    return tensor(value).repeat(given)


def depth_to_space(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    n, c, h, w = x.shape
    b = node.attribute("blocksize")
    if node.attribute("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, b)
    return x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    n, c, h, w = x.shape
    b = node.attribute("blocksize")
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


MOVES: dict[str, Operator] = {
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Identity": lambda node, value: tensor(value),
    "Pad": pad,
    "Reshape": reshape,
    "ScatterND": scatter_nd,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
