"""What an engine made of a file: how many operators run in integers, and which fell back to float."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort

from edge.engines.onnx import ROUNDING_OPTIMIZERS
from edge.types import UInt8
from quantize.tflite_graph import TfliteGraph

INTEGER_PREFIXES = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize", "NhwcMaxPool")
MOVING = frozenset(
    {
        "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "MaxPool", "Resize", "Identity",
        "Cast", "Expand", "ReorderInput", "ReorderOutput", "SpaceToDepth", "DepthToSpace", "Concat", "Pad", "Upsample",
    }
)  # fmt: skip
"""They cost the same in any type, so they count as neither."""
TFLITE_MOVING = frozenset(
    {"RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "PAD", "PADV2", "CONCATENATION", "MAX_POOL_2D", "GATHER"}
)


@dataclass(frozen=True, slots=True)
class Readback:
    """How many integer operators there are, and the float ones by kind, the conversions between the two among them."""

    integer: int
    floats: dict[str, int]


def read_back(data: bytes, engine: str) -> Readback:
    """What the engine runs of this file, read from its optimized graph or from the types in it."""
    kinds = _tflite(data) if engine == "tflite" else _onnx(data)
    integer = sum(count for (_, is_integer), count in kinds.items() if is_integer)
    return Readback(integer, {kind: count for (kind, is_integer), count in sorted(kinds.items()) if not is_integer})


def _onnx(data: bytes) -> Counter[tuple[str, bool]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.qdqisint8allowed", "1")  # as on ARM: x86 would not fuse signed activations
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"], disabled_optimizers=ROUNDING_OPTIMIZERS)
        nodes = onnx.load(path).graph.node
    return Counter((node.op_type, node.op_type.startswith(INTEGER_PREFIXES)) for node in nodes if node.op_type not in MOVING)


def _tflite(data: bytes) -> Counter[tuple[str, bool]]:
    found: Counter[tuple[str, bool]] = Counter()
    for kind, made in TfliteGraph(data).types():
        if kind not in TFLITE_MOVING:
            converts = kind == "DEQUANTIZE"
            found[kind, made in ("INT8", "UINT8", "INT32") and not converts] += 1
    return found


def slowest_operators(data: bytes, picture: UInt8, name: str, runs: int = 10) -> list[tuple[str, float]]:
    """The kinds of operator of an ONNX file that take longest here, with their share of the time, largest first."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = ort.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], disabled_optimizers=ROUNDING_OPTIMIZERS
        )
        for _ in range(runs):
            session.run(None, {name: picture})
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = max(sum(spent.values()), 1)
    return [(kind, time / total) for kind, time in spent.most_common()]
