"""edge-train check of shards: what a folder's check finds, of what is read once and not kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import DataError
from tests.conftest import Finished
from tests.train.pictured import class_set, jpeg, put, scene
from tests.train.sharded import LABELS, Server, index_of, shard, tar_of
from train import check_shards as module
from train.check_command import check as command_of
from train.check_shards import check_shards
from train.pack_command import pack
from train.shards import Shards

Command = Callable[..., Finished]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 pictures in two shards of train, 24 others in one of val."""
    for name, first, count in (("train-0", 0, 12), ("train-1", 12, 12), ("val-0", 100, 24)):
        put(tmp_path / "shards" / f"{name}.tar", shard(first, count))
    put(tmp_path / "shards" / "classes.txt", "a\nb\n")
    return tmp_path / "shards"


def named(folder: Path, **options: object) -> dict[str, tuple[str, ...]]:
    return {item.kind: item.cases for item in check_shards(str(folder), **options).findings}  # type: ignore[arg-type]


def test_nothing_to_remark(folder: Path, command: Command) -> None:
    ended = command(command_of, folder)
    assert ended.code == 0
    assert ended.out.splitlines() == [
        f"{folder}: 2 classes, pictures: 24 in train, 24 in val",
        "pictures of each class: a 12/12, b 12/12",
        "",
        "nothing to remark",
    ]
    assert "near copies and boxes that cannot be are not looked for in shards" in ended.err


def test_it_is_what_was_packed(tmp_path: Path, command: Command) -> None:
    assert command(pack, class_set(tmp_path / "set"), "--out", tmp_path / "shards").code == 0
    assert named(tmp_path / "shards") == {}


def test_all_that_can_be_wrong(folder: Path, command: Command) -> None:
    samples = {
        "1": (jpeg(scene(1)), b"a"),
        "2": (jpeg(scene(2)), b"0"),
        "100": (jpeg(scene(100)), b"a"),  # 1 is of b elsewhere
        "cut": (jpeg(scene(900))[:900], b"1"),
        "odd": (jpeg(scene(901, 20, 100)), b"7"),
    }
    files = {f"{key}.{end}": raw for key, one in samples.items() for end, raw in zip(("jpg", "cls"), one, strict=True)}
    put(folder / "train-2.tar", tar_of(files))
    put(folder / "train-3.tar", (folder / "train-0.tar").read_bytes()[:4000])
    put(
        folder / "index.json",
        index_of({"train-0.tar": 12, "train-1.tar": 13, "val-0.tar": 24}, {"": [6, 6], "1": [6, 6], "2": [5, 19]}),
    )
    found = named(folder)
    assert found["unreadable"] == ("train-2.tar: cut.jpg: a JPEG that is cut short or damaged, 900 bytes",)
    assert found["label"] == ("train-2.tar: odd: class '7' is none of the 2 labels; correct it or the labels",)
    assert found["two-labels"] == ("train-0.tar: 0001.jpg = train-2.tar: 1.jpg",)
    assert found["duplicate"] == ("train-0.tar: 0002.jpg = train-2.tar: 2.jpg",)
    assert found["leak"] == ("train-2.tar: 100.jpg = val-0.tar: 0100.jpg",)
    assert found["small"] == found["long"] == ("train-2.tar: odd.jpg: 20 x 100",)
    assert found["shard"][0].startswith("train-3.tar: not an uncompressed tar")
    assert found["index"] == (
        "train-1.tar: has 12 samples, not 13",
        "val-0.tar: has [12, 12] of each class, not [5, 19]",
    )
    assert command(command_of, folder).code == 3


def test_without_val_nothing_would_measure(folder: Path) -> None:
    (folder / "val-0.tar").unlink()
    assert named(folder) == {"no-val": (str(folder),)}


def test_boxes(tmp_path: Path) -> None:
    boxes = json.dumps({"boxes": [[1, 1, 40, 40]], "classes": ["a"]}).encode()
    files = {f"{i}.{end}": content for i in range(12) for end, content in (("jpg", jpeg(scene(i))), ("json", boxes))}
    put(tmp_path / "train.tar", tar_of(files))
    put(tmp_path / "val.tar", tar_of({name: content for name, content in files.items() if name.startswith("1.")}))
    report = check_shards(str(tmp_path))
    assert (report.task, report.classes) == ("detect", {"a": {"train": 12, "val": 1}})
    assert [item.kind for item in report.findings] == ["leak"]


def test_labels_of_ones_own(folder: Path) -> None:
    assert check_shards(str(folder), tuple(reversed(LABELS))).classes["b"] == {"train": 12, "val": 12}


def test_many_cases_are_counted_and_not_all_named(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "train-9.tar", (folder / "train-0.tar").read_bytes())
    monkeypatch.setattr(module, "NAMED", 5)
    [duplicates] = check_shards(str(folder)).findings
    assert (len(duplicates.cases), duplicates.count) == (5, 12)
    out = command(command_of, folder).out
    assert "warning      12  the same picture more than once" in out
    assert "and 9 more" in out
    for i in range(4):
        put(folder / f"train-8{i}.tar", (folder / "train-0.tar").read_bytes())
    assert check_shards(str(folder)).findings[0].cases[0].endswith(", and 2 more")


def test_a_shard_that_fails_in_the_middle_does_not_end_the_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Shards.raw

    def raw(shard: Shards, at: int) -> bytes:
        if "train-1" in shard.name(at) and at > 5:
            raise DataError("the connection broke")
        return read(shard, at)

    monkeypatch.setattr(Shards, "raw", raw)
    checked = check_shards(str(folder))
    [broken] = (item for item in checked.findings if item.kind == "shard")
    assert [case.endswith("train-1.tar: the connection broke") for case in broken.cases] == [True]
    assert checked.classes["a"] == {"train": 6, "val": 12}


def test_progress(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    check_shards(str(folder), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (1, 36)
    assert told[-1] == (48, 48)


def test_refusals(folder: Path, tmp_path: Path, command: Command) -> None:
    assert "edge-train pack it again" in command(command_of, folder, "--fix", tmp_path / "x.txt").refused(2)
    assert "leave it out" in command(command_of, folder, "--cache", tmp_path / "x").refused(2)
    assert "with --cache" in command(command_of, "http://127.0.0.1:9/x.tar").refused(2)


def test_over_http(folder: Path, tmp_path: Path, command: Command) -> None:
    server = Server({path.name: path.read_bytes() for path in folder.iterdir()})
    try:
        ended = command(command_of, f"{server.url}/{{train-{{0..1}},val-0}}.tar", "--cache", tmp_path / "cache")
    finally:
        server.close()
    assert ended.code == 0, ended
    assert "pictures: 24 in train, 24 in val" in ended.out
