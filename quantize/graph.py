"""A torch network as one flat graph, which quantize.fold makes: what is calibrated and exported."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

ATEN = torch.ops.aten
WEIGHTED = (ATEN.conv2d.default, ATEN.linear.default)


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


def _node(argument: Any) -> Node:
    assert isinstance(argument, Node)
    return argument
