"""Shards of servers: fetched once and ahead, tried again, kept within a bound that costs nobody else's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import DataError
from tests.train.pictured import put
from tests.train.sharded import LABELS, Server, shard
from train.shard_cache import ShardCache
from train.shard_sets import open_shards
from train.shards import Shards, expand


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


def test_the_cache_lets_go_of_nothing_that_it_did_not_fetch(server: Server, tmp_path: Path) -> None:
    folder, size = tmp_path / "cache", len(shard(0, 3))
    own = (
        "thesis.tex",
        "photos/1.jpg",
        "0123456789abcdef",
        "0123456789ABCDEF-1.tar",
        "x0123456789abcdef-1.tar",
        "train-00.tar",
    )
    for name in own:
        put(folder / name, b"0" * 10 * size)
    (folder / f"{'0' * 16}-folder").mkdir()
    (folder / f"{'0' * 16}-link.tar").symlink_to(folder / "thesis.tex")
    cache = ShardCache(folder, 1.5 * size / 1e6, backoff_s=0.01)
    for url in urls(server)[:4]:
        cache.open(url).close()
    held = [path for path in map(cache.file, urls(server)) if path.exists()]
    cache.close()
    assert held == [cache.file(urls(server)[3])]
    assert all((folder / name).is_file() for name in own)
    assert (folder / f"{'0' * 16}-folder").is_dir()
    assert (folder / f"{'0' * 16}-link.tar").is_symlink()


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
