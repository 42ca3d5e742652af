"""A torch network as one flat graph with batch norm folded into its convolutions: what is calibrated and exported."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

ATEN = torch.ops.aten
WEIGHTED = (ATEN.conv2d.default, ATEN.linear.default)


def fold(network: nn.Module, example: Tensor) -> GraphModule:
    """The network's graph for `example` [1, 3, h, w], in evaluation mode, each batch norm folded into its convolution.

    Raises whatever torch.export raises for a network that it cannot capture.
    """
    graph = torch.export.export(network.eval(), (example,)).module(check_guards=False)
    assert isinstance(graph, GraphModule)
    graph.meta["layers"] = {layer.name: _owners_name(layer) for layer in layers(graph)}
    for node in list(graph.graph.nodes):
        if node.target == ATEN.batch_norm.default:
            conv = node.args[0]
            if conv.target == ATEN.conv2d.default and len(conv.users) == 1:
                _fold_batch_norm(graph, conv, node)
        elif node.target == ATEN.max_pool2d.default:
            _pad_before_pool(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def layer_names(graph: GraphModule) -> dict[str, str]:
    """What the network's owner calls each layer: node name → the module's path or the initializer's name."""
    return dict(graph.meta.get("layers", {}))


def layers(graph: GraphModule) -> list[Node]:
    """The convolutions and linear layers, in the order they run."""
    return [node for node in graph.graph.nodes if node.target in WEIGHTED]


def parameter(graph: GraphModule, node: Node) -> Tensor:
    """The tensor that a `get_attr` node reads."""
    value: Tensor = operator.attrgetter(str(node.target))(graph)
    return value


def set_weight_and_bias(graph: GraphModule, layer: Node, weight: Tensor, bias: Tensor) -> None:
    """Give a layer of this graph a weight and bias of its own."""
    nodes = []
    for role, value in (("weight", weight), ("bias", bias)):
        name = f"{layer.name}_{role}"
        setattr(graph, name, nn.Parameter(value.detach().clone(), requires_grad=False))
        with graph.graph.inserting_before(layer):
            nodes.append(graph.graph.get_attr(name))
    layer.args = (layer.args[0], *nodes, *layer.args[3:])


def weight_and_bias(graph: GraphModule, layer: Node) -> tuple[Tensor, Tensor]:
    """A layer's weight and its bias, zeros when it has none."""
    weight = parameter(graph, _node(layer.args[1]))
    bias = layer.args[2] if len(layer.args) > 2 else None
    return weight, weight.new_zeros(weight.shape[0]) if bias is None else parameter(graph, _node(bias))


def _fold_batch_norm(graph: GraphModule, conv: Node, norm: Node) -> None:
    gamma, beta, mean, variance = (parameter(graph, _node(argument)) for argument in norm.args[1:5])
    scale = gamma / torch.sqrt(variance + float(norm.args[7]))  # type: ignore[arg-type]
    weight, bias = weight_and_bias(graph, conv)
    set_weight_and_bias(graph, conv, weight * scale.reshape(-1, 1, 1, 1), (bias - mean) * scale + beta)
    norm.replace_all_uses_with(conv)
    graph.graph.erase_node(norm)


def _owners_name(layer: Node) -> str:
    weight = layer.args[1]
    name = str(weight.target) if isinstance(weight, Node) else layer.name
    return name.removesuffix(".weight").removesuffix("_weight")


def _pad_before_pool(graph: GraphModule, pool: Node) -> None:
    """Let a strided maximum over what is never negative pad with zeros: LiteRT would pad with minus infinity.

    Minus infinity has no 8-bit scale.
    """
    value, kernel, stride, padding = (*pool.args, None, None)[:4]
    if not isinstance(padding, (list, tuple)) or not any(padding) or not isinstance(value, Node):
        return
    if value.target not in (ATEN.relu.default, ATEN.relu_.default, ATEN.hardtanh.default, ATEN.hardtanh_.default):
        return
    top, left = (*padding, *padding)[:2]
    with graph.graph.inserting_before(pool):
        padded = graph.graph.call_function(ATEN.constant_pad_nd.default, (value, [left, left, top, top], 0.0))
    pool.args = (padded, kernel, stride, [0, 0], *pool.args[4:])


def _node(argument: Any) -> Node:
    assert isinstance(argument, Node)
    return argument
