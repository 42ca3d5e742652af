"""Tiny LiteRT models, built with LiteRT's own schema: the mean of each colour as `logits`, in float32 or in uint8.

Provenance: made by this file, no weights.
"""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

SIZE = 8


def tiny_tflite(dtype: str = "uint8") -> bytes:
    """`image` [1, 8, 8, 3] → average pool → reshape → `logits` [1, 3].

    uint8 means quantized: value = stored / 255 on both sides, so logits are the means of the colours in [0, 1].
    """
    kind = {"uint8": schema.TensorType.UINT8, "float32": schema.TensorType.FLOAT32}[dtype]
    buffers = [schema.BufferT(), schema.BufferT()]
    buffers[1].data = np.array([1, 3], np.int32).view(np.uint8)
    graph = schema.SubGraphT()
    graph.name = b"tiny"
    graph.tensors = [
        _tensor(b"image", [1, SIZE, SIZE, 3], kind),
        _tensor(b"pooled", [1, 1, 1, 3], kind),
        _tensor(b"shape", [2], schema.TensorType.INT32, buffer=1),
        _tensor(b"logits", [1, 3], kind),
    ]
    graph.inputs, graph.outputs = [0], [3]
    pool = schema.Pool2DOptionsT()
    pool.padding, pool.strideW, pool.strideH = schema.Padding.VALID, 1, 1
    pool.filterWidth = pool.filterHeight = SIZE
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = [1, 3]
    graph.operators = [
        _operator(0, [0], [1], schema.BuiltinOptions.Pool2DOptions, pool),
        _operator(1, [1, 2], [3], schema.BuiltinOptions.ReshapeOptions, reshape),
    ]
    return _packed(graph, buffers, [schema.BuiltinOperator.AVERAGE_POOL_2D, schema.BuiltinOperator.RESHAPE])


def tiny_tflite_segmenter() -> bytes:
    """`image` float32 [1, 8, 8, 3] → average pool of 2 x 2 → `logits` [1, 4, 4, 3]."""
    graph = schema.SubGraphT()
    graph.name = b"tiny"
    graph.tensors = [
        _tensor(b"image", [1, SIZE, SIZE, 3], schema.TensorType.FLOAT32),
        _tensor(b"logits", [1, SIZE // 2, SIZE // 2, 3], schema.TensorType.FLOAT32),
    ]
    graph.inputs, graph.outputs = [0], [1]
    pool = schema.Pool2DOptionsT()
    pool.padding = schema.Padding.VALID
    pool.strideW = pool.strideH = pool.filterWidth = pool.filterHeight = 2
    graph.operators = [_operator(0, [0], [1], schema.BuiltinOptions.Pool2DOptions, pool)]
    return _packed(graph, [schema.BufferT()], [schema.BuiltinOperator.AVERAGE_POOL_2D])


def _packed(graph: schema.SubGraphT, buffers: list[schema.BufferT], operators: list[int]) -> bytes:
    model = schema.ModelT()
    model.version, model.description = 3, b"tests/tiny_tflite.py"
    model.operatorCodes = [_code(operator) for operator in operators]
    model.subgraphs, model.buffers = [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: bytes, shape: list[int], kind: int, buffer: int = 0) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    if kind == schema.TensorType.UINT8:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [1 / 255], [0]
    return tensor


def _code(builtin: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    return code


def _operator(code: int, inputs: list[int], outputs: list[int], options_type: int, options: object) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    operator.builtinOptionsType, operator.builtinOptions = options_type, options
    return operator
