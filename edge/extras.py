"""Which packages provide an engine; imports none of them, and nothing else that may be broken."""

from __future__ import annotations

from importlib.util import find_spec

EDGE_TPU = "libedgetpu.so.1"
EXTRAS = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert", "tflite_runtime")}
"""Engine → the packages that provide it, any one of which will do."""

DISTRIBUTIONS = {
    "onnx": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "tflite": ("ai-edge-litert", "tflite-runtime"),
}
"""Engine → the distributions that may have brought it, as pip names them; those of an accelerator after the plain one."""


def installed(engine: str) -> bool:
    """Whether a package that provides this engine is there."""
    return any(map(is_there, EXTRAS[engine]))


def is_there(module: str) -> bool:
    """Whether a module could be imported; imports nothing."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):  # a half-installed package
        return False
