"""Which shards a data set has: of a folder, a pattern or URLs its parts, their numbers of samples and its classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge.card import Label
from edge.datasets import picture_files
from edge.errors import DataError
from edge.label_files import read_text
from train.shard_cache import ShardCache, is_url
from train.shards import Shards, expand, members_of

INDEX = "index.json"
CLASSES = "classes.txt"


class ShardCount(msgspec.Struct):
    """A shard's name and how many samples it has."""

    url: str
    nsamples: int


class Index(msgspec.Struct, rename={"kind": "__kind__"}):
    """A list of shards and how many samples each has, as WebDataset's `wids` writes it; other fields are not looked at."""

    shardlist: list[ShardCount]
    kind: str = "wids-shard-index-v1"
    wids_version: int = 1


def is_shards(data: str) -> bool:
    """Whether `data` is shards: a pattern or name that ends in .tar, or a folder that has .tar files and no pictures."""
    if data.endswith(".tar"):
        return True
    folder = Path(data)
    return not is_url(data) and os.path.isdir(folder) and bool(_tars(folder)) and not picture_files(folder)


def shard_parts(data: str) -> tuple[list[str], list[str]]:
    """The shards to train on and those to measure with: whose names, or whose folder's, begin with `val`.

    Raises DataError when there are none, or none to train on.
    """
    places = [str(path) for path in _tars(Path(data))] if not data.endswith(".tar") else expand(data)
    if not places:
        raise DataError(f"{data}: has no .tar files; write some with edge-train pack")
    missing = [place for place in places if not is_url(place) and not os.path.isfile(place)]
    if missing:
        raise DataError(f"{missing[0]}: no such shard; correct the pattern {data}")
    val = [place for place in places if any(part.startswith("val") for part in place.split("/")[-2:])]
    train = [place for place in places if place not in set(val)]
    if not train:
        raise DataError(f"{data}: all of its shards are val's; name those to train on, too: {{train,val}}-{{0000..0009}}.tar")
    return train, val


def open_shards(
    data: str, labels: Sequence[Label] | None = None, cache: ShardCache | None = None
) -> tuple[Shards, Shards | None, tuple[Label, ...]]:
    """The samples to train on, those to measure with where there are any, and the classes, found when not given.

    Where an index.json lies beside the shards, they are not looked into beforehand. Raises DataError.
    """
    train, val = shard_parts(data)
    known = tuple(labels) if labels is not None else shard_labels([*train, *val], cache)
    counts = _counts(train[0], cache)
    opened = [Shards(part, known, cache, _of(part, counts)) if part else None for part in (train, val)]
    assert opened[0] is not None
    return opened[0], opened[1], known


def shard_labels(places: Sequence[str], cache: ShardCache | None = None) -> tuple[Label, ...]:
    """The classes of shards: classes.txt beside them, a name a line, else those that the samples have, sorted."""
    text = _beside(places[0], CLASSES, cache)
    lines = text.splitlines() if text is not None else _used(places, cache)
    names = [line.strip() for line in lines if line.strip()]
    return tuple(Label(id=name, name=name) for name in names)


def _used(places: Sequence[str], cache: ShardCache | None) -> list[str]:
    """The names that the samples have; where all are numbers, those from 0 to the largest."""
    found: set[str] = set()
    for place in places:
        if is_url(place) and cache is None:
            raise DataError(f"{place}: is fetched; give a folder to keep shards in, with --cache")
        with cache.open(place) if cache is not None and is_url(place) else open(place, "rb") as file:
            for member in members_of(file, place):
                label = member.label
                found.update(map(str, label.get("classes", ())) if isinstance(label, dict) else [str(label)])
    if all(name.isdecimal() for name in found):
        return [str(number) for number in range(max(map(int, found), default=-1) + 1)]
    return sorted(found)


def _beside(place: str, name: str, cache: ShardCache | None) -> str | None:
    """The text of a file beside a shard; None when there is none."""
    if is_url(place):
        return None if cache is None else cache.text(f"{place.rpartition('/')[0]}/{name}")
    places = [Path(place).with_name(name), Path(place).parent.parent / name]
    return next((read_text(path) for path in places if path.is_file()), None)


def _counts(place: str, cache: ShardCache | None) -> dict[str, int]:
    """Samples of each shard by its file name, as an index beside them says; empty without one that can be used."""
    text = _beside(place, INDEX, cache)
    if text is None:
        return {}
    try:
        index = msgspec.json.decode(text, type=Index)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {shard.url.rpartition("/")[2]: shard.nsamples for shard in index.shardlist}


def _of(places: Sequence[str], counts: dict[str, int]) -> list[int] | None:
    names = [place.rpartition("/")[2] for place in places]
    return [counts[name] for name in names] if all(name in counts for name in names) else None


def _tars(folder: Path) -> list[Path]:
    """The shards of a folder, those in its train and val folders among them."""
    return sorted(path for place in (folder, folder / "train", folder / "val") for path in place.glob("*.tar"))
