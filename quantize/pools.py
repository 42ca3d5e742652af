"""Pooling as every engine has it in integers: padding of zeros apart, adaptive means as plain ones or as weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from quantize.graph import ATEN, set_weight_and_bias, weight_and_bias

KEEP_SIGN = (
    ATEN.max_pool2d.default,
    ATEN.avg_pool2d.default,
    ATEN.cat.default,
    ATEN.dropout.default,
    ATEN.constant_pad_nd.default,
)
"""What they make is never negative when nothing that they read is."""
BETWEEN = (ATEN.dropout.default, ATEN.flatten.using_ints, ATEN.view.default, ATEN.reshape.default)
"""What may stand between an adaptive mean and the linear layer that takes it up."""


def pad_before_pool(graph: GraphModule, pool: Node) -> None:
    """Let a maximum over what is never negative pad with zeros: LiteRT would pad with minus infinity.

    Minus infinity has no 8-bit scale. A window that `ceil_mode` lets reach over the end is padded, too.
    """
    value, kernel, stride, padding, dilation, ceil_mode = (*pool.args, *(None,) * 4)[:6]
    if not isinstance(value, Node) or dilation not in (None, [1, 1], 1) or not _is_never_negative(value):
        return
    size = value.meta["val"].shape[-2:]
    kernels = _two(kernel)
    sides: list[tuple[int, int]] = []
    for length, window, step, pad in zip(size, kernels, _two(stride or kernel), _two(padding or 0), strict=True):
        made = pool.meta["val"].shape[-2 + len(sides)]
        sides.append((pad, max((made - 1) * step + window - length - pad, 0)))
    if not ceil_mode and not any(pad for pad, _ in sides):
        return
    if any(any(side) for side in sides):
        (top, bottom), (left, right) = sides
        with graph.graph.inserting_before(pool):
            padded = graph.graph.call_function(ATEN.constant_pad_nd.default, (value, [left, right, top, bottom], 0.0))
        padded.meta["val"] = functional.pad(value.meta["val"], (left, right, top, bottom))
        value = padded
    pool.args = (value, list(kernels), _two(stride or kernel), [0, 0])


def _is_never_negative(node: Node) -> bool:
    if node.target in (ATEN.relu.default, ATEN.sigmoid.default):
        return True
    if node.target in (ATEN.hardtanh.default, ATEN.clamp.default):
        low = node.args[1] if len(node.args) > 1 else -1.0
        return isinstance(low, (int, float)) and low >= 0
    return node.target in KEEP_SIGN and all(_is_never_negative(read) for read in node.all_input_nodes)


def plain_mean(graph: GraphModule, pool: Node) -> None:
    """Replace an adaptive mean to more than one value: by nothing, by windows of one size, or by the next layer's weights."""
    value = pool.args[0]
    assert isinstance(value, Node)
    (height, width), (rows, columns) = value.meta["val"].shape[-2:], pool.meta["val"].shape[-2:]
    if (rows, columns) == (1, 1):
        return
    if (rows, columns) == (height, width):
        pool.replace_all_uses_with(value)
    elif height % rows == 0 and width % columns == 0:
        window = [height // rows, width // columns]
        pool.target, pool.args = ATEN.avg_pool2d.default, (value, window, window)
    else:
        _into_linear(graph, pool, value)


def _into_linear(graph: GraphModule, pool: Node, value: Node) -> None:
    """Let the linear layer that alone reads a mean read what was averaged: a mean's weights times its own."""
    between, reader = [], pool
    while len(reader.users) == 1 and reader.target != ATEN.linear.default:
        [reader] = reader.users
        between.append(reader)
    if reader.target != ATEN.linear.default or any(node.target not in BETWEEN for node in between[:-1]):
        return
    (channels, height, width), (rows, columns) = value.meta["val"].shape[-3:], pool.meta["val"].shape[-2:]
    weight, bias = weight_and_bias(graph, reader)
    if weight.shape[1] != channels * rows * columns:
        return
    spread = torch.einsum(
        "ocij,ih,jw->ochw", weight.reshape(-1, channels, rows, columns), _shares(height, rows), _shares(width, columns)
    )
    pool.replace_all_uses_with(value)
    for node in between[:-1]:
        if node.target in (ATEN.view.default, ATEN.reshape.default):
            node.args = (node.args[0], [value.meta["val"].shape[0], -1])
    set_weight_and_bias(graph, reader, spread.flatten(1), bias)


def _shares(length: int, parts: int) -> Tensor:
    """How much of each of `length` values an adaptive mean to `parts` takes: [parts, length]."""
    return functional.adaptive_avg_pool1d(torch.eye(length), parts).T


def _two(value: Any) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * 2 if len(values) == 1 else values
