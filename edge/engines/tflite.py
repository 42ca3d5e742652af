"""LiteRT, or tflite-runtime where LiteRT has no wheel, behind the Engine seam."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from queue import LifoQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.card import Variant
from edge.engines import EngineOptions, for_edge_tpu
from edge.engines.adapt import InputAdapter, first_line, owned_float32
from edge.errors import EngineError
from edge.extras import EDGE_TPU, EXTRAS
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
    """Interpreters with XNNPACK on `threads` threads, one a lane; their tensors are copied out, never handed out."""

    name = "tflite"
    batch = 1

    def __init__(self, model: bytes, variant: Variant, options: EngineOptions) -> None:
        self.threads, self.lanes = options.threads, options.lanes
        self._adapt = InputAdapter(variant.input)
        self._closed = False
        self._idle: LifoQueue[_Lane | None] = LifoQueue()
        for _ in range(options.lanes):
            self._idle.put(_Lane(model, variant, options))

    def infer(self, tensor: Tensor) -> Outputs:
        """Outputs by role, float32; waits for an interpreter when all are at work. Raises EngineError."""
        idle = self._idle
        lane = None if self._closed else idle.get()
        if lane is None:
            idle.put(None)  # for the next who waits
            raise EngineError("the engine is closed")
        try:
            return lane.infer(self._adapt(tensor.data))
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"LiteRT failed on a {tensor.data.shape} input: {first_line(error)}") from None
        finally:
            idle.put(lane)

    def close(self) -> None:
        """Let go of the interpreters and their memory."""
        self._closed = True
        idle, self._idle = self._idle, LifoQueue()
        idle.put(None)


class _Lane:
    """One interpreter, which only one thread may use at a time."""

    def __init__(self, model: bytes, variant: Variant, options: EngineOptions) -> None:
        module = _interpreter_module()
        more = _delegates(module, model, variant, options)
        try:
            with _hushed():
                self._interpreter = module.Interpreter(model_content=model, num_threads=options.threads, **more)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"LiteRT refuses {variant.file}: {first_line(error)}") from None
        inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        outputs = {detail["name"]: detail for detail in self._interpreter.get_output_details()}
        self._input = _find(inputs, variant.input.name, variant)
        self._outputs = {role: _find(outputs, name, variant) for role, name in variant.outputs.items()}
        found = np.dtype(self._input["dtype"]).name
        if found != variant.input.dtype:
            raise EngineError(f"{variant.file} wants {found} for {variant.input.name!r}, its card says {variant.input.dtype}")

    def infer(self, values: npt.NDArray[Any]) -> Outputs:
        self._interpreter.set_tensor(self._input["index"], values)
        self._interpreter.invoke()
        return {role: _dequantized(role, self._interpreter, detail) for role, detail in self._outputs.items()}


def _delegates(module: Any, model: bytes, variant: Variant, options: EngineOptions) -> dict[str, Any]:
    """What to give the interpreter for its accelerator; nothing for the CPU's. Raises EngineError when it is not there."""
    accelerator = "edgetpu" if for_edge_tpu(model) else options.accelerator
    if accelerator == "cpu":
        return {}
    if accelerator != "edgetpu":
        raise EngineError(f"LiteRT has no accelerator {accelerator!r}, it has cpu, edgetpu")
    try:
        ctypes.CDLL(EDGE_TPU)  # a library that is not there makes load_delegate complain twice, the second time by itself
        with _hushed():
            delegate = module.load_delegate(EDGE_TPU, dict(options.options))
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise EngineError(
            f"{variant.file}: the Edge TPU cannot be used: {first_line(error)}; install Coral's libedgetpu1-std and plug it in"
        ) from None
    return {"experimental_delegates": [delegate]}


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
