"""edge-train check of WebDataset shards: each is read once, from its first picture to its last, and little of it is kept.

Of a picture 16 bytes stay in memory, hashes of its file and of its classes; the names of copies are looked up afterwards.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.errors import DataError, UsageError
from edge.layouts import Task
from edge.types import Int64
from train.check import LONG, LONG_WORDS, SMALL, SMALL_WORDS, Check, balance, by_severity, class_keys, severity_of
from train.check_findings import Finding, Severity
from train.duplicates import content_key, in_threads
from train.picture_facts import ODD, Facts, facts_of
from train.shard_cache import ShardCache, is_url
from train.shard_sets import ShardCount, class_numbers, shard_counts, shard_labels, shard_parts, whole_place
from train.shards import Shards

NAMED = 1000
"""Cases of a finding that are named; the others are counted."""
COPIES = 4
"""Copies of one picture that are named."""
REMARK = "near copies and boxes that cannot be are not looked for in shards; check the folder that they were packed of"


def check_shards(
    data: str,
    labels: Sequence[Label] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cache: ShardCache | None = None,
) -> Check:
    """As `train.check.check`, of shards; `progress` takes those to come for as large as those that were read.

    Raises DataError for what has no shards, and UsageError for URLs without a cache.
    """
    train, val = shard_parts(data)
    if cache is None and any(is_url(place) for place in (*train, *val)):
        raise UsageError(f"{data}: is fetched; give a folder to keep shards in, with --cache")
    numbers = None if labels is None else class_numbers(train[0], labels, cache)
    known = shard_labels([*train, *val], cache) if labels is None else tuple(labels)
    told = shard_counts(train[0], cache)
    reading = _Reading(data, known, numbers, cache)
    places = [*(("train", place) for place in train), *(("val", place) for place in val)]
    for left, (part, place) in zip(reversed(range(len(places))), places, strict=True):
        reading.read(part, place, told.get(whole_place(place)), left, progress)
    return reading.report(("train", "val") if val else ("train",))


class _Cases:
    """Cases by the kind of their finding: some are named, all are counted."""

    def __init__(self) -> None:
        self._named: dict[str, list[str]] = defaultdict(list)
        self._more: Counter[str] = Counter()

    def add(self, kind: str, case: str | Callable[[], str]) -> None:
        if len(self._named[kind]) < NAMED:
            self._named[kind].append(case if isinstance(case, str) else case())
        else:
            self._more[kind] += 1

    def finding(self, kind: str, severity: Severity, what: str) -> Iterator[Finding]:
        if kind in self._named:
            yield Finding(kind, severity, what, tuple(self._named[kind]), more=self._more[kind])


@dataclass(slots=True, eq=False)
class _Reading:
    """What the shards have shown so far: hashes of each picture's file (`keys`) and classes (`said`), and all cases."""

    data: str
    labels: tuple[Label, ...]
    numbers: list[int | None] | None
    cache: ShardCache | None
    keys: array[int] = field(default_factory=lambda: array("Q"))
    said: array[int] = field(default_factory=lambda: array("Q"))
    places: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    counts: dict[str, Int64] = field(default_factory=dict)
    cases: _Cases = field(default_factory=_Cases)
    boxed: bool = False

    def read(self, part: str, place: str, told: ShardCount | None, left: int, progress: Callable[[int, int], None]) -> None:
        """Read a shard of a part, of which an index says what is `told`, before `left` others."""
        try:
            shard = Shards([place], self.labels, self.cache, numbers=self.numbers)
        except (DataError, OSError) as error:
            self.cases.add("shard", self._short(str(error)))
            return
        before = len(self.keys)
        try:
            row, whole = self._pictures(shard, before, left, progress)
        except (DataError, OSError) as error:
            del self.keys[before:], self.said[before:]
            self.cases.add("shard", self._short(f"{place}: {error}"))
            return
        self.places.append(place)
        self.sizes.append(len(shard))
        self.parts.append(part)
        self.counts[part] = self.counts.get(part, 0) + row
        if told is not None and told.nsamples != len(shard):
            self.cases.add("index", self._short(f"{place}: has {len(shard)} samples, not {told.nsamples}"))
        elif told is not None and told.label_counts not in (None, row.tolist()) and whole and self.numbers is None:
            self.cases.add("index", self._short(f"{place}: has {row.tolist()} of each class, not {told.label_counts}"))

    def _pictures(self, shard: Shards, before: int, left: int, progress: Callable[[int, int], None]) -> tuple[Int64, bool]:
        """How many pictures of each class a shard has, and whether all labels were known. Raises DataError and OSError."""
        row, whole = np.zeros(len(self.labels), np.int64), True
        for done, (name, sample, facts) in enumerate(in_threads(partial(_one, shard), range(len(shard))), start=1):
            progress(before + done, before + len(shard) + (before + len(shard)) * left // (len(self.places) + 1))
            self._judge(self._short(name), facts)
            class_ids = [] if isinstance(sample, str) else _class_ids(sample)
            self.keys.append(_number(facts.key))
            self.said.append(_number(content_key(repr(class_ids).encode())))
            if isinstance(sample, str):
                self.cases.add("label", self._short(sample))
                whole = False
            else:
                self.boxed = self.boxed or isinstance(sample, BoxSample)
                np.add.at(row, class_ids, 1)
        return row, whole

    def _judge(self, name: str, facts: Facts) -> None:
        if facts.problem:
            self.cases.add("unreadable", f"{name}: {facts.problem}")
            return
        size = f"{name}: {facts.size_wh[0]} x {facts.size_wh[1]}"
        if min(facts.size_wh) < SMALL:
            self.cases.add("small", size)
        if max(facts.size_wh) >= LONG * min(facts.size_wh):
            self.cases.add("long", size)
        for kind in facts.odd:
            self.cases.add(kind, f"{name}: a {facts.format.upper()}" if kind == "name" else name)

    def report(self, parts: tuple[str, ...]) -> Check:
        """All that was found."""
        self._find_copies()
        task: Task = "detect" if self.boxed else "classify"
        cases = self.cases
        if parts == ("train",):
            cases.add("no-val", self.data)
        names = class_keys(self.labels)
        none = np.zeros(len(names), np.int64)
        counted = {name: {part: int(self.counts.get(part, none)[i]) for part in parts} for i, name in enumerate(names)}
        found = [
            *cases.finding("shard", "error", "shards that cannot be read"),
            *cases.finding("unreadable", "error", "cannot be read"),
            *cases.finding("label", "error", "labels that cannot be used"),
            *cases.finding("index", "error", "shards that differ from what index.json says of them"),
            *cases.finding("no-val", "error", "no shard whose name begins with val, which would measure"),
            *cases.finding("two-labels", "error", "the same picture with different labels"),
            *cases.finding("leak", "error", "the same picture in train and in val"),
            *cases.finding("duplicate", "warning", "the same picture more than once"),
            *cases.finding("small", "warning", SMALL_WORDS),
            *cases.finding("long", "note", LONG_WORDS),
            *(one for kind, what in ODD.items() for one in cases.finding(kind, severity_of(kind), what)),
            *balance(counted, parts, task),
        ]
        sizes = {part: sum(size for size, of in zip(self.sizes, self.parts, strict=True) if of == part) for part in parts}
        return Check(self.data, task, sizes, counted, by_severity(found), remarks=(REMARK,))

    def _find_copies(self) -> None:
        """Exact copies: within a part, across parts, and with other classes."""
        if not len(self.keys):
            return
        keys, said = np.frombuffer(self.keys, np.uint64), np.frombuffer(self.said, np.uint64)
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        runs = np.split(same, np.flatnonzero(np.diff(same) > 1) + 1) if len(same) else []
        groups = sorted((order[run[0] : run[-1] + 2] for run in runs), key=lambda group: int(group[0]))
        shards = Shards(self.places, self.labels, self.cache, self.sizes, numbers=self.numbers)
        ends = np.cumsum(self.sizes)
        for group in groups:
            which = {self.parts[at] for at in np.searchsorted(ends, group, side="right")}
            kind = "two-labels" if len(set(said[group])) > 1 else "leak" if len(which) > 1 else "duplicate"
            self.cases.add(kind, partial(self._named, shards, group))

    def _named(self, shards: Shards, group: Int64) -> str:
        more = f", and {len(group) - COPIES} more" if len(group) > COPIES else ""
        return " = ".join(self._short(shards.name(int(at))) for at in group[:COPIES]) + more

    def _short(self, text: str) -> str:
        """A line about a shard, whose place is told from the folder on."""
        return text.removeprefix(f"{self.data.rstrip('/')}/")


def _one(shard: Shards, at: int) -> tuple[str, Sample | BoxSample | str, Facts]:
    """A picture's name, its sample or what is wrong with its label, and its facts."""
    name = shard.name(at)
    facts = facts_of(shard.raw(at), PurePosixPath(name).suffix)
    try:
        return name, shard[at], facts
    except DataError as error:
        return name, str(error), facts


def _class_ids(sample: Sample | BoxSample) -> list[int]:
    return [sample.class_id] if isinstance(sample, Sample) else sorted(sample.class_ids[~sample.ignored].tolist())


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")
