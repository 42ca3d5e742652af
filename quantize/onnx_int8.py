"""Int8 ONNX: a float model whose weights lie on the grid, and activation ranges, to a model that takes uint8 pixels."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from edge.types import UInt8
from quantize.calibrate import Function, Observer, sigmoid, silu
from quantize.export import NORMALIZED, Front, add_front
from quantize.onnx_graph import OnnxGraph, is_silu
from quantize.qdq import Affine, Scheme, affine, insert
from train.draft import INPUT

# 64 * 255 * 2 < 2**15: a pair of products never saturates, on any x86, with or without VNNI
U8S8 = Scheme("u8s8", signed_activations=False, weight_limit=64, weight_bits=7)
S8S8 = Scheme("s8s8", signed_activations=True, weight_limit=127, weight_bits=8)


def observe(model: onnx.ModelProto, pictures: Iterable[UInt8], threads: int) -> Observer:
    """What each float tensor of a model with uint8 input takes on pictures uint8 [1, h, w, 3]."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = [name for node in watched.graph.node for name in node.output if name != "pixels"]
    kept = {output.name for output in watched.graph.output}
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in kept)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # fusing would hide tensors
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    observer = Observer()
    for picture in pictures:
        values: list[npt.NDArray[Any]] = session.run(names, {INPUT: picture})
        observer.see({name: value for name, value in zip(names, values, strict=True) if value.dtype == np.float32})
    return observer


def functions(graph: OnnxGraph) -> dict[str, Function]:
    """What tensors are read through where that is not as they are: a SiLU or a sigmoid alone."""
    found: dict[str, Function] = {}
    for node in graph.nodes:
        if node.op_type != "Sigmoid":
            continue
        users = graph.users(node.input[0])
        if len(users) == 1:
            found[node.input[0]] = sigmoid
        elif len(users) == 2 and all(user is node or is_silu(user, graph) for user in users):
            found[node.input[0]] = silu
    return found


def to_int8(
    core: onnx.ModelProto,
    ranges: dict[str, tuple[float, float]],
    front: Front,
    size_wh: tuple[int, int],
    scheme: Scheme,
    *,
    float_nodes: Set[str] = frozenset(),
    float_silu: bool = False,
) -> bytes:
    """The int8 model from `image` uint8 [1, h, w, 3] to float32 outputs: weights per channel, the tail left in float.

    `core` is the float model from `normalized`, its weights integers up to `scheme.weight_limit` times a scale.
    """
    pixels = _pixels(front, scheme)
    model = insert(core, ranges, scheme, pixels=(NORMALIZED, pixels), float_nodes=float_nodes, float_silu=float_silu)
    _take_pixels(model, front, size_wh, scheme)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _pixels(front: Front, scheme: Scheme) -> Affine:
    """The range whose scale and zero point are the pixels' own."""
    return affine(-front.zero_point * front.scale, (255 - front.zero_point) * front.scale, scheme.signed_activations)


def _take_pixels(model: onnx.ModelProto, front: Front, size_wh: tuple[int, int], scheme: Scheme) -> None:
    """Feed pixels to the float input; where it is quantized to unsigned, they are that tensor already."""
    if not scheme.signed_activations:
        pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == NORMALIZED]
        for quantize in pairs:
            [dequantize] = [node for node in model.graph.node if node.input and node.input[0] == quantize.output[0]]
            model.graph.node.remove(quantize)
            model.graph.node.remove(dequantize)
            for node in model.graph.node:
                for index, name in enumerate(node.input):
                    if name == dequantize.output[0]:
                        node.input[index] = NORMALIZED
    add_front(model, front, size_wh, NORMALIZED)
    read = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)  # ONNX Runtime warns of each
