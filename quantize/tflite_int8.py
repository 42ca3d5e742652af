"""Int8 LiteRT: a float model whose weights lie on the grid, and activation ranges, to a model that takes uint8 pixels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from typing import Any

import numpy as np

from edge.types import Float32, UInt8
from quantize.blocks import tail
from quantize.calibrate import Function, Observer, Ranges, sigmoid, silu
from quantize.export import Front
from quantize.quiet import quiet
from quantize.tflite_graph import TfliteGraph, parse, serialize
from train.draft import INPUT

WEIGHT_LIMIT = 127


def observe(model: bytes, pictures: Iterable[UInt8], front: Front, threads: int) -> Observer:
    """What each float tensor of a model takes on pictures uint8 [1, h, w, 3] normalized as `front` says.

    ai-edge-quantizer's own calibration takes a moving average of each picture's extremes, which clips.
    """
    observer = Observer()
    with quiet():
        for tensors in computed(model, pictures, front, threads):
            observer.see(tensors)
    return observer


def computed(model: bytes, pictures: Iterable[UInt8], front: Front, threads: int) -> Iterator[dict[str, Float32]]:
    """Every float tensor by name, for one picture after the other."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, experimental_preserve_all_tensors=True, num_threads=threads)
    interpreter.allocate_tensors()
    [image] = interpreter.get_input_details()
    made = {index for operator in interpreter._get_ops_details() for index in operator["outputs"]} | {image["index"]}
    details = [d for d in interpreter.get_tensor_details() if d["index"] in made and d["dtype"] == np.float32 and d["name"]]
    for picture in pictures:
        interpreter.set_tensor(image["index"], (picture.astype(np.float32) - front.zero_point) * np.float32(front.scale))
        interpreter.invoke()
        yield {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in details}


def functions(graph: TfliteGraph) -> dict[str, Function]:
    """What tensors are read through where that is not as they are: a SiLU or a sigmoid alone."""
    users: dict[str, list[str]] = {}
    for operator in graph.operators:
        for name in operator.reads:
            users.setdefault(name, []).append(operator.kind)
    reading = {("LOGISTIC",): sigmoid, ("LOGISTIC", "MUL"): silu}
    return {name: reading[key] for name, kinds in users.items() if (key := tuple(sorted(kinds))) in reading}


def to_int8(model: bytes, ranges: Ranges, front: Front, role: str, float_operators: Set[str] = frozenset()) -> bytes:
    """The int8 model from `image` uint8 [1, h, w, 3] to `role` float32: weights per channel.

    The operators after the last weights stay in float, as do `float_operators`, named as TfliteGraph does; a last fully
    connected layer has int8 weights and float sums.
    """
    from ai_edge_quantizer import qtyping, quantizer

    graph = TfliteGraph(model)
    [image] = {name for operator in graph.operators for name in operator.reads} - {
        name for operator in graph.operators for name in operator.makes
    }
    # the input's scale and zero point are the pixels' own
    ranges = ranges | {image: (-front.zero_point * front.scale, (255 - front.zero_point) * front.scale)}
    floats = tail(graph.operators) | float_operators
    with quiet():
        work = quantizer.Quantizer(model)
        work.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        if last := _last_connected(graph):
            work.add_dynamic_config(_only(last), qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
        if floats:
            work.update_quantization_recipe(_only(floats), qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key="no_quantize")
        extremes = {
            name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
            for name, (low, high) in ranges.items()
        }
        quantized = bytes(work.quantize(extremes).quantized_model)
    return take_pixels(quantized, front, role)


def _last_connected(graph: TfliteGraph) -> frozenset[str]:
    """The fully connected layers after which no weights come."""
    after = tail(graph.operators)
    read = {name for operator in graph.operators if operator.name not in after for name in operator.reads}
    connected = (operator for operator in graph.operators if operator.kind == "FULLY_CONNECTED")
    return frozenset(operator.name for operator in connected if not read & set(operator.makes))


def _only(operators: Set[str]) -> str:
    """What ai-edge-quantizer takes for these operators: it searches in their names."""
    return "^(?:" + "|".join(re.escape(name) for name in sorted(operators)) + ")$"


def take_pixels(model: bytes, front: Front, role: str) -> bytes:
    """Give a model an `image` of uint8 pixels, and name its output after its role.

    Its first operator makes the pixels int8, or float where the network begins with what has no integers.
    """
    from ai_edge_litert import schema_py_generated as schema

    parsed = parse(model)
    [graph] = parsed.subgraphs
    [fed] = graph.inputs
    image = schema.TensorT()
    image.name = INPUT.encode()
    image.shape = graph.tensors[fed].shape
    image.type = schema.TensorType.UINT8
    image.quantization = schema.QuantizationParametersT()
    image.quantization.scale = [front.scale]
    image.quantization.zeroPoint = [front.zero_point]
    graph.tensors.append(image)
    graph.inputs = [len(graph.tensors) - 1]
    is_float = graph.tensors[fed].type == schema.TensorType.FLOAT32
    convert = schema.OperatorT()
    builtin = schema.BuiltinOperator.DEQUANTIZE if is_float else schema.BuiltinOperator.QUANTIZE
    convert.opcodeIndex = _operator_code(parsed, schema, builtin)
    convert.inputs, convert.outputs = list(graph.inputs), [fed]
    graph.operators.insert(0, convert)
    [output] = graph.outputs
    graph.tensors[output].name = role.encode()
    parsed.signatureDefs = []  # they name the old tensors; the engine asks for tensors by their own name
    return serialize(parsed)


def _operator_code(parsed: Any, schema: Any, builtin: int) -> int:
    for index, known in enumerate(parsed.operatorCodes):
        if known.builtinCode == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = 2
    parsed.operatorCodes.append(code)
    return len(parsed.operatorCodes) - 1
