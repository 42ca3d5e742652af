"""A network made of ONNX nodes: a torch module that runs them one after another, which torch.export can capture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge.errors import EdgeError, InputError
from quantize.check import reason

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One ONNX node. An input is the name of a value or of a constant, "" where an optional one is absent.

    `spent` are the values that no later step reads.
    """

    op: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spent: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}"


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant as an operator sees it: an array to decide by, and a tensor of the network where it computes with it."""

    name: str
    array: Array
    place: Callable[[str, Callable[[], Array], bool], Tensor]

    def tensor(self) -> Tensor:
        """The constant as a buffer of the network, which training leaves alone."""
        return self.place(self.name, lambda: self.array, False)

    def weight(self, role: str = "", change: Callable[[Array], Array] | None = None) -> Tensor:
        """The constant as a parameter of the network; what `change` makes of it goes under its name and `role`."""
        name = f"{self.name}.{role}" if role else self.name
        return self.place(name, lambda: self.array if change is None else change(self.array), True)

    def integers(self) -> list[int]:
        """Every element, as Python integers."""
        return [int(element) for element in self.array.reshape(-1)]


Value = Tensor | Constant | None


def tensor(value: Value) -> Tensor:
    """A value to compute with; a constant is a buffer."""
    assert value is not None
    return value.tensor() if isinstance(value, Constant) else value


def weight(value: Value) -> Tensor | None:
    """A value to compute with, or None; a constant is a parameter."""
    return value.weight() if isinstance(value, Constant) else value


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A step while it runs: its attributes, and room for constants of its own."""

    step: Step
    place: Callable[[str, Callable[[], Array], bool], Tensor]

    @property
    def opset(self) -> int:
        return self.step.opset

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute, or `default` when the node has none of this name."""
        return self.step.attributes.get(name, default)

    def integers(self, name: str, value: Value = None) -> list[int] | None:
        """Integers that are an input in newer operator sets and an attribute in older ones; None when absent in both."""
        if isinstance(value, Constant):
            return value.integers()
        if value is not None:
            raise self.refused(f"computes its {name} while it runs")
        found = self.attribute(name)
        return None if found is None else [int(element) for element in found]

    def buffer(self, role: str, make: Callable[[], Array]) -> Tensor:
        """A constant that this node needs beside the file's own."""
        return self.place(f"{self.step.outputs[0]}.{role}", make, False)

    def refused(self, why: str) -> InputError:
        return InputError(f"{self.step} {why}, which cannot be imported")


Operator = Callable[..., Tensor | Sequence[Tensor]]


class OnnxNetwork(nn.Module):
    """Runs `steps` on an image [n, 3, h, w] float32 and returns the values `outputs`, one tensor or a tuple.

    Constants that operators compute with become parameters and buffers under the names they have in the file, on the
    first run; the others stay out of the module. Raises InputError, which names the node, where a node cannot run.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        constants: Mapping[str, Array],
        operators: Mapping[str, Operator],
        input_name: str,
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self._steps = with_spent(steps, outputs)
        self._operators = {step.op: operators[step.op] for step in steps}
        self._constants = dict(constants)
        self._input_name = input_name
        self._outputs = tuple(outputs)
        self._places: dict[str, str] = {}

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        values: dict[str, Tensor] = {self._input_name: image}
        for step in self._steps:
            arguments = [self._value(name, values) for name in step.inputs]
            try:
                made = self._operators[step.op](Node(step, self._place), *arguments)
            except (EdgeError, KeyboardInterrupt):
                raise
            except Exception as error:  # torch raises classes of its own
                raise InputError(f"{step} cannot be run in torch: {reason(error)}") from error
            values.update(zip(step.outputs, [made] if isinstance(made, Tensor) else made, strict=True))
            for name in step.spent:
                values.pop(name, None)
        results = tuple(self._result(name, values) for name in self._outputs)
        return results[0] if len(results) == 1 else results

    def _result(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        value = self._value(name, values)
        assert value is not None
        return value.tensor() if isinstance(value, Constant) else value

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Value:
        if not name:
            return None
        if name in values:
            return values[name]
        return Constant(name, self._constants[name], self._place)

    def _place(self, name: str, make: Callable[[], Array], is_trained: bool) -> Tensor:
        """The tensor under the name, made and registered when it is asked for the first time."""
        if name not in self._places:
            owner, leaf = self._room(name)
            tensor = torch.from_numpy(np.array(make(), order="C"))
            if is_trained and tensor.is_floating_point():
                owner.register_parameter(leaf, nn.Parameter(tensor))
            else:
                owner.register_buffer(leaf, tensor)
            self._places[name] = self._path(owner, leaf)
        owner_path, _, leaf = self._places[name].rpartition(".")
        found: Tensor = getattr(self.get_submodule(owner_path), leaf)
        return found

    def _path(self, owner: nn.Module, leaf: str) -> str:
        [path] = [path for path, module in self.named_modules() if module is owner]
        return f"{path}.{leaf}" if path else leaf

    def _room(self, name: str) -> tuple[nn.Module, str]:
        """The submodule and attribute for a name such as `backbone.0.weight`: dots and slashes part, the rest is kept."""
        *folders, leaf = [re.sub(r"\W", "_", part) for part in re.split(r"[./]", name) if part] or ["constant"]
        owner: nn.Module = self
        for folder in folders:
            while hasattr(owner, folder) and not isinstance(owner._modules.get(folder), nn.Module):
                folder += "_"
            if folder not in owner._modules:
                owner.add_module(folder, nn.Module())
            owner = owner.get_submodule(folder)
        while hasattr(owner, leaf):
            leaf += "_"
        return owner, leaf


def with_spent(steps: Sequence[Step], outputs: Sequence[str]) -> tuple[Step, ...]:
    """The steps, each with the values that it is the last to read."""
    kept = set(outputs)
    backwards = []
    for step in reversed(steps):
        spent = tuple({name for name in (*step.inputs, *step.outputs) if name} - kept)
        kept.update(spent)
        backwards.append(replace(step, spent=spent))
    return tuple(reversed(backwards))
