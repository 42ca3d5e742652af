"""Quantize-dequantize pairs put where ONNX Runtime fuses them into integer kernels, and nowhere else.

A weighted operator always runs in integers, an arithmetic one when all that feeds it does, one that only moves values
keeps their scale, and what comes after the last weighted operator stays in float. Written for the fusions that ONNX
Runtime's CPU provider has; `quantize.readback` counts what it made of the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quantize.calibrate import LEVELS, Ranges
from quantize.onnx_graph import OnnxGraph, is_silu

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
ARITHMETIC = frozenset({"Add", "Mul", "Sigmoid", "GlobalAveragePool", "AveragePool", "Concat", "LeakyRelu"})
CARRIERS = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Slice", "Gather", "Split", "Squeeze", "Unsqueeze", "Resize", "Identity"}
)
"""They move values and make none."""
CLIPS = frozenset({"Relu", "Clip"})
"""Behind a weighted operator or an addition, the range of the pair after them says all they do."""
FLOAT_SUMS = frozenset({"Gemm", "MatMul"})
"""Their integer kernels can give float sums."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How integers are laid out: signed or unsigned activations, and the largest weight."""

    name: str
    signed_activations: bool
    weight_limit: int
    weight_bits: int


@dataclass(frozen=True, slots=True)
class Affine:
    """real = (integer - zero_point) * scale."""

    scale: np.float32
    zero_point: int


def affine(low: float, high: float, signed: bool) -> Affine:
    """The 8-bit scale and zero point that cover [low, high], which is widened to hold zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / LEVELS, 1e-9)
    zero_point = min(LEVELS, max(0, round(-low / scale)))
    return Affine(np.float32(scale), zero_point - 128 if signed else zero_point)


def insert(
    model: onnx.ModelProto,
    ranges: Ranges,
    scheme: Scheme,
    *,
    pixels: tuple[str, Affine],
    float_nodes: Set[str] = frozenset(),
    float_silu: bool = False,
) -> onnx.ModelProto:
    """A copy of a float model with its weights as int8 and pairs around what is to run in integers.

    Weights are taken to lie on the grid already: integers up to `scheme.weight_limit` times a scale for each output
    channel; others are rounded to it. `pixels` names the input and gives its scale. `float_nodes` are left as they are.
    With `float_silu`, x * sigmoid(x) is one float operator between the pairs, which is faster than two in integers
    where float is fast.
    """
    return _Writer(OnnxGraph(model), ranges, scheme, pixels, frozenset(float_nodes), float_silu).write()


class _Writer:
    def __init__(
        self,
        graph: OnnxGraph,
        ranges: Ranges,
        scheme: Scheme,
        pixels: tuple[str, Affine],
        float_nodes: frozenset[str],
        float_silu: bool,
    ) -> None:
        self._graph = graph
        self._ranges = ranges
        self._scheme = scheme
        self._type = np.dtype(np.int8 if scheme.signed_activations else np.uint8)
        self._float_nodes = float_nodes
        self._float_silu = float_silu
        self._fixed = dict([pixels])
        self._same: dict[str, str] = {}
        self._dequantized: dict[str, str] = {}
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = dict(graph.initializers)
        self._uses = Counter(name for node in graph.nodes for name in node.input)

    def write(self) -> onnx.ModelProto:
        integer = self._plan()
        for node in self._graph.nodes:
            if node.op_type in CLIPS and self._absorbs(node, integer):
                self._keep(node)
                self._pair(node.output[0])
            elif self._float_silu and is_silu(node, self._graph):
                self._silu(node, node.name in integer)
            elif self._float_silu and self._is_gate(node):
                continue
            elif node.name in integer:
                self._integer(node, integer)
            else:
                self._keep(node)
        return self._graph.rebuilt(self._nodes, self._constants)

    def _plan(self) -> set[str]:
        """The nodes that run in integers; on the way, which tensors share a scale."""
        integer: set[str] = set()
        covered: set[str] = set()
        for node in self._graph.nodes:
            fed = self._graph.activations(node)
            if node.name in self._float_nodes or not fed:
                continue
            if self._is_weighted(node):
                integer.add(node.name)
            elif node.op_type in CLIPS and self._absorbs(node, integer):
                pass
            elif not (
                (node.op_type in ARITHMETIC or self._carries(node))
                and self._graph.leads_to_weights(node)
                and covered >= set(fed)
            ):
                continue
            else:
                integer.add(node.name)
            covered |= set(node.output)
            if self._carries(node):
                self._same |= dict.fromkeys(node.output, node.input[0])
            elif node.op_type == "Concat":
                # no rounding twice where the parts are read by nobody else
                alone = (name for name in node.input if self._uses[name] == 1 and name not in self._same)
                self._same |= dict.fromkeys(alone, node.output[0])
        return integer

    def _is_weighted(self, node: NodeProto) -> bool:
        if node.op_type not in WEIGHTED or len(node.input) < 2 or node.input[1] not in self._graph.initializers:
            return False
        return len(self._graph.initializers[node.input[1]].dims) == 4 or node.op_type != "Conv"

    def _carries(self, node: NodeProto) -> bool:
        if node.op_type == "Resize":
            return bool(self._graph.attributes(node).get("mode", b"nearest") == b"nearest")
        return node.op_type in CARRIERS

    def _absorbs(self, node: NodeProto, integer: set[str]) -> bool:
        """Whether a clip's producer runs in integers and feeds nobody else, so that it needs no pair of its own."""
        producer = self._graph.producer(node.input[0])
        return (
            producer is not None
            and producer.name in integer
            and producer.op_type in WEIGHTED | {"Add"}
            and self._uses[node.input[0]] == 1
            and node.name not in self._float_nodes
        )

    def _is_gate(self, node: NodeProto) -> bool:
        """Whether a Sigmoid only feeds the product of a SiLU that becomes one operator."""
        users = self._graph.users(node.output[0]) if node.op_type == "Sigmoid" else []
        return bool(users) and all(is_silu(user, self._graph) for user in users)

    def _affine(self, name: str) -> Affine:
        while name in self._same:
            name = self._same[name]
        if name in self._fixed:
            return self._fixed[name]
        producer = self._graph.producer(name)
        low, high = (0.0, 1.0) if producer is not None and producer.op_type == "Sigmoid" else self._ranges[name]
        return affine(low, high, self._scheme.signed_activations)

    def _integer(self, node: NodeProto, integer: set[str]) -> None:
        copy = self._copied(node)
        for index, name in enumerate(node.input):
            if name and name not in self._graph.initializers:
                if name not in self._dequantized:
                    self._pair(name)
                copy.input[index] = self._dequantized[name]
            elif node.op_type in ("Add", "Mul"):
                copy.input[index] = self._constant(name)
        if self._is_weighted(node):
            self._weights(node, copy)
        self._nodes.append(copy)
        users = self._graph.users(node.output[0])
        if len(users) == 1 and self._is_clip_of(users[0], integer):
            return
        in_float = not any(user.name in integer or self._is_clip_of(user, integer) for user in users)
        if node.op_type in FLOAT_SUMS and in_float:
            return
        for name in node.output:
            if name in self._graph.outputs:  # the pair's end takes the name that the world knows
                copy.output[list(node.output).index(name)] = f"{name}_sums"
                self._pair(name, source=f"{name}_sums", result=name)
            else:
                self._pair(name)

    def _is_clip_of(self, node: NodeProto, integer: set[str]) -> bool:
        return node.op_type in CLIPS and self._absorbs(node, integer)

    def _keep(self, node: NodeProto) -> None:
        copy = self._copied(node)
        for index, name in enumerate(node.input):
            copy.input[index] = self._dequantized.get(name, name)
        self._nodes.append(copy)

    def _silu(self, node: NodeProto, paired: bool) -> None:
        [read] = [name for name in node.input if self._graph.producer(name) is None or not self._is_gate_output(name)]
        source = self._dequantized.get(read, read)
        silu = helper.make_node("QuickGelu", [source], list(node.output), name=node.name, domain="com.microsoft", alpha=1.0)
        self._nodes.append(silu)
        if paired:
            self._pair(node.output[0])

    def _is_gate_output(self, name: str) -> bool:
        producer = self._graph.producer(name)
        return producer is not None and producer.op_type == "Sigmoid"

    def _pair(self, name: str, source: str = "", result: str = "") -> None:
        """QuantizeLinear and DequantizeLinear after a tensor."""
        parameters = self._parameters(name, self._affine(name))
        result = result or f"{name}_dequantized"
        self._nodes += [
            helper.make_node("QuantizeLinear", [source or name, *parameters], [f"{name}_quantized"], name=f"{name}_quantize"),
            helper.make_node("DequantizeLinear", [f"{name}_quantized", *parameters], [result], name=f"{name}_dequantize"),
        ]
        self._dequantized[name] = result

    def _weights(self, node: NodeProto, copy: NodeProto) -> None:
        weight = self._graph.array(node.input[1])
        axis = self._output_axis(node)
        integers, scale = grid(weight, axis, self._scheme.weight_limit)
        name = f"{node.name}_weight"
        copy.input[1] = self._dequantize(name, integers.astype(np.int8), scale, axis)
        if len(node.input) > 2 and node.input[2]:
            bias = self._graph.array(node.input[2]).astype(np.float64).reshape(-1)
            bias_scale = scale.astype(np.float64) * float(self._affine(node.input[0]).scale)
            limits = np.iinfo(np.int32)
            sums = np.clip(np.round(bias / bias_scale), limits.min, limits.max).astype(np.int32)
            copy.input[2] = self._dequantize(f"{node.name}_bias", sums, bias_scale.astype(np.float32), 0)

    def _output_axis(self, node: NodeProto) -> int:
        if node.op_type == "Conv":
            return 0
        transposed = node.op_type == "Gemm" and self._graph.attributes(node).get("transB", 0)
        return 0 if transposed else len(self._graph.initializers[node.input[1]].dims) - 1

    def _constant(self, name: str) -> str:
        """A constant operand, quantized by its own extremes."""
        result = f"{name}_dequantized"
        if result not in self._constants and name not in self._dequantized:
            values = self._graph.array(name)
            found = affine(float(values.min()), float(values.max()), self._scheme.signed_activations)
            low = -128 if self._scheme.signed_activations else 0
            integers = np.clip(np.round(values / found.scale) + found.zero_point, low, low + LEVELS).astype(self._type)
            parameters = self._parameters(name, found)
            self._constants[f"{name}_quantized"] = numpy_helper.from_array(integers, f"{name}_quantized")
            inputs = [f"{name}_quantized", *parameters]
            self._nodes.append(helper.make_node("DequantizeLinear", inputs, [result], name=f"{name}_dequantize"))
            self._dequantized[name] = result
        return result

    def _parameters(self, name: str, found: Affine) -> list[str]:
        names = [f"{name}_scale", f"{name}_zero_point"]
        self._constants[names[0]] = numpy_helper.from_array(np.array(found.scale, np.float32), names[0])
        self._constants[names[1]] = numpy_helper.from_array(np.array(found.zero_point, self._type), names[1])
        return names

    def _dequantize(self, name: str, integers: npt.NDArray[np.generic], scale: npt.NDArray[np.float32], axis: int) -> str:
        zero = np.zeros(scale.shape, integers.dtype)
        arrays = {f"{name}_quantized": integers, f"{name}_scale": scale, f"{name}_zero_point": zero}
        self._constants |= {key: numpy_helper.from_array(value, key) for key, value in arrays.items()}
        self._nodes.append(helper.make_node("DequantizeLinear", list(arrays), [name], name=f"{name}_dequantize", axis=axis))
        return name

    def _copied(self, node: NodeProto) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node)
        return copy


def grid(weight: npt.NDArray[np.float32], axis: int, limit: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Integers in [-limit, limit] and a scale for each channel along `axis`, from each channel's largest weight."""
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.maximum(np.abs(weight).max(axis=others), 1e-12).astype(np.float64) / limit
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    return np.clip(np.round(weight / scale.reshape(shape)), -limit, limit), scale.astype(np.float32)
