"""The val part: of the content alone, of every class, and never a copy of what is trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.boxes_data import labelled_boxes
from edge.card import Label
from edge.datasets import Sample, class_folders
from edge.errors import DataError
from tests.train.pictured import class_set, jpeg, put, scene
from train.duplicates import Near, exact_groups, keys_and_fingerprints
from train.split import split

LABELS = (Label(id="a", name="a"), Label(id="b", name="b"))


def samples_of(folder: Path) -> list[Sample]:
    return class_folders(folder, LABELS)


def content(samples: list[Sample]) -> set[bytes]:
    return {sample.path.read_bytes() for sample in samples}


def test_a_share_of_each_class_and_nothing_lost(tmp_path: Path) -> None:
    samples = samples_of(class_set(tmp_path, 25, ()))
    train, val = split(samples)
    assert [sum(sample.class_id == i for sample in val) for i in (0, 1)] == [5, 5]
    assert sorted([*train, *val], key=lambda sample: sample.path) == samples
    assert val == sorted(val, key=samples.index)


def test_uneven_classes_all_have_a_part(tmp_path: Path) -> None:
    class_set(tmp_path, 40, (), "a")
    for i in range(3):
        put(tmp_path / "b" / f"{i}.jpg", jpeg(scene(500 + i)))
    _, val = split(samples_of(tmp_path), count=8)
    assert [sum(sample.class_id == i for sample in val) for i in (0, 1)] == [7, 1]


def test_names_and_order_change_nothing_and_a_seed_does(tmp_path: Path) -> None:
    first = class_set(tmp_path / "first", 20, ())
    for place, path in enumerate(sorted(first.rglob("*.jpg"), reverse=True)):
        put(tmp_path / "second" / path.parent.name / f"{place:03d}.jpeg", path.read_bytes())
    _, val = split(samples_of(first))
    _, again = split(samples_of(tmp_path / "second"))
    _, other = split(samples_of(first), seed=1)
    assert content(val) == content(again)
    assert content(val) != content(other)
    assert len(val) == len(other) == 8


def test_copies_stay_in_one_part(tmp_path: Path) -> None:
    """Ten pictures, each with an exact copy and a near one: no pair is torn, whatever the seed."""
    for i in range(10):
        image = scene(i, 200, 150)
        put(tmp_path / "a" / f"{i}.jpg", jpeg(image))
        put(tmp_path / "a" / f"{i}-copy.jpg", jpeg(image))
        put(tmp_path / "a" / f"{i}-small.jpg", jpeg(cv2.resize(image, (100, 75), interpolation=cv2.INTER_AREA), 60))
    for seed in range(5):
        train, val = split(samples_of(tmp_path), seed=seed)
        assert len(val) == 6
        assert {sample.path.stem.partition("-")[0] for sample in val}.isdisjoint(
            sample.path.stem.partition("-")[0] for sample in train
        )


def test_val_is_of_pictures_without_a_copy_where_there_are_enough(tmp_path: Path) -> None:
    class_set(tmp_path, 20, (), "a")
    for i in range(5):
        shutil.copy(tmp_path / "a" / f"{i}.jpg", tmp_path / "a" / f"{i}-copy.jpg")
    for seed in range(5):
        _, val = split(samples_of(tmp_path), seed=seed)
        assert len(val) == 5
        assert all(int(sample.path.stem.partition("-")[0]) >= 5 for sample in val)


def test_a_fixed_camera_is_told_and_only_exact_copies_are_kept_together(tmp_path: Path) -> None:
    yard = scene(1, 96, 64)
    for i in range(20):
        image = yard.copy()
        image[:4, i * 4 : i * 4 + 4] = 255
        put(tmp_path / "a" / f"{i}.jpg", jpeg(image))
    said: list[str] = []
    train, val = split(samples_of(tmp_path), say=said.append)
    assert (len(train), len(val)) == (16, 4)
    assert len(said) == 1
    assert "fixed camera" in said[0]


def test_too_few_or_all_the_same(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / "a" / f"{i}.jpg", jpeg(scene(0)))
    with pytest.raises(DataError, match="too few that differ"):
        split(samples_of(tmp_path))
    with pytest.raises(DataError, match="cannot give 4 to val"):
        split(samples_of(tmp_path), count=4)
    with pytest.raises(DataError, match="0 pictures cannot"):
        split([])


def test_what_cannot_be_read_is_a_picture_of_its_own(tmp_path: Path) -> None:
    class_set(tmp_path, 9, (), "a")
    put(tmp_path / "a" / "torn.jpg", b"\xff\xd8torn")
    samples = [*samples_of(tmp_path), Sample(tmp_path / "gone.jpg", 0)]
    train, val = split(samples, count=2)
    assert len(train) + len(val) == 11
    assert len(val) == 2


def test_raccoons(shared_data: Path) -> None:
    samples = labelled_boxes(shared_data / "raccoon", [Label(id="raccoon", name="raccoon")])
    train, val = split(samples, count=40)
    assert (len(train), len(val)) == (160, 40)
    content = keys_and_fingerprints([sample.path for sample in [*train, *val]])
    across = [*exact_groups([key for key, _ in content]), *Near([found for _, found in content]).pairs()]
    assert len(across) >= 4
    assert not [group for group in across if any(place >= 160 for place in group)]
    assert np.concatenate([sample.boxes_xyxy for sample in val]).shape[1] == 4


def test_tiny_classes_are_no_fixed_camera(tmp_path: Path) -> None:
    """Classes of two near copies are said to be that; those of one picture can give none, and no copy is to blame."""
    labels = [Label(id=name, name=name) for name in "abcdef"]
    for i, label in enumerate(labels):
        put(tmp_path / "pairs" / label.id / "0.jpg", jpeg(scene(700 + i)))
        put(tmp_path / "ones" / label.id / "0.jpg", jpeg(scene(700 + i)))
        if i < 4:
            put(tmp_path / "pairs" / label.id / "1.jpg", jpeg(scene(700 + i), 40))
    said: list[str] = []
    _, val = split(class_folders(tmp_path / "pairs", labels), count=4, say=said.append)
    assert len(val) == 4
    assert "only 0 of 10 pictures" in said[0]
    assert "(8 have one)" in said[0]
    assert "edge-train check names them" in said[0]
    class_set(tmp_path / "ones", 4, (), "a")
    put(tmp_path / "ones" / "a" / "copy.jpg", jpeg(scene(1), 40))
    quiet: list[str] = []
    _, val = split(class_folders(tmp_path / "ones", labels), count=5, say=quiet.append)
    assert (len(val), quiet) == (3, [])
