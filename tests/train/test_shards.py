"""Shards: what WebDataset writes is read, in an order that a resumed or a shared run has, too; pack writes such."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.datasets import labelled_frames
from edge.errors import DataError
from tests.conftest import Finished
from tests.train.pictured import class_set, jpeg, put, scene
from tests.train.sharded import LABELS, places, shard, tar_of, ten_shards
from train.pack_command import pack
from train.shard_sets import is_shards, open_shards, shard_parts
from train.shards import ShardBoxes, Shards, ShardSample, expand


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return ten_shards(tmp_path / "shards")


def test_samples_of_every_kind_of_label(tmp_path: Path) -> None:
    picture = jpeg(scene(0))
    files = {
        "deep/a.one.jpg": picture,  # WebDataset's key ends at the first dot: its suffix is one.jpg, no picture's
        "deep/x.jpeg": picture,
        "deep/x.cls": b"1",
        "other/x.PNG": picture,
        "other/x.cls": b"b\n",
        "y.json": json.dumps({"class": "A", "width": 3}).encode(),
        "y.webp": picture,
        "z.jpg": picture,
        "z.json": json.dumps({"boxes": [[1, 2, 30, 40], [0, 0, 5, 5]], "classes": ["b", 0], "ignored": [False, True]}).encode(),
        "lonely.cls": b"1",
        "bare.jpg": picture,
        "bare.txt": b"a caption",
    }
    shards = Shards([str(put(tmp_path / "s.tar", tar_of(files)))], LABELS)
    assert [(sample.path.name, getattr(sample, "class_id", None)) for sample in shards] == [
        ("x.jpeg", 1),
        ("x.png", 1),
        ("y.webp", 0),
        ("z.jpg", None),
    ]
    boxes = shards[-1]
    assert isinstance(boxes, ShardBoxes)
    np.testing.assert_array_equal(boxes.boxes_xyxy, [[1, 2, 30, 40], [0, 0, 5, 5]])
    assert (boxes.class_ids.tolist(), boxes.ignored.tolist()) == ([1, 0], [False, True])
    assert isinstance(shards[0], ShardSample)
    assert shards[0].read().shape == (64, 96, 3)
    assert len(shards[1:3]) == 2
    with pytest.raises(IndexError):
        shards[4]


def test_pictures_are_read_as_those_in_folders_are(folder: Path) -> None:
    shards = Shards(places(folder), LABELS)
    assert len(shards) == 30
    said: list[str] = []
    for number, (frame, sample) in enumerate(labelled_frames(shards, said.append)):
        assert isinstance(sample, ShardSample)
        assert sample.class_id == number % 2
        assert frame.image.shape == (64, 96, 3)
    assert said == []


def test_a_damaged_picture_is_named_and_left_out(tmp_path: Path) -> None:
    files = {"0.jpg": jpeg(scene(0))[:900], "0.cls": b"0", "1.jpg": jpeg(scene(1)), "1.cls": b"0"}
    shards = Shards([str(put(tmp_path / "s.tar", tar_of(files)))], LABELS)
    said: list[str] = []
    assert [sample.path.name for _, sample in labelled_frames(shards, said.append)] == ["1.jpg"]
    assert len(said) == 1
    assert "s.tar: 0.jpg: not a readable picture" in said[0]


def test_training_pictures_come_from_shards_as_from_folders(tmp_path: Path, command: Any) -> None:
    torch = pytest.importorskip("torch")
    from edge.card import InputGeometry
    from edge.datasets import class_folders
    from train.pictures import Pictures

    data = class_set(tmp_path / "set", 6)
    command(pack, data, "--out", tmp_path / "out", "--shard-mb", 0.01)
    shards, _, labels = open_shards(str(tmp_path / "out"))
    spec, said = InputGeometry(width=16, height=16), list[str]()

    def seen(samples: Any) -> Counter[tuple[bytes, int]]:
        batches = list(Pictures(samples, spec, (127,) * 3, (128,) * 3, said.append).plain(5))
        images, class_ids = torch.cat([batch.images for batch in batches]), torch.cat([batch.class_ids for batch in batches])
        return Counter((image.numpy().tobytes(), int(found)) for image, found in zip(images, class_ids, strict=True))

    assert seen(shards) == seen(class_folders(data / "train", labels))
    assert said == []


def test_the_order_is_of_seed_and_epoch_alone(folder: Path) -> None:
    def order(epoch: int, seed: int) -> list[int]:
        return [int(place) for place in Shards(places(folder), LABELS).order(epoch, seed)]

    assert order(0, 0) == order(0, 0)
    assert sorted(order(0, 0)) == list(range(30))
    assert len({tuple(order(epoch, seed)) for epoch in (0, 1) for seed in (0, 1)}) == 4
    counts = Shards(places(folder), LABELS, counts=[3] * 10)
    assert counts.order(3, 1).tolist() == order(3, 1)


def test_a_few_shards_at_a_time_are_mixed(folder: Path) -> None:
    order = Shards(places(folder), LABELS).order(0, 0)
    windows = [{int(place) // 3 for place in order[start : start + 12]} for start in (0, 12, 24)]
    assert [len(window) for window in windows] == [4, 4, 2]
    assert len(set().union(*windows)) == 10
    assert order[:12].tolist() != sorted(order[:12])
    for rank in (0, 1):  # two processes take every other picture of a batch, and together all
        assert len({int(place) for place in order[rank::2]}) == 15


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no tar at all", "not an uncompressed tar"),
        (shard(0, 3)[:4000], "cut short|not an uncompressed tar"),
        (tar_of({"0.jpg": b"", "0.cls": b"owl"}), "class 'owl' is none of the 2 labels"),
        (tar_of({"0.jpg": b"", "0.cls": b"2"}), "class '2' is none of the 2 labels"),
        (tar_of({"0.jpg": b"", "0.cls": b"9" * 4301}), "neither a class nor JSON"),  # more digits than int() takes
        (tar_of({"0.jpg": b"", "0.cls": b"9" * 4300}), "class '9{60}' is none of the 2 labels"),
        (tar_of({"0.jpg": b"", "0.json": b"{"}), "neither a class nor JSON"),
        (tar_of({"0.jpg": b"", "0.json": b"{}"}), "neither class nor boxes"),
        (tar_of({"0.jpg": b"", "0.json": b'{"boxes": [[1, 2, 3]], "classes": [0]}'}), "its json is not boxes"),
        (tar_of({"0.jpg": b"", "0.json": b'{"boxes": [[1, 2, 3, 4]], "classes": []}'}), "its json is not boxes"),
        (
            tar_of({"0.jpg": b"", "0.json": b'{"boxes": [[1, 2, 3, 1%s]], "classes": [0]}' % (b"0" * 400)}),
            "its json is not boxes",
        ),
        (tar_of({"0.jpg": b""}), "no sample in the shards"),
    ],
)
def test_bad_shards_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = put(tmp_path / "bad.tar", content)
    with pytest.raises(DataError, match=rf"bad\.tar.*({said})"):
        list(Shards([str(path)], LABELS))


@pytest.mark.parametrize("digits", [6, 20, 4300])
def test_a_class_number_that_no_data_set_has_is_refused(tmp_path: Path, digits: int) -> None:
    path = put(tmp_path / "bad.tar", tar_of({"0.jpg": b"", "0.cls": b"9" * digits}))
    with pytest.raises(DataError, match=r"bad\.tar: the largest class number .* is 9{6,20}; correct it") as caught:
        open_shards(str(path))
    assert len(str(caught.value)) < 400


def test_classes_that_are_no_list_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "bad.tar", tar_of({"0.jpg": b"", "0.json": b'{"boxes": [[1, 2, 3, 4]], "classes": 5}'}))
    with pytest.raises(DataError, match="its json is not boxes"):
        open_shards(str(path))[0][0]


def test_a_folder_whose_name_begins_with_val_is_trained_on(tmp_path: Path) -> None:
    put(tmp_path / "valves" / "0.tar", shard(0, 3))
    put(tmp_path / "valves" / "val" / "1.tar", shard(3, 2))
    train, val, _ = open_shards(str(tmp_path / "valves"))
    assert val is not None
    assert (len(train), len(val)) == (3, 2)
    assert shard_parts(f"{tmp_path}/valves/0.tar") == ([f"{tmp_path}/valves/0.tar"], [])


def test_patterns(folder: Path) -> None:
    assert expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand("{train,val}-{2..1}.tar") == ["train-2.tar", "train-1.tar", "val-2.tar", "val-1.tar"]
    assert expand("{t-{0..2},v}.tar") == ["t-0.tar", "v.tar", "t-1.tar", "t-2.tar"]
    assert expand("plain.tar") == ["plain.tar"]
    put(folder / "val-0000.tar", shard(100, 2))
    train, val = shard_parts(f"{folder}/{{train,val}}-0000.tar")
    assert [Path(place).name for place in (*train, *val)] == ["train-0000.tar", "val-0000.tar"]
    assert is_shards(str(folder))
    assert is_shards("https://example.org/{0..9}.tar")
    assert not is_shards(str(folder.parent))
    with pytest.raises(DataError, match=r"train-0010\.tar: no such shard"):
        shard_parts(f"{folder}/train-{{0000..0010}}.tar")
    with pytest.raises(DataError, match="all of its shards are val's"):
        shard_parts(f"{folder}/val-0000.tar")
    with pytest.raises(DataError, match=r"has no \.tar files"):
        shard_parts(str(folder.parent))


def test_parts_and_classes_without_an_index(folder: Path) -> None:
    put(folder / "val-0000.tar", tar_of({"0.jpg": jpeg(scene(0)), "0.cls": b"2"}))
    train, val, labels = open_shards(str(folder))
    assert val is not None
    assert (len(train), len(val)) == (30, 1)
    assert [label.name for label in labels] == ["0", "1", "2"]
    put(folder / "classes.txt", "cat\ndog\nowl\n")
    assert [label.name for label in open_shards(str(folder))[2]] == ["cat", "dog", "owl"]
    named = put(
        folder.parent / "named" / "x.tar", tar_of({"0.jpg": jpeg(scene(0)), "0.cls": b"dog", "1.jpg": b"", "1.cls": b"cat"})
    )
    train, val, labels = open_shards(str(named))
    assert val is None
    assert [label.name for label in labels] == ["cat", "dog"]
    assert isinstance(train[0], ShardSample)
    assert train[0].class_id == 1


def test_pack_writes_what_is_read(tmp_path: Path, command: Any) -> None:
    data = class_set(tmp_path / "set", 10)
    put(data / "train" / "a" / "cut.jpg", jpeg(scene(0))[:500])
    ended: Finished = command(pack, data, "--out", tmp_path / "out", "--shard-mb", 0.02)
    assert ended.code == 0
    assert "skipped" in ended.err
    assert "40 pictures in" in ended.err
    train, val, labels = open_shards(str(tmp_path / "out"))
    assert val is not None
    assert (len(train), len(val)) == (20, 20)
    assert [label.name for label in labels] == ["a", "b"]
    for part, shards in (("train", train), ("val", val)):
        found = Counter((shards.raw(i), shards[i].class_id) for i in range(len(shards)))  # type: ignore[union-attr]
        wanted = Counter((path.read_bytes(), c) for c, name in enumerate("ab") for path in (data / part / name).glob("[0-9]*"))
        assert found == wanted
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.tar")]
    assert len(sizes) > 4
    assert max(sizes) < 40_000
    again = tmp_path / "again"
    command(pack, data, "--out", again, "--shard-mb", 0.02)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()
    }
    assert "not an empty folder" in command(pack, data, "--out", again).refused(2)
    index = json.loads((again / "index.json").read_text())
    assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
    assert sum(item["nsamples"] for item in index["shardlist"]) == 40
    for part, shards in (("train", train), ("val", val)):
        assert shards.label_counts().tolist() == [10, 10]  # type: ignore[union-attr]
        rows = [item["label_counts"] for item in index["shardlist"] if item["url"].startswith(part)]
        assert [sum(row) for row in zip(*rows, strict=True)] == [10, 10]


def test_pack_makes_a_val_part_and_keeps_boxes(tmp_path: Path, command: Any) -> None:
    for i in range(20):
        put(tmp_path / "set/images" / f"{i}.jpg", jpeg(scene(i)))
        put(tmp_path / "set/labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.{1 + i % 8} 0.5\n" if i else "")
    put(tmp_path / "set/classes.txt", "a\nb\n")
    assert command(pack, tmp_path / "set", "--out", tmp_path / "out").code == 0
    train, val, labels = open_shards(str(tmp_path / "out"))
    assert val is not None
    assert (len(train), len(val)) == (16, 4)
    assert labels == LABELS
    samples = [*train, *val]
    assert all(isinstance(sample, ShardBoxes) for sample in samples)
    assert sum(len(sample.class_ids) for sample in samples) == 19  # type: ignore[union-attr]
    for part in (train, val):
        objects = Counter(int(class_id) for sample in part for class_id in sample.class_ids)  # type: ignore[union-attr]
        assert part.label_counts().tolist() == [objects[0], objects[1]]  # type: ignore[union-attr]
    widths = Counter(round(float(box[2] - box[0]), 1) for sample in samples for box in sample.boxes_xyxy)  # type: ignore[union-attr]
    assert widths == Counter(round(96 * (1 + i % 8) / 10, 1) for i in range(1, 20))
