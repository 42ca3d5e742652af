"""ONNX files of a few nodes, as exporters write them, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[Any]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node whose inputs and outputs are names between blanks; `-` stands for an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any] | None = None,
    *,
    shape: Shape = (1, 3, 8, 10),
    dtype: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    output_types: Sequence[int] | None = None,
    opset: int = 17,
    domains: Sequence[str] = (),
    more_inputs: Sequence[Any] = (),
    producer: str = "tests",
) -> Path:
    """A model from the input `x` to `outputs`. A constant may be an array or a TensorProto."""
    types = output_types or [TensorProto.FLOAT] * len(outputs)
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", dtype, shape), *more_inputs],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, types, strict=True)],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name=producer, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def floats(*shape: int, seed: int = 0) -> Any:
    """Normal random numbers float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> Any:
    """An int64 vector."""
    return np.array(values, np.int64)
