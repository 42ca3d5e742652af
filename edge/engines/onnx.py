"""ONNX Runtime behind the Engine seam."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on it opens connections of its own; read when it is loaded

import onnxruntime as ort

from edge.card import Variant
from edge.choice import cache_folder
from edge.engines import EngineOptions
from edge.engines.adapt import InputAdapter, first_line, owned_float32
from edge.errors import EngineError
from edge.types import Outputs, Tensor

ort.set_default_logger_severity(3)  # what concerns the user is in the exception; warnings would break the one line
ROUNDING_OPTIMIZERS = ["WeightBiasQuantization"]
"""They round weights that a quantizer left in float on purpose, with one scale a tensor."""
LARGEST_BATCH = 8
"""For models whose first dimension is free."""
PROVIDERS = {"cpu": (), "cuda": ("CUDAExecutionProvider",), "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider")}
"""Accelerator → the execution providers that it is asked of, before the CPU's, which takes what they leave."""
Provider: TypeAlias = str | tuple[str, dict[str, str]]
DTYPES: dict[str, Literal["uint8", "float32"]] = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxEngine:
    """One session that runs on each caller's thread and `threads - 1` of its own: on the CPU, or on an accelerator."""

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
        # a session that fails on an accelerator would otherwise print on standard output and go on without it
        more: dict[str, Any] = {} if options.accelerator == "cpu" else {"enable_fallback": 0}
        try:
            session = ort.InferenceSession(
                model,
                session_options,
                providers=_providers(variant, options),
                disabled_optimizers=ROUNDING_OPTIMIZERS,
                **more,
            )
        except EngineError:
            raise
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            raise EngineError(f"ONNX Runtime {ort.__version__} refuses {variant.file}: {first_line(error)}") from None
        if (wanted := PROVIDERS[options.accelerator][:1]) and wanted[0] not in session.get_providers():
            raise EngineError(
                f"ONNX Runtime {ort.__version__} cannot start {wanted[0]} here; install the CUDA, cuDNN and TensorRT that it "
                "was built for"
            )
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


def _providers(variant: Variant, options: EngineOptions) -> list[Provider]:
    """What may run the model, in the order to try; the CPU is last. Raises EngineError when the accelerator is not there."""
    if options.accelerator not in PROVIDERS:
        raise EngineError(f"ONNX Runtime has no accelerator {options.accelerator!r}, it has {', '.join(PROVIDERS)}")
    wanted = PROVIDERS[options.accelerator]
    available = ort.get_available_providers()
    if wanted and wanted[0] not in available:
        raise EngineError(
            f"ONNX Runtime {ort.__version__} has no {wanted[0]}; install onnxruntime-gpu, on a Jetson NVIDIA's build"
        )
    own = dict(options.options)
    if options.accelerator == "tensorrt":
        own = _tensorrt_options(variant) | own
    first: list[Provider] = [(name, own if name == wanted[0] else {}) for name in wanted if name in available]
    return [*first, "CPUExecutionProvider"]


def _tensorrt_options(variant: Variant) -> dict[str, str]:
    """Int8 for variants that are, and a folder for the engines it builds: building one takes minutes, reading it seconds."""
    built = {"trt_int8_enable": "1"} if variant.precision == "int8" else {}
    folder = cache_folder()
    if folder is None:
        return built
    place = folder / "tensorrt" / ort.__version__ / variant.sha256[:16]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home
        return built
    if not os.access(place, os.W_OK):
        return built
    return built | {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(place),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(place),
    }
