"""An imported graph made plainer, computing the same: linear layers, blocks of pixels as strides, weights with good names."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np

from quantize.onnx_channels import permute_makers, permute_weights, select_channels, selections_as_weights
from quantize.onnx_module import Array, Step
from quantize.onnx_plan import Plan, is_dense_conv

NUMBERED = re.compile(r"(onnx::)?[A-Za-z]*_?\d+")
FUSED = re.compile(r"[A-Za-z]+Fusion_[A-Za-z_]+_")
CHANGED = re.compile(r"(\.(permuted|unfolded|transposed|row))+$")
"""Names that exporters, ONNX Runtime and the rewritings here make up; the last two around one that was there."""
KERNEL = re.compile(r"([./](weight|kernel|w_\d+|ReadVariableOp(:\d+)?))+$")
"""How exporters end the name of a layer's weights."""


def rewritten(plan: Plan) -> Plan:
    """The plan after every rewriting here; it computes the same."""
    plan = plan.changed()
    for change in REWRITINGS:
        plan = change(plan)
    return plan


def _unfold_blocks(plan: Plan) -> Plan:
    """SpaceToDepth before a convolution, as one with larger filters and strides and as many multiplications: YOLO's Focus."""
    for fold in plan.steps:
        readers = plan.readers(fold.outputs[0])
        if fold.op != "SpaceToDepth" or fold.outputs[0] in plan.outputs or not all(_can_unfold(plan, conv) for conv in readers):
            continue
        block = fold.attributes["blocksize"]
        changes, constants = {}, {}
        for conv in readers:
            kernel = plan.constants[conv.inputs[1]]
            filters, channels, rows, columns = kernel.shape
            channels //= block * block
            name = f"{conv.inputs[1]}.unfolded"
            blocks = kernel.reshape(filters, block, block, channels, rows, columns)
            constants[name] = blocks.transpose(0, 3, 4, 1, 5, 2).reshape(filters, channels, rows * block, columns * block)
            larger = {
                "kernel_shape": [rows * block, columns * block],
                "strides": [stride * block for stride in conv.attributes.get("strides", [1, 1])],
                "pads": [amount * block for amount in conv.attributes.get("pads", [0] * 4)],
            }
            attributes = {**conv.attributes, **larger}
            changes[conv.outputs[0]] = replace(conv, attributes=attributes, inputs=(fold.inputs[0], name, *conv.inputs[2:]))
        plan = plan.changed(changes, constants)
    return plan


def _can_unfold(plan: Plan, step: Step) -> bool:
    is_plain = all(size == 1 for size in step.attributes.get("dilations", [1]))
    return is_dense_conv(plan, step) and is_plain and step.attributes.get("auto_pad", b"NOTSET") == b"NOTSET"


def _linear_layers(plan: Plan) -> Plan:
    """Gemm and MatMul with constant weights as Linear [out, in], scales folded in and an Add behind as its bias."""
    for step in plan.steps:
        kernel = plan.constants.get(step.inputs[1]) if step.op in ("Gemm", "MatMul") else None
        if kernel is None or kernel.ndim != 2 or step.attributes.get("transA", 0):
            continue
        outputs = kernel.shape[0] if step.attributes.get("transB", 0) else kernel.shape[1]
        value, last, bias = step.outputs[0], step, step.inputs[2] if len(step.inputs) > 2 else ""
        readers = plan.readers(value)
        if step.op == "MatMul" and value not in plan.outputs and len(readers) == 1 and readers[0].op == "Add":
            last = readers[0]
            bias = next(name for name in last.inputs if name != value)
        if bias and not _is_row(plan.constants.get(bias), outputs):
            if step.op == "Gemm":
                continue
            last, bias = step, ""
        weights = kernel * np.float32(step.attributes.get("alpha", 1))
        constants = {_own(plan, step.inputs[1], "transposed"): weights if step.attributes.get("transB", 0) else weights.T}
        if bias:
            row = plan.constants[bias].reshape(-1) * np.float32(step.attributes.get("beta", 1))
            constants[_own(plan, bias, "row")] = np.broadcast_to(row, (outputs,))
        linear = Step("Linear", step.name, step.opset, {}, (step.inputs[0], *constants), last.outputs)
        plan = plan.changed({last.outputs[0]: linear}, constants)
    return plan


def _is_row(array: Array | None, outputs: int) -> bool:
    """Whether an array is one number for each output, or one for all."""
    return array is not None and array.size in (1, outputs) and array.size == math.prod(array.shape[-1:])


def _own(plan: Plan, name: str, role: str) -> str:
    """A name for a constant that is changed for one step: its own where no other step reads it."""
    return name if len(plan.readers(name)) == 1 else f"{name}.{role}"


def _keep_batch(plan: Plan) -> Plan:
    """Mark each Reshape that keeps the leading 1, so that it keeps whatever number of images is there."""
    changes = {}
    for step in plan.steps:
        target = plan.constants.get(step.inputs[1]) if step.op == "Reshape" and len(step.inputs) > 1 else None
        if target is not None and target.size and plan.shapes.get(step.inputs[0], (0,))[:1] == (1,) and target[0] in (0, 1):
            changes[step.outputs[0]] = replace(step, attributes={**step.attributes, "batch_first": 1})
    return plan.changed(changes)


def _name_weights(plan: Plan) -> Plan:
    """Weights under names that mean something to whoever made the file: their own, or else the layer's."""
    names: dict[str, str] = {}
    for step in plan.steps:
        if step.op not in ("Conv", "ConvTranspose", "Linear", "BatchNormalization"):
            continue
        kernel = CHANGED.sub("", FUSED.sub("", step.inputs[1]))
        is_telling = step.inputs[1] in plan.constants and not NUMBERED.fullmatch(kernel)
        layer = KERNEL.sub("", kernel) if is_telling else step.name
        for name, role in zip(step.inputs[1:], ("weight", "bias"), strict=False):
            is_made_up = NUMBERED.fullmatch(name) or FUSED.match(name) or CHANGED.search(name)
            if name in plan.constants and is_made_up:
                names.setdefault(name, f"{layer}.{role}")
    taken = set(plan.constants) - set(names)
    for old, new in names.items():
        while new in taken:
            new += "_"
        taken.add(new)
        names[old] = new
    steps = tuple(replace(step, inputs=tuple(names.get(name, name) for name in step.inputs)) for step in plan.steps)
    return replace(plan, steps=steps, constants={names.get(name, name): array for name, array in plan.constants.items()})


REWRITINGS = (
    select_channels,
    permute_makers,
    permute_weights,
    selections_as_weights,
    _unfold_blocks,
    _linear_layers,
    _keep_batch,
    _name_weights,
)
