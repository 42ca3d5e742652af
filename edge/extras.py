"""Which packages provide an engine; imports none of them, and nothing else that may be broken."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert", "tflite_runtime")}
"""Engine → the packages that provide it, any one of which will do."""


def installed(engine: str) -> bool:
    """Whether a package that provides this engine is there."""
    return any(find_spec(package) is not None for package in EXTRAS[engine])
