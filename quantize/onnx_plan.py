"""The steps of a network to be and their constants, before anything runs; changed by making another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quantize.onnx_module import Array, Step

NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a network will run. `shapes` are of values for one image; a size of 0 is unknown."""

    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    input_name: str
    outputs: tuple[str, ...]

    def readers(self, name: str) -> list[Step]:
        """The steps that read a value."""
        return [step for step in self.steps if name in step.inputs]

    def maker(self, name: str) -> Step | None:
        """The step that makes a value; None for the input and constants."""
        return next((step for step in self.steps if name in step.outputs), None)

    def changed(self, changes: Mapping[str, Step] = NOTHING, constants: Mapping[str, Array] = NOTHING) -> Plan:
        """The plan with the steps that make a value of `changes` replaced, and without what nobody reads."""
        steps = [changes.get(step.outputs[0], step) for step in self.steps]
        needed = set(self.outputs)
        kept = []
        for step in reversed(steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                kept.append(step)
        left = {name: array for name, array in {**self.constants, **constants}.items() if name in needed}
        return replace(self, steps=tuple(reversed(kept)), constants=left)


def is_dense_conv(plan: Plan, step: Step) -> bool:
    """Whether a step is a convolution with constant weights that mixes all channels."""
    return step.op == "Conv" and step.inputs[1] in plan.constants and step.attributes.get("group", 1) == 1
