"""Weights rounded so that each layer's output, not each weight, stays what it was; once for each width of weights.

The rounding is written back into a float graph whose weights lie on the integer grid, so every quantizer that takes
its scale from the largest weight of a channel finds the same integers again: ONNX and LiteRT share this work.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.nn import functional

from quantize.graph import ATEN, WEIGHTED, layers, set_weight_and_bias, weight_and_bias
from quantize.quiet import quiet

DAMPING = 0.01
BLOCK = 64
MOST_FEATURES = 8192
"""Of a layer with more, only the mean is taken: the second moment of VGG16's largest layer would fill 2.5 GB."""
WIDE = 1536
POSITIONS = 256
"""So many positions of a picture, evenly spaced, stand for all where a layer has more than `WIDE` features."""


class LayerInputs(Interpreter):
    """Runs a graph and sums, for each layer, what its output depends on: input patches' second moment and mean.

    Arrays are [groups, features, features] and [groups, features]; a feature is one weight's input. Layers of more than
    `MOST_FEATURES` have no second moment.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.second_moment: dict[str, Tensor] = {}
        self.mean: dict[str, Tensor] = {}
        self._positions: dict[str, int] = {}

    def observe(self, inputs: Iterable[Tensor]) -> LayerInputs:
        """Run each input [1, 3, h, w] and average over all positions of all inputs."""
        with torch.no_grad():
            for value in inputs:
                self.run(value)
        for name, positions in self._positions.items():
            self.mean[name] /= positions
            if name in self.second_moment:
                self.second_moment[name] /= positions
        return self

    def run_node(self, n: Node) -> Any:
        """Run one node of the graph, noting what a layer is fed."""
        if n.target in WEIGHTED:
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            patches = patches_of(n, arguments)
            if patches.shape[2] > WIDE:
                patches = patches[:, :: -(-patches.shape[1] // POSITIONS)]
            total = patches.sum(1)
            self.mean[n.name] = self.mean[n.name] + total if n.name in self._positions else total
            if patches.shape[2] <= MOST_FEATURES:
                moment = patches.transpose(1, 2) @ patches
                self.second_moment[n.name] = self.second_moment[n.name] + moment if n.name in self._positions else moment
            self._positions[n.name] = self._positions.get(n.name, 0) + patches.shape[1]
        return super().run_node(n)


def patches_of(layer: Node, arguments: tuple[Any, ...]) -> Tensor:
    """What each output position of a layer sees: [groups, positions, features]."""
    value, weight = arguments[0], arguments[1]
    if layer.target == ATEN.linear.default:
        return value.reshape(1, -1, value.shape[-1])  # type: ignore[no-any-return]
    defaults: tuple[Any, ...] = (None, (1, 1), (0, 0), (1, 1), 1)
    options = arguments[2:] + defaults[len(arguments) - 2 :]
    _, stride, padding, dilation, groups = options
    kernel = weight.shape[2:]
    unfolded = functional.unfold(value, kernel, dilation, padding, stride)
    return unfolded.reshape(groups, -1, unfolded.shape[-1]).transpose(1, 2)


def on_grid(graph: GraphModule, inputs: LayerInputs | None, limit: int, float_layers: Collection[str] = ()) -> GraphModule:
    """A copy whose weights are integers in [-limit, limit] times a scale for each output channel.

    With `inputs`, each layer's output stays what it was as far as it can, and each bias takes up the mean of what
    rounding did to its channel. Without, each weight is rounded to the nearest. `float_layers` are left as they are.
    """
    with quiet():  # torch warns of its own pickling
        rounded = copy.deepcopy(graph)
    for layer in layers(rounded):
        weight, bias = weight_and_bias(rounded, layer)
        if layer.name in float_layers:
            set_weight_and_bias(rounded, layer, weight, bias)
            continue
        if inputs is None:
            scale = nearest_scale(weight, limit)
            set_weight_and_bias(rounded, layer, torch.round(weight / scale) * scale, bias)
            continue
        moment, mean = inputs.second_moment.get(layer.name), inputs.mean[layer.name]
        rows = weight.reshape(mean.shape[0], -1, mean.shape[-1])
        if moment is None:
            scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-12) / limit
            integers = torch.round(rows / scale)
        else:
            integers, scale = round_weights(rows, moment, limit)
        close = (integers * scale).to(weight.dtype)
        shift = ((rows - close) @ mean.unsqueeze(-1)).reshape(-1)
        set_weight_and_bias(rounded, layer, close.reshape(weight.shape), bias + shift)
    rounded.recompile()
    return rounded


def nearest_scale(weight: Tensor, limit: int) -> Tensor:
    """The scale [outputs, 1, ...] at which each output channel's largest weight is `limit`."""
    return weight.abs().flatten(1).amax(1).clamp_min(1e-12).reshape(-1, *[1] * (weight.dim() - 1)) / limit


def round_weights(weight: Tensor, moment: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Integers and scales for `weight` [groups, outputs, features], given its inputs' second moment.

    Features are rounded one by one, largest input first, and what is left of each error is made good by the features
    still to come: GPTQ (Frantar et al., ICLR 2023). Returns float64 integers like `weight`, and scales [groups, outputs, 1].
    """
    values, hessian = weight.double(), moment.double().clone()
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    diagonal += DAMPING * diagonal.mean(-1, keepdim=True) + 1e-9
    scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-12) / limit
    order = torch.argsort(diagonal.mean(0), descending=True)
    rest, hessian = values[..., order], hessian[:, order][:, :, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse).mT
    integers = torch.empty_like(rest)
    for start in range(0, rest.shape[-1], BLOCK):
        block = slice(start, min(start + BLOCK, rest.shape[-1]))
        errors = torch.zeros_like(rest[..., block])
        for column in range(block.start, block.stop):
            one = slice(column, column + 1)
            integers[..., one] = torch.clamp(torch.round(rest[..., one] / scale), -limit, limit)
            error = (rest[..., one] - integers[..., one] * scale) / upper[:, one, one]
            rest[..., column : block.stop] -= error * upper[:, one, column : block.stop]
            errors[..., column - start : column - start + 1] = error
        rest[..., block.stop :] -= errors @ upper[:, block, block.stop :]
    integers = integers[..., torch.argsort(order)]
    # the largest weight of a channel stands at the limit, so that min-max quantizers find this very scale
    largest = values.abs().argmax(-1, keepdim=True)
    integers.scatter_(-1, largest, torch.sign(values.gather(-1, largest)) * limit)
    return integers, scale
