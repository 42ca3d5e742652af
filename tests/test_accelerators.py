"""CUDA, TensorRT and the Edge TPU as far as they go without the hardware: what they are asked for, and what is said."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge.card import TensorInput, Variant
from edge.engines import EngineOptions, for_edge_tpu, open_engine
from edge.engines import onnx as onnx_engine
from edge.engines import tflite as tflite_engine
from tests.test_engines import LOGITS, pictures, refusal, variant
from tests.tiny import tiny_onnx
from tests.tiny_tflite import SIZE, tiny_tflite

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
ONNX = tiny_onnx(size=SIZE)
TFLITE = tiny_tflite("uint8")


@dataclass
class Sessions:
    """Stands for the ONNX Runtime of a machine with these providers; sessions run on the CPU all the same."""

    available: tuple[str, ...]
    starts: tuple[str, ...]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, model: bytes, options: object, **given: Any) -> Any:
        self.asked.append(given)
        session = REAL(model, options, **{**given, "providers": [CPU]})
        session.get_providers = lambda: [*self.starts, CPU]
        return session


REAL = onnx_engine.ort.InferenceSession


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sessions:
    made = Sessions((TENSORRT, CUDA, CPU), (TENSORRT, CUDA))
    monkeypatch.setattr(onnx_engine.ort, "get_available_providers", lambda: list(made.available))
    monkeypatch.setattr(onnx_engine.ort, "InferenceSession", made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return made


def onnx_variant(**more: Any) -> Variant:
    return variant(ONNX, "onnx", TensorInput(name="image"), LOGITS, **more)


def open_onnx(accelerator: str, options: dict[str, str] | None = None, **more: Any) -> Any:
    asked = EngineOptions(accelerator=accelerator, options=tuple((options or {}).items()))
    return open_engine(ONNX, onnx_variant(**more), asked)


def providers(sessions: Sessions) -> list[Any]:
    found: list[Any] = sessions.asked[-1]["providers"]
    return found


def test_without_an_accelerator_nothing_is_asked_for_but_the_cpu(sessions: Sessions) -> None:
    open_onnx("cpu")
    assert sessions.asked == [{"providers": [CPU], "disabled_optimizers": onnx_engine.ROUNDING_OPTIMIZERS}]


def test_cuda_then_the_cpu(sessions: Sessions) -> None:
    engine = open_onnx("cuda", {"device_id": "1"})
    assert providers(sessions) == [(CUDA, {"device_id": "1"}), CPU]
    assert sessions.asked[-1]["enable_fallback"] == 0
    assert engine.infer(pictures()[0])["logits"].shape == (1, 10)


def test_tensorrt_then_cuda_then_the_cpu_with_its_engines_kept(sessions: Sessions, tmp_path: Path) -> None:
    open_onnx("tensorrt", {"trt_fp16_enable": "1"})
    place = tmp_path / "edge-run" / "tensorrt" / onnx_engine.ort.__version__ / onnx_variant().sha256[:16]
    assert place.is_dir()
    assert providers(sessions) == [
        (
            TENSORRT,
            {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(place),
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": str(place),
                "trt_fp16_enable": "1",
            },
        ),
        (CUDA, {}),
        CPU,
    ]


def test_tensorrt_without_cuda(sessions: Sessions) -> None:
    sessions.available = (TENSORRT, CPU)
    open_onnx("tensorrt")
    assert [one if isinstance(one, str) else one[0] for one in providers(sessions)] == [TENSORRT, CPU]


def test_int8_is_asked_of_tensorrt_for_what_is_int8_and_the_profile_has_the_last_word(sessions: Sessions) -> None:
    open_onnx("tensorrt")
    assert "trt_int8_enable" not in providers(sessions)[0][1]
    quantized = {"precision": "int8", "scheme": "s8s8", "weight_bits": 8}
    open_onnx("tensorrt", **quantized)
    assert providers(sessions)[0][1]["trt_int8_enable"] == "1"
    open_onnx("tensorrt", {"trt_int8_enable": "0", "trt_engine_cache_path": "/elsewhere"}, **quantized)
    assert providers(sessions)[0][1]["trt_int8_enable"] == "0"
    assert providers(sessions)[0][1]["trt_engine_cache_path"] == "/elsewhere"


@pytest.mark.parametrize("home", ["file", "locked", None])
def test_engines_are_not_kept_where_nothing_can_be(
    sessions: Sessions, tmp_path: Path, home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home is None:
        monkeypatch.setattr(onnx_engine, "cache_folder", lambda: None)
    elif home == "file":
        (tmp_path / "edge-run").write_text("")
    else:
        monkeypatch.setattr(onnx_engine.os, "access", lambda path, mode: mode != os.W_OK)
    open_onnx("tensorrt")
    assert providers(sessions)[0] == (TENSORRT, {})


@pytest.mark.parametrize(("accelerator", "provider"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_a_provider_that_is_not_built_in(sessions: Sessions, accelerator: str, provider: str) -> None:
    sessions.available = (CPU,)
    line = refusal(lambda: open_onnx(accelerator))
    assert f"has no {provider}" in line
    assert "onnxruntime-gpu" in line
    assert sessions.asked == []


@pytest.mark.parametrize(("accelerator", "starts"), [("cuda", ()), ("tensorrt", ()), ("tensorrt", (CUDA,))])
def test_a_session_that_quietly_went_without_is_refused(sessions: Sessions, accelerator: str, starts: tuple[str, ...]) -> None:
    sessions.starts = starts
    assert "cannot start" in refusal(lambda: open_onnx(accelerator))


@pytest.mark.parametrize("accelerator", ["edgetpu", "npu", ""])
def test_an_accelerator_that_onnx_runtime_knows_nothing_of(sessions: Sessions, accelerator: str) -> None:
    assert f"no accelerator {accelerator!r}" in refusal(lambda: open_onnx(accelerator))


def test_this_machine_says_what_is_missing() -> None:
    if CUDA in onnx_engine.ort.get_available_providers():
        pytest.skip("it has CUDA")
    assert "has no CUDAExecutionProvider" in refusal(lambda: open_onnx("cuda"))


# the Edge TPU


@dataclass
class Interpreters:
    """Stands for LiteRT on a machine with a Coral, which `trouble` keeps from working."""

    trouble: Exception | None = None
    loaded: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    given: list[dict[str, Any]] = field(default_factory=list)

    def load_delegate(self, library: str, options: dict[str, str]) -> str:
        if self.trouble is not None:
            raise self.trouble
        self.loaded.append((library, options))
        return "the delegate"

    def Interpreter(self, **given: Any) -> Any:
        self.given.append({name: value for name, value in given.items() if name != "model_content"})
        return tflite_interpreter(model_content=TFLITE, num_threads=given["num_threads"])


def tflite_interpreter(**given: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(**given)


@pytest.fixture
def interpreters(monkeypatch: pytest.MonkeyPatch) -> Interpreters:
    made = Interpreters()
    monkeypatch.setattr(tflite_engine, "_interpreter_module", lambda: made)
    monkeypatch.setattr(tflite_engine.ctypes, "CDLL", lambda name: None)
    return made


def open_tflite(model: bytes, options: EngineOptions) -> Any:
    return open_engine(model, variant(model, "tflite", TensorInput(name="image"), LOGITS), options)


COMPILED = TFLITE + b"edgetpu-custom-op"


def test_a_file_for_the_edge_tpu_is_known_by_its_operator() -> None:
    assert for_edge_tpu(COMPILED)
    assert not for_edge_tpu(TFLITE)


def test_a_file_for_the_cpu_loads_no_delegate(interpreters: Interpreters) -> None:
    open_tflite(TFLITE, EngineOptions(2))
    assert interpreters.loaded == []
    assert interpreters.given == [{"num_threads": 2}]


@pytest.mark.parametrize(("model", "accelerator"), [(COMPILED, "cpu"), (COMPILED, "edgetpu"), (TFLITE, "edgetpu")])
def test_the_delegate_is_loaded_for_what_is_compiled_or_asked_for(
    interpreters: Interpreters, model: bytes, accelerator: str
) -> None:
    engine = open_tflite(model, EngineOptions(accelerator=accelerator, options=(("device", "usb"),)))
    assert interpreters.loaded == [("libedgetpu.so.1", {"device": "usb"})]
    assert interpreters.given == [{"num_threads": 1, "experimental_delegates": ["the delegate"]}]
    assert engine.infer(pictures()[0])["logits"].shape == (1, 3)


@pytest.mark.parametrize(
    "trouble", [ValueError("Failed to load delegate from libedgetpu.so.1\n"), RuntimeError("a"), OSError("b")]
)
def test_a_coral_that_is_not_plugged_in(interpreters: Interpreters, trouble: Exception) -> None:
    interpreters.trouble = trouble
    line = refusal(lambda: open_tflite(COMPILED, EngineOptions()))
    assert "the Edge TPU cannot be used" in line
    assert "libedgetpu1-std" in line


def test_this_machine_has_no_edge_tpu() -> None:
    with suppress(OSError):
        ctypes.CDLL("libedgetpu.so.1")
        pytest.skip("it has the library")
    line = refusal(lambda: open_tflite(TFLITE, EngineOptions(accelerator="edgetpu")))
    assert "the Edge TPU cannot be used: libedgetpu.so.1" in line


def test_an_accelerator_that_litert_knows_nothing_of() -> None:
    assert "no accelerator 'cuda'" in refusal(lambda: open_tflite(TFLITE, EngineOptions(accelerator="cuda")))
