"""Labelled pictures in WebDataset shards: what does not fit a folder, or a disk, read in an order that is always the same.

A shard is an uncompressed tar of files KEY.jpg (or another picture) and KEY.cls (a class number or name) or KEY.json
("class", or "boxes" and "classes"); what has the same KEY is one sample (the WebDataset file format specification). It is
read here without the `webdataset` package, which is a stream: it shuffles in a buffer whose content depends on how fast its
workers are, and cannot begin in the middle of an epoch. Here each shard's members are found once, by tarfile, and read at
their offsets, so that any sample can be asked for and a resumed run sees what an uninterrupted one would have.
"""

from __future__ import annotations

import itertools
import re
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, overload

import msgspec
import numpy as np

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import PICTURES, Sample, label_index, name_key
from edge.errors import DataError
from edge.pictures import decode_picture
from edge.types import Int64, UInt8
from train.shard_cache import ShardCache, is_url

WINDOW = 4
"""Shards whose pictures are shuffled together."""
OPEN = 64
"""Shards whose members are remembered."""
BRACE = re.compile(r"\{([^{}]+)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)$")


@dataclass(frozen=True, slots=True)
class Member:
    """A sample in its shard: where its picture lies, and the label as it was written."""

    key: str
    suffix: str
    offset: int
    size: int
    label: Any


@dataclass(frozen=True, slots=True)
class ShardSample(Sample):
    """A classifier's sample in a shard; `path` names it and is no file, `read` gives its picture."""

    at: tuple[Shards, int] | None = field(default=None, compare=False, repr=False)

    def read(self) -> UInt8:
        """The picture, BGR uint8. Raises DataError."""
        return _read(self.at)


@dataclass(frozen=True, slots=True, eq=False)
class ShardBoxes(BoxSample):
    """A detector's sample in a shard; `path` names it and is no file, `read` gives its picture."""

    at: tuple[Shards, int] | None = field(default=None, repr=False)

    def read(self) -> UInt8:
        """The picture, BGR uint8. Raises DataError."""
        return _read(self.at)


def _read(at: tuple[Shards, int] | None) -> UInt8:
    assert at is not None
    return at[0].picture(at[1])


class Shards(Sequence[ShardSample | ShardBoxes]):
    """The samples of shards in their order, and the order to take them in for an epoch.

    `places` are files or http(s) URLs; those are fetched into `cache`, the next ones ahead of time. `counts` are each shard's
    number of samples where an index has them, else every shard is looked into first; `labelled` each shard's samples, or
    objects that are not ignored, of each class number. `numbers` are the labels' indices of the shards' class numbers where
    they are not the same, None for a class that is none of the labels. Raises DataError naming the shard.
    """

    def __init__(
        self,
        places: Sequence[str],
        labels: Sequence[Label],
        cache: ShardCache | None = None,
        counts: Sequence[int] | None = None,
        labelled: Sequence[Sequence[int]] | None = None,
        numbers: Sequence[int | None] | None = None,
    ) -> None:
        if not places:
            raise DataError("no shards; give a folder of .tar files, or a pattern like train-{0000..0099}.tar")
        if cache is None and any(is_url(place) for place in places):
            raise DataError(f"{places[0]}: is fetched; give a folder to keep shards in, with --cache")
        self.places = tuple(places)
        self._index = label_index(labels)
        self._count = len(labels)
        self._numbers = range(len(labels)) if numbers is None else numbers
        self._labelled = None if labelled is None else [self._by_label(row) for row in labelled]
        self._cache = cache
        self._coming: dict[int, tuple[int, list[int]]] = {}
        self._lock = threading.Lock()
        self._members = lru_cache(OPEN)(self._look_into)
        sizes = list(counts) if counts is not None else [len(self._members(shard)) for shard in range(len(places))]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if not len(self):
            raise DataError(f"{places[0]}: no sample in the shards; expected KEY.jpg beside KEY.cls or KEY.json")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, at: int) -> ShardSample | ShardBoxes: ...
    @overload
    def __getitem__(self, at: slice) -> list[ShardSample | ShardBoxes]: ...
    def __getitem__(self, at: int | slice) -> ShardSample | ShardBoxes | list[ShardSample | ShardBoxes]:
        """The sample at a place; its label is looked up, its picture not yet read."""
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        place = int(at) + len(self) if at < 0 else int(at)
        if not 0 <= place < len(self):
            raise IndexError(at)
        shard, member = self._member(place)
        path = Path(f"{self.places[shard]}/{member.key}.{member.suffix}")
        where = f"{self.places[shard]}: {member.key}"
        if isinstance(member.label, dict) and "boxes" in member.label:
            boxes, class_ids, ignored = self._boxes(member.label, where)
            return ShardBoxes(path, boxes, class_ids, ignored, (self, place))
        return ShardSample(path, self._class_id(member.label, where), (self, place))

    def label_counts(self) -> Int64 | None:
        """How many samples, or of a detector objects that are not ignored, each label has, without looking into shards.

        Int64 [labels]; None where no index says it. One that is wrong is found out when its shard is read.
        """
        if self._labelled is None:
            return None
        rows = [row for row in self._labelled if row is not None]
        return np.sum(rows, axis=0, dtype=np.int64) if len(rows) == len(self.places) else None

    def order(self, epoch: int, seed: int) -> Int64:
        """The places of all samples as an epoch takes them, which depends on the seed and the epoch alone.

        Shards are shuffled, and pictures within WINDOW shards. What is fetched ahead follows the order asked for last.
        """
        random = np.random.default_rng((seed, epoch))
        shards = random.permutation(len(self.places)).tolist()
        windows = [shards[start : start + WINDOW] for start in range(0, len(shards), WINDOW)]
        with self._lock:
            self._coming = {
                shard: (len(window), following)
                for window, following in zip(windows, [*windows[1:], []], strict=True)
                for shard in window
            }
        order = []
        for window in windows:
            places = np.concatenate([np.arange(self._starts[shard], self._starts[shard + 1]) for shard in window])
            order.append(random.permutation(places))
        return np.concatenate(order)

    def picture(self, place: int) -> UInt8:
        """The picture at a place, BGR uint8. Raises DataError."""
        return decode_picture(self.raw(place), self.name(place))

    def name(self, place: int) -> str:
        """What messages call the picture at a place: its shard and its name there. Raises DataError."""
        shard, member = self._member(place)
        return f"{self.places[shard]}: {member.key}.{member.suffix}"

    def raw(self, place: int) -> bytes:
        """The picture's file at a place. Raises DataError."""
        shard, member = self._member(place)
        with self._open(shard) as file:
            file.seek(member.offset)
            content: bytes = file.read(member.size)
        return content

    def _member(self, place: int) -> tuple[int, Member]:
        shard = int(np.searchsorted(self._starts, place, side="right")) - 1
        members = self._members(shard)
        if len(members) != self._starts[shard + 1] - self._starts[shard]:
            raise DataError(
                f"{self.places[shard]}: has {len(members)} samples, its index says "
                f"{self._starts[shard + 1] - self._starts[shard]}; write the index again"
            )
        return shard, members[place - int(self._starts[shard])]

    def _open(self, shard: int) -> Any:
        place = self.places[shard]
        if self._cache is None or not is_url(place):
            return open(place, "rb")
        with self._lock:
            needed, following = self._coming.get(shard, (1, []))
        return self._cache.open(place, [self.places[other] for other in following], needed)

    def _look_into(self, shard: int) -> list[Member]:
        place, row = self.places[shard], None if self._labelled is None else self._labelled[shard]
        with self._open(shard) as file:
            members = members_of(file, place)
        if row is not None:
            ids = [self._counted(member.label, f"{place}: {member.key}") for member in members]
            if not np.array_equal(row, np.bincount(np.concatenate([np.zeros(0, np.int64), *ids]), minlength=self._count)):
                raise DataError(f"{place}: its classes are not as many as its index says; write the index again")
        return members

    def _counted(self, label: Any, where: str) -> Int64:
        """The class ids that a sample counts with."""
        if isinstance(label, dict) and "boxes" in label:
            _, class_ids, ignored = self._boxes(label, where)
            counted: Int64 = class_ids[~ignored]
            return counted
        return np.array([self._class_id(label, where)], np.int64)

    def _by_label(self, row: Sequence[int]) -> Int64 | None:
        """Counts of class numbers as counts of labels; None where some class is none of them."""
        found = np.zeros(self._count, np.int64)
        for number, count in enumerate(row):
            index = self._numbers[number] if number < len(self._numbers) else None
            if index is not None:
                found[index] += count
            elif count:
                return None
        return found

    def _class_id(self, label: Any, where: str) -> int:
        """The index of a class given by number or name."""
        if isinstance(label, int):
            found = self._numbers[label] if 0 <= label < len(self._numbers) else None
        else:
            found = self._index.get(name_key(str(label)))
        if found is None:
            raise DataError(f"{where}: class {str(label)[:60]!r} is none of the {self._count} labels; correct it or the labels")
        return found

    def _boxes(self, label: dict[str, Any], where: str) -> tuple[Any, Any, Any]:
        try:
            boxes = np.array(label["boxes"], np.float32).reshape(-1, 4)
            class_ids = np.array([self._class_id(name, where) for name in label["classes"]], np.int64)
            ignored = np.array(label.get("ignored", [False] * len(class_ids)), np.bool_)
            if not (len(boxes) == len(class_ids) == len(ignored)) or not np.isfinite(boxes).all():
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DataError(f"{where}: its json is not boxes [n, 4] in pixels and n classes; correct it") from None
        return boxes, class_ids, ignored


def members_of(file: Any, where: str) -> list[Member]:
    """The labelled pictures of an open tar. Raises DataError for one that is compressed, damaged or cut short."""
    found: list[Member] = []
    try:
        size = file.seek(0, 2)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = (member for member in tar if member.isfile())
            for key, group in itertools.groupby(members, lambda member: _key(member.name)):
                parts = {_suffix(member.name): member for member in group}
                picture = next((suffix for suffix in parts if f".{suffix}" in PICTURES), None)
                label = next((suffix for suffix in ("json", "cls") if suffix in parts), None)
                if any(member.offset_data + member.size > size for member in parts.values()):
                    raise DataError(f"{where}: cut short, {size} bytes; fetch or write it again")
                if picture is not None and label is not None:
                    held = tar.extractfile(parts[label])
                    raw = b"" if held is None else held.read()
                    at = parts[picture]
                    found.append(Member(key, picture, at.offset_data, at.size, _label(raw, label, f"{where}: {key}.{label}")))
    except tarfile.TarError as error:
        raise DataError(f"{where}: not an uncompressed tar: {error}; write it again") from None
    return found


def _key(name: str) -> str:
    """What files of one sample share: the path up to the first dot of the last part."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition(".")[0])


def _suffix(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[2].lower()


def _label(raw: bytes, kind: str, where: str) -> Any:
    try:
        if kind == "cls":
            text = raw.decode().strip()
            return int(text) if text.isdecimal() else text
        label = msgspec.json.decode(raw)
    except (ValueError, msgspec.DecodeError, RecursionError):  # ValueError, too, of more digits than int() takes
        raise DataError(f"{where}: neither a class nor JSON; correct it") from None
    if isinstance(label, dict) and "boxes" not in label:
        label = next((label[name] for name in ("class", "cls", "label") if name in label), None)
    if not isinstance(label, (dict, str, int)):
        raise DataError(f"{where}: has neither class nor boxes; correct it")
    return label


def expand(pattern: str) -> list[str]:
    """A pattern's names, each once: `{0000..0099}` counts with leading zeros, `{a,b}` lists."""
    match = BRACE.search(pattern)
    if match is None:
        return [pattern]
    options = match.group(1).split(",")
    numbers = RANGE.match(match.group(1))
    if numbers:
        first, last = numbers.groups()
        step = 1 if int(first) <= int(last) else -1
        options = [str(number).zfill(len(first)) for number in range(int(first), int(last) + step, step)]
    names = (name for option in options for name in expand(pattern[: match.start()] + option + pattern[match.end() :]))
    return list(dict.fromkeys(names))
