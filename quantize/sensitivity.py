"""Which layers' rounding disturbs the outputs most: each is quantized alone, all others left in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter

from edge.types import Float32
from quantize.blocks import Block, Operator, blocks
from quantize.calibrate import Ranges
from quantize.fake import FakeQuantized, Placement, observe, place
from quantize.graph import WEIGHTED


def graph_blocks(graph: GraphModule) -> list[Block]:
    """The graph's nodes as blocks, each layer under its node's name."""
    operators = []
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        reads = tuple(read.name for read in node.all_input_nodes if read.op != "get_attr")
        layer = node.name if node.target in WEIGHTED else ""
        operators.append(Operator(node.name, str(node.target), reads, (node.name,), layer))
    return blocks(operators)


def layer_noise(
    graph: GraphModule,
    inputs: Sequence[Tensor],
    limit: int,
    noise: Callable[[Sequence[Float32]], float],
    tick: Callable[[int, int], bool] = lambda done, of: True,
) -> dict[str, float]:
    """Layer → noise over signal of the outputs when it alone runs in integers, weights up to `limit`.

    `inputs` are the pictures [1, 3, h, w] whose float outputs `noise` compares with. `tick` hears how many layers are
    done and may end it, by False: the layers not reached are missing.
    """
    members = graph_blocks(graph)
    everything = {name for block in members for name in block.operators}
    placements = [place(graph, everything - set(block.operators)) for block in members]
    ranged = frozenset[str]().union(*(placement.ranged for placement in placements))
    ranges: Ranges = observe(graph, Placement(frozenset(), {name: name for name in ranged}, frozenset(), frozenset()), inputs)
    exact = [environment(graph, value) for value in inputs]
    found: dict[str, float] = {}
    for index, block in enumerate(members):
        if not tick(index, len(members)):
            break
        rounded = FakeQuantized(graph, limit, ranges, everything - set(block.operators))
        found[block.layer] = noise([_changed(rounded, block, before) for before in exact])
    return found


def environment(graph: GraphModule, value: Tensor) -> dict[str, Any]:
    """Every node's float value for one input."""
    interpreter = Interpreter(graph, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(value)
    return {node.name: result for node, result in interpreter.env.items()}


def _changed(rounded: FakeQuantized, block: Block, exact: dict[str, Any]) -> Float32:
    """The output when this block is rounded: only what comes after it is computed again."""
    assert isinstance(rounded.module, GraphModule)
    nodes = list(rounded.module.graph.nodes)
    changed = set(block.operators)
    rounded.env = {node: exact[node.name] for node in nodes if node.name in exact}
    for node in nodes:
        if node.name in changed or any(read.name in changed for read in node.all_input_nodes):
            changed.add(node.name)
            with torch.no_grad():
                rounded.env[node] = rounded.run_node(node)
    output: Float32 = _only(rounded.env[nodes[-1]]).numpy()
    return output


def _only(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
