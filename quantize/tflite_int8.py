"""Int8 LiteRT: a float model whose weights lie on the grid, and activation ranges, to a model that takes uint8 pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edge.types import UInt8
from quantize.calibrate import Observer, Ranges
from quantize.export import INPUT, OUTPUT, Front
from quantize.quiet import quiet

WEIGHT_LIMIT = 127


def observe(model: bytes, pictures: Iterable[UInt8], front: Front, threads: int) -> Ranges:
    """Activation ranges of a float model, from pictures uint8 [1, h, w, 3] normalized as `front` says.

    ai-edge-quantizer's own calibration takes a moving average of each picture's extremes, which clips.
    """
    from ai_edge_litert.interpreter import Interpreter

    observer = Observer()
    with quiet():
        interpreter = Interpreter(model_content=model, experimental_preserve_all_tensors=True, num_threads=threads)
        interpreter.allocate_tensors()
        [image] = interpreter.get_input_details()
        computed = {index for operator in interpreter._get_ops_details() for index in operator["outputs"]} | {image["index"]}
        details = [
            d for d in interpreter.get_tensor_details() if d["index"] in computed and d["dtype"] == np.float32 and d["name"]
        ]
        for picture in pictures:
            interpreter.set_tensor(image["index"], (picture.astype(np.float32) - front.zero_point) * np.float32(front.scale))
            interpreter.invoke()
            observer.see({detail["name"]: interpreter.get_tensor(detail["index"]) for detail in details})
    # the input's scale and zero point are the pixels' own
    low, high = -front.zero_point * front.scale, (255 - front.zero_point) * front.scale
    return observer.ranges() | {str(image["name"]): (low, high)}


def to_int8(model: bytes, ranges: Ranges, front: Front) -> bytes:
    """The int8 model from `image` uint8 [1, h, w, 3] to `logits` float32: weights per channel, logits in float."""
    from ai_edge_quantizer import qtyping, quantizer

    with quiet():
        work = quantizer.Quantizer(model)
        work.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        work.add_dynamic_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
        extremes = {
            name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
            for name, (low, high) in ranges.items()
        }
        quantized = bytes(work.quantize(extremes).quantized_model)
    return _take_pixels(quantized, front)


def _take_pixels(model: bytes, front: Front) -> bytes:
    """Give the model an `image` of uint8 pixels, and name its output `logits`.

    Its first operator makes the pixels int8, or float where the network begins with what has no integers.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    parsed: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
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
    [logits] = graph.outputs
    graph.tensors[logits].name = OUTPUT.encode()
    parsed.signatureDefs = []  # they name the old tensors; the engine asks for tensors by their own name
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


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
