"""MODEL as it stands on the command line: names, factories, ONNX and torch files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from edge.errors import EdgeError, InputError, UsageError  # noqa: E402
from quantize.check import check_model  # noqa: E402
from quantize.described import Described, Description, described  # noqa: E402
from quantize.float_model import FloatModel  # noqa: E402
from quantize.resolve import from_file, from_name  # noqa: E402
from tests.quantize import tiny  # noqa: E402
from tests.quantize.onnx_graphs import floats, ints, node, write  # noqa: E402
from train.models import Classifier  # noqa: E402

MODULE = "tests.quantize.test_resolve"
CLASSES = ["a", "b", "c", "d"]
LOGITS = [
    node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
    node("GlobalAveragePool", "c", "g"),
    node("Reshape", "g flat", "y"),
]
WEIGHTS = {"w": floats(4, 3, 3, 3), "b": floats(4), "flat": ints(1, 4)}


def factory(size: int = 16, mean: float = 0.0, name: str = "made", flags: Any = None) -> Classifier:
    """A classifier that shows which arguments it was given."""
    made = tiny.classifier()
    values = {"input": type(made.input)(width=size, height=size), "mean": (mean,) * 3, "name": f"{name}-{flags}"}
    return Classifier(**{field: values.get(field, getattr(made, field)) for field in Classifier.__dataclass_fields__})


def said(**fields: Any) -> Described:
    return described(Description(**({"labels": CLASSES} | fields)), "model.onnx")


def test_a_factory_gets_its_arguments_as_json_or_as_text() -> None:
    model = from_name(f"{MODULE}:factory", ["size=32", "mean=127.5", "name=some text", 'flags={"a": [1, null]}'])
    assert (model.size_wh, model.mean, model.name) == ((32, 32), (127.5,) * 3, "some text-{'a': [1, None]}")
    assert (model.task, model.head, model.role, model.detect) == ("classify", "softmax", "logits", None)


def test_a_factory_may_make_a_detector() -> None:
    model = from_name("tests.quantize.tiny:detector")
    assert (model.task, model.head, model.role) == ("detect", "yolox", "predictions")
    assert model.detect is not None
    check_model(model, "tiny")


@pytest.mark.parametrize(
    ("model", "arguments", "says"),
    [
        (f"{MODULE}:factory", ["size"], "--arg 'size': give NAME=VALUE"),
        (f"{MODULE}:factory", ["=3"], "give NAME=VALUE"),
        (f"{MODULE}:factory", ["a b=3"], "give NAME=VALUE"),
        (f"{MODULE}:factory", ["depth=3"], "TypeError: .*depth"),
        ("efficientnet-lite0", ["size=3"], "takes no arguments"),
        ("resnet51", [], "there are efficientnet-lite0.* or give an .onnx"),
        ("train:", [], "no model named 'train:'"),
        ("no_such_module:factory", [], "ModuleNotFoundError"),
        ("tests", [], "a folder that is no run of edge-train; give the .onnx"),
        (f"{MODULE}:said", ["name=x"], "returned Described, expected train.models.Classifier or Detector"),
    ],
)
def test_mistakes_are_one_line(model: str, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UsageError, match=says) as refused:
        from_name(model, arguments)
    assert "\n" not in str(refused.value)


def probabilities(model: FloatModel, picture: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.softmax(model.network(picture), -1)


def test_a_softmax_at_the_end_is_taken_off(tmp_path: Path) -> None:
    logits = write(tmp_path / "plain.onnx", LOGITS, WEIGHTS)
    with_softmax = write(
        tmp_path / "soft max.onnx", [*LOGITS[:2], node("Reshape", "g flat", "l"), node("Softmax", "l", "y")], WEIGHTS
    )
    plain, plain_notes = from_file(logits, said())
    softmax, notes = from_file(with_softmax, said())
    assert [note for note in notes if "softmax, of which" in note] == notes[:1]
    assert not any("softmax, of which" in note for note in plain_notes)
    picture = torch.from_numpy(floats(1, 3, 8, 10, seed=3))
    torch.testing.assert_close(probabilities(softmax, picture), probabilities(plain, picture), atol=1e-5, rtol=1e-4)
    assert softmax.name == "soft-max"
    check_model(softmax, "soft max.onnx")


def test_what_was_assumed_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", LOGITS, WEIGHTS)
    model, [note] = from_file(path, said())
    normalized = "(pixel - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]"
    assert note == f"net.onnx: taken as classify, head softmax, 10x8 rgb, crop, {normalized}"
    assert model.size_wh == (10, 8)
    assert "(pixel - 0) / 255" in from_file(path, said(mean=0.0, std=255.0))[1][0]


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "two.onnx", [*LOGITS, node("Relu", "c", "features")], WEIGHTS, outputs=("features", "y"))
    with pytest.raises(UsageError, match="gives 2 outputs, features, y; say which is the head's with --output NAME"):
        from_file(path, said())
    with pytest.raises(UsageError, match="no output named 'z'; there are features, y"):
        from_file(path, said(output="z"))
    model, _ = from_file(path, said(output="y"))
    single, _ = from_file(write(tmp_path / "one.onnx", LOGITS, WEIGHTS), said())
    picture = torch.from_numpy(floats(1, 3, 8, 10, seed=3))
    torch.testing.assert_close(model.network(picture), single.network(picture))


def test_a_torch_file_needs_a_size(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 12, 16),)), path)
    with pytest.raises(UsageError, match="does not say what size its input is; give --size WIDTHxHEIGHT"):
        from_file(path, said())
    model, _ = from_file(path, said(size="16x12"))
    assert model.size_wh == (16, 12)
    picture = torch.rand(1, 3, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.network(picture), network(picture))
    with pytest.raises(InputError) as refused:
        from_file(path, said(size="20x20"))
    assert "\n" not in str(refused.value)


class Odd(nn.Module):
    """A module whose output is no tensor."""

    def forward(self, value: Tensor) -> dict[str, Tensor]:
        return {"y": value}


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    torch.save(Odd(), path)
    with pytest.raises(EdgeError) as refused:
        from_file(path, said(size="8x8"), trust=True)
    assert "dict" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_head_that_cannot_read_the_output_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", LOGITS, WEIGHTS)
    with pytest.raises(InputError, match=r"logits \[1, 2\], as there are 2 labels"):
        check_model(from_file(path, said(labels=["a", "b"]))[0], "net.onnx")
    with pytest.raises(InputError, match="yolox"):
        check_model(from_file(path, said(head="yolox"))[0], "net.onnx")
    with pytest.raises(InputError, match="head is 'ssd', which cannot be quantized; choose from yolox, yolov8"):
        check_model(from_file(path, said(head="ssd"))[0], "net.onnx")


def test_probabilities_of_zero_have_a_finite_logit() -> None:
    class Sure(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return torch.softmax(value.mean((2, 3)) * torch.tensor([0.0, 1e4, 0.0]), -1)

    from quantize.resolve import _Logits

    assert np.isfinite(_Logits(Sure())(torch.ones(1, 3, 4, 4)).numpy()).all()
