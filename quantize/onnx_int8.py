"""Int8 ONNX: a float model whose weights lie on the grid, and activation ranges, to a QDQ model that ONNX Runtime fuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from edge.types import UInt8
from quantize.calibrate import Observer, Ranges
from quantize.export import INPUT, NORMALIZED, OUTPUT, Front, add_front
from quantize.quiet import quiet

QUANTIZED_OPERATORS = ["Conv", "Gemm", "Add", "GlobalAveragePool", "Clip", "Relu", "Reshape", "Flatten", "MaxPool", "Concat"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How integers are laid out: signed or unsigned activations, and the largest weight."""

    name: str
    signed_activations: bool
    weight_limit: int
    weight_bits: int


# 64 * 255 * 2 < 2**15: a pair of products never saturates, on any x86, with or without VNNI
U8S8 = Scheme("u8s8", signed_activations=False, weight_limit=64, weight_bits=7)
S8S8 = Scheme("s8s8", signed_activations=True, weight_limit=127, weight_bits=8)


def observe(model: onnx.ModelProto, pictures: Iterable[UInt8], threads: int) -> Ranges:
    """Activation ranges of a float model with uint8 input, from pictures uint8 [1, h, w, 3]."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    front = {"pixels"}
    names = [name for node in watched.graph.node for name in node.output if name not in front]
    kept = {output.name for output in watched.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in kept)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # fusing would hide tensors
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    observer = Observer()
    for picture in pictures:
        values: list[npt.NDArray[Any]] = session.run(names, {INPUT: picture})
        observer.see({name: value for name, value in zip(names, values, strict=True) if value.dtype == np.float32})
    return observer.ranges()


def to_int8(core: onnx.ModelProto, ranges: Ranges, front: Front, size_wh: tuple[int, int], scheme: Scheme) -> bytes:
    """The int8 model from `image` uint8 [1, h, w, 3] to `logits` float32: weights per channel, logits left in float.

    `core` is the float model from `normalized`, its weights integers up to `scheme.weight_limit` times a scale.
    """
    model = onnx.ModelProto()
    model.CopyFrom(core)
    with quiet():
        quantized = _quantize(model, ranges | {NORMALIZED: _input_range(front)}, scheme)
    _take_pixels(quantized, front, size_wh, scheme)
    _leave_logits_in_float(quantized)
    _drop_unused(quantized)
    onnx.checker.check_model(quantized)
    return bytes(quantized.SerializeToString())


def _input_range(front: Front) -> tuple[float, float]:
    """What 0 and 255 become: the range whose int8 scale and zero point are the pixels' own."""
    return -front.zero_point * front.scale, (255 - front.zero_point) * front.scale


def _quantize(model: onnx.ModelProto, ranges: Ranges, scheme: Scheme) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    limits = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=scheme.weight_bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if scheme.signed_activations else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
        nodes_to_quantize=None,
        nodes_to_exclude=[],
        op_types_to_quantize=QUANTIZED_OPERATORS,
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    return result


def _take_pixels(model: onnx.ModelProto, front: Front, size_wh: tuple[int, int], scheme: Scheme) -> None:
    """Feed pixels to the float input; where it is quantized to unsigned, they are that tensor already."""
    if not scheme.signed_activations:
        for quantize in [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == NORMALIZED]:
            [dequantize] = [node for node in model.graph.node if node.input and node.input[0] == quantize.output[0]]
            model.graph.node.remove(quantize)
            model.graph.node.remove(dequantize)
            for node in model.graph.node:
                for index, name in enumerate(node.input):
                    if name == dequantize.output[0]:
                        node.input[index] = NORMALIZED
    add_front(model, front, size_wh, NORMALIZED)


def _leave_logits_in_float(model: onnx.ModelProto) -> None:
    """Drop the last quantize-dequantize pair: ONNX Runtime's QGemm gives float sums for free."""
    producer = {name: node for node in model.graph.node for name in node.output}
    dequantize = producer[OUTPUT]
    if dequantize.op_type != "DequantizeLinear":
        return
    quantize = producer[dequantize.input[0]]
    last = producer[quantize.input[0]]
    model.graph.node.remove(quantize)
    model.graph.node.remove(dequantize)
    last.output[0] = OUTPUT


def _drop_unused(model: onnx.ModelProto) -> None:
    """Remove constants that no operator reads; ONNX Runtime warns of each."""
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
