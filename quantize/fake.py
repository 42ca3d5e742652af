"""Fake quantization: a float graph that computes what an int8 engine computes, and that gradients pass through."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from quantize.calibrate import LEVELS, Observer, Ranges, silu
from quantize.graph import ATEN, WEIGHTED, layers, set_weight_and_bias, weight_and_bias
from quantize.quiet import quiet

ACTIVATIONS = (ATEN.relu.default, ATEN.relu_.default, ATEN.clamp.default, ATEN.hardtanh.default, ATEN.hardtanh_.default)
"""What an engine does for free while it rounds a sum."""

FUSES = (*WEIGHTED, ATEN.add.Tensor)

ARITHMETIC = (
    ATEN.add.Tensor,
    ATEN.mul.Tensor,
    ATEN.cat.default,
    ATEN.sigmoid.default,
    ATEN.silu.default,
    ATEN.leaky_relu.default,
    ATEN.mean.dim,
    ATEN.adaptive_avg_pool2d.default,
)
"""Operators that engines have in integers, with a scale of their own for what comes out."""

CARRYING = (
    *ACTIVATIONS,
    ATEN.max_pool2d.default,
    ATEN.avg_pool2d.default,
    ATEN.upsample_nearest2d.vec,
    ATEN.upsample_nearest2d.default,
    ATEN.reshape.default,
    ATEN.view.default,
    ATEN.flatten.using_ints,
    ATEN.permute.default,
    ATEN.transpose.int,
    ATEN.squeeze.dim,
    ATEN.squeeze.dims,
    ATEN.unsqueeze.default,
    ATEN.slice.Tensor,
    ATEN.index_select.default,
    ATEN.split.Tensor,
    ATEN.split_with_sizes.default,
    ATEN.chunk.default,
    ATEN.clone.default,
    ATEN.contiguous.default,
    ATEN.dropout.default,
    ATEN.constant_pad_nd.default,
    operator.getitem,
)
"""Operators whose output keeps the scale of their input."""

UNIT = "[0, 1]"
"""The name of the range that every sigmoid has."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Which operators of a graph run in integers, and where their tensors are rounded, by node name.

    `rounded` says whose range an integer operator's output is rounded to: its own, or that of the tensor whose scale it keeps.
    `entering` are tensors of float operators that integer operators read: rounded for these alone, to their own range.
    `last` are the integer operators' tensors that float operators read.
    """

    integer: frozenset[str]
    rounded: dict[str, str]
    entering: frozenset[str]
    last: frozenset[str]

    @property
    def ranged(self) -> frozenset[str]:
        """The tensors whose ranges have to be known."""
        return (frozenset(self.rounded.values()) | self.entering) - {UNIT}


def place(graph: GraphModule, float_nodes: Collection[str] = ()) -> Placement:
    """What an engine computes in integers of this graph when the named nodes are left in float.

    Weighted layers do. Between them, so does every operator that engines have in integers and all of whose inputs
    are; what follows the last weighted layer stays float, and so do the sums of a linear layer that comes last. Other
    sums are rounded once, after the activation that alone reads them.
    """
    leads_on = _before_weighted(graph)
    scale_of: dict[str, str] = {}
    integer, fused, entering = set(), set(), set()
    rounded = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.name in float_nodes:
            continue
        tensors = _tensors(node)
        if node.target in WEIGHTED:
            if tensors[0].name not in scale_of:
                entering.add(tensors[0].name)
        elif node.name not in fused:
            is_known = node.target in ARITHMETIC or node.target in CARRYING
            if not (is_known and node.name in leads_on and tensors and all(tensor.name in scale_of for tensor in tensors)):
                continue
        integer.add(node.name)
        activation = _activation(node, float_nodes)
        if activation is not None:
            fused.add(activation.name)
        elif node.target in CARRYING and node.name not in fused:
            scale_of[node.name] = scale_of[tensors[0].name]
            if node.target == ATEN.avg_pool2d.default:
                rounded[node.name] = scale_of[node.name]
        elif node.target != ATEN.linear.default or node.name in leads_on:
            scale_of[node.name] = rounded[node.name] = UNIT if node.target == ATEN.sigmoid.default else node.name
    nodes = {node.name: node for node in graph.graph.nodes}
    last = frozenset(name for name in integer if any(reader.name not in integer for reader in nodes[name].users))
    return Placement(frozenset(integer), rounded, frozenset(entering), last)


def _tensors(node: Node) -> list[Node]:
    """The tensors that a node reads, constants left out."""
    return [read for read in node.all_input_nodes if read.op != "get_attr"]


def _activation(node: Node, float_nodes: Collection[str]) -> Node | None:
    """The activation that an engine fuses into this node."""
    if node.target not in FUSES or len(node.users) != 1:
        return None
    [reader] = node.users
    return reader if reader.target in ACTIVATIONS and reader.name not in float_nodes else None


def _before_weighted(graph: GraphModule) -> frozenset[str]:
    """The nodes whose values reach a later weighted layer."""
    reaching: set[str] = set()
    for node in reversed(graph.graph.nodes):
        if any(reader.target in WEIGHTED or reader.name in reaching for reader in node.users):
            reaching.add(node.name)
    return frozenset(reaching)


class Watching(Interpreter):
    """Runs a graph and keeps the values of the named nodes."""

    def __init__(self, graph: GraphModule, names: Collection[str]) -> None:
        super().__init__(graph)
        self._names = frozenset(names)
        self._seen: dict[str, Tensor] = {}

    def watch(self, value: Tensor) -> dict[str, Tensor]:
        """The named values for an input [1, 3, h, w]."""
        self._seen = {}
        self.run(value)
        return self._seen

    def run_node(self, n: Node) -> Any:
        """Run one node of the graph, keeping its value if it is watched."""
        result = self.compute(n)
        if n.name in self._names:
            self._seen[n.name] = result
        return result

    def compute(self, n: Node) -> Any:
        """The value of one node."""
        return super().run_node(n)


class FakeQuantized(Watching):
    """Runs a copy of a graph with the rounding of an int8 engine; gradients pass it straight through.

    `ranges` holds an interval for each of the placement's ranged tensors, by node name. `limit` is the largest integer weight.
    With `learn_ranges` the intervals are trained too, each end by its own factor: learned step size quantization (Esser et al.,
    ICLR 2020) in the asymmetric form of LSQ+ (Bhalgat et al., CVPR workshops 2020).
    """

    def __init__(
        self,
        graph: GraphModule,
        limit: int,
        ranges: Mapping[str, tuple[float, float]],
        float_nodes: Collection[str] = (),
        learn_ranges: bool = False,
    ) -> None:
        self.placement = place(graph, float_nodes)
        with quiet():  # torch warns of its own pickling
            super().__init__(copy.deepcopy(graph), self.placement.last)
        self._limit = limit
        self._start = {name: ranges[name] for name in self.placement.ranged} | {UNIT: (0.0, 1.0)}
        self.factors: dict[str, nn.Parameter] = {}
        """Logarithms of what the ends of each range are multiplied with: [low, high]."""
        if learn_ranges:
            self.factors = {name: nn.Parameter(torch.zeros(2)) for name in sorted(self.placement.ranged)}
        self._layers: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self.changes: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        """How far each integer layer's weight and bias have moved, in units of their own size."""
        for layer in layers(graph):
            if layer.name in self.placement.integer:
                weight, bias = weight_and_bias(graph, layer)
                self.set_weight_and_bias(layer.name, weight.detach(), bias.detach())

    def weight_and_bias(self, name: str) -> tuple[Tensor, Tensor]:
        """A layer's float weight and bias, as they are trained now."""
        weight, bias, weight_size, bias_size = self._layers[name]
        weight_change, bias_change = self.changes[name]
        largest = weight.abs().flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1))
        moved = torch.minimum(torch.maximum(weight + weight_change * weight_size, -largest), largest)
        return moved, bias + bias_change * bias_size

    def set_weight_and_bias(self, name: str, weight: Tensor, bias: Tensor) -> None:
        """Let a layer go on from this weight and bias."""
        self._layers[name] = weight, bias, _size(weight), bias.square().mean().sqrt() + 1e-6
        self.changes[name] = nn.Parameter(torch.zeros_like(weight)), nn.Parameter(torch.zeros_like(bias))

    def enter(self, layer: Node, value: Tensor) -> Tensor:
        """What an integer layer reads of `value`, its input."""
        [read] = _tensors(layer)
        return self._round(value, read.name) if read.name in self.placement.entering else value

    def network(self) -> GraphModule:
        """The float graph, as it is trained now."""
        assert isinstance(self.module, GraphModule)
        with quiet(), torch.no_grad():
            trained = copy.deepcopy(self.module)
            for layer in layers(trained):
                if layer.name in self._layers:
                    set_weight_and_bias(trained, layer, *self.weight_and_bias(layer.name))
        trained.graph.eliminate_dead_code()
        trained.recompile()
        return trained

    def ranges(self) -> Ranges:
        """The interval of each ranged tensor, as it is trained now."""
        return {name: self._range(name) for name in sorted(self.placement.ranged)}

    def compute(self, n: Node) -> Any:
        """The value of one node, rounded where an engine rounds."""
        if n.name not in self.placement.integer:
            return super().compute(n)
        arguments, options = self.fetch_args_kwargs_from_env(n)
        if n.target in WEIGHTED:
            weight, bias = self.weight_and_bias(n.name)
            arguments = (self.enter(n, arguments[0]), round_weight(weight, self._limit), bias, *arguments[3:])
        if n.target == ATEN.silu.default:
            result = arguments[0] * self._round(torch.sigmoid(arguments[0]), UNIT)
        else:
            result = n.target(*arguments, **options)  # type: ignore[operator]
        return self._round(result, self.placement.rounded[n.name]) if n.name in self.placement.rounded else result

    def _range(self, name: str) -> tuple[float, float]:
        low, high = self._start[name]
        if name not in self.factors:
            return low, high
        shrunk, grown = self.factors[name].exp().tolist()
        return low * shrunk, high * grown

    def _round(self, value: Tensor, name: str) -> Tensor:
        low, high = self._start[name]
        if name not in self.factors:
            return round_value(value, low, high)
        ends = torch.tensor([low, high]) * self.factors[name].exp()
        rounded: Tensor = _RoundLearned.apply(value, ends)  # type: ignore[no-untyped-call]
        return rounded


def _size(weight: Tensor) -> Tensor:
    """By how much each weight is moved: the root mean square of its output channel, zero for the channel's largest.

    That one holds the channel's scale, so that weights on the grid stay there until training takes them off it.
    """
    rows = weight.flatten(1)
    size = (rows.square().mean(1, keepdim=True).sqrt() + 1e-12).expand_as(rows).clone()
    size.scatter_(1, rows.abs().argmax(1, keepdim=True), 0.0)
    return size.reshape(weight.shape)


def scale_and_zero_point(low: float, high: float) -> tuple[float, int]:
    """The step and the integer that stands for zero when 0..255 spans [low, high], zero included and exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / LEVELS, 1e-9)
    return scale, min(max(round(-low / scale), 0), LEVELS)


def round_value(value: Tensor, low: float, high: float) -> Tensor:
    """`value` rounded and clipped to the 256 values that uint8 gives [low, high]; the gradient is 1 within them, 0 beyond."""
    scale, zero_point = scale_and_zero_point(low, high)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, 0, LEVELS)


def round_weight(weight: Tensor, limit: int) -> Tensor:
    """`weight` as integers in [-limit, limit] times a scale for each output channel, its largest weight at the limit."""
    scale = (weight.detach().flatten(1).abs().amax(1) / limit).clamp_min(1e-12)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -limit, limit)


class _RoundLearned(torch.autograd.Function):
    """round_value with a gradient for the ends [low, high] too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ends: Tensor) -> Tensor:
        low, high = ends.tolist()
        rounded = round_value(value, low, high)
        ctx.save_for_backward(value, rounded)
        ctx.ends = low, high
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        [gradient] = gradients
        value, rounded = ctx.saved_tensors
        scale, zero_point = scale_and_zero_point(*ctx.ends)
        below, above = value < (-zero_point - 0.5) * scale, value > (LEVELS - zero_point + 0.5) * scale
        inside = gradient.masked_fill(below | above, 0)
        # within the range the rounding error is proportional to the step
        of_step = float((inside * (rounded - value)).sum()) / scale / LEVELS
        low, high = float(gradient[below].sum()) - of_step, float(gradient[above].sum()) + of_step
        return inside, torch.tensor([low, high])


def observe(graph: GraphModule, placement: Placement, inputs: Iterable[Tensor]) -> Ranges:
    """The interval of each tensor that the placement rounds, from inputs [1, 3, h, w]."""
    nodes = {node.name: node for node in graph.graph.nodes}
    functions = {name: silu for name in placement.ranged if _is_read_as_silu(nodes[name])}
    observer = Observer()
    watching = Watching(graph, placement.ranged)
    with torch.no_grad():
        for value in inputs:
            observer.see({name: tensor.numpy() for name, tensor in watching.watch(value).items()})
    return observer.ranges(functions=functions)


def _is_read_as_silu(node: Node) -> bool:
    readers = {reader.target for reader in node.users}
    return readers in ({ATEN.silu.default}, {ATEN.sigmoid.default, ATEN.mul.Tensor})
