"""A LiteRT model's only subgraph as operators: what reads and makes what, and which tensors hold which layer's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from quantize.blocks import Operator

WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
Fingerprint: TypeAlias = tuple[int, float, float]


def fingerprint(weights: npt.NDArray[Any]) -> Fingerprint:
    """What tells a layer's weights from others' in whichever order the format keeps them: count, sum and sum of squares."""
    values = np.asarray(weights, np.float64)
    return values.size, float(f"{values.sum():.4g}"), float(f"{np.square(values).sum():.4g}")


def parse(model: bytes) -> Any:
    """The model as the schema's own objects, to change and to `serialize`."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(model))


def serialize(model: Any) -> bytes:
    """The bytes of a parsed model, without what no tensor holds any more."""
    from ai_edge_litert.tools import flatbuffer_utils

    held = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    held |= {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if buffer.data is not None:  # arrays are written at once, other sequences byte by byte
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8) if index in held else None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


class TfliteGraph:
    """A parsed model; `layers` gives weights' fingerprints the names that their owner knows them by."""

    def __init__(self, model: bytes, layers: Mapping[Fingerprint, str] | None = None) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._model: Any = parse(model)
        [self._graph] = self._model.subgraphs
        self._kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        self._types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
        self._layers = layers or {}
        self.operators = tuple(self._operator(operator) for operator in self._graph.operators)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the tensors that the model gives."""
        return tuple(self._name(index) for index in self._graph.outputs)

    def with_weights(self, given: Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]) -> bytes | None:
        """The model with other weights [outputs, inputs, ...] and biases by layer; None when a layer is not found once.

        Saves converting the network again for each way of rounding it.
        """
        found = [operator.layer for operator in self.operators if operator.layer]
        if sorted(found) != sorted(given) or len(set(found)) < len(found):
            return None
        for operator, known in zip(self._graph.operators, self.operators, strict=True):
            if not known.layer:
                continue
            weight, bias = given[known.layer]
            if not self._fill(operator, 1, _as_stored(weight, known.kind)) or not self._fill(operator, 2, bias):
                return None
        return serialize(self._model)

    def _fill(self, operator: Any, position: int, values: npt.NDArray[np.float32]) -> bool:
        """Give a constant input a buffer of its own with these values; whether it is there and holds as many."""
        from ai_edge_litert import schema_py_generated as schema

        if len(operator.inputs) <= position or operator.inputs[position] < 0:
            return False
        tensor = self._graph.tensors[operator.inputs[position]]
        if int(np.prod(tensor.shape)) != values.size:
            return False
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor.buffer = len(self._model.buffers) - 1
        return True

    def types(self) -> list[tuple[str, str]]:
        """Each operator's kind and the type of what it makes: INT8, FLOAT32, ..."""
        return [
            (self._kind(operator), self._types[self._graph.tensors[operator.outputs[0]].type])
            for operator in self._graph.operators
        ]

    def _kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        return str(self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def _operator(self, operator: Any) -> Operator:
        kind = self._kind(operator)
        makes = tuple(self._name(index) for index in operator.outputs)
        reads = tuple(self._name(index) for index in operator.inputs if index >= 0 and not self._is_constant(index))
        return Operator("".join(f"{name};" for name in makes), kind, reads, makes, self._layer(operator, kind, makes[0]))

    def _layer(self, operator: Any, kind: str, made: str) -> str:
        if kind not in WEIGHTED:
            return ""
        weights = next((i for i in list(operator.inputs)[1:2] if self._is_constant(i)), None)
        if weights is None:
            return ""
        tensor = self._graph.tensors[weights]
        if self._types[tensor.type] != "FLOAT32":
            return made
        values = np.frombuffer(bytes(self._model.buffers[tensor.buffer].data), np.float32)
        return str(self._layers.get(fingerprint(values), made))

    def _is_constant(self, index: int) -> bool:
        data = self._model.buffers[self._graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _name(self, index: int) -> str:
        return str(self._graph.tensors[index].name.decode())


def _as_stored(weight: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float32]:
    """[outputs, inputs, h, w] as LiteRT keeps it: channels last, and those of a depthwise convolution alone."""
    axes = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0)}.get(kind)
    stored: npt.NDArray[np.float32] = weight if axes is None else weight.transpose(axes)
    return stored
