"""What the endpoint keeps: once, within its quota, the most valuable, and as a dataset that our own loaders read."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cloud.examples import STEM_LETTERS, Keeper, Store
from cloud.kept import export, main
from cloud.metrics import Metrics
from cloud.opinions import disagreement
from cloud.served import Served
from edge.boxes_data import labelled_boxes
from edge.bundle import open_bundle
from edge.datasets import class_folders
from edge.events import ClassRecord, ObjectRecord, ResultRecord
from edge.kept import INDEX, Example, records
from edge.model import Model, open_model
from edge.oip import NamedTensor, encode_request
from tests.cloud.conftest import InProcess, in_process, running
from tests.cloud.test_command import asked
from tests.cloud.test_network import until
from tests.conftest import Finished
from tests.samples import encoded, squares

INFER = "/v2/models/tiny/infer"


def classes(**scores: float) -> ResultRecord:
    return ResultRecord(classes=[ClassRecord(label, score) for label, score in scores.items()])


def objects(*boxes: tuple[str, float, float]) -> ResultRecord:
    return ResultRecord(objects=[ObjectRecord(label, 0.9, (x, y, x + 10, y + 10), None) for label, x, y in boxes])


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (classes(a=0.9, b=0.1), classes(a=0.9, b=0.1), 0.0),
        (classes(a=1.0), classes(b=1.0), 1.0),
        (classes(a=0.6, b=0.2), classes(a=0.2, b=0.6), 0.4),
        (classes(a=0.5), classes(a=1.0), 0.5),
        (objects(), objects(), 0.0),
        (objects(("a", 0, 0)), objects(), 1.0),
        (objects(("a", 0, 0), ("b", 50, 50)), objects(("b", 51, 50), ("a", 1, 0)), 0.0),
        (objects(("a", 0, 0)), objects(("b", 0, 0)), 1.0),
        (objects(("a", 0, 0), ("a", 50, 50)), objects(("a", 0, 0)), 1 - 2 / 3),
        (classes(a=1.0), objects(), 1.0),
    ],
)
def test_disagreement(ours: ResultRecord, theirs: ResultRecord, expected: float) -> None:
    assert disagreement(ours, theirs) == pytest.approx(expected)
    assert disagreement(theirs, ours) == pytest.approx(expected)


def example(differ: float, confidence: float = 0.5) -> Example:
    return Example("x", "tiny", "float32", "classify", classes(a=confidence), ["c0"], None, differ, confidence)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[[int], Store]]:
    made: list[Store] = []

    def make(limit: int = 1 << 20) -> Store:
        made.append(Store(tmp_path / "kept", limit))
        return made[-1]

    yield make
    for one in made:
        one.close()


def stem_of(letter: str) -> str:
    return letter * STEM_LETTERS


def add(store: Store, letter: str, differ: float, confidence: float = 0.5, size: int = 1000) -> bool:
    stem, one = stem_of(letter), example(differ, confidence)
    one.picture = f"{stem}.jpg"
    return store.add(stem, ".jpg", bytes(size), one)


def kept(store: Store) -> list[str]:
    return [path.stem[0] for path, _ in records(store._folder, pytest.fail)]


def test_the_least_valuable_go_first(store: Any, tmp_path: Path) -> None:
    opened = store(4500)
    for stem, differ, confidence in [("a", 0.5, 0.5), ("b", 0.1, 0.9), ("c", 0.1, 0.2), ("d", 0.9, 0.99)]:
        assert add(opened, stem, differ, confidence)
    assert kept(opened) == ["d", "a", "c"]
    files = {path.name for path in (tmp_path / "kept").iterdir()}
    assert files == {INDEX, *(f"{stem_of(letter)}.{suffix}" for letter in "dac" for suffix in ("jpg", "json"))}
    assert not add(opened, "a", 1.0)
    assert not add(opened, "e", 1.0, size=6000)


def test_another_process_shares_folder_quota_and_doubles(store: Any) -> None:
    first, second = store(3000), store(3000)
    assert add(first, "a", 0.5)
    assert not add(second, "a", 0.5)
    assert add(second, "b", 0.9)
    assert add(first, "c", 0.7)
    assert kept(second) == ["b", "c"]


def test_a_lost_index_is_made_anew_and_orphans_go(store: Any, tmp_path: Path) -> None:
    opened = store()
    add(opened, "a", 0.5)
    add(opened, "b", 0.9)
    opened.close()
    folder = tmp_path / "kept"
    (folder / INDEX).unlink()
    (folder / f"{stem_of('b')}.json").unlink()
    (folder / f".{stem_of('c')}.jpg.part").write_bytes(b"half")
    assert kept(store()) == ["a"]
    assert {path.name for path in folder.iterdir()} == {INDEX, f"{stem_of('a')}.jpg", f"{stem_of('a')}.json"}


def test_what_else_is_in_the_folder_is_left_alone(store: Any, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    for path in (folder / "holiday.jpg", folder / "notes.part", tmp_path / "secret.jpg"):
        path.write_bytes(b"mine")
    for name, picture in ((stem_of("a"), "../secret.jpg"), ("notes", "holiday.jpg"), (stem_of("b"), INDEX)):
        record = example(0.0)
        record.picture = picture
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(record))
    opened = store(3000)
    assert records(folder, [].append) == []
    for letter in "cdef":
        assert add(opened, letter, 0.5)
    for path in (folder / "holiday.jpg", folder / "notes.part", folder / "notes.json", tmp_path / "secret.jpg"):
        assert path.exists()


def test_half_an_example_is_not_left_on_a_full_disk(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = store()
    write = opened._write

    def full(name: str, data: bytes) -> None:
        if name.endswith(".json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(name, data)

    monkeypatch.setattr(opened, "_write", full)
    with pytest.raises(OSError, match="No space"):
        add(opened, "a", 0.5)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [INDEX]


@pytest.fixture
def keeping(
    model: Model, serve: Callable[..., InProcess], tmp_path: Path
) -> Iterator[tuple[InProcess, Keeper, Store, list[str]]]:
    said: list[str] = []
    metrics = Metrics()
    store = Store(tmp_path / "kept", 1 << 20)
    keeper = Keeper(store, metrics, said.append)
    yield serve(model, keeper=keeper), keeper, store, said
    if keeper._thread.is_alive():
        keeper.close()


def ask(endpoint: InProcess, *pictures: bytes, headers: dict[str, str] | None = None, **parameters: str) -> None:
    body, more = encode_request([NamedTensor.of("image", list(pictures))], parameters=parameters)
    assert endpoint("POST", INFER, body, more | (headers or {})).status == 200


def test_a_request_is_kept_with_both_opinions_and_once(keeping: Any, tmp_path: Path, jpeg: bytes) -> None:
    endpoint, keeper, _, _ = keeping
    local = json.dumps({"classes": [{"label": "class 3", "score": 1.0}]})
    for _ in range(2):
        ask(endpoint, jpeg, local=local, source="garden", captured_at="2026-01-01T00:00:00Z", key="frame 7")
    ask(endpoint, jpeg, headers={"Idempotency-Key": "frame 8"}, local="no JSON")
    ask(endpoint, jpeg, jpeg[:-2] + b"  \xff\xd9")
    keeper.close()
    everything = records(tmp_path / "kept", pytest.fail)
    found = {example.key: (path, example) for path, example in everything if example.key}
    assert len(everything) == 4
    path, seven = found["frame 7"]
    assert path.read_bytes() == jpeg
    assert (seven.source, seven.captured_at, seven.model) == ("garden", "2026-01-01T00:00:00Z", "tiny")
    assert isinstance(seven.local, ResultRecord)
    assert seven.disagreement > 0.3
    assert found["frame 8"][1].local is None


def test_a_full_disk_is_said_once_and_counted(keeping: Any, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, keeper, store, said = keeping

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    for key in "abc":
        ask(endpoint, jpeg, key=key)
    assert until(lambda: 'outcome="failed"} 3' in keeper._metrics.text())
    assert said == ["examples are not kept for the moment: No space left on device"]
    monkeypatch.undo()
    ask(endpoint, jpeg, key="a")
    assert until(lambda: 'outcome="kept"} 1' in keeper._metrics.text())


def test_whatever_fails_the_keeper_goes_on_and_ends(keeping: Any, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, keeper, store, said = keeping
    monkeypatch.setattr(store, "add", lambda *_: 1 / 0)
    ask(endpoint, jpeg)
    assert until(lambda: 'outcome="failed"} 1' in keeper._metrics.text())
    assert said == ["examples are not kept for the moment: ZeroDivisionError('division by zero')"]
    monkeypatch.undo()
    ask(endpoint, jpeg)
    assert until(lambda: 'outcome="kept"} 1' in keeper._metrics.text())


def test_bytes_on_their_way_to_the_disk_are_bounded(keeping: Any, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, keeper, store, _ = keeping
    monkeypatch.setattr("cloud.examples.WAITING_BYTES", 2 * len(jpeg))
    go = threading.Event()
    monkeypatch.setattr(store, "add", lambda *_: go.wait(10))
    ask(endpoint, jpeg, key="at work")
    assert until(lambda: keeper._waiting_bytes == 0)
    for key in "abc":
        ask(endpoint, jpeg, key=key)
    assert keeper._waiting_bytes == 2 * len(jpeg)
    go.set()
    assert until(lambda: 'outcome="kept"} 3' in keeper._metrics.text())
    assert 'outcome="dropped"} 1' in keeper._metrics.text()
    assert keeper._waiting_bytes == 0


def test_a_classifiers_examples_as_class_folders(bundle: Path, tmp_path: Path, jpeg: bytes, command: Any) -> None:
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])
    with running("--model", bundle, "--keep", tmp_path / "kept") as endpoint:
        for key in ("1", "2", "2", "3"):
            assert asked(endpoint.address, "POST", INFER, body, headers | {"Idempotency-Key": key}) == 200
        assert endpoint.end() == (0, "")
    done: Finished = command(main, tmp_path / "kept", "--out", tmp_path / "out", "--limit", 2)
    assert (done.code, done.err) == (0, f"cloud.kept: 2 pictures in {tmp_path / 'out'}\n")
    card = open_bundle(bundle).card
    samples = class_folders(tmp_path / "out", card.labels)
    assert [sample.path.read_bytes() for sample in samples] == [jpeg] * 2
    assert "is not empty; give a new folder" in command(main, tmp_path / "kept", "--out", tmp_path / "out").refused(2)
    assert "nothing was kept there" in command(main, tmp_path, "--out", tmp_path / "new").refused(2)
    assert "no examples of such a model" in command(
        main, tmp_path / "kept", "--out", tmp_path / "new", "--model", "other"
    ).refused(2)


def test_a_detectors_examples_as_yolo(tiny_detector: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_detector)
    metrics = Metrics()
    keeper = Keeper(Store(tmp_path / "kept", 1 << 20), metrics, print)
    endpoint = in_process(Served(open_model(bundle), bundle.card), keeper=keeper)
    for key, image in (("a", squares(("red", 1, 2), ("blue", 3, 3))), ("b", squares())):
        body, headers = encode_request([NamedTensor.of("image", [encoded(image, ".png")])], parameters={"key": key})
        assert endpoint("POST", "/v2/models/squares/infer", body, headers).status == 200
    endpoint.close()
    keeper.close()
    assert export(tmp_path / "kept", tmp_path / "out") == 2
    samples = labelled_boxes(tmp_path / "out", bundle.card.labels)
    seen = [sample for sample in samples if len(sample.class_ids)]
    assert len(samples) == 2
    assert sorted(seen[0].class_ids.tolist()) == [0, 2]
    red = seen[0].boxes_xyxy[seen[0].class_ids.tolist().index(0)]
    np.testing.assert_allclose(red, [8, 16, 16, 24], atol=0.05)
