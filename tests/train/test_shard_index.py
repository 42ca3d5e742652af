"""What lies beside shards: the index saves looking into them, and class numbers mean what classes.txt says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.boxes_data import labelled_boxes
from edge.card import Label
from edge.errors import DataError
from tests.train.pictured import class_set, jpeg, put, scene
from tests.train.sharded import LABELS, Server, index_of, places, shard, tar_of, ten_shards
from train.pack import write_shards
from train.pack_command import pack
from train.shard_cache import ShardCache
from train.shard_sets import open_shards
from train.shards import Shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return ten_shards(tmp_path / "shards")


def test_an_index_is_of_places_and_not_of_names_alone(tmp_path: Path) -> None:
    put(tmp_path / "train" / "0.tar", shard(0, 3))
    put(tmp_path / "val" / "0.tar", shard(3, 2))
    for names in (("train/0.tar", "./val/0.tar"), ("val/0.tar", "train/0.tar"), ("0.tar",)):
        put(tmp_path / "index.json", index_of({name: 2 if "val" in name else 3 for name in names}))
        train, val, _ = open_shards(str(tmp_path))
        assert val is not None
        assert [len(list(part)) for part in (train, val)] == [3, 2]


def test_the_folder_of_val_may_be_valid(tmp_path: Path) -> None:
    put(tmp_path / "train" / "0.tar", shard(0, 3))
    put(tmp_path / "valid" / "0.tar", shard(3, 2))
    train, val, _ = open_shards(str(tmp_path))
    assert (len(train), len(val or [])) == (3, 2)


def test_an_index_that_was_written_from_elsewhere_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {f"elsewhere/{Path(place).name}": 3 for place in places(folder)}
    put(folder / "index.json", index_of(counts))
    put(folder / "classes.txt", "a\nb\n")
    monkeypatch.setattr("train.shards.members_of", lambda *_: pytest.fail("a shard was looked into"))
    assert len(open_shards(str(folder))[0]) == 30


def test_an_index_that_is_wrong_is_found_out(folder: Path) -> None:
    shards = Shards(places(folder), LABELS, counts=[4] * 10)
    with pytest.raises(DataError, match="has 3 samples, its index says 4"):
        shards[0]


def test_labels_are_counted_by_the_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [Path(place).name for place in places(folder)]
    put(folder / "classes.txt", "a\nb\n")
    assert open_shards(str(folder))[0].label_counts() is None
    put(folder / "index.json", index_of(dict.fromkeys(names, 3)))
    assert open_shards(str(folder))[0].label_counts() is None
    put(
        folder / "index.json", index_of(dict.fromkeys(names, 3), {name: [2 - i % 2, 1 + i % 2] for i, name in enumerate(names)})
    )
    with monkeypatch.context() as patched:
        patched.setattr("train.shards.members_of", lambda *_: pytest.fail("a shard was looked into"))
        shards = open_shards(str(folder))[0]
        counts = shards.label_counts()
    assert counts is not None
    assert counts.dtype == np.int64
    assert counts.tolist() == [15, 15]
    assert Counter(sample.class_id for sample in shards) == {0: 15, 1: 15}  # type: ignore[union-attr]


def test_counts_of_classes_that_the_labels_do_not_have_are_not_given(folder: Path) -> None:
    shards = Shards(places(folder), LABELS[:1], counts=[3] * 10, labelled=[[2, 1]] * 10)
    assert shards.label_counts() is None
    counts = Shards(places(folder), LABELS[:1], counts=[3] * 10, labelled=[[3, 0]] * 10).label_counts()
    assert counts is not None
    assert counts.tolist() == [30]


def test_an_index_that_counts_other_labels_is_found_out(folder: Path) -> None:
    shards = Shards(places(folder), LABELS, counts=[3] * 10, labelled=[[1, 2]] * 10)
    with pytest.raises(DataError, match=r"train-0000\.tar: its classes are not as many as its index says"):
        shards[0]
    assert shards[3].class_id == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("classes", "given", "own"),
    [
        ("cat\ndog\n", ["bird", "dog", "cat"], ["dog", "cat"]),
        (None, ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"], ["1", "10"]),  # folders, in their order as text
    ],
)
def test_class_numbers_are_the_shards_and_not_those_of_another_run(
    tmp_path: Path, classes: str | None, given: list[str], own: list[str]
) -> None:
    numbers = [(classes.split() if classes else [str(i) for i in range(11)]).index(name) for name in own]
    files = {f"{i}.{suffix}": b"%d" % number for i, number in enumerate(numbers) for suffix in ("jpg", "cls")}
    put(tmp_path / "train-0.tar", tar_of(files))
    row = np.bincount(numbers).tolist()
    put(tmp_path / "index.json", index_of({"train-0.tar": 2}, {"train-0.tar": row}))
    if classes is not None:
        put(tmp_path / "classes.txt", classes)
    shards = open_shards(str(tmp_path), [Label(id=name, name=name) for name in given])[0]
    counts = shards.label_counts()
    assert counts is not None
    assert [given[sample.class_id] for sample in shards] == own  # type: ignore[union-attr]
    assert {given[i]: int(counts[i]) for i in np.flatnonzero(counts)} == dict.fromkeys(own, 1)


def test_pack_counts_no_ignored_object(tmp_path: Path) -> None:
    put(tmp_path / "set/images/0.jpg", jpeg(scene(0)))
    box = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 30]}
    listed = [box | {"id": 1}, box | {"id": 2, "iscrowd": 1}]
    about = {"images": [{"id": 1, "file_name": "0.jpg", "width": 96, "height": 64}], "categories": [{"id": 7, "name": "owl"}]}
    put(tmp_path / "set/instances.json", json.dumps(about | {"annotations": listed}))
    labels = (Label(id="owl", name="owl"),)
    write_shards({"train": [*labelled_boxes(tmp_path / "set", labels)]}, labels, tmp_path / "out", 10**6, tmp_path, pytest.fail)
    shards = open_shards(str(tmp_path / "out"))[0]
    assert len(shards[0].class_ids) == 2  # type: ignore[union-attr]
    assert shards.label_counts().tolist() == [1]  # type: ignore[union-attr]


def test_an_index_on_a_server_saves_the_fetching(tmp_path: Path, command: Any) -> None:
    command(pack, class_set(tmp_path / "set", 10), "--out", tmp_path / "out", "--shard-mb", 0.02)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    server, cache = Server(files), ShardCache(tmp_path / "cache", 100, backoff_s=0.01)
    names = ",".join(name.removesuffix(".tar") for name in files if name.endswith(".tar"))
    try:
        train, val, labels = open_shards(f"{server.url}/{{{names}}}.tar", cache=cache)
        assert val is not None
        assert (len(train), len(val), [label.name for label in labels]) == (20, 20, ["a", "b"])
        assert [part.label_counts().tolist() for part in (train, val)] == [[10, 10], [10, 10]]  # type: ignore[union-attr]
    finally:
        server.close()
        cache.close()
    assert sorted(server.asked) == ["/classes.txt", "/index.json"]
