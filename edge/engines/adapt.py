"""What stands between our uint8 NHWC tensor and the input that a file wants."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.card import TensorInput
from edge.errors import EngineError
from edge.types import Float32, UInt8


class InputAdapter:
    """Turns uint8 [1, h, w, 3] into what `spec` says; the identity for variants that edge-quantize makes."""

    def __init__(self, spec: TensorInput) -> None:
        self._spec = spec
        self._mean = np.array(spec.mean, np.float32)
        self._scale = np.array(spec.scale, np.float32)

    def __call__(self, data: UInt8) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = data
        if self._spec.dtype == "float32":
            values = (data.astype(np.float32) - self._mean) * self._scale
        if self._spec.layout == "nchw":
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        return values


def owned_float32(name: str, value: npt.NDArray[Any]) -> Float32:
    """An output as a float32 array that the engine will not overwrite. Raises EngineError for non-numeric outputs."""
    if value.dtype.kind not in "fiub":
        raise EngineError(f"output {name} is {value.dtype}, not numbers")
    return value.astype(np.float32, copy=False)


def first_line(error: Exception) -> str:
    """The first line of an engine's message, shortened to fit one line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 300 else text[:297] + "..."
