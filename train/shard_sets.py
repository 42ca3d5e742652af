"""Which shards a data set has: of a folder, a pattern or URLs its parts, their numbers of samples and its classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urljoin

import msgspec

from edge.card import Label
from edge.datasets import VAL_FOLDERS, label_index, name_key, picture_files
from edge.errors import DataError
from edge.label_files import read_text
from train.shard_cache import ShardCache, is_url
from train.shards import Shards, expand, members_of

INDEX = "index.json"
CLASSES = "classes.txt"
NUMBERS = 100_000
"""So many classes are known by their numbers alone; a larger number is a mistake."""
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class ShardCount(msgspec.Struct):
    """A shard's name and how many samples it has; of each class number the samples, or objects that are not ignored."""

    url: str
    nsamples: Number
    label_counts: list[Number] | None = None


class Index(msgspec.Struct, rename={"kind": "__kind__"}):
    """A list of shards and how many samples each has, as WebDataset's `wids` writes it; other fields are not looked at.

    `label_counts` is ours.
    """

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
    """The shards to train on and those to measure with: whose names begin with `val`, or whose folder is one of val.

    Raises DataError when there are none, or none to train on.
    """
    places = [str(path) for path in _tars(Path(data))] if not data.endswith(".tar") else expand(data)
    if not places:
        raise DataError(f"{data}: has no .tar files; write some with edge-train pack")
    missing = [place for place in places if not is_url(place) and not os.path.isfile(place)]
    if missing:
        raise DataError(f"{missing[0]}: no such shard; correct the pattern {data}")
    val = [place for place in places if _is_val(place)]
    train = [place for place in places if not _is_val(place)]
    if not train:
        raise DataError(f"{data}: all of its shards are val's; name those to train on, too: {{train,val}}-{{0000..0009}}.tar")
    return train, val


def _is_val(place: str) -> bool:
    folder, _, name = place.rpartition("/")
    return name.startswith("val") or folder.rpartition("/")[2] in VAL_FOLDERS


def open_shards(
    data: str, labels: Sequence[Label] | None = None, cache: ShardCache | None = None
) -> tuple[Shards, Shards | None, tuple[Label, ...]]:
    """The samples to train on, those to measure with where there are any, and the classes, found when not given.

    Where index.json and classes.txt lie beside the shards, they are not looked into beforehand. Raises DataError.
    """
    train, val = shard_parts(data)
    known = tuple(labels) if labels is not None else shard_labels([*train, *val], cache)
    numbers = None if labels is None else class_numbers(train[0], known, cache)
    counts = shard_counts(train[0], cache)

    def opened(part: list[str]) -> Shards:
        found = [counts[whole_place(place)] for place in part if whole_place(place) in counts]
        samples = [shard.nsamples for shard in found]
        labelled = [shard.label_counts for shard in found if shard.label_counts is not None]
        whole = [len(rows) == len(part) for rows in (samples, labelled)]
        return Shards(part, known, cache, samples if whole[0] else None, labelled if whole[1] else None, numbers)

    return opened(train), opened(val) if val else None, known


def shard_labels(places: Sequence[str], cache: ShardCache | None = None) -> tuple[Label, ...]:
    """The classes of shards: classes.txt beside them, a name a line, else those that the samples have, sorted."""
    names = _names(places[0], cache)
    return tuple(Label(id=name, name=name) for name in (_used(places, cache) if names is None else names))


def _names(place: str, cache: ShardCache | None) -> list[str] | None:
    """The classes that classes.txt beside a shard names."""
    _, text = _beside(place, CLASSES, cache)
    return None if text is None else [line.strip() for line in text.splitlines() if line.strip()]


def class_numbers(place: str, labels: Sequence[Label], cache: ShardCache | None) -> list[int | None] | None:
    """Of each class number of the shards the label's index, by what classes.txt calls it; None where they are the same.

    The labels may be another run's, in another order. Without a classes.txt labels that are all numbers are matched, too.
    """
    ids, names = [label.id for label in labels], _names(place, cache)
    if names is None:
        names = sorted(ids, key=lambda name: (len(name), name))
        if names != [str(number) for number in range(len(ids))]:
            return None
    if names in (ids, [label.name for label in labels]):
        return None
    index = label_index(labels)
    return [index.get(name_key(name)) for name in names]


def _used(places: Sequence[str], cache: ShardCache | None) -> list[str]:
    """The names that the samples have; where all are numbers, those from 0 to the largest."""
    found: set[str] = set()
    for place in places:
        if is_url(place) and cache is None:
            raise DataError(f"{place}: is fetched; give a folder to keep shards in, with --cache")
        with cache.open(place) if cache is not None and is_url(place) else open(place, "rb") as file:
            for member in members_of(file, place):
                label = member.label
                classes = label.get("classes") if isinstance(label, dict) else [label]
                found.update(map(str, classes) if isinstance(classes, list) else ())
    if not all(name.isdecimal() for name in found):
        return sorted(found)
    largest = max(map(int, found), default=-1)
    if largest >= NUMBERS:
        raise DataError(
            f"{places[0]}: the largest class number in the shards is {str(largest)[:20]}; correct it, or write {CLASSES}"
        )
    return [str(number) for number in range(largest + 1)]


def _beside(place: str, name: str, cache: ShardCache | None) -> tuple[str, str | None]:
    """Where a file beside a shard is, or above its folder, and its text; None when there is none."""
    if is_url(place):
        url = urljoin(place, name)
        return url, None if cache is None else cache.text(url)
    paths = [Path(place).with_name(name), Path(place).parent.parent / name]
    return next(((str(path), read_text(path)) for path in paths if path.is_file()), (str(paths[0]), None))


def shard_counts(place: str, cache: ShardCache | None) -> dict[str, ShardCount]:
    """What an index beside a shard says of each shard, by its whole place; empty without one that can be used.

    Names are relative to the index. One that was written from elsewhere, or of shards since moved, says its own folder's
    shards by their file names, too.
    """
    where, text = _beside(place, INDEX, cache)
    if text is None:
        return {}
    try:
        index = msgspec.json.decode(text, type=Index)
    except (msgspec.DecodeError, RecursionError):
        return {}
    found = {whole_place(shard.url, where): shard for shard in index.shardlist}
    names = Counter(os.path.basename(shard.url) for shard in index.shardlist)
    for shard in index.shardlist:
        name = os.path.basename(shard.url)
        if names[name] == 1 and not os.path.isfile(whole_place(shard.url, where)):
            found.setdefault(whole_place(name, where), shard)
    return found


def whole_place(place: str, beside: str = "") -> str:
    """A place from anywhere: a URL, or an absolute path."""
    if is_url(place) or is_url(beside):
        return urljoin(beside, place)
    return os.path.normpath(os.path.join(os.path.abspath(os.path.dirname(beside)), place))


def _tars(folder: Path) -> list[Path]:
    """The shards of a folder, those in its folders of parts among them."""
    return sorted(path for name in ("", "train", *VAL_FOLDERS) for path in (folder / name).glob("*.tar"))
