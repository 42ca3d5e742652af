"""Any ONNX model of one image as a torch module; what cannot be imported is refused in one line."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor, nn

from edge.errors import InputError
from quantize.check import blamed
from quantize.onnx_file import OnnxFile, read_onnx, unsupported
from quantize.onnx_module import Array, OnnxNetwork, Step
from quantize.onnx_ops import OPERATORS
from quantize.onnx_plan import Plan
from quantize.onnx_rewrite import rewritten
from quantize.quiet import quiet

TOLERANCE = 1e-3
"""Of the largest value of an output, by which the module may differ from ONNX Runtime on the file."""
CHOOSING = ("TopK", "ArgMax", "ArgMin", "Hardmax")
"""Where a difference in the last digit may change the whole answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A network that takes float32 [n, 3, h, w] and gives a tensor, or a tuple of them in the order of `outputs`.

    The module takes channels first whatever the file's own layout, `channels_last`, and pixels as float32 whatever its
    own type, `input_dtype`. `output_shapes` are for one image; `any_batch` says whether more at once give the same.
    """

    network: nn.Module
    input_name: str
    size_wh: tuple[int, int]
    outputs: tuple[str, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    channels_last: bool
    input_dtype: str
    producer: str
    any_batch: bool


def import_onnx(path: Path, size_wh: tuple[int, int] | None = None) -> Imported:
    """The ONNX file as a torch module, proven on random pictures to give what ONNX Runtime gives.

    `size_wh` settles a free height and width. Raises InputError, one line that begins with the path.
    """
    file = read_onnx(path, size_wh)
    plan = rewritten(_plan(_cleaned(file.model, path), path))
    network = OnnxNetwork(plan.steps, plan.constants, OPERATORS, plan.input_name, plan.outputs).eval()
    output_shapes, any_batch = _proven(network, file, plan, path)
    return Imported(
        network,
        file.input_name,
        file.size_wh,
        plan.outputs,
        output_shapes,
        file.channels_last,
        file.input_dtype,
        file.given.producer_name,
        any_batch,
    )


DISABLED = ("ConstantSharing", "MatMulAddFusion")
"""The first gives equal constants one meaningless name, the second puts a Gemm between two Reshapes."""


def _cleaned(model: ModelProto, path: Path) -> ModelProto:
    """What ONNX Runtime's basic optimizations leave: constants folded, batch norm fused, identities and dropout gone.

    They run again while that changes anything: an operator that ONNX Runtime spells out is folded the second time.
    """
    before = -1
    while len(model.graph.node) != before:
        before = len(model.graph.node)
        model = _optimized(model, path)
        if all(node.op_type in OPERATORS for node in model.graph.node):
            break
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _optimized(model: ModelProto, path: Path) -> ModelProto:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with (
        tempfile.TemporaryDirectory() as folder,
        blamed(f"{path}: ONNX Runtime cannot read it", "; export it again, or check it with onnx.checker"),
        quiet(),
    ):
        target = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(target)
        providers = ["CPUExecutionProvider"]
        ort.InferenceSession(model.SerializeToString(), options, providers=providers, disabled_optimizers=list(DISABLED))
        return onnx.load(target)


def _plan(model: ModelProto, path: Path) -> Plan:
    found = [
        (node.op_type, node.name or node.output[0], node.domain) for node in model.graph.node if node.op_type not in OPERATORS
    ]
    if found:
        raise unsupported(found, path)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return Plan(
        steps=tuple(
            Step(
                node.op_type,
                node.name or node.output[0],
                versions.get("", versions.get("ai.onnx", 1)),
                {attribute.name: _plain(helper.get_attribute_value(attribute)) for attribute in node.attribute},
                tuple(node.input),
                tuple(node.output),
            )
            for node in model.graph.node
        ),
        constants={tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer},
        shapes={value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values},
        input_name=model.graph.input[0].name,
        outputs=tuple(value.name for value in model.graph.output),
    )


def _plain(attribute: Any) -> Any:
    return list(attribute) if isinstance(attribute, Sequence) and not isinstance(attribute, (str, bytes)) else attribute


def _proven(network: nn.Module, file: OnnxFile, plan: Plan, path: Path) -> tuple[tuple[tuple[int, ...], ...], bool]:
    """The shapes of the outputs, and whether two pictures at once give what each gives alone.

    Runs the module and ONNX Runtime, which optimizes nothing, on random pictures of both usual ranges, bytes and
    normalized, and raises InputError where they differ.
    """
    pictures = [_random_picture(lowest, highest, file) for lowest, highest in ((0, 255), (-1, 1))]
    expected = _reference(file, plan, pictures, path)
    try:
        with torch.no_grad():
            made = [_outputs(network(torch.from_numpy(picture))) for picture in pictures]
    except InputError as error:
        raise InputError(f"{path}: {error}; export it with plain operators, or give package.module:factory") from None
    found = [_difference(plan.outputs, right, own) for right, own in zip(expected, made, strict=True)]
    wrong = [difference for difference in found if difference is not None]
    if len(wrong) > (1 if any(step.op in CHOOSING for step in plan.steps) else 0):
        raise InputError(f"{path}: as a torch module it differs from ONNX Runtime, {wrong[0]}; please report it with the file")
    shapes = tuple(array.shape for array in made[0])
    try:
        with torch.no_grad():
            both = _outputs(network(torch.from_numpy(np.concatenate(pictures))))
    except InputError:
        return shapes, False
    each = [np.concatenate(arrays) if arrays[0].ndim else arrays[0] for arrays in zip(*made, strict=True)]
    return shapes, _difference(plan.outputs, each, both) is None


def _random_picture(lowest: int, highest: int, file: OnnxFile) -> Array:
    random, shape = np.random.default_rng(0), (1, 3, file.size_wh[1], file.size_wh[0])
    if file.input_dtype == "uint8":
        return random.integers(0, highest + 1, shape).astype(np.float32)
    return random.uniform(lowest, highest, shape).astype(np.float32)


def _reference(file: OnnxFile, plan: Plan, pictures: Sequence[Array], path: Path) -> list[list[Array]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    with blamed(f"{path}: ONNX Runtime cannot run it"), quiet():
        session = ort.InferenceSession(file.given.SerializeToString(), options, providers=["CPUExecutionProvider"])
        given = [np.transpose(picture, (0, 2, 3, 1)) if file.channels_last else picture for picture in pictures]
        return [
            session.run(list(plan.outputs), {file.input_name: np.ascontiguousarray(array, file.input_dtype)}) for array in given
        ]


def _outputs(made: Tensor | tuple[Tensor, ...]) -> list[Array]:
    return [output.numpy() for output in (made if isinstance(made, tuple) else (made,))]


def _difference(names: Sequence[str], expected: Sequence[Array], made: Sequence[Array]) -> str | None:
    """What is wrong with the first output that is not as expected; None when all are."""
    for name, right, found in zip(names, expected, made, strict=True):
        if right.shape != found.shape:
            return f"output {name!r} is {list(found.shape)} instead of {list(right.shape)}"
        if not np.issubdtype(right.dtype, np.floating):
            share = float((right != found).mean()) if right.size else 0.0
            if share > TOLERANCE:
                return f"output {name!r} in {share:.1%} of its elements"
            continue
        if not np.array_equal(np.isfinite(right), np.isfinite(found)):
            return f"output {name!r} is not finite in other places"
        right, found = np.where(np.isfinite(right), right, 0), np.where(np.isfinite(found), found, 0)
        largest = float(np.abs(right).max(initial=0.0))
        apart = float(np.abs(right - found).max(initial=0.0))
        if apart > TOLERANCE * max(largest, 1e-6):
            return f"output {name!r} by {apart:.3g} where the largest is {largest:.3g}"
    return None
