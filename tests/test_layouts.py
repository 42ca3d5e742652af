"""What a folder holds: the task, the classes and the parts of every layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import DataError
from edge.layouts import labels_of, parts_of, task_of
from tests.samples import encoded, picture
from tests.test_boxes_data import (
    NAMES,
    WANT,
    coco,
    coco_beside,
    coco_of,
    pictures,
    voc,
    voc_small,
    write,
    yolo_beside,
    yolo_by_index,
    yolo_names,
    yolo_yaml_above,
)
from tests.test_kept import CAT, DOG, FOX, a_class, objects

SORTED = ["cat", "dog", "traffic light"]


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (yolo_names, NAMES),
        (yolo_yaml_above, NAMES),
        (coco, NAMES),  # its supercategory, which no box has, left out
        (coco_beside, NAMES),
        (voc, SORTED),
        (voc_small, SORTED),
    ],
)
def test_classes_of_boxes(tmp_path: Path, layout: Callable[[Path], Path], names: list[str]) -> None:
    root = layout(tmp_path / "set")
    assert task_of(root) == "detect"
    labels = labels_of(root)
    assert [label.name for label in labels] == names
    assert [label.id for label in labels] == names
    train, val = parts_of(root, labels, "detect")
    assert (len(train), val) == (len(WANT), None)


@pytest.mark.parametrize("layout", [yolo_by_index, yolo_beside])
def test_numbers_have_no_names(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    root = layout(tmp_path / "set")
    assert task_of(root) == "detect"
    with pytest.raises(DataError, match=r"numbers and no names; write .*classes\.txt"):
        labels_of(root)


def test_class_folders_in_parts(tmp_path: Path) -> None:
    for place in ("train/b", "train/a", "val/a", "val/c"):
        write(tmp_path / place / "0.png", encoded(picture(), ".png"))
        write(tmp_path / place / "0.txt", "a photograph of a thing, taken by me\n")
    assert task_of(tmp_path) == "classify"
    labels = labels_of(tmp_path)
    assert [label.id for label in labels] == ["a", "b", "c"]
    train, val = parts_of(tmp_path, labels, "classify")
    assert val is not None
    assert (len(train), len(val)) == (2, 2)
    assert parts_of(tmp_path / "train", labels, "classify")[1] is None


def test_boxes_in_parts(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / "yolo" / part / "images" / f"{part}.png", encoded(picture(), ".png"))
        write(tmp_path / "yolo" / part / "labels" / f"{part}.txt", "0 0.5 0.5 1 1\n")
        write(tmp_path / "coco" / "annotations" / f"instances_{part}2017.json", json.dumps(coco_of()))
        pictures(tmp_path / "coco" / f"{part}2017")
    write(tmp_path / "yolo" / "data.yaml", "names: [thing]\n")
    for name in ("yolo", "coco"):
        root = tmp_path / name
        assert task_of(root) == "detect"
        train, val = parts_of(root, labels_of(root), "detect")
        assert val
        assert train
    assert [label.id for label in labels_of(tmp_path / "yolo")] == ["thing"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_val_part_by_its_other_names(tmp_path: Path, name: str) -> None:
    """Roboflow's exports and most YOLO sets have `valid`; a third, `test`, is nobody's here."""
    for part in ("train", name, "test"):
        write(tmp_path / "classes" / part / "a" / f"{part}.png", encoded(picture(), ".png"))
        write(tmp_path / "yolo" / part / "images" / f"{part}.png", encoded(picture(), ".png"))
        write(tmp_path / "yolo" / part / "labels" / f"{part}.txt", "0 0.5 0.5 1 1\n")
        write(tmp_path / "other" / "images" / part / f"{part}.png", encoded(picture(), ".png"))
        write(tmp_path / "other" / "labels" / part / f"{part}.txt", "0 0.5 0.5 1 1\n")
        write(tmp_path / "coco" / part / "_annotations.coco.json", json.dumps(coco_of()))
        pictures(tmp_path / "coco" / part)
    write(tmp_path / "yolo" / "data.yaml", "names: [thing]\n")
    write(tmp_path / "other" / "classes.txt", "thing\n")
    for root in (tmp_path / "classes", tmp_path / "yolo", tmp_path / "other", tmp_path / "coco"):
        task = task_of(root)
        assert task == ("classify" if root.name == "classes" else "detect")
        train, val = parts_of(root, labels_of(root), task)
        assert val is not None, root
        for samples, part in ((train, "train"), (val, name)):
            assert samples
            assert all(part in sample.path.relative_to(root).as_posix() for sample in samples)


def test_voc_by_the_other_name(tmp_path: Path) -> None:
    root = voc(tmp_path)
    write(root / "ImageSets" / "Main" / "train.txt", "a\nb\n")
    write(root / "ImageSets" / "Main" / "valid.txt", "c\n")
    train, val = parts_of(root, labels_of(root), "detect")
    assert (len(train), len(val or [])) == (2, 1)


def test_what_an_endpoint_kept(tmp_path: Path) -> None:
    a_class(tmp_path / "classes", "a", DOG, CAT)
    a_class(tmp_path / "classes", "b", CAT)
    assert (task_of(tmp_path / "classes"), labels_of(tmp_path / "classes")) == ("classify", (CAT, DOG))
    objects(tmp_path / "boxes", "a", (FOX, (1, 1, 4, 4)))
    assert (task_of(tmp_path / "boxes"), labels_of(tmp_path / "boxes")) == ("detect", (FOX,))
    train, val = parts_of(tmp_path / "boxes", (FOX,), "detect")
    assert (len(train), val) == (1, None)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        task_of(tmp_path / "gone")
    write(tmp_path / "notes.md", "hello")
    with pytest.raises(DataError, match="neither class folders"):
        task_of(tmp_path)


def test_parts_of_other_names_are_no_classes(tmp_path: Path) -> None:
    for part in ("Train", "test"):
        write(tmp_path / part / "a" / "0.png", encoded(picture(), ".png"))
    for told in (task_of, labels_of):
        with pytest.raises(DataError, match=r"has the parts Train, test; name those to use train and val, or give .*Train"):
            told(tmp_path)
    assert task_of(tmp_path / "Train") == "classify"


def test_a_damaged_xml_hides_no_other_class(tmp_path: Path) -> None:
    root = voc(tmp_path)
    write(root / "Annotations" / "c.xml", "<annotation>")
    assert [label.id for label in labels_of(root)] == ["cat", "dog"]


def test_real_ones(shared_data: Path) -> None:
    assert [label.id for label in labels_of(shared_data / "cats_dogs")] == ["cat", "dog"]
    assert len(labels_of(shared_data / "imagenette")) == 10
    assert [label.id for label in labels_of(shared_data / "raccoon")] == ["raccoon"]
    assert task_of(shared_data / "coco128") == "detect"
