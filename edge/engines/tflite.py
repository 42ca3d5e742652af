"""LiteRT, or tflite-runtime where LiteRT has no wheel, behind the Engine seam."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.card import Variant
from edge.engines import EXTRAS, EngineOptions
from edge.engines.adapt import InputAdapter, first_line, owned_float32
from edge.errors import EngineError
from edge.types import Outputs, Tensor


def _interpreter_module() -> Any:
    """The first of the packages that has an interpreter; both have the same one."""
    for package in EXTRAS["tflite"]:
        try:
            return importlib.import_module(f"{package}.interpreter")
        except ModuleNotFoundError as error:
            if error.name != package:
                raise EngineError(f"{package} is installed but broken: {first_line(error)}") from None
        except ImportError as error:  # tflite-runtime built for NumPy 1 beside NumPy 2
            raise EngineError(f"{package} cannot be loaded: {first_line(error)}") from None
    raise EngineError("the tflite engine is not installed; pip install 'edge-run[tflite]'")


@contextmanager
def _hushed() -> Iterator[None]:
    """Send file descriptor 2 nowhere: LiteRT announces its delegate there and has no switch for it."""
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class TfliteEngine:
    """One interpreter with XNNPACK on `threads` threads; its tensors are copied out, never handed out."""

    name = "tflite"

    def __init__(self, model: bytes, variant: Variant, options: EngineOptions) -> None:
        self.threads = options.threads
        module = _interpreter_module()
        try:
            with _hushed():
                self._interpreter = module.Interpreter(model_content=model, num_threads=options.threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"LiteRT refuses {variant.file}: {first_line(error)}") from None
        self._adapt = InputAdapter(variant.input)
        inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        outputs = {detail["name"]: detail for detail in self._interpreter.get_output_details()}
        self._input = _find(inputs, variant.input.name, variant)
        self._outputs = {role: _find(outputs, name, variant) for role, name in variant.outputs.items()}
        found = np.dtype(self._input["dtype"]).name
        if found != variant.input.dtype:
            raise EngineError(f"{variant.file} wants {found} for {variant.input.name!r}, its card says {variant.input.dtype}")

    def infer(self, tensor: Tensor) -> Outputs:
        """Outputs by role, float32. Raises EngineError."""
        if self._interpreter is None:
            raise EngineError("the engine is closed")
        try:
            self._interpreter.set_tensor(self._input["index"], self._adapt(tensor.data))
            self._interpreter.invoke()
            return {role: _dequantized(role, self._interpreter, detail) for role, detail in self._outputs.items()}
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"LiteRT failed on a {tensor.data.shape} input: {first_line(error)}") from None

    def close(self) -> None:
        """Let go of the interpreter and its memory."""
        self._interpreter = None


def _find(details: dict[str, dict[str, Any]], name: str, variant: Variant) -> dict[str, Any]:
    if name not in details:
        raise EngineError(f"{variant.file} has no tensor named {name!r}; it has {', '.join(details)}")
    return details[name]


def _dequantized(role: str, interpreter: Any, detail: dict[str, Any]) -> npt.NDArray[np.float32]:
    value = interpreter.get_tensor(detail["index"])  # a copy
    scale, zero_point = detail["quantization"]
    if scale and value.dtype != np.float32:
        value = ((value.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return owned_float32(role, value)
