"""A folder of bundles: what is added, replaced, damaged and removed while it is served."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.errors import RefusedError
from cloud.repository import Repository
from cloud.served import Served
from edge.bundle import open_bundle
from edge.errors import EdgeError
from edge.model import open_model
from tests.tiny import tiny_bundle


def load(path: Path) -> Served:
    bundle = open_bundle(path)
    return Served(open_model(bundle, threads=1), bundle.card)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def repository(tmp_path: Path, said: list[str]) -> Iterator[Repository]:
    (tmp_path / "models").mkdir()
    repository = Repository(load, tmp_path / "models", said.append)
    yield repository
    repository.close()


def looks(repository: Repository) -> list[str]:
    """The names served after two looks: a bundle is loaded once it has not changed between two."""
    repository.poll()
    repository.poll()
    return sorted(repository.models)


def test_bundles_come_and_go(repository: Repository, tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "models"
    assert looks(repository) == []
    tiny_bundle(folder / "a.edge", name="one")
    tiny_bundle(folder / "b", name="two", classes=7)
    (folder / "notes.txt").write_text("no bundle")
    repository.poll()
    assert sorted(repository.models) == []  # they may still be growing
    assert looks(repository) == ["one", "two"]
    assert repository.index() == [
        {"name": "one", "version": "1", "state": "READY", "reason": ""},
        {"name": "two", "version": "1", "state": "READY", "reason": ""},
    ]
    shutil.rmtree(folder / "b")
    assert looks(repository) == ["one"]
    assert [line.split(",")[0].split(":")[0] for line in said] == ["added one", "added two", "removed two"]
    with pytest.raises(RefusedError, match="unknown model 'two'; this endpoint serves one"):
        repository.get("two")


def test_a_replaced_bundle_takes_the_place_of_the_old_one(repository: Repository, tmp_path: Path, said: list[str]) -> None:
    path = tiny_bundle(tmp_path / "models" / "a.edge", name="one", classes=10)
    looks(repository)
    old = repository.get("one")
    tiny_bundle(path, name="one", classes=7)
    looks(repository)
    assert len(repository.get("one").card.labels) == 7
    old.batcher.join(5)
    assert said[-1] == f"replaced one, variant float32, from {path}"
    tiny_bundle(path, name="other")
    assert looks(repository) == ["other"]


def test_a_bad_bundle_is_said_once_and_the_old_one_goes_on(repository: Repository, tmp_path: Path, said: list[str]) -> None:
    path = tiny_bundle(tmp_path / "models" / "a.edge", name="one")
    looks(repository)
    served = repository.get("one")
    path.write_bytes(path.read_bytes()[:1000])
    for _ in range(3):
        looks(repository)
    assert repository.get("one") is served
    assert len(said) == 2
    assert said[1].startswith(f"{path}: not a bundle, or one cut short")
    assert said[1].endswith("; one goes on as it was")
    path.unlink()
    (tmp_path / "models" / "bad.edge").write_bytes(b"PK")
    assert looks(repository) == []
    (row,) = repository.index()
    assert (row["name"], row["state"]) == ("bad", "UNAVAILABLE")
    assert "not a bundle" in row["reason"]


def test_of_two_with_one_name_the_older_is_served(repository: Repository, tmp_path: Path, said: list[str]) -> None:
    older, newer = (tiny_bundle(tmp_path / "models" / name, name="one") for name in ("z.edge", "a.edge"))
    os.utime(older, (1, 1))
    assert looks(repository) == ["one"]
    assert said[1] == f"{newer}: another bundle serves the name one; remove one of the two"
    looks(repository)
    assert len(said) == 2
    older.unlink()
    assert looks(repository) == ["one"]
    assert said[-1] == f"added one, variant float32, from {newer}"


def test_a_name_that_becomes_free_is_given_to_the_bundle_that_waits_for_it(repository: Repository, tmp_path: Path) -> None:
    a, b = (tiny_bundle(tmp_path / "models" / f"{name}.edge", name=name) for name in "ab")
    looks(repository)
    tiny_bundle(a, name="b", classes=7)
    assert looks(repository) == ["a", "b"]  # refused; what was there goes on
    tiny_bundle(b, name="c")
    looks(repository)
    assert looks(repository) == ["b", "c"]
    assert len(repository.get("b").card.labels) == 7


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"--models .*none: cannot be read: No such file"):
        Repository(load, tmp_path / "none").watch()


def test_two_models_named_alike_at_the_start(bundle: Path) -> None:
    repository = Repository(load)
    repository.add(load(bundle))
    with pytest.raises(EdgeError, match="two models are named tiny"):
        repository.add(load(bundle))
    repository.close()
