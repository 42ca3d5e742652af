"""What the owner says of a model file: flags over a TOML file over what the head's authors publish."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.card import HEADS_OF_TASK, DetectOptions, InputGeometry
from edge.errors import EdgeError, InputError, UsageError
from quantize.described import IMAGENET_MEAN, PRESETS, Described, Description, described, read_description

CLASSIFIER = """
name = "mine"
labels = ["cat", "dog"]
size = "224x160"
mean = 127.5
std = [128, 127, 126]
source = "trained at home"
license = "MIT"

[input]
interpolation = "cubic"
crop_fraction = 1.0
"""


def of(tmp_path: Path, toml: str, **flags: Any) -> Described:
    path = tmp_path / "model.toml"
    path.write_text(toml, encoding="utf-8")
    return described(read_description(path, flags), "model.onnx")


def test_a_file_says_it_all(tmp_path: Path) -> None:
    said = of(tmp_path, CLASSIFIER)
    assert (said.task, said.head, said.size_wh) == ("classify", "softmax", (224, 160))
    assert [(label.id, label.name) for label in said.labels] == [("0", "cat"), ("1", "dog")]
    assert (said.mean, said.std) == ((127.5,) * 3, (128, 127, 126))
    assert (said.source, said.license, said.detect) == ("trained at home", "MIT", None)
    wanted = InputGeometry(width=224, height=160, color="rgb", resize="crop", crop_fraction=1.0, interpolation="cubic")
    assert said.geometry((224, 160), "model.onnx") == wanted


def test_flags_are_over_the_file(tmp_path: Path) -> None:
    said = of(tmp_path, CLASSIFIER, size="96", color="bgr", resize="stretch", mean=0.0, labels=None)
    assert said.size_wh == (96, 96)
    assert said.mean == (0.0, 0.0, 0.0)
    assert said.std == (128, 127, 126)
    assert (said.input["color"], said.input["resize"], said.input["interpolation"]) == ("bgr", "stretch", "cubic")
    assert len(said.labels) == 2


@pytest.mark.parametrize("head", PRESETS)
def test_what_is_not_said_is_as_the_heads_authors_publish_it(head: str) -> None:
    said = described(Description(head=head, labels="coco"), "some/model.onnx")
    preset = PRESETS[head]
    assert head in HEADS_OF_TASK[said.task]
    assert (said.mean, said.std, said.size_wh, said.output) == (preset.mean, preset.std, None, None)
    assert (said.detect is None) == (said.task in ("classify", "segment"))
    geometry = said.geometry((64, 32), "model.onnx")
    assert (geometry.width, geometry.height, geometry.color) == (64, 32, preset.input["color"])
    assert said.source.startswith("model.onnx, whose makers")
    assert said.license == "unknown"


def test_a_detectors_table_is_over_its_preset(tmp_path: Path) -> None:
    said = of(tmp_path, 'head = "nanodet"\nlabels = "coco"\n[detect]\nstrides = [8, 16]\nscore_threshold = 0.4\n')
    assert said.task == "detect"
    assert said.detect == DetectOptions(strides=(8, 16), cell_offset=0.0, iou_threshold=0.6, score_threshold=0.4)


def test_the_default_is_a_classifier() -> None:
    said = described(Description(labels="imagenet"), "model.onnx")
    assert (said.task, said.head, len(said.labels), said.mean) == ("classify", "softmax", 1000, IMAGENET_MEAN)
    assert len({label.id for label in described(Description(labels="coco", head="yolox"), "m").labels}) == 80


def test_labels_come_from_a_file_beside_the_description(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n dog \n\n", encoding="utf-8")
    assert [label.name for label in of(tmp_path, 'labels = "names.txt"').labels] == ["cat", "dog"]


def test_names_that_stand_for_none_keep_their_number_for_ssd_alone() -> None:
    names = ["background", "n/a", "cat", ""]
    ssd = described(Description(head="ssd", labels=names), "m").labels
    assert [label.id for label in ssd] == ["0", "1", "2", "3"]
    assert [label.name for label in described(Description(head="yolox", labels=names), "m").labels] == ["background", "cat"]


@pytest.mark.parametrize(
    ("toml", "flags", "kind", "says"),
    [
        ("labels = [", {}, InputError, "not TOML"),
        ("labels = ['a']\nlables = 3", {}, InputError, "lables"),
        ("labels = 7", {}, InputError, "labels"),
        ("labels = ['a']\nmean = [1, 2]", {}, InputError, "mean"),
        ("labels = ['a']\nsize = 224", {}, InputError, "size"),
        ("labels = 'absent.txt'", {}, InputError, "absent.txt: No such file"),
        ("labels = []", {}, InputError, "name no class"),
        ("labels = ['a']\nhead = 'yolov3'", {}, UsageError, "no head 'yolov3'; there are softmax, yolox"),
        ("labels = ['a']\ntask = 'detect'", {}, UsageError, "--task detect needs --head, one of yolox"),
        ("labels = ['a']\ntask = 'segment'\nhead = 'softmax'", {}, UsageError, "there are classify, detect"),
        ("labels = ['a']\ntask = 'classify'\nhead = 'yolox'", {}, UsageError, "head yolox is for --task detect"),
        ("labels = ['a']\n[detect]\nstrides = [8]", {}, UsageError, "task classify has no table 'detect'"),
        ("labels = ['a']\nhead = 'yolox'\n[detect]\nstrides = []", {}, UsageError, "detect"),
        ("labels = ['a']\nhead = 'yolox'\n[detect]\nstride = [8]", {}, UsageError, "stride"),
        ("labels = ['a']", {"size": "big"}, UsageError, "--size 'big': give WIDTHxHEIGHT"),
        ("labels = ['a']", {"size": "3x"}, UsageError, "--size '3x': give WIDTHxHEIGHT"),
        ("labels = ['a']", {"labels": "absent.txt"}, InputError, "--labels absent.txt: No such file"),
        ("", {}, UsageError, "give --labels FILE, a name a line, or imagenet"),
    ],
)
def test_every_mistake_is_one_line(tmp_path: Path, toml: str, flags: dict[str, Any], kind: type[EdgeError], says: str) -> None:
    with pytest.raises(kind) as refused:
        of(tmp_path, toml, **flags)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"\xff\xfe", "not TOML")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "model.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as refused:
        read_description(path, {})
    assert str(refused.value).startswith(f"--config {path}: ")


@pytest.mark.parametrize(
    ("table", "says"), [("colour = 'rgb'", "colour"), ("color = 'grey'", "color"), ("width = 'x'", "width")]
)
def test_a_geometry_that_cannot_be_names_the_file(tmp_path: Path, table: str, says: str) -> None:
    said = of(tmp_path, f"labels = ['a']\n[input]\n{table}")
    with pytest.raises(UsageError, match=says) as refused:
        said.geometry((8, 8), "model.onnx")
    assert str(refused.value).startswith("model.onnx: input: ")


@given(st.text(max_size=12))
def test_any_size_is_taken_or_refused(text: str) -> None:
    with suppress(UsageError):
        size = described(Description(labels=["a"], size=text), "m").size_wh
        assert size is not None
        assert all(isinstance(side, int) for side in size)
