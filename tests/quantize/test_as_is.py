"""edge-quantize on models of pose and segmentation: packed as they are, without pictures, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

from edge.bundle import open_bundle
from edge.card import TensorInput
from edge.model import open_model
from edge.types import Detections, Geometry, Mask, Tensor
from quantize.as_is import _gives_probabilities
from quantize.cli import main
from quantize.described import COCO_KEYPOINTS
from tests.conftest import Finished
from tests.quantize.onnx_graphs import node, write
from tests.samples import frame, squares
from tests.tiny_tflite import tiny_tflite_segmenter

Command = Callable[..., Finished]
PAINT = [node("AveragePool", "x", "levels", kernel_shape=[4, 4], strides=[4, 4]), node("Concat", "half levels", "y", axis=1)]
"""Background and three colours, a cell for 4 x 4 pixels of float32 [1, 3, 32, 32]."""
PAINTED = {"half": np.full((1, 1, 8, 8), 0.5, np.float32)}
RAW = ("--mean", "0", "--std", "255", "--resize", "letterbox")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("paint.txt").write_text("background\nred\ngreen\nblue\n")
    Path("person.txt").write_text("person\n")
    return tmp_path


def paint(path: str = "paint.onnx", **more: Any) -> str:
    write(Path(path), PAINT, PAINTED, **({"shape": (1, 3, 32, 32)} | more))
    return path


def pose(path: str = "pose.onnx", rows: int = 4 + 1 + 3 * 17) -> str:
    """One person for each of three columns, whatever the picture."""
    given = np.full((1, rows, 3), 0.5, np.float32)
    given[0, :4] = np.array([[16, 16, 16, 16], [16, 16, 16, 16], [8, 8, 8, 8], [8, 8, 8, 8]])[:, :3]
    given[0, 4] = 0.9, 0.8, 0.1
    mean = node("ReduceMean", "x", "m", axes=[1, 2, 3], keepdims=0)
    write(
        Path(path),
        [mean, node("Mul", "m zero", "z"), node("Add", "z given", "y")],
        {"given": given, "zero": np.float32(0)},
        shape=(1, 3, 32, 32),
    )
    return path


@pytest.mark.parametrize("how", [("--head", "argmax"), ("--task", "segment")])
def test_a_segmentation(command: Command, how: tuple[str, str]) -> None:
    raw = Path(paint()).read_bytes()
    done = command(main, "paint.onnx", *how, "--labels", "paint.txt", *RAW, "--out", "b.edge")
    assert done.code == 0, done
    assert "packed as it is; not measured" in done.err
    bundle = open_bundle("b.edge")
    [variant] = bundle.card.variants
    assert (bundle.card.task, bundle.card.head, bundle.card.detect) == ("segment", "argmax", None)
    assert (variant.accuracy, variant.precision, variant.engine) == (None, "float32", "onnx")
    assert bundle.model_bytes(variant) == raw
    model = open_model(bundle)
    tensor = model.task.prepare(frame(squares(("blue", 3, 0))))
    found = model.task.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Mask)
    assert [segment.label for segment in found.segments()] == ["blue"]


def test_a_segmentation_in_a_tflite_file(command: Command) -> None:
    Path("net.tflite").write_bytes(tiny_tflite_segmenter())
    Path("three.txt").write_text("red\ngreen\nblue\n")
    done = command(main, "net.tflite", "--head", "argmax", "--labels", "three.txt", *RAW, "--out", "b.edge")
    assert done.code == 0, done
    model = open_model(open_bundle("b.edge"))
    tensor = model.task.prepare(frame(squares(("blue", 3, 0), ("green", 0, 3))))
    found = model.task.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Mask)
    assert found.class_ids.shape == (4, 4)
    assert (found.class_ids[0, 3], found.class_ids[3, 0]) == (2, 1)


def test_a_pose_model_has_cocos_keypoints_unless_it_says_others(command: Command) -> None:
    done = command(main, pose(), "--head", "yolov8-pose", "--labels", "person.txt", "--out", "b.edge")
    assert done.code == 0, done
    bundle = open_bundle("b.edge")
    assert bundle.card.detect is not None
    assert bundle.card.detect.keypoints == COCO_KEYPOINTS
    assert bundle.card.input.resize == "letterbox"
    model = open_model(bundle)
    tensor = model.task.prepare(frame(squares()))
    found = model.task.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Detections)
    assert found.keypoints is not None
    assert found.keypoints.shape == (1, 17, 3)
    Path("two.toml").write_text('head = "yolov8-pose"\nlabels = ["person"]\n[detect]\nkeypoints = ["head", "foot"]\n')
    done = command(main, pose(rows=11), "--config", "two.toml", "--out", "b.edge")
    assert done.code == 0, done
    assert open_bundle("b.edge").card.detect.keypoints == ("head", "foot")  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (None, 3, 32, 32), (1, 3, "h", 32)])
def test_free_sides_come_from_the_size(command: Command, shape: tuple[Any, ...]) -> None:
    arguments = (paint(shape=shape), "--head", "argmax", "--labels", "paint.txt", *RAW, "--out", "b.edge")
    if "h" in shape:
        assert "its height and width are free; give --size WIDTHxHEIGHT" in command(main, *arguments).refused(2)
    done = command(main, *arguments, "--size", "32x32")
    assert done.code == 0, done
    assert open_bundle("b.edge").card.input.width == 32


def test_an_output_is_chosen(command: Command) -> None:
    arguments = (paint(outputs=("y", "levels")), "--head", "argmax", "--labels", "paint.txt", *RAW, "--out", "b.edge")
    assert "gives 2 outputs, head argmax reads 1 (logits); say which with --output: y, levels" in command(
        main, *arguments
    ).refused(2)
    assert "no output named 'z'; there are y, levels" in command(main, *arguments, "--output", "z").refused(2)
    assert command(main, *arguments, "--output", "y").code == 0


@pytest.mark.parametrize(
    ("make", "flags", "says"),
    [
        (paint, ["--labels", "person.txt"], "head argmax expects [1, 1, h, w]"),
        (paint, ["--labels", "coco"], "head argmax expects [1, 80, h, w]"),
        (paint, ["--labels", "paint.txt", "--size", "64x64"], "takes 32x32; leave --size out"),
        (lambda: paint(shape=(1, 1, 32, 32)), ["--labels", "paint.txt"], "expected uint8 or float32 [1, 3, height, width]"),
        (lambda: "absent.onnx", ["--labels", "paint.txt"], "cannot be read: No such file"),
        (lambda: "paint.txt.onnx", ["--labels", "paint.txt"], "cannot be read: No such file"),
        (lambda: "net.pt", ["--labels", "paint.txt"], "net.pt: a model of task segment is packed as it is; export it to .onnx"),
    ],
)
def test_what_does_not_fit_is_one_line_and_2(command: Command, make: Callable[[], str], flags: list[str], says: str) -> None:
    assert says in command(main, make(), "--head", "argmax", *RAW, *flags, "--out", "b.edge").refused(2)
    assert not Path("b.edge").exists()


def test_what_is_no_onnx_file(command: Command) -> None:
    Path("net.onnx").write_bytes(b"no model")
    line = command(main, "net.onnx", "--head", "argmax", "--labels", "paint.txt", "--out", "b.edge").refused(2)
    assert "net.onnx: ONNX Runtime cannot run it" in line


def test_pictures_are_asked_for_where_there_is_something_to_measure(command: Command) -> None:
    for model in (paint(), "net.tflite", "tests.quantize.tiny:classifier"):
        more = () if ":" in model else ("--labels", "paint.txt")
        Path("net.tflite").write_bytes(b"")
        done = command(main, model, *more, "--out", "b.edge")
        assert done.code == 2
        assert "--data" in done.err or "LiteRT cannot run it" in done.err


@pytest.mark.parametrize(("end", "expected"), [("Softmax", True), ("Identity", False), ("Sigmoid", False)])
def test_a_softmax_at_the_end_is_noticed(end: str, expected: bool, tiny_edge: Path) -> None:
    write(Path("c.onnx"), [node("ReduceMean", "x", "m", axes=[2, 3], keepdims=0), node(end, "m", "y")], shape=(1, 3, 32, 32))
    variant = msgspec.structs.replace(
        open_bundle(tiny_edge).card.variants[0],
        engine="onnx",
        precision="float32",
        input=TensorInput(name="x", dtype="float32", layout="nchw"),
        outputs={"logits": "y"},
    )
    tensor = Tensor(squares(("red", 0, 0))[None], Geometry((1, 1), (0, 0), (32, 32)))
    assert _gives_probabilities(Path("c.onnx").read_bytes(), variant, tensor) == expected
