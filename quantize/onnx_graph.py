"""An ONNX graph to ask questions of: who makes a tensor, who reads it, what is constant, what leads where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quantize.blocks import Operator, tail


class OnnxGraph:
    """A model's graph, read only; `rebuilt` makes another with other nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {output.name for output in model.graph.output}
        self._producers = {name: node for node in self.nodes for name in node.output}
        self._users: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._users[name].append(node)
        self._tail = tail(operators(self))

    def is_weighted(self, node: NodeProto) -> bool:
        """Whether an operator multiplies by constant weights."""
        return node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose") and any(
            name in self.initializers for name in list(node.input)[1:2]
        )

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes a tensor; None for inputs and constants."""
        return self._producers.get(name)

    def users(self, name: str) -> list[NodeProto]:
        """The nodes that read a tensor, each once."""
        return self._users.get(name, [])

    def leads_to_weights(self, node: NodeProto) -> bool:
        """Whether a weighted operator comes after this node, or it is one."""
        return node.name not in self._tail

    def activations(self, node: NodeProto) -> list[str]:
        """The inputs that are no constants."""
        return [name for name in node.input if name and name not in self.initializers]

    def attributes(self, node: NodeProto) -> dict[str, Any]:
        """A node's attributes by name."""
        return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def array(self, name: str) -> npt.NDArray[np.float32]:
        """A constant's values."""
        return numpy_helper.to_array(self.initializers[name])

    def rebuilt(self, nodes: Iterable[NodeProto], constants: Mapping[str, TensorProto]) -> onnx.ModelProto:
        """The model with these nodes and as many of the constants as they read."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        read = {name for node in model.graph.node for name in node.input}
        model.graph.initializer.extend(tensor for name, tensor in constants.items() if name in read)
        domains = {opset.domain for opset in model.opset_import}
        for domain in sorted({node.domain for node in model.graph.node} - domains):
            model.opset_import.append(helper.make_opsetid(domain, 1))
        return model


def is_silu(node: NodeProto, graph: OnnxGraph) -> bool:
    """Whether a node is the product in x * sigmoid(x)."""
    if node.op_type != "Mul" or len(node.input) != 2:
        return False
    for gate, value in (tuple(node.input), tuple(node.input)[::-1]):
        producer = graph.producer(gate)
        if producer is not None and producer.op_type == "Sigmoid" and producer.input[0] == value:
            return True
    return False


def layer_name(node: NodeProto) -> str:
    """What the exported graph calls a layer: torch's exporter puts a word before it, and a last layer's output is renamed."""
    return node.name.removeprefix("node_")


def operators(graph: OnnxGraph) -> list[Operator]:
    """The graph's nodes as `quantize.blocks` takes them."""
    return [
        Operator(
            node.name,
            node.op_type,
            tuple(graph.activations(node)),
            tuple(node.output),
            layer_name(node) if graph.is_weighted(node) else "",
        )
        for node in graph.nodes
    ]
