"""ONNX Runtime behind the Engine seam."""

from __future__ import annotations

import os
from typing import Literal

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on it opens connections of its own; read when it is loaded

import onnxruntime as ort

from edge.card import Variant
from edge.engines import EngineOptions
from edge.engines.adapt import InputAdapter, first_line, owned_float32
from edge.errors import EngineError
from edge.types import Outputs, Tensor

ort.set_default_logger_severity(3)  # what concerns the user is in the exception; warnings would break the one line
ROUNDING_OPTIMIZERS = ["WeightBiasQuantization"]
"""They round weights that a quantizer left in float on purpose, with one scale a tensor."""
LARGEST_BATCH = 8
"""For models whose first dimension is free."""
DTYPES: dict[str, Literal["uint8", "float32"]] = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxEngine:
    """One CPU session that runs on each caller's thread and `threads - 1` of its own."""

    name = "onnx"

    def __init__(self, model: bytes, variant: Variant, options: EngineOptions) -> None:
        self.threads, self.lanes = options.threads, options.lanes  # a session may be run by any number of threads
        session_options = ort.SessionOptions()
        session_options.intra_op_num_threads = options.threads
        session_options.inter_op_num_threads = 1
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spin else "0")
        session_options.add_session_config_entry("session.force_spinning_stop", "1")  # between frames it only heats
        if options.exact and variant.scheme == "s8s8":
            # x86 would turn signed activations into unsigned ones and leave some operators in float; ARM does neither
            session_options.add_session_config_entry("session.qdqisint8allowed", "1")
        elif variant.precision == "int8" and variant.weight_bits == 8:
            # x86 without VNNI saturates pairs of full-range products; nothing else does
            session_options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            session = ort.InferenceSession(
                model, session_options, providers=["CPUExecutionProvider"], disabled_optimizers=ROUNDING_OPTIMIZERS
            )
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            raise EngineError(f"ONNX Runtime {ort.__version__} refuses {variant.file}: {first_line(error)}") from None
        self._session: ort.InferenceSession | None = session
        self._input = variant.input.name
        self._adapt = InputAdapter(variant.input)
        self._roles = tuple(variant.outputs)
        self._outputs = [variant.outputs[role] for role in self._roles]
        self._check(session, variant)
        first = session.get_inputs()[0].shape[0]
        self.batch = LARGEST_BATCH if not isinstance(first, int) else 1

    def infer(self, tensor: Tensor) -> Outputs:
        """Outputs by role, float32. Raises EngineError."""
        if self._session is None:
            raise EngineError("the engine is closed")
        try:
            values = self._session.run(self._outputs, {self._input: self._adapt(tensor.data)})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on a {tensor.data.shape} input: {first_line(error)}") from None
        return {role: owned_float32(role, value) for role, value in zip(self._roles, values, strict=True)}

    def close(self) -> None:
        """Let go of the session and its memory."""
        self._session = None

    def _check(self, session: ort.InferenceSession, variant: Variant) -> None:
        inputs = {value.name: value for value in session.get_inputs()}
        outputs = {value.name for value in session.get_outputs()}
        for name, known in [(self._input, inputs), *((output, outputs) for output in self._outputs)]:
            if name not in known:
                raise EngineError(f"{variant.file} has no tensor named {name!r}; it has {', '.join(known)}")
        found = inputs[self._input].type
        if DTYPES.get(found) != variant.input.dtype:
            raise EngineError(f"{variant.file} wants {found} for {self._input!r}, its card says {variant.input.dtype}")
