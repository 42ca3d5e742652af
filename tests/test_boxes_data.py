"""Labelled boxes on disk: the three layouts, what each says of bad files, and what becomes of bad pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.boxes_data import BoxSample, labelled_boxes
from edge.card import Label
from edge.class_names import yaml_names
from edge.datasets import labelled_frames
from edge.errors import DataError
from edge.pictures import decode_picture, upright_size
from tests.samples import encoded, picture

LABELS = (Label(id="c", name="cat"), Label(id="d", name="dog"), Label(id="t", name="traffic light"))
WANT = {
    "a.png": [([10, 10, 30, 20], 0), ([0, 0, 64, 48], 1)],
    "b.png": [],
    "c.png": [([32, 24, 64, 48], 2)],
}
"""Picture → boxes and classes, of pictures of 64 x 48."""
NAMES = ["dog", "cat", "traffic_light"]
"""In another order than the labels."""


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pictures(folder: Path) -> Path:
    for name in WANT:
        write(folder / name, encoded(picture(), ".png"))
    return folder


def yolo_lines(name: str, number: Callable[[int], int]) -> str:
    lines = []
    for (left, top, right, bottom), class_id in WANT[name]:
        x, y, width, height = (left + right) / 128, (top + bottom) / 96, (right - left) / 64, (bottom - top) / 48
        lines.append(f"{number(class_id)} {x} {y} {width} {height}")
    return "\n".join(lines) + "\n"


def our_number(class_id: int) -> int:
    return [1, 0, 2][class_id]  # in NAMES


def yolo(root: Path, number: Callable[[int], int] = our_number) -> Path:
    pictures(root / "images")
    for name in WANT:
        if WANT[name]:
            write(root / "labels" / name.replace(".png", ".txt"), yolo_lines(name, number))
    return root


def yolo_by_index(root: Path) -> Path:
    return yolo(root, lambda class_id: class_id)


def yolo_names(root: Path) -> Path:
    write(root / "classes.txt", "\n".join(NAMES))
    return yolo(root)


def yolo_yaml_above(root: Path) -> Path:
    write(root.parent / "data.yaml", f"nc: 3\nnames: {NAMES}\n")
    return yolo(root)


def yolo_beside(root: Path) -> Path:
    pictures(root)
    for name in WANT:
        write(root / name.replace(".png", ".txt"), yolo_lines(name, lambda class_id: class_id))
    return root


def coco_of() -> dict[str, Any]:
    names = list(WANT)
    return {
        "info": {"year": 2017},
        "images": [{"id": 7 + i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)],
        "annotations": [
            {
                "id": 100 + i,
                "image_id": 7 + names.index(name),
                "category_id": 1 + our_number(class_id),
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": 1,
            }
            for i, (name, box, class_id) in enumerate((name, *item) for name in names for item in WANT[name])
        ],
        "categories": [{"id": 0, "name": "everything"}, *({"id": 1 + i, "name": name} for i, name in enumerate(NAMES))],
    }


def coco(root: Path) -> Path:
    pictures(root / "val2017")
    write(root / "annotations" / "instances_val2017.json", json.dumps(coco_of()))
    return root


def coco_beside(root: Path) -> Path:
    pictures(root)
    write(root / "_annotations.coco.json", json.dumps(coco_of()))
    return root


def voc_xml(name: str) -> str:
    objects = "".join(
        f"<object><name>{LABELS[class_id].name}</name><difficult>0</difficult><bndbox><xmin>{box[0] + 1}</xmin>"
        f"<ymin>{box[1] + 1}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for box, class_id in WANT[name]
    )
    return f"<annotation><filename>{name}</filename>{objects}</annotation>"


def voc(root: Path) -> Path:
    pictures(root / "JPEGImages")
    for name in WANT:
        write(root / "Annotations" / name.replace(".png", ".xml"), voc_xml(name))
    return root


def voc_small(root: Path) -> Path:
    pictures(root / "images")
    for name in WANT:
        write(root / "annotations" / name.replace(".png", ".xml"), voc_xml(name))
    return root


LAYOUTS = [yolo_by_index, yolo_names, yolo_yaml_above, yolo_beside, coco, coco_beside, voc, voc_small]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    samples = labelled_boxes(layout(tmp_path / "set"), LABELS)
    assert [sample.path.name for sample in samples] == list(WANT)
    for sample in samples:
        want = WANT[sample.path.name]
        assert sample.path.is_file()
        assert (sample.boxes_xyxy.dtype, sample.class_ids.dtype) == (np.float32, np.int64)
        np.testing.assert_allclose(sample.boxes_xyxy, np.array([box for box, _ in want]).reshape(-1, 4), atol=1e-4)
        assert sample.class_ids.tolist() == [class_id for _, class_id in want]
        assert not sample.ignored.any()


def test_the_parts_of_a_set(tmp_path: Path) -> None:
    for part, name in (("train", "a"), ("val", "b")):
        write(tmp_path / "one" / "images" / part / f"{name}.png", encoded(picture(), ".png"))
        write(tmp_path / "one" / "labels" / part / f"{name}.txt", "0 0.5 0.5 1 1\n")
        write(tmp_path / "two" / part / "images" / f"{name}.png", encoded(picture(), ".png"))
        write(tmp_path / "two" / part / "labels" / f"{name}.txt", "0 0.5 0.5 1 1\n")
        write(tmp_path / "three" / "JPEGImages" / f"{name}.png", encoded(picture(), ".png"))
        write(tmp_path / "three" / "Annotations" / f"{name}.xml", voc_xml("c.png"))
        write(tmp_path / "three" / "ImageSets" / "Main" / f"{part}.txt", f"{name}\n")
        write(tmp_path / "four" / "annotations" / f"instances_{part}2017.json", json.dumps(coco_of()))
        pictures(tmp_path / "four" / f"{part}2017")
    for root in ("one", "two", "three"):
        for part, name in (("train", "a"), ("val", "b")):
            found = labelled_boxes(tmp_path / root, LABELS, split=part)  # type: ignore[arg-type]
            assert [sample.path.stem for sample in found] == [name], root
    assert [sample.path.name for sample in labelled_boxes(tmp_path / "one", LABELS)] == ["a.png", "b.png"]
    assert {sample.path.parent.name for sample in labelled_boxes(tmp_path / "four", LABELS, split="val")} == {"val2017"}
    assert len(labelled_boxes(yolo_names(tmp_path / "five"), LABELS, split="val")) == 3  # it names no parts


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 1", "4 values"),
        ("0 0.5 0.5 1 1 0.9", "6 values"),
        ("cat 0.5 0.5 1 1", "are not numbers"),
        ("0 0.5 0.5 nan 1", "in parts of the picture"),
        ("0 32 24 10 10", "in parts of the picture"),
        ("0 0.5 0.5 -0.1 1", "in parts of the picture"),
        ("-1 0.5 0.5 1 1", "class -1"),
        ("0.5 0.5 0.5 1 1", "class 0.5"),
        ("3 0.5 0.5 1 1", "class 3 of 3 labels"),
        ("0 0.5 0.5 1 1e", "are not numbers"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    write(yolo_by_index(tmp_path) / "labels" / "a.txt", f"0 0.5 0.5 1 1\n\n{line}\n")
    with pytest.raises(DataError, match=rf"labels/a\.txt, line 3: .*{said}"):
        labelled_boxes(tmp_path, LABELS)


def test_a_class_that_is_no_label(tmp_path: Path) -> None:
    write(yolo(tmp_path / "yolo") / "names", "dog\nbird\n")
    with pytest.raises(DataError, match=r"a\.txt, line 1: class 'bird' \(.*names\), which is none of the labels"):
        labelled_boxes(tmp_path / "yolo", LABELS)
    with pytest.raises(DataError, match=r"annotation 100: category 'cat' is none of the labels"):
        labelled_boxes(coco(tmp_path / "coco"), LABELS[1:])
    with pytest.raises(DataError, match=r"a\.xml: object 1: 'cat' is none of the labels"):
        labelled_boxes(voc(tmp_path / "voc"), LABELS[1:])


def test_polygons_crowds_and_difficult_objects(tmp_path: Path) -> None:
    write(yolo_by_index(tmp_path / "yolo") / "labels" / "a.txt", "1 0.25 0.25 0.5 0.25 0.5 0.75\n")
    (first, *_) = labelled_boxes(tmp_path / "yolo", LABELS)
    np.testing.assert_allclose(first.boxes_xyxy, [[16, 12, 32, 36]])
    data = coco_of()
    data["annotations"][0]["iscrowd"] = 1
    write(coco(tmp_path / "coco") / "annotations" / "instances_val2017.json", json.dumps(data))
    (first, *_) = labelled_boxes(tmp_path / "coco", LABELS)
    assert first.ignored.tolist() == [True, False]
    difficult = voc_xml("a.png").replace("<difficult>0", "<difficult>1", 1)
    write(voc(tmp_path / "voc") / "Annotations" / "a.xml", difficult)
    (first, *_) = labelled_boxes(tmp_path / "voc", LABELS)
    assert first.ignored.tolist() == [True, False]


def test_boxes_are_clipped_and_those_without_an_area_left_out(tmp_path: Path) -> None:
    write(yolo_by_index(tmp_path) / "labels" / "a.txt", "0 0.5 0.5 1.008 1\n0 0.5 0.5 0 1\n0 1 1 0.5 0.5\n")
    (first, *_) = labelled_boxes(tmp_path, LABELS)
    np.testing.assert_allclose(first.boxes_xyxy, [[0, 0, 64, 48], [48, 36, 64, 48]])


def put(data: dict[str, Any], *keys: Any, value: Any) -> str:
    inner: Any = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not COCO's JSON"),
        ("[]", "not COCO's JSON"),
        ("[" * 100_000, "not COCO's JSON"),
        ('{"images": []}', "not COCO's JSON"),
        (put(coco_of(), "annotations", 0, "bbox", value=[1, 2, 3]), "not COCO's JSON"),
        (put(coco_of(), "annotations", 0, "bbox", value=[1, 2, -3, 4]), "annotation 100: bbox"),
        (put(coco_of(), "annotations", 1, "image_id", value=99), "annotation 101: image_id 99"),
        (put(coco_of(), "annotations", 1, "category_id", value=99), "annotation 101: category 'number 99'"),
    ],
)
def test_bad_coco(tmp_path: Path, text: str, said: str) -> None:
    write(coco(tmp_path) / "annotations" / "instances_val2017.json", text)
    with pytest.raises(DataError, match=rf"instances_val2017\.json: {said}"):
        labelled_boxes(tmp_path, LABELS)


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation><name>&c;</name></annotation>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<annotation>", "a.xml, line 1: not XML: no element found"),
        (b"<annotation>\n<a></b></annotation>", "a.xml, line 2: not XML: mismatched tag"),
        (b"", "a.xml, line 1: not XML"),
        (BOMB.encode(), "document type declaration"),
        (BOMB.encode("utf-16"), "document type declaration"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type declaration"),
        (voc_xml("a.png").replace("<xmin>11</xmin>", "").encode(), "object 1: its bndbox lacks a number"),
        (voc_xml("a.png").replace("<xmin>11", "<xmin>x").encode(), "object 1: its bndbox lacks a number"),
        (voc_xml("a.png").replace("<xmin>11", "<xmin>91").encode(), "object 1: bndbox .* has its corners swapped"),
        (voc_xml("a.png").replace("<xmin>11", "<xmin>nan").encode(), "object 1: bndbox"),
    ],
)
def test_bad_voc(tmp_path: Path, content: bytes, said: str) -> None:
    write(voc(tmp_path) / "Annotations" / "a.xml", content)
    with pytest.raises(DataError, match=said):
        labelled_boxes(tmp_path, LABELS)


@pytest.mark.parametrize("layout", [yolo_names, coco, voc])
def test_bad_pictures_are_named_and_left_out_when_they_are_read(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    samples = labelled_boxes(layout(tmp_path / "set"), LABELS)
    samples[0].path.write_bytes(samples[0].path.read_bytes()[:200])
    samples[1].path.unlink()
    again = labelled_boxes(tmp_path / "set", LABELS)
    bad: list[str] = []
    read = [sample for _, sample in labelled_frames(again, bad.append)]
    assert [sample.path.name for sample in read] == ["c.png"]
    assert "a.png" in bad[0]
    assert len(bad) == (1 if layout is yolo_names else 2)  # YOLO lists the pictures, the others their labels


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "gone", "no such folder"),
        (lambda root: write(root / "x" / "notes.txt", "hello").parent, "no labelled boxes found"),
        (lambda root: pictures(root / "images").parent, "no labelled boxes found"),
        (
            lambda root: write(pictures(root / "y" / "images").parent / "labels" / "a.txt", "").parents[1],
            "none of its 3 pictures",
        ),
    ],
)
def test_folders_without_boxes(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(DataError, match=said):
        labelled_boxes(make(tmp_path), LABELS)


def turned(image: Any, orientation: int) -> bytes:
    """A JPEG whose EXIF says that it is to be turned."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def test_boxes_are_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    """Stored 64 x 48, shown 48 x 64: a YOLO box is in parts of what is shown."""
    raw = turned(picture(64, 48), 6)
    assert decode_picture(raw, "x").shape == (64, 48, 3)
    assert upright_size(raw) is None
    assert upright_size(encoded(picture(64, 48))) == (64, 48)
    write(tmp_path / "images" / "a.jpg", raw)
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 1 1\n")
    (sample,) = labelled_boxes(tmp_path, LABELS)
    np.testing.assert_allclose(sample.boxes_xyxy, [[0, 0, 48, 64]])


def test_a_sample_is_checked() -> None:
    with pytest.raises(ValueError, match=r"expected boxes \(2, 4\)"):
        BoxSample(Path("a.png"), np.zeros((1, 4), np.float32), np.zeros(2, np.int64))


# names in a data.yaml


@pytest.mark.parametrize(
    "text",
    [
        "names: [dog, 'cat', \"traffic light\"]",
        "names: ['dog', cat, traffic light]  # three",
        "train: x\nnames:\n  - dog\n  - cat\n  - traffic light\nnc: 3\n",
        "names:\n- dog\n- 'cat'\n- \"traffic light\"\n",
        "names:\n  0: dog\n  1: cat  # a cat\n\n  2: traffic light\nother:\n  3: no\n",
        "names: {0: dog, 1: 'cat', 2: traffic light}",
        "names: [\n  dog,\n  cat,\n  traffic light,\n]\nnc: 3\n",
    ],
)
def test_ways_to_write_names(text: str) -> None:
    assert yaml_names(text, "data.yaml") == {0: "dog", 1: "cat", 2: "traffic light"}


@pytest.mark.parametrize("text", ["", "nc: 3", "names:", "names: dog", "names: [dog", "names:\n  dog: 0", "names: [[a], [b]]"])
def test_names_that_are_not_understood(text: str) -> None:
    with pytest.raises(DataError, match=r"^data\.yaml"):
        yaml_names(text, "data.yaml")


@given(st.text(max_size=200))
def test_any_text_is_names_or_one_error(text: str) -> None:
    with suppress(DataError):
        assert yaml_names("names: " + text, "data.yaml")
