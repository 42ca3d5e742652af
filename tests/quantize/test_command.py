"""edge-quantize from pictures to a bundle that both engines run, and what it says when it cannot."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("litert_torch")

import msgspec
import onnx

from edge.bundle import Bundle, open_bundle
from edge.datasets import class_folders, frames
from edge.engines import EngineOptions
from edge.model import load_variant
from quantize.cli import main
from quantize.record import Record
from tests.conftest import Finished
from tests.quantize import tiny
from tests.quantize.onnx_graphs import floats, node, write

Command = Callable[..., Finished]
TINY = "tests.quantize.tiny:classifier"
ANYTHING = ("--max-drop", 100, "--min-speedup", 0, "--no-arm-instructions")
QUICK = (*ANYTHING, "--budget-minutes", 0, "--threads", 1, "--no-cache")
"""One candidate a variant, which passes."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """A bundle of all variants, and the pictures that it was made with."""
    folder = tmp_path_factory.mktemp("quantize")
    data = tiny.pictures(folder / "data")
    (data / "red" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as end:
        main.main([TINY, "--data", str(data), "--out", str(folder / "tiny.edge"), *map(str, QUICK)])
    assert end.value.code == 0
    return open_bundle(folder / "tiny.edge"), data


def test_the_card_holds_what_was_measured(made: tuple[Bundle, Path]) -> None:
    card = made[0].card
    assert sorted(variant.name for variant in card.variants) == ["float32", "int8-arm", "int8-tflite", "int8-x86"]
    assert {variant.weight_bits for variant in card.variants} == {7, 8, 32}
    assert all(variant.accuracy is not None and variant.accuracy.images in (12, 13) for variant in card.variants)
    assert all(variant.speedup is None or variant.speedup > 0 for variant in card.variants)
    assert "torch" in card.provenance.tools


def test_a_report_lies_beside_the_bundle(made: tuple[Bundle, Path]) -> None:
    folder = made[1].parent
    html = (folder / "tiny.html").read_text()
    record = msgspec.json.decode((folder / "tiny.json").read_bytes(), type=Record)
    assert "<svg" in html
    assert {chosen.variant for chosen in record.chosen} == {"int8-arm", "int8-x86", "int8-tflite"}
    assert record.command.startswith("edge-quantize ")
    assert "torch" in record.tools
    assert ["broken.png" in line for line in record.notes] == [True]
    assert record.split["choice"] + record.split["measure"] == 24  # so few choose together with those that calibrate


@pytest.mark.parametrize("name", ["int8-arm", "int8-x86", "int8-tflite", "float32"])
def test_every_variant_loads_and_stays_near_float32(made: tuple[Bundle, Path], name: str) -> None:
    assert_near_float32(*made, name)


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["per_channel", "between_integers", "integers", "begins_in_float"])
def test_any_normalization_goes_through_every_variant(tmp_path: Path, command: Command, factory: str) -> None:
    data = tiny.pictures(tmp_path / "data", each=4)
    out = tmp_path / "tiny.edge"
    done = command(main, f"tests.quantize.tiny:{factory}", "--data", data, "--out", out, *QUICK)
    assert done.code == 0, done
    bundle = open_bundle(out)
    for name in ("int8-arm", "int8-x86", "int8-tflite"):
        assert_near_float32(bundle, data, name)


def assert_near_float32(bundle: Bundle, data: Path, name: str) -> None:
    model = load_variant(bundle, bundle.card.variant(name), EngineOptions())
    reference = load_variant(bundle, bundle.card.variant("float32"), EngineOptions())
    for frame, _ in frames(class_folders(data, bundle.card.labels), lambda line: None):
        tensor = model.task.prepare(frame)
        got, want = model.engine.infer(tensor)["logits"], reference.engine.infer(tensor)["logits"]
        assert got.shape == (1, 3)
        assert abs(got - want).max() < 0.1 * max(1.0, abs(want).max())


def test_int8_onnx_has_integer_weights_and_one_front(made: tuple[Bundle, Path]) -> None:
    bundle = made[0]
    for name, limit in (("int8-arm", 127), ("int8-x86", 64)):
        graph = onnx.load_from_string(bundle.model_bytes(bundle.card.variant(name))).graph
        weights = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("weight_quantized")]
        assert len(weights) == 8
        assert max(int(abs(weight.astype(int)).max()) for weight in weights) == limit
        assert [value.name for value in graph.input] == ["image"]
        assert [value.name for value in graph.output] == ["logits"]


def test_unreadable_pictures_are_named_and_libraries_are_quiet(command: Command, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data")
    (data / "red" / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "bundle"
    done = command(main, TINY, "--data", data, "--out", out, "--variants", "int8-x86", "--name", "mine", *QUICK)
    assert done.code == 0, done
    assert done.out == ""
    assert all(line.startswith("edge-quantize: ") for line in done.err.splitlines()), done.err
    assert done.err.count("broken.png") == 1
    card = open_bundle(out).card
    assert (card.name, [variant.name for variant in card.variants]) == ("mine", ["int8-x86"])


def test_no_variant_within_the_gate_exits_3(command: Command, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", each=4)
    arguments = (TINY, "--data", data, "--out", tmp_path / "b.edge", "--variants", "int8-x86,float32", *QUICK)
    done = command(main, *arguments, "--max-mb", 0.001)
    assert done.code == 3
    assert "edge-quantize: int8-x86 left out: 0.0" in done.err
    last = done.err.splitlines()[-1]
    assert f"tiny: no int8 variant passes the gates; only {tmp_path / 'b.html'} is written; int8-x86: 0.0" in last
    assert last.endswith("MB, 0.001 are allowed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.html", "b.json", "data"]
    assert json.loads((tmp_path / "b.json").read_text())["left_out"][0]["variant"] == "int8-x86"


def test_calibration_on_three_pictures_of_noise_exits_3(command: Command, tmp_path: Path) -> None:
    data = tiny.squares_and_noise(tmp_path / "data")
    arguments = ("tests.quantize.tiny:detector", "--data", data, "--out", tmp_path / "b.edge", "--variants", "int8-x86")
    done = command(main, *arguments, *QUICK, "--max-drop", 1)
    assert done.code == 3
    last = done.err.splitlines()[-1]
    assert "squares: 3 pictures to calibrate, 3 to choose, 16 to measure" in done.err
    assert "points, --max-drop allows 1 " in last
    assert "calibrate on pictures from where the model will be used" in done.err
    assert not (tmp_path / "b.edge").exists()


def test_it_can_be_interrupted_and_goes_on(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.pictures(tmp_path / "data", each=4)
    cache = ("--cache", tmp_path / "cache")
    arguments = (TINY, "--data", data, "--out", tmp_path / "b.edge", "--variants", "int8-x86", *ANYTHING, "--threads", 1)

    def interrupting(self: object, candidate: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("quantize.progress.Progress.candidate", interrupting)
        done = command(main, *arguments, *cache)
    assert (done.code, done.err.splitlines()[-1]) == (130, "edge-quantize: interrupted; the same command goes on from here")
    assert not (tmp_path / "b.edge").exists()
    done = command(main, *arguments, *cache, "--verbose", "--budget-minutes", 0)
    assert done.code == 0, done
    assert "exporting to ONNX" not in done.err
    assert done.err.count("int8-x86: error ranges, gptq weights: ") == 1
    assert [variant.name for variant in open_bundle(tmp_path / "b.edge").card.variants] == ["int8-x86"]


ONNX = [node("Conv", "x w b", "c", strides=[4, 4]), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "g")]
ONNX += [node("Flatten", "g", "f"), node("Gemm", "f t", "y")]
WEIGHTS = {"w": floats(8, 3, 4, 4) * 0.1, "b": floats(8), "t": floats(8, 3)}
OURS = ("--labels", "names.txt", "--mean", "127", "--std", "128")


@pytest.mark.parametrize("size", [32, "side"])
def test_an_onnx_file_becomes_a_bundle(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tiny.pictures(tmp_path / "data", each=4)
    Path("names.txt").write_text("\n".join(tiny.CLASSES))
    write(tmp_path / "my net.onnx", ONNX, WEIGHTS, shape=(1, 3, size, size))
    more = ("--size", "32x32") if size == "side" else ()
    done = command(
        main, "my net.onnx", "--data", data, "--out", "b.edge", "--variants", "int8-x86,float32", *OURS, *more, *QUICK
    )
    assert done.code == 0, done
    assert "my net.onnx: taken as classify, head softmax, 32x32 rgb, crop, (pixel - 127) / 128" in done.err
    bundle = open_bundle(tmp_path / "b.edge")
    assert bundle.card.name == "my-net"
    assert_near_float32(bundle, data, "int8-x86")


def test_a_tflite_file_is_packed_as_it_is(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: tuple[Bundle, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle, data = made
    Path("names.txt").write_text("\n".join(tiny.CLASSES))
    raw = bundle.model_bytes(bundle.card.variant("int8-tflite"))
    Path("net.tflite").write_bytes(raw)
    done = command(main, "net.tflite", "--data", data, "--out", "b.edge", *OURS)
    assert done.code == 0, done
    packed = open_bundle(tmp_path / "b.edge")
    [variant] = packed.card.variants
    assert packed.model_bytes(variant) == raw
    assert variant.accuracy is not None
    assert variant.accuracy.top1 == bundle.card.variant("int8-tflite").accuracy.top1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["resnet51", "--data", "DATA"], "efficientnet-lite0"),
        (["resnet50", "--data", "DATA"], "no ImageNet weights of it"),
        (["model.pt", "--data", "DATA"], "give --labels FILE"),
        (["model.pt", "--data", "DATA", "--labels", "coco"], "give --size WIDTHxHEIGHT"),
        (["model.onnx", "--data", "DATA", "--labels", "coco"], "model.onnx: cannot be read: No such file"),
        (["DATA/red/0.png.onnx", "--data", "DATA", "--labels", "coco"], "cannot be read"),
        (["model.tflite", "--data", "DATA", "--labels", "coco"], "model.tflite: cannot be read: No such file"),
        (["model.onnx", "--data", "DATA", "--config", "absent.toml"], "--config absent.toml: No such file"),
        (["model.onnx", "--data", "DATA", "--labels", "coco", "--head", "yolo"], "no head 'yolo'"),
        (["model.onnx", "--data", "DATA", "--labels", "coco", "--mean", "1,2"], "--mean '1,2': give one number, or three"),
        (["model.onnx", "--data", "DATA", "--task", "depth"], "--task"),
        (["DATA", "--data", "DATA"], "a folder that is no run of edge-train; give the .onnx"),
        (["efficientnet-lite0", "--data", "DATA", "--arg", "a=1"], "takes no arguments"),
        ([TINY, "--data", "DATA", "--arg", "depth=1"], "TypeError"),
        ([TINY, "--data", "DATA", "--report", "DATA/report"], "give NAME.html"),
        ([TINY, "--data", "DATA", "--report", "/proc/absent/report.html"], "cannot be written"),
        ([TINY, "--data", "DATA", "--min-speedup", "-1"], "--min-speedup"),
        ([TINY, "--data", "DATA", "--max-ece", "2"], "--max-ece"),
        ([TINY, "--data", "DATA", "--qat", "maybe"], "--qat"),
        (["tests.quantize.tiny:absent", "--data", "DATA"], "AttributeError"),
        (["tests.quantize.tiny:broken", "--data", "DATA"], "no weights here"),
        (["tests.quantize.tiny:pictures", "--data", "DATA"], "TypeError"),
        (["tests.quantize.tiny:Path", "--data", "DATA"], "expected train.models.Classifier or Detector"),
        ([TINY, "--data", "DATA", "--variants", "int4"], "int8-tflite"),
        ([TINY, "--data", "DATA", "--variants", ","], "names none"),
        ([TINY, "--data", "DATA", "--name", "a/b"], "--name"),
        ([TINY, "--data", "DATA/absent"], "no such folder"),
        ([TINY, "--data", "DATA/red"], "no class folders"),
        ([TINY, "--data", "DATA", "--out", "DATA/red/0.png/b.edge"], "cannot be written"),
        ([TINY, "--data", "DATA", "--out", "/proc/absent/b.edge"], "cannot be written"),
        ([TINY, "--data", "DATA", "--out", "DATA"], "not a bundle; choose another --out"),
        ([TINY, "--data", "DATA", "--out", "DATA/red/0.png"], "give NAME.edge, or the name of a folder"),
        ([TINY, "--data", "DATA", "--out", "DATA/g2.zip"], "give NAME.edge, or the name of a folder"),
        ([TINY, "--data", "DATA", "--out", "DATA/" + "b" * 251], "longer than 240"),
        ([TINY, "--data", "DATA", "--out", "."], "give NAME.edge, or the name of a folder"),
        ([TINY], "--data"),
        ([TINY, "--data", "DATA", "--max-drop", "-1"], "--max-drop"),
        (["tests.quantize.tiny:leaves", "--data", "DATA"], "SystemExit"),
        (["tests.quantize.tiny:zero_std", "--data", "DATA"], "std is (128.0, 0.0, 128.0); each must be more than 0"),
        (["tests.quantize.tiny:no_mean", "--data", "DATA"], "mean is 127.0; give three numbers"),
        (["tests.quantize.tiny:spaced_name", "--data", "DATA"], "'my model'; give letters, digits"),
        (["tests.quantize.tiny:no_name", "--data", "DATA"], "name is NoneType"),
        (["tests.quantize.tiny:few_labels", "--data", "DATA"], "float32 [1, 3] for its input of [1, 3, 32, 32], expected"),
        (["tests.quantize.tiny:text_labels", "--data", "DATA"], "labels is not as train.models says"),
        (["tests.quantize.tiny:same_labels", "--data", "DATA"], "two labels have the id 'blue'"),
        (["tests.quantize.tiny:feature_map", "--data", "DATA"], "expected logits [1, 3], as there are 3 labels"),
        (["tests.quantize.tiny:two_outputs", "--data", "DATA"], "returns dict, expected one tensor of logits"),
        (["tests.quantize.tiny:wrong_size", "--data", "DATA"], "mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_mistakes_end_in_one_line_and_2(command: Command, tmp_path: Path, arguments: list[str], says: str) -> None:
    data = tiny.pictures(tmp_path / "data", each=1)
    filled = [argument.replace("DATA", str(data)) for argument in arguments]
    assert says in command(main, "--out", tmp_path / "b.edge", *filled).refused(2)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("branches", "torch.export cannot capture it"),
        ("no_onnx", "torch.onnx cannot export it"),
        ("no_tflite", "litert-torch cannot convert it"),
    ],
)
def test_a_network_that_cannot_be_exported_ends_in_one_line(command: Command, tmp_path: Path, factory: str, says: str) -> None:
    data = tiny.pictures(tmp_path / "data", each=4)
    done = command(main, f"tests.quantize.tiny:{factory}", "--data", data, "--out", tmp_path / "b.edge", *QUICK)
    assert done.code == 2, done
    assert says in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_name_that_cannot_be_is_mended_by_a_flag(command: Command, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", each=4)
    arguments = ("tests.quantize.tiny:spaced_name", "--data", data, "--out", tmp_path / "b", "--variants", "float32", *QUICK)
    assert command(main, *arguments, "--name", "mine").code == 0
    assert [variant.name for variant in open_bundle(tmp_path / "b").card.variants] == ["float32"]


def test_checking_where_to_write_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", each=1)
    out = tmp_path / "new" / "b.edge"
    command(main, "tests.quantize.tiny:broken", "--data", data, "--out", out).refused(2)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_published_models_say_whose_classes_they_know(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.models.pretrained", lambda name: tiny.classifier())
    data = tiny.pictures(tmp_path / "data", each=1)
    (data / "red").rename(data / "my cat")
    out = tmp_path / "b.edge"
    assert "know ImageNet's classes only; train your own" in command(
        main, "efficientnet-lite0", "--data", data, "--out", out
    ).refused(2)
    assert "ImageNet" not in command(main, TINY, "--data", data, "--out", out).refused(2)


def test_an_interrupt_is_one_line_and_130(command: Command, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", each=1)
    done = command(main, "tests.quantize.tiny:interrupted", "--data", data, "--out", tmp_path / "b.edge")
    assert (done.code, done.err.strip()) == (130, "edge-quantize: interrupted")


@pytest.mark.parametrize("package", ["torch", "onnx", "litert_torch"])
def test_a_missing_package_is_one_line_and_1(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    data = tiny.pictures(tmp_path / "data", each=1)
    monkeypatch.setitem(sys.modules, package, None)
    line = command(main, TINY, "--data", data, "--out", tmp_path / "b.edge").refused(1)
    assert line == f"edge-quantize: {package} is not installed; pip install 'edge-run[quantize]'"


@pytest.mark.slow
def test_efficientnet_lite0_int8_is_within_a_point(shared_data: Path, command: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part, each in (("train", 16), ("val", 30)):
        for folder in sorted((shared_data / "imagenette" / part).iterdir()):
            (data / part / folder.name).mkdir(parents=True)
            for picture in sorted(folder.iterdir())[:each]:
                (data / part / folder.name / picture.name).symlink_to(picture)
    out = tmp_path / "lite0.edge"
    done = command(
        main,
        "efficientnet-lite0",
        "--data",
        data,
        "--out",
        out,
        "--variants",
        "int8-x86,int8-tflite,float32",
        "--no-cache",
        "--no-arm-instructions",
    )
    assert done.code == 0, done
    assert sorted(variant.name for variant in open_bundle(out).card.variants) == ["float32", "int8-tflite", "int8-x86"]
