"""Channel shuffles and permutations of an imported graph, exactly, as slices or in the weights beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edge.errors import InputError
from quantize.onnx_module import Array, Constant, Node, Step
from quantize.onnx_ops import OPERATORS
from quantize.onnx_plan import Plan, is_dense_conv

MOVES = ("Reshape", "Transpose", "Gather", "Slice", "Split", "Squeeze", "Unsqueeze", "Flatten", "DepthToSpace", "SpaceToDepth")
UNARY = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSwish", "HardSigmoid", "Elu", "Softplus", "Mish", "Gelu")


def select_channels(plan: Plan) -> Plan:
    """Chains of data movement that amount to picking channels, as one Gather: the channel shuffle of ShuffleNet."""
    for step in plan.steps:
        for output in step.outputs:
            found = _selection(plan, step, output) if step.op in MOVES else None
            if found is not None:
                source, channels = found
                gather = Step("Gather", step.name, step.opset, {"axis": 1}, (source, f"{output}.channels"), (output,))
                plan = _with_own_maker(plan, output, gather).changed(constants={f"{output}.channels": channels})
    return plan


def _selection(plan: Plan, step: Step, output: str) -> tuple[str, Array] | None:
    """The value furthest up of which `output` holds channels and nothing else, and which."""
    shape = plan.shapes.get(output, ())
    if len(shape) != 4 or shape[0] != 1 or 0 in shape:
        return None
    best = None
    chain: list[Step] = []
    maker: Step | None = step
    while maker is not None and maker.op in MOVES and all(name in plan.constants for name in maker.inputs[1:] if name):
        chain.insert(0, maker)
        source = maker.inputs[0]
        from_shape = plan.shapes.get(source, ())
        is_plain = len(chain) == 1 and maker.op in ("Gather", "Slice", "Split")
        if len(from_shape) == 4 and from_shape[0] == 1 and from_shape[2:] == shape[2:] and not is_plain:
            channels = _channels(plan, chain, from_shape, output)
            best = best if channels is None else (source, channels)
        maker = plan.maker(source)
    return best


def _channels(plan: Plan, chain: Sequence[Step], shape: tuple[int, ...], output: str) -> Array | None:
    """The channels of a value of this shape that the chain picks, found by sending every element's index through it."""
    index = torch.arange(int(np.prod(shape))).reshape(shape)

    def place(name: str, make: Callable[[], Array], is_trained: bool) -> Tensor:
        return torch.from_numpy(np.array(make()))

    values = {chain[0].inputs[0]: index}
    for step in chain:
        constants = [Constant(name, plan.constants[name], place) if name else None for name in step.inputs[1:]]
        try:
            made = OPERATORS[step.op](Node(step, place), values[step.inputs[0]], *constants)
        except (RuntimeError, InputError):
            return None
        values.update(zip(step.outputs, [made] if isinstance(made, Tensor) else made, strict=True))
    picked = values[output]
    channels = picked[0, :, 0, 0] // (shape[2] * shape[3])
    return channels.numpy() if torch.equal(index[:, channels], picked) else None


def _with_own_maker(plan: Plan, output: str, made: Step) -> Plan:
    """The plan in which `made` makes `output` in place of the step that did, which keeps its other outputs."""
    steps: list[Step] = []
    for step in plan.steps:
        if output in step.outputs:
            steps.append(made)
            step = replace(step, outputs=tuple(f"{name}.unused" if name == output else name for name in step.outputs))
        steps.append(step)
    return replace(plan, steps=tuple(steps))


def _permutations(plan: Plan) -> list[tuple[Step, Array]]:
    """The steps that put all channels of a value in another order, and the order."""
    found = []
    for step in plan.steps:
        order = plan.constants.get(step.inputs[1]) if step.op == "Gather" and step.attributes.get("axis", 0) == 1 else None
        channels = plan.shapes.get(step.inputs[0], ())[1:2]
        if order is not None and channels and order.ndim == 1 and np.array_equal(np.sort(order), np.arange(channels[0])):
            found.append((step, order))
    return found


def permute_makers(plan: Plan) -> Plan:
    """A permutation of channels behind convolutions and activations, as convolutions whose filters are in that order."""
    for gather, order in _permutations(plan):
        changes = {gather.outputs[0]: replace(gather, op="Identity", attributes={}, inputs=gather.inputs[:1])}
        constants: dict[str, Array] = {}
        value = gather.inputs[0]
        while True:
            maker = plan.maker(value)
            if maker is None or len(plan.readers(value)) > 1 or value in plan.outputs:
                break
            if maker.op in UNARY and all(
                name in plan.constants and plan.constants[name].size == 1 for name in maker.inputs[1:]
            ):
                value = maker.inputs[0]
                continue
            groups = maker.attributes.get("group", 1)
            if (
                maker.op != "Conv"
                or any(name not in plan.constants for name in maker.inputs[1:])
                or groups not in (1, len(order))
            ):
                break
            if groups > 1 and len(plan.constants[maker.inputs[1]]) != groups:
                break
            names = tuple(f"{name}.permuted" for name in maker.inputs[1:])
            constants.update({new: plan.constants[name][order] for new, name in zip(names, maker.inputs[1:], strict=True)})
            changes[maker.outputs[0]] = replace(maker, inputs=(maker.inputs[0], *names))
            if groups == 1:
                plan = plan.changed(changes, constants)
                break
            value = maker.inputs[0]
    return plan


def permute_weights(plan: Plan) -> Plan:
    """A permutation of channels in front of convolutions, as convolutions that expect them in the other order."""
    for gather, order in _permutations(plan):
        readers = plan.readers(gather.outputs[0])
        if gather.outputs[0] in plan.outputs or not all(is_dense_conv(plan, step) for step in readers):
            continue
        changes, constants = {}, {}
        for conv in readers:
            name = f"{conv.inputs[1]}.permuted"
            constants[name] = plan.constants[conv.inputs[1]][:, np.argsort(order)]
            changes[conv.outputs[0]] = replace(conv, inputs=(gather.inputs[0], name, *conv.inputs[2:]))
        plan = plan.changed(changes, constants)
    return plan


def selections_as_weights(plan: Plan) -> Plan:
    """Scattered channels picked from a value, as zeros in the weights of the 1x1 convolutions that read them.

    For other readers a 1x1 convolution of ones picks them: engines copy single channels slowly, between layouts at that,
    and multiply fast. Neighbouring channels stay a slice.
    """
    for gather, picked in _selections(plan):
        source, made = gather.inputs[0], gather.outputs[0]
        width = plan.shapes[source][1]
        changes: dict[str, Step] = {}
        constants: dict[str, Array] = {}
        readers = plan.readers(made)
        pointwise = [step for step in readers if is_dense_conv(plan, step) and _is_pointwise(plan, step)]
        for conv in pointwise:
            kernel = plan.constants[conv.inputs[1]]
            name = f"{conv.inputs[1]}.spread"
            constants[name] = np.zeros((len(kernel), width, 1, 1), kernel.dtype)
            constants[name][:, picked] = kernel
            changes[conv.outputs[0]] = replace(conv, inputs=(source, name, *conv.inputs[2:]))
        if len(pointwise) < len(readers) or made in plan.outputs:
            name = f"{gather.name}.weight"
            constants[name] = np.zeros((len(picked), width, 1, 1), np.float32)
            constants[name][np.arange(len(picked)), picked] = 1
            options = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1}
            changes[made] = Step("Conv", gather.name, gather.opset, options, (source, name), (made,))
        plan = plan.changed(changes, constants)
    return plan


def _selections(plan: Plan) -> list[tuple[Step, Array]]:
    """The steps that pick some channels that are no neighbours, each once, and which."""
    found = []
    for step in plan.steps:
        picked = plan.constants.get(step.inputs[1]) if step.op == "Gather" and step.attributes.get("axis", 0) == 1 else None
        shape = plan.shapes.get(step.inputs[0], ())
        if picked is None or picked.ndim != 1 or len(shape) != 4 or len(np.unique(picked)) < len(picked):
            continue
        if 1 < len(picked) < shape[1] and not np.array_equal(picked, np.arange(picked[0], picked[0] + len(picked))):
            found.append((step, picked % shape[1]))
    return found


def _is_pointwise(plan: Plan, conv: Step) -> bool:
    return plan.constants[conv.inputs[1]].shape[2:] == (1, 1)
