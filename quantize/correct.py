"""Each layer fitted anew to what quantization makes of its inputs, so that its outputs stay the float network's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from quantize.calibrate import Ranges
from quantize.equalize import Unit, equalized
from quantize.fake import FakeQuantized, observe, place
from quantize.graph import WEIGHTED, weight_and_bias
from quantize.rounding import MOST_FEATURES, nearest_scale, patches_of, round_weights

RIDGE = 0.5
"""How strongly weights are held where they were, as a share of each input's variance."""
EQUALIZED_ON = 16
"""Pictures that show how loud each channel is."""


def corrected(
    graph: GraphModule,
    inputs: Iterable[Tensor],
    *,
    limit: int,
    ranges: Mapping[str, tuple[float, float]],
    float_nodes: Collection[str] = (),
    teacher: GraphModule | None = None,
    units: Mapping[str, Unit] | None = None,
    weights: bool = True,
) -> GraphModule:
    """A copy of `graph` whose integer layers give for rounded inputs what the teacher's give for exact ones.

    One layer after the other, in the order they run, each on what the layers before it have become. The bias takes up the
    mean of each channel's difference (empirical bias correction, Nagel et al., ICCV 2019); with `weights`, ridge
    regression on the rounded inputs first takes up what is linear in them, and the weights are put on the integer grid
    with regard to those inputs (as in quantize.rounding). The teacher is the graph itself in
    float; or, when the graph was equalized, what it was before, with the `units` that its layers have now.
    `inputs` [1, 3, h, w] are all kept in memory at once. `limit`, `ranges` and `float_nodes` as in FakeQuantized.
    """
    student = FakeQuantized(graph, limit, ranges, float_nodes)
    pictures = list(inputs)
    exact = _Lockstep(Interpreter(graph if teacher is None else teacher), pictures)
    close = _Lockstep(student, pictures)
    with torch.no_grad():
        for node in close.nodes():
            if node.target in WEIGHTED and node.name in student.placement.integer:
                reference = exact.upto(node.name)
                weight, bias = weight_and_bias(exact.graph, reference)
                if units is not None and node.name in units:
                    unit = units[node.name]
                    weight = weight * unit.gain.reshape(-1, *[1] * (weight.dim() - 1))
                    bias = bias * unit.gain + unit.shift
                fit = _Fit()
                read = reference.all_input_nodes[0], node.all_input_nodes[0]
                for wanted, given in zip(exact.values(read[0]), close.values(read[1]), strict=True):
                    fit.add(
                        patches_of(reference, (wanted, weight, None, *reference.args[3:])),
                        patches_of(node, (student.enter(node, given), weight, None, *node.args[3:])),
                    )
                start = student.weight_and_bias(node.name)[0]
                student.set_weight_and_bias(node.name, *fit.solve(weight, bias, start, limit if weights else None))
            close.run(node)
    return student.network()


@dataclass(frozen=True, slots=True, eq=False)
class Repaired:
    """A graph that loses less when it is rounded, and the ranges to round it to, by node name."""

    graph: GraphModule
    ranges: Ranges


def repaired(graph: GraphModule, inputs: Sequence[Tensor], *, limit: int, float_nodes: Collection[str] = ()) -> Repaired:
    """The graph equalized and then corrected, each as seen on `inputs` [1, 3, h, w]: all that can be done without training."""
    placement = place(graph, float_nodes)
    ranges = observe(graph, placement, inputs)
    louder, units = equalized(graph, inputs[:EQUALIZED_ON], ranges)
    ranges = observe(louder, placement, inputs)
    better = corrected(louder, inputs, limit=limit, ranges=ranges, float_nodes=float_nodes, teacher=graph, units=units)
    return Repaired(better, ranges)


class _Lockstep:
    """Runs a graph node by node, each for all inputs before the next, and forgets what is not read again."""

    def __init__(self, interpreter: Interpreter, inputs: list[Tensor]) -> None:
        assert isinstance(interpreter.module, GraphModule)
        self.graph = interpreter.module
        self._interpreter = interpreter
        self._inputs = inputs
        self._environments: list[dict[Node, Any]] = [{} for _ in inputs]
        self._rest = self.nodes()

    def nodes(self) -> Iterator[Node]:
        """The graph's nodes but the output, in their order."""
        return iter([node for node in self.graph.graph.nodes if node.op != "output"])

    def upto(self, name: str) -> Node:
        """Run what comes before the node of this name and return it; the last one returned runs first."""
        for node in self._rest:
            if node.name == name:
                self._rest = iter([node, *self._rest])
                return node
            self.run(node)
        raise KeyError(name)

    def values(self, node: Node) -> list[Tensor]:
        """What a node gave for each input."""
        return [environment[node] for environment in self._environments]

    def run(self, node: Node) -> None:
        """Run one node for all inputs."""
        for environment, value in zip(self._environments, self._inputs, strict=True):
            self._interpreter.env = environment
            environment[node] = value if node.op == "placeholder" else self._interpreter.run_node(node)
            for read in self._interpreter.user_to_last_uses.get(node, []):
                del environment[read]


class _Fit:
    """Moments of a layer's exact and rounded input patches, and the weights that map one to what the other gave.

    Of a layer with more than `MOST_FEATURES`, the first moments alone: its weights are rounded to the nearest.
    """

    def __init__(self) -> None:
        self._positions = 0
        self._sums: list[Tensor] = []

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        """Take in one picture's patches, each [groups, positions, features]."""
        exact, rounded = exact.double(), rounded.double()
        sums = [exact.sum(1), rounded.sum(1)]
        if exact.shape[2] <= MOST_FEATURES:
            sums += [exact.mT @ rounded, rounded.mT @ rounded]
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._positions += exact.shape[1]

    def solve(self, wanted: Tensor, bias: Tensor, start: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
        """Weight and bias that give for rounded patches what `wanted` and `bias` give for exact ones.

        Without a `limit` the weight is `start`; with one it moves from there, no further than it has to, onto the grid.
        """
        exact, rounded, *second = (total / self._positions for total in self._sums)
        groups, features = exact.shape
        target = wanted.double().reshape(groups, -1, features)
        weight = start.double().reshape(groups, -1, features)
        if limit is not None and not second:
            scale = nearest_scale(start, limit).double().reshape(groups, -1, 1)
            weight = torch.round(weight / scale) * scale
        elif limit is not None:
            cross, moment = second
            moment = moment - rounded.unsqueeze(2) * rounded.unsqueeze(1)
            cross = cross - exact.unsqueeze(2) * rounded.unsqueeze(1)
            missed = target @ cross - weight @ moment
            variance = moment.diagonal(dim1=1, dim2=2)
            held = RIDGE * variance + 1e-6 * variance.mean(-1, keepdim=True) + 1e-12
            weight = weight + torch.linalg.solve(moment + torch.diag_embed(held), missed, left=False)
            integers, scale = round_weights(weight, moment, limit)
            weight = integers * scale
        shift = (target @ exact.unsqueeze(2) - weight @ rounded.unsqueeze(2)).reshape(-1)
        return weight.reshape(wanted.shape).to(wanted.dtype), (bias.double() + shift).to(bias.dtype)
