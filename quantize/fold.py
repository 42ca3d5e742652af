"""A torch network captured as one flat graph: batch norm folded into convolutions, pooling as engines have it in integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantize.graph import ATEN, layers, parameter, set_weight_and_bias, weight_and_bias
from quantize.pools import pad_before_pool, plain_mean

IN_PLACE: dict[Any, Any] = {
    ATEN.relu_.default: ATEN.relu.default,
    ATEN.hardtanh_.default: ATEN.hardtanh.default,
    ATEN.silu_.default: ATEN.silu.default,
    ATEN.leaky_relu_.default: ATEN.leaky_relu.default,
    ATEN.add_.Tensor: ATEN.add.Tensor,
    ATEN.mul_.Tensor: ATEN.mul.Tensor,
    ATEN.dropout_.default: ATEN.dropout.default,
}


def fold(network: nn.Module, example: Tensor) -> GraphModule:
    """The network's graph for `example` [1, 3, h, w], in evaluation mode, each batch norm folded into its convolution.

    A batch norm that follows no convolution becomes one of a weight a channel. Raises whatever torch.export raises for a
    network that it cannot capture.
    """
    graph = torch.export.export(network.eval(), (example,)).module(check_guards=False)
    assert isinstance(graph, GraphModule)
    names = {layer.name: _owners_name(layer) for layer in layers(graph)}
    for node in list(graph.graph.nodes):
        if node.target in IN_PLACE:
            _out_of_place(node)
        if node.target == ATEN.batch_norm.default:
            read = node.args[0]
            if read.target == ATEN.conv2d.default and len(read.users) == 1:
                _fold_batch_norm(graph, read, node)
            elif node.meta["val"].dim() == 4 and not node.args[5] and None not in node.args[1:5]:
                names[node.name] = _owners_name(node)
                _norm_as_convolution(graph, node)
        elif node.target == ATEN.max_pool2d.default:
            pad_before_pool(graph, node)
        elif node.target == ATEN.adaptive_avg_pool2d.default:
            plain_mean(graph, node)
    graph.meta["layers"] = names
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _out_of_place(node: Node) -> None:
    """Let an operator leave what it reads as it was: who watches a tensor must not find another's values in it."""
    changed = node.args[0]
    assert isinstance(changed, Node)
    later = set()
    following = node.next
    while following.op != "root":
        later.add(following)
        following = following.next
    changed.replace_all_uses_with(node, delete_user_cb=lambda user: user in later)
    node.target = IN_PLACE[node.target]


def _scale_and_shift(graph: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    """What a batch norm does to each channel: value * scale + shift."""
    gamma, beta, mean, variance = (parameter(graph, _node(argument)) for argument in norm.args[1:5])
    scale = gamma / torch.sqrt(variance + float(norm.args[7]))  # type: ignore[arg-type]
    return scale, beta - mean * scale


def _fold_batch_norm(graph: GraphModule, conv: Node, norm: Node) -> None:
    scale, shift = _scale_and_shift(graph, norm)
    weight, bias = weight_and_bias(graph, conv)
    set_weight_and_bias(graph, conv, weight * scale.reshape(-1, 1, 1, 1), bias * scale + shift)
    norm.replace_all_uses_with(conv)
    graph.graph.erase_node(norm)


def _norm_as_convolution(graph: GraphModule, norm: Node) -> None:
    scale, shift = _scale_and_shift(graph, norm)
    norm.target = ATEN.conv2d.default
    norm.args = (norm.args[0], norm.args[1], None, [1, 1], [0, 0], [1, 1], len(scale))
    set_weight_and_bias(graph, norm, scale.reshape(-1, 1, 1, 1), shift)


def _owners_name(layer: Node) -> str:
    weight = layer.args[1]
    name = str(weight.target) if isinstance(weight, Node) else layer.name
    return name.removesuffix(".weight").removesuffix("_weight")


def _node(argument: Any) -> Node:
    assert isinstance(argument, Node)
    return argument
