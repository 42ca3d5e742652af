"""Shards: what WebDataset writes is read, in an order that a resumed or a shared run has, too, from disks and from servers."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.card import Label
from edge.datasets import labelled_frames
from edge.errors import DataError
from tests.conftest import Finished
from tests.train.pictured import class_set, jpeg, put, scene
from train.pack_command import pack
from train.shard_cache import ShardCache
from train.shard_sets import is_shards, open_shards, shard_parts
from train.shards import ShardBoxes, Shards, ShardSample, expand

LABELS = (Label(id="a", name="a"), Label(id="b", name="b"))


def tar_of(files: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return held.getvalue()


def shard(first: int, count: int) -> bytes:
    """Samples whose class is their number's parity."""
    files = {}
    for i in range(first, first + count):
        files[f"{i:04d}.jpg"] = jpeg(scene(i))
        files[f"{i:04d}.cls"] = str(i % 2).encode()
    return tar_of(files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten shards of three samples each."""
    for i in range(10):
        put(tmp_path / "shards" / f"train-{i:04d}.tar", shard(3 * i, 3))
    return tmp_path / "shards"


def places(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tar"))]


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
        (tar_of({"0.jpg": b"", "0.json": b"{"}), "neither a class nor JSON"),
        (tar_of({"0.jpg": b"", "0.json": b"{}"}), "neither class nor boxes"),
        (tar_of({"0.jpg": b"", "0.json": b'{"boxes": [[1, 2, 3]], "classes": [0]}'}), "its json is not boxes"),
        (tar_of({"0.jpg": b"", "0.json": b'{"boxes": [[1, 2, 3, 4]], "classes": []}'}), "its json is not boxes"),
        (tar_of({"0.jpg": b""}), "no sample in the shards"),
    ],
)
def test_bad_shards_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = put(tmp_path / "bad.tar", content)
    with pytest.raises(DataError, match=rf"bad\.tar.*({said})"):
        list(Shards([str(path)], LABELS))


def test_an_index_that_is_wrong_is_found_out(folder: Path) -> None:
    shards = Shards(places(folder), LABELS, counts=[4] * 10)
    with pytest.raises(DataError, match="has 3 samples, its index says 4"):
        shards[0]


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
    widths = Counter(round(float(box[2] - box[0]), 1) for sample in samples for box in sample.boxes_xyxy)  # type: ignore[union-attr]
    assert widths == Counter(round(96 * (1 + i % 8) / 10, 1) for i in range(1, 20))


class Server:
    """Files over HTTP: counts requests, and answers `faults` before it does what it is asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        self.faults: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                fault = outer.faults.pop(0) if outer.faults else ""
                content = files.get(self.path.lstrip("/"))
                if fault == "busy" or content is None:
                    self.send_response(503 if fault else 404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:700] if fault == "short" else content)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is no news."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    files = {f"train-{i:02d}.tar": shard(3 * i, 3) for i in range(10)} | {"val-00.tar": shard(90, 2)}
    server = Server(files | {"classes.txt": b"a\nb\n"})
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ShardCache]:
    cache = ShardCache(tmp_path / "cache", 100, backoff_s=0.01)
    yield cache
    cache.close()


def urls(server: Server) -> list[str]:
    return expand(f"{server.url}/train-{{00..09}}.tar")


def test_shards_of_a_server_are_fetched_once(server: Server, cache: ShardCache) -> None:
    train, val, labels = open_shards(f"{server.url}/{{train-{{00..09}},val-00}}.tar", cache=cache)
    assert val is not None
    assert (len(train), len(val), labels) == (30, 2, LABELS)
    for place in train.order(0, 0):
        assert train[int(place)].read().shape == (64, 96, 3)
    shards = [path for path in server.asked if path.endswith(".tar")]
    assert len(shards) == len(set(shards)) == 11


def test_faults_of_a_server_are_tried_again(server: Server, cache: ShardCache) -> None:
    server.faults = ["busy", "short", "busy"]
    shards = Shards(urls(server)[:1], LABELS, cache)
    assert len(shards) == 3
    assert server.asked == ["/train-00.tar"] * 4
    assert not list(cache.file(shards.places[0]).parent.glob("*.part"))


def test_a_server_that_does_not_have_it(server: Server, cache: ShardCache) -> None:
    with pytest.raises(DataError, match="the server answers 404; correct the address"):
        Shards([f"{server.url}/gone.tar"], LABELS, cache)
    assert server.asked == ["/gone.tar"]
    server.faults = ["busy"] * 9
    with pytest.raises(DataError, match=r"cannot be fetched: .*503"):
        Shards(urls(server)[:1], LABELS, cache)
    with pytest.raises(DataError, match="give a folder to keep shards in"):
        Shards(urls(server), LABELS)


def test_the_cache_stays_within_its_bound_and_reads_on(server: Server, tmp_path: Path) -> None:
    size = max(len(shard(3 * i, 3)) for i in range(10))
    cache = ShardCache(tmp_path / "cache", 6.5 * size / 1e6, backoff_s=0.01)
    shards = Shards(urls(server), LABELS, cache, counts=[3] * 10)
    for epoch in range(2):
        for place in shards.order(epoch, 0):
            assert shards[int(place)].read().shape == (64, 96, 3)
    cache.close()
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")) <= 6.5 * size
    assert 10 < len(server.asked) <= 24  # not all are held from one epoch to the next, and hardly any is fetched twice in one


def test_a_cache_too_small_to_mix_is_refused(server: Server, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 2.5 * len(shard(0, 3)) / 1e6, backoff_s=0.01)
    shards = Shards(urls(server), LABELS, cache, counts=[3] * 10)
    with pytest.raises(DataError, match=r"4 shards of its size are needed at a time.*larger --cache-mb"):
        shards[int(shards.order(0, 0)[0])]
    cache.close()


def test_the_next_shards_are_fetched_ahead(server: Server, cache: ShardCache) -> None:
    shards = Shards(urls(server), LABELS, cache, counts=[3] * 10)
    order = shards.order(0, 0)
    shards[int(order[0])].read()
    cache.close()  # waits for what is under way
    first = f"/train-{int(order[0]) // 3:02d}.tar"
    second_window = {f"/train-{int(place) // 3:02d}.tar" for place in order[12:24]}
    assert server.asked[0] == first
    assert set(server.asked[1:]) <= second_window
    assert server.asked[1:]
