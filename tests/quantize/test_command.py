"""edge-quantize from pictures to a bundle that both engines run, and what it says when it cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("litert_torch")

import onnx

from edge.bundle import Bundle, open_bundle
from edge.datasets import class_folders, frames
from edge.engines import EngineOptions
from edge.model import load_variant
from quantize.cli import main
from tests.conftest import Finished
from tests.quantize import tiny

Command = Callable[..., Finished]
TINY = "tests.quantize.tiny:classifier"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """A bundle of all variants, and the pictures that it was made with."""
    folder = tmp_path_factory.mktemp("quantize")
    data = tiny.pictures(folder / "data")
    (data / "red" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as end:
        main.main([TINY, "--data", str(data), "--out", str(folder / "tiny.edge"), "--max-drop", "100", "--threads", "1"])
    assert end.value.code == 0
    return open_bundle(folder / "tiny.edge"), data


def test_the_card_holds_what_was_measured(made: tuple[Bundle, Path]) -> None:
    card = made[0].card
    assert [variant.name for variant in card.variants] == ["int8-arm", "int8-x86", "int8-tflite", "float32"]
    assert {variant.weight_bits for variant in card.variants} == {7, 8, 32}
    assert all(variant.accuracy is not None and variant.accuracy.images in (12, 13) for variant in card.variants)
    assert "torch" in card.provenance.tools


@pytest.mark.parametrize("name", ["int8-arm", "int8-x86", "int8-tflite", "float32"])
def test_every_variant_loads_and_stays_near_float32(made: tuple[Bundle, Path], name: str) -> None:
    assert_near_float32(*made, name)


@pytest.mark.parametrize("factory", ["per_channel", "between_integers", "integers", "begins_in_float"])
def test_any_normalization_goes_through_every_variant(tmp_path: Path, command: Command, factory: str) -> None:
    data = tiny.pictures(tmp_path / "data", each=4)
    out = tmp_path / "tiny.edge"
    done = command(main, f"tests.quantize.tiny:{factory}", "--data", data, "--out", out, "--max-drop", 100, "--threads", 1)
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
    done = command(main, TINY, "--data", data, "--out", out, "--variants", "int8-x86", "--max-drop", 100, "--name", "mine")
    assert done.code == 0, done
    assert done.out == ""
    assert all(line.startswith("edge-quantize: ") for line in done.err.splitlines()), done.err
    assert done.err.count("broken.png") == 1
    card = open_bundle(out).card
    assert (card.name, [variant.name for variant in card.variants]) == ("mine", ["int8-x86"])


def test_no_variant_within_the_gate_exits_3(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantize.build._top1", lambda built: 1.0 if built.variant.precision == "float32" else 0.5)
    data = tiny.pictures(tmp_path / "data", each=4)
    done = command(main, TINY, "--data", data, "--out", tmp_path / "b.edge", "--variants", "int8-x86")
    assert done.code == 3
    assert "int8-x86 left out: it loses 50.00 points" in done.err
    assert "no int8 variant is within 1 points of float32" in done.err.splitlines()[-1]
    assert not (tmp_path / "b.edge").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["resnet50", "--data", "DATA"], "efficientnet-lite0"),
        (["model.pt", "--data", "DATA"], "package.module:factory"),
        (["tests.quantize.tiny:absent", "--data", "DATA"], "AttributeError"),
        (["tests.quantize.tiny:broken", "--data", "DATA"], "no weights here"),
        (["tests.quantize.tiny:pictures", "--data", "DATA"], "TypeError"),
        (["tests.quantize.tiny:Path", "--data", "DATA"], "expected train.models.Classifier"),
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
        (["tests.quantize.tiny:text_labels", "--data", "DATA"], "labels is not as train.models.Classifier says"),
        (["tests.quantize.tiny:same_labels", "--data", "DATA"], "two labels have the id 'blue'"),
        (["tests.quantize.tiny:feature_map", "--data", "DATA"], "expected logits float32 [1, 3]"),
        (["tests.quantize.tiny:two_outputs", "--data", "DATA"], "returns dict, expected one tensor of logits [1, 3]"),
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
    done = command(main, f"tests.quantize.tiny:{factory}", "--data", data, "--out", tmp_path / "b.edge")
    assert done.code == 2, done
    assert says in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_name_that_cannot_be_is_mended_by_a_flag(command: Command, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", each=4)
    arguments = ("tests.quantize.tiny:spaced_name", "--data", data, "--out", tmp_path / "b", "--variants", "float32")
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
    done = command(main, "efficientnet-lite0", "--data", data, "--out", out, "--variants", "int8-x86,int8-tflite,float32")
    assert done.code == 0, done
    assert [variant.name for variant in open_bundle(out).card.variants] == ["int8-x86", "int8-tflite", "float32"]
