"""One contract over every engine, then what each does of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.bundle import open_bundle, sha256
from edge.card import TensorInput, Variant
from edge.engines import ENGINES, EngineOptions, open_engine
from edge.engines.adapt import InputAdapter, first_line, owned_float32
from edge.engines.fake import FakeEngine
from edge.errors import EngineError
from edge.extras import EXTRAS, installed
from edge.protocols import Engine
from edge.types import Geometry, Tensor, UInt8
from tests.tiny import tiny_onnx
from tests.tiny_tflite import SIZE, tiny_tflite


def variant(model: bytes, engine: str, input: TensorInput, outputs: dict[str, str], **more: Any) -> Variant:
    return Variant(
        name="test",
        file=f"test.{engine}",
        engine=engine,  # type: ignore[arg-type]
        sha256=sha256(model),
        bytes=len(model),
        input=input,
        outputs=outputs,  # type: ignore[arg-type]
        tolerance=0.0,
        **({"precision": "float32", "scheme": "none", "weight_bits": 32} | more),
    )


def tensor(data: UInt8) -> Tensor:
    return Tensor(data, Geometry((1.0, 1.0), (0.0, 0.0), (data.shape[2], data.shape[1])))


def pictures(size: int = SIZE) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(3)
    dark, bright = (rng.integers(low, low + 100, (1, size, size, 3), dtype=np.uint8) for low in (0, 150))
    return tensor(dark), tensor(bright)


def graph(nodes: list[Any], dtype: int, shape: list[int], output: int = TensorProto.FLOAT, outputs: int = 1) -> bytes:
    """An ONNX model from `x` to `y` (and `y1`, ...)."""
    names = ["y", *(f"y{i}" for i in range(1, outputs))]
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(name, output, None) for name in names],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


NHWC_UINT8 = TensorInput(name="image")
LOGITS = {"logits": "logits"}


@dataclass(frozen=True)
class Case:
    model: bytes
    variant: Variant
    classes: int

    def open(self, threads: int = 1, spin: bool = False) -> Engine:
        if self.variant.engine == "fake":
            return FakeEngine(self.classes, threads)
        return open_engine(self.model, self.variant, EngineOptions(threads, spin))

    def changed(self, **fields: Any) -> Case:
        return Case(self.model, msgspec.structs.replace(self.variant, **fields), self.classes)


def case(model: bytes, engine: str, classes: int, input: TensorInput = NHWC_UINT8) -> Case:
    return Case(model, variant(model, engine, input, LOGITS), classes)


FLOAT_NHWC = TensorInput(name="image", dtype="float32", mean=(10.0, 20.0, 30.0), scale=(0.1, 0.2, 0.3))
FILES = {
    "onnx": case(tiny_onnx(size=SIZE), "onnx", 10),
    "tflite uint8": case(tiny_tflite("uint8"), "tflite", 3),
    "tflite float32": case(tiny_tflite("float32"), "tflite", 3, FLOAT_NHWC),
}
ALL = FILES | {"fake": case(b"", "fake", 10)}


@pytest.fixture(params=ALL)
def any_case(request: pytest.FixtureRequest) -> Case:
    return ALL[request.param]


@pytest.fixture(params=FILES)
def file_case(request: pytest.FixtureRequest) -> Case:
    return FILES[request.param]


def refusal(open_it: Callable[[], object]) -> str:
    with pytest.raises(EngineError) as error:
        open_it()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    return str(error.value)


# the contract


def test_outputs_by_role(any_case: Case) -> None:
    outputs = any_case.open().infer(pictures()[0])
    assert list(outputs) == ["logits"]
    assert outputs["logits"].dtype == np.float32
    assert outputs["logits"].shape == (1, any_case.classes)
    assert np.isfinite(outputs["logits"]).all()


def test_outputs_are_owned(any_case: Case) -> None:
    engine, (dark, bright) = any_case.open(), pictures()
    first = engine.infer(dark)["logits"]
    kept = first.copy()
    second = engine.infer(bright)["logits"]
    np.testing.assert_array_equal(first, kept)
    assert np.abs(first - second).max() > 0.1
    first[:] = 99  # the caller may write into it
    second[:] = 99
    np.testing.assert_array_equal(engine.infer(dark)["logits"], kept)


def test_outputs_outlive_the_engine(any_case: Case) -> None:
    engine = any_case.open()
    outputs = engine.infer(pictures()[0])["logits"]
    kept = outputs.copy()
    engine.close()
    del engine
    np.testing.assert_array_equal(outputs, kept)


def test_the_input_is_left_alone(any_case: Case) -> None:
    given = pictures()[0]
    kept = given.data.copy()
    given.data.flags.writeable = False
    any_case.open().infer(given)
    np.testing.assert_array_equal(given.data, kept)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spin", [True, False])
def test_threads_are_reported_and_do_not_change_the_answer(any_case: Case, threads: int, spin: bool) -> None:
    engine = any_case.open(threads, spin)
    assert engine.threads == threads
    assert engine.name in (*ENGINES, "fake")
    for given in pictures():
        np.testing.assert_allclose(engine.infer(given)["logits"], any_case.open().infer(given)["logits"], atol=1e-5)


def test_closed(any_case: Case) -> None:
    engine = any_case.open()
    engine.close()
    engine.close()
    assert "close" in refusal(lambda: engine.infer(pictures()[0]))


def test_a_picture_that_is_not_contiguous(any_case: Case) -> None:
    given = pictures()[0]
    wide = np.zeros((1, SIZE, 2 * SIZE, 3), np.uint8)
    wide[:, :, ::2] = given.data
    np.testing.assert_array_equal(
        any_case.open().infer(tensor(wide[:, :, ::2]))["logits"], any_case.open().infer(given)["logits"]
    )


# files


@pytest.mark.parametrize("model", [b"x", b"not a model at all", bytes(1000), b"TFL3" * 100, b"\x08\x09" * 50])
def test_files_that_are_no_model(file_case: Case, model: bytes) -> None:
    line = refusal(Case(model, file_case.variant, 1).open)
    assert "refuses" in line
    assert file_case.variant.file in line


def test_a_model_cut_short(file_case: Case) -> None:
    for length in range(1, len(file_case.model) - 16, 29):
        refused = Case(file_case.model[:length], file_case.variant, 1)
        try:
            refused.open()
        except EngineError as error:
            line = str(error)
        else:
            pytest.fail(f"{length} of {len(file_case.model)} bytes were taken for a model")
        assert "\n" not in line


def test_a_tensor_that_the_file_does_not_have(file_case: Case) -> None:
    wrong_input = msgspec.structs.replace(file_case.variant.input, name="picture")
    assert "'picture'; it has image" in refusal(file_case.changed(input=wrong_input).open)
    assert "'scores'; it has logits" in refusal(file_case.changed(outputs={"logits": "scores"}).open)


def test_a_card_with_another_type(file_case: Case) -> None:
    told = "float32" if file_case.variant.input.dtype == "uint8" else "uint8"
    wrong = msgspec.structs.replace(file_case.variant.input, dtype=told)
    assert f"its card says {told}" in refusal(file_case.changed(input=wrong).open)


@pytest.mark.parametrize(
    "shape", [(1, 4, 4, 3), (1, SIZE, SIZE, 4), (1, SIZE, SIZE + 1, 3), (2, SIZE, SIZE, 3), (SIZE, SIZE, 3)]
)
def test_an_input_of_another_shape(file_case: Case, shape: tuple[int, ...]) -> None:
    if len(shape) == 3 and file_case.variant.input.layout == "nchw":
        pytest.skip("has no four axes to swap")
    given = Tensor(np.zeros(shape, np.uint8), Geometry((1.0, 1.0), (0.0, 0.0), (8, 8)))
    engine = file_case.open()
    line = refusal(lambda: engine.infer(given))
    assert str(shape) in line
    assert engine.infer(pictures()[0])["logits"].shape == (1, file_case.classes)  # and it goes on


def test_nothing_is_printed(file_case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    refusal(Case(b"not a model at all", file_case.variant, 1).open)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_an_engine_that_is_not_installed(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, engine, ("no_such_package", "nor_this"))
    assert not installed(engine)
    found = next(case for case in FILES.values() if case.variant.engine == engine)
    assert f"pip install 'edge-run[{engine}]'" in refusal(found.open)


def test_every_engine_that_a_card_may_name_is_there() -> None:
    assert set(ENGINES) == set(EXTRAS) == {"onnx", "tflite"}
    assert all(installed(engine) for engine in ENGINES)


def test_the_first_package_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "tflite", ("no_such_package", "ai_edge_litert"))
    assert FILES["tflite uint8"].open().name == "tflite"


# numbers


def test_tflite_quantized_outputs_are_dequantized() -> None:
    for given in pictures():
        found = FILES["tflite uint8"].open().infer(given)["logits"][0]
        np.testing.assert_allclose(found, np.rint(given.data.mean(axis=(0, 1, 2))) / 255, atol=1.01 / 255)


def test_tflite_float_input_is_normalized() -> None:
    for given in pictures():
        want = (given.data.mean(axis=(0, 1, 2)) - [10, 20, 30]) * [0.1, 0.2, 0.3]
        np.testing.assert_allclose(FILES["tflite float32"].open().infer(given)["logits"][0], want, rtol=1e-4)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("mean", "scale"), [((0, 0, 0), (1, 1, 1)), ((123.675, 116.28, 103.53), (0.0171, 0.0175, 0.0174))])
def test_onnx_float_input_equals_numpy(layout: str, mean: tuple[float, ...], scale: tuple[float, ...]) -> None:
    shape = [1, 3, 4, 5] if layout == "nchw" else [1, 4, 5, 3]
    model = graph([helper.make_node("Flatten", ["x"], ["y"])], TensorProto.FLOAT, shape)
    spec = TensorInput(name="x", dtype="float32", layout=layout, mean=mean, scale=scale)  # type: ignore[arg-type]
    data = np.arange(60, dtype=np.uint8).reshape(1, 4, 5, 3)
    found = open_engine(model, variant(model, "onnx", spec, {"logits": "y"}), EngineOptions()).infer(tensor(data))
    want = (data.astype(np.float32) - np.array(mean, np.float32)) * np.array(scale, np.float32)
    if layout == "nchw":
        want = want.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found["logits"], want.reshape(1, -1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_adapter(dtype: str, layout: str) -> None:
    spec = TensorInput(name="x", dtype=dtype, layout=layout, mean=(1, 2, 3), scale=(2, 3, 4))  # type: ignore[arg-type]
    data = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3), dtype=np.uint8)
    found = InputAdapter(spec)(data)
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    for channel in range(3):
        plane = data[0, :, :, channel].astype(np.float32)
        want = (plane - (1, 2, 3)[channel]) * (2, 3, 4)[channel] if dtype == "float32" else plane
        np.testing.assert_array_equal(found[0, channel] if layout == "nchw" else found[0, :, :, channel], want)


def test_outputs_come_by_name_not_by_order() -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["y1"])]
    model = graph(nodes, TensorProto.FLOAT, [1, 1, 1, 3], outputs=2)
    spec = TensorInput(name="x", dtype="float32")
    engine = open_engine(model, variant(model, "onnx", spec, {"second": "y1", "first": "y"}), EngineOptions())
    found = engine.infer(tensor(np.array([[[[1, 2, 3]]]], np.uint8)))
    np.testing.assert_array_equal(found["first"], [[1, 2, 3]])
    np.testing.assert_array_equal(found["second"], [[-1, -2, -3]])


def test_outputs_that_are_no_numbers() -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    model = graph([node], TensorProto.FLOAT, [1, 1, 1, 3], TensorProto.STRING)
    engine = open_engine(
        model, variant(model, "onnx", TensorInput(name="x", dtype="float32"), {"logits": "y"}), EngineOptions()
    )
    assert "not numbers" in refusal(lambda: engine.infer(tensor(np.zeros((1, 1, 1, 3), np.uint8))))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float16", "float64", "bool", "float32"])
def test_numbers_become_float32(dtype: str) -> None:
    found = owned_float32("y", np.array([0, 1, 1], dtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [0, 1, 1])


@pytest.mark.parametrize(("text", "line"), [("", "ValueError"), ("\n\n a \n b", "a"), ("x" * 400, "x" * 297 + "...")])
def test_first_line(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line


@pytest.mark.parametrize(
    ("precision", "scheme", "weight_bits", "exact", "asked"),
    [
        ("int8", "u8s8", 8, False, "session.x64quantprecision"),
        ("int8", "u8s8", 8, True, "session.x64quantprecision"),
        ("int8", "s8s8", 8, False, "session.x64quantprecision"),
        ("int8", "s8s8", 8, True, "session.qdqisint8allowed"),
        ("int8", "u8s8", 7, False, None),
        ("int8", "u8s8", 7, True, None),
        ("float32", "float32", 32, True, None),
    ],
)
def test_the_arithmetic_that_is_asked_for(
    precision: str, scheme: str, weight_bits: int, exact: bool, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    seen: dict[str, str] = {}
    original = onnxruntime.SessionOptions.add_session_config_entry

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        def add_session_config_entry(self, key: str, value: str) -> None:
            seen[key] = value
            original(self, key, value)

    monkeypatch.setattr("edge.engines.onnx.ort.SessionOptions", Options)
    tiny = FILES["onnx"].changed(precision=precision, scheme=scheme, weight_bits=weight_bits)
    open_engine(tiny.model, tiny.variant, EngineOptions(exact=exact))
    arithmetic = {"session.x64quantprecision", "session.qdqisint8allowed"}
    assert {key for key, value in seen.items() if key in arithmetic and value == "1"} == ({asked} if asked else set())
    assert seen["session.intra_op.allow_spinning"] == "0"
    assert seen["session.force_spinning_stop"] == "1"


# other people's models


def test_a_model_that_fails_when_invoked(shared_data: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = shared_data / "bad" / "model_invoking_error.tflite"
    model = path.read_bytes()
    reader = Interpreter(model_content=model)
    given, found = reader.get_input_details()[0], reader.get_output_details()[0]
    spec = TensorInput(name=given["name"], dtype=np.dtype(given["dtype"]).name)  # type: ignore[arg-type]
    failing = variant(model, "tflite", spec, {"logits": found["name"]})

    def use() -> None:
        engine = open_engine(model, failing, EngineOptions())
        engine.infer(Tensor(np.zeros([max(1, n) for n in given["shape"]], np.uint8), Geometry((1, 1), (0, 0), (8, 8))))

    assert "LiteRT" in refusal(use)


def test_a_classifier_of_others(shared_data: Path) -> None:
    import cv2

    model = (shared_data / "models" / "mobilenet_v1_025_uint8_128.tflite").read_bytes()
    spec = TensorInput(name="input")
    engine = open_engine(
        model, variant(model, "tflite", spec, {"logits": "MobilenetV1/Predictions/Reshape_1"}), EngineOptions(threads=2)
    )
    picture = cv2.imread(str(sorted((shared_data / "imagenette" / "val" / "n02979186").iterdir())[0]))
    data = cv2.cvtColor(cv2.resize(picture, (128, 128)), cv2.COLOR_BGR2RGB)[np.newaxis]
    scores = engine.infer(tensor(data))["logits"]
    assert scores.shape == (1, 1001)
    assert 0.9 < scores.sum() < 1.1  # probabilities, dequantized
    assert scores.min() >= 0


def test_a_detector_of_others(shared_data: Path) -> None:
    path = shared_data / "models" / "ssd_mobilenet_v1_coco_uint8_300.tflite"
    model = path.read_bytes()
    names = {f"part{i}": f"TFLite_Detection_PostProcess{f':{i}' if i else ''}" for i in range(4)}
    spec = TensorInput(name="normalized_input_image_tensor")
    engine = open_engine(model, variant(model, "tflite", spec, names), EngineOptions())
    data = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
    first = engine.infer(tensor(data))
    assert [first[f"part{i}"].ndim for i in range(4)] == [3, 2, 2, 1]
    assert all(value.dtype == np.float32 for value in first.values())
    kept = {name: value.copy() for name, value in first.items()}
    engine.infer(tensor(255 - data))
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


def test_a_float_model_of_others(shared_data: Path) -> None:
    path = shared_data / "models" / "yolox_nano_416.onnx"
    model = path.read_bytes()
    wanted = onnx.load_from_string(model).graph
    spec = TensorInput(name=wanted.input[0].name, dtype="float32", layout="nchw")
    engine = open_engine(model, variant(model, "onnx", spec, {"raw": wanted.output[0].name}), EngineOptions(threads=2))
    assert engine.infer(tensor(np.full((1, 416, 416, 3), 114, np.uint8)))["raw"].shape == (1, 3549, 85)


def test_an_interrupt_waits_until_an_engine_is_loaded(monkeypatch: pytest.MonkeyPatch, tiny_edge: Path) -> None:
    def swallowing(*arguments: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise EngineError("initialization failed") from None
        loaded.append(True)

    loaded: list[bool] = []
    monkeypatch.setitem(ENGINES, "onnx", swallowing)
    variant = open_bundle(tiny_edge).card.variants[0]
    with pytest.raises(KeyboardInterrupt):
        open_engine(b"", variant, EngineOptions())
    assert loaded == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
