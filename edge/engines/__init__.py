"""Engines by name. Each heavy import sits inside the factory that needs it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from edge.card import Variant
from edge.errors import EngineError
from edge.extras import installed
from edge.protocols import Engine
from edge.types import Outputs, Tensor

EDGE_TPU_OPERATOR = b"edgetpu-custom-op"
"""In files that edgetpu_compiler wrote, and in no others."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine runs: its threads, whether they spin within an inference, and whether x86 computes as ARM does.

    `lanes` is how many inferences may run at once, each with `threads` threads. `exact` makes ONNX Runtime on x86 compute
    bit for bit what ARM computes, at a quarter of its speed for s8s8 variants. `accelerator` is "cpu", "cuda", "tensorrt"
    or "edgetpu", and `options` are its own, given to it as they are; one that cannot be had is an EngineError.
    """

    threads: int = 1
    spin: bool = False
    exact: bool = False
    lanes: int = 1
    accelerator: str = "cpu"
    options: tuple[tuple[str, str], ...] = ()


def _open_onnx(model: bytes, variant: Variant, options: EngineOptions) -> Engine:
    try:
        from edge.engines.onnx import OnnxEngine
    except ImportError as error:
        raise EngineError(f"onnxruntime is installed but cannot be loaded: {error}; reinstall it") from None

    return OnnxEngine(model, variant, options)


def _open_tflite(model: bytes, variant: Variant, options: EngineOptions) -> Engine:
    from edge.engines.tflite import TfliteEngine

    return TfliteEngine(model, variant, options)


ENGINES: dict[str, Callable[[bytes, Variant, EngineOptions], Engine]] = {"onnx": _open_onnx, "tflite": _open_tflite}


def for_edge_tpu(model: bytes) -> bool:
    """Whether a file is compiled for the Edge TPU, without which it cannot run."""
    return EDGE_TPU_OPERATOR in model


def infer(engine: Engine, tensor: Tensor) -> Outputs:
    """The outputs of however many pictures, as many at a time as the engine takes. Raises EngineError."""
    if len(tensor.data) <= engine.batch:
        return engine.infer(tensor)
    starts = range(0, len(tensor.data), engine.batch)
    parts = [engine.infer(replace(tensor, data=tensor.data[start : start + engine.batch])) for start in starts]
    return {role: np.concatenate([part[role] for part in parts]) for role in parts[0]}


def open_engine(model: bytes, variant: Variant, options: EngineOptions) -> Engine:
    """Load a variant's file into its engine. Raises EngineError when the engine is absent or refuses the model."""
    if not installed(variant.engine):
        raise EngineError(f"{variant.name} needs the {variant.engine} engine; pip install 'edge-run[{variant.engine}]'")
    with _unbroken():
        return ENGINES[variant.engine](model, variant, options)


@contextmanager
def _unbroken() -> Iterator[None]:
    """Let Ctrl-C wait until an engine is loaded: compiled modules make of it an error of their own, as if they were broken."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            before(signal.SIGINT, None)
