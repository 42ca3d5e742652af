"""The data that a run is given: folders, lists of pictures and shards, their task, classes and parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample, name_key
from edge.errors import DataError, UsageError
from edge.layouts import Picture, Task, labels_of, parts_of, task_of
from edge.lists import is_data_set
from edge.types import Int64
from train.duplicates import content_key
from train.shard_cache import ShardCache, is_url
from train.shard_sets import is_shards, open_shards
from train.shards import Shards
from train.split import SHARE, split

Say: TypeAlias = Callable[[str], None]
PARTS: tuple[Literal["train"], Literal["val"]] = ("train", "val")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The pictures to learn from, and those to measure with."""

    fit: Sequence[Picture]
    val: Sequence[Picture]


def checked(data: str) -> str:
    """The data as a run notes it, so that it is found from anywhere. Raises UsageError for what is not there."""
    if is_url(data):
        return data
    if not is_shards(data) and not is_data_set(Path(data)):
        raise UsageError(f"--data {data}: no such folder, list of pictures or shards; give labelled pictures")
    return os.path.abspath(data)


def described(data: Sequence[str], cache: ShardCache | None) -> tuple[Task, tuple[Label, ...]]:
    """The task of all the data, and the classes of any. Raises UsageError where some has boxes and some has none."""
    found = [_described(one, cache) for one in data]
    for one, (task, _) in zip(data, found, strict=True):
        if task != found[0][0]:
            raise UsageError(f"--data {data[0]}, {one}: one has boxes and the other has none; train on each alone")
    return found[0][0], merged([labels for _, labels in found])


def merged(sets: Sequence[Sequence[Label]]) -> tuple[Label, ...]:
    """The classes of several data sets, each once: a class of a later one is an earlier one's with its id or its name.

    Raises UsageError where it is two of them.
    """
    known = list(sets[0])
    for label in (label for labels in sets[1:] for label in labels):
        keys = {name_key(label.id), name_key(label.name)}
        same = [one for one in known if keys & {name_key(one.id), name_key(one.name)}]
        if len(same) > 1:
            names = ", ".join(repr(one.id) for one in same)
            raise UsageError(f"--data: class {label.id!r} ({label.name}) is both of {names}; rename one of them")
        if not same:
            known.append(label)
    return tuple(known)


def _described(data: str, cache: ShardCache | None) -> tuple[Task, tuple[Label, ...]]:
    if not is_shards(data):
        return task_of(Path(data)), labels_of(Path(data))
    fit, _, labels = open_shards(data, None, cache)
    return ("detect" if isinstance(fit[0], BoxSample) else "classify"), labels


def open_data(
    data: Sequence[str],
    labels: Sequence[Label],
    task: Task,
    cache: ShardCache | None,
    *,
    share: float | None = None,
    count: int | None = None,
    seed: int,
    say: Say,
) -> Parts:
    """The data's own parts; where it has no val part, a share, or so many of its pictures, are kept apart.

    Raises DataError, and UsageError for shards beside other data, and where a share or a number is given and nothing to take
    it of.
    """
    option = "--val-share" if count is None else "--val-count"
    where, unused = f"{option}: {' and '.join(data)}", "which is what measures; leave the option out"
    asked = share is not None or count is not None
    if any(is_shards(one) for one in data):
        if asked:
            raise UsageError(f"{where} {'is' if len(data) == 1 else 'are'} shards with a val part, {unused}")
        return _shards(data, labels, cache)
    fit: list[Picture] = []
    val: list[Picture] = []
    found = [(one, *parts_of(Path(one), labels, task)) for one in data]
    if asked and not any(apart is None for _, _, apart in found):
        raise UsageError(f"{where} {'has a val part' if len(data) == 1 else 'have val parts'}, {unused}")
    for one, more, apart in found:
        if apart is None:
            part = SHARE if share is None else share
            wanted = f"{part:.0%}" if count is None else f"{count}"
            say(f"{Path(one).name}: has no val part; keeping {wanted} of its {len(more)} pictures apart ...")
            more, apart = split(more, share=part, count=count, seed=seed, say=say)
        fit += more
        val += apart
    return Parts(fit if len(data) == 1 else _not_in(val, fit, say), val)


def label_counts(pictures: Sequence[Picture], classes: int) -> Int64:
    """How many pictures, or objects that count, each class has [classes]; of shards, as their index says where it does."""
    known = known_counts(pictures, classes)
    return _counted(pictures, classes) if known is None else known


def known_counts(pictures: Sequence[Picture], classes: int) -> Int64 | None:
    """`label_counts` where no shard has to be read for it; None where shards have no index that says it."""
    return pictures.label_counts() if isinstance(pictures, Shards) else _counted(pictures, classes)


def _counted(pictures: Sequence[Picture], classes: int) -> Int64:
    ids = [np.array([one.class_id]) if isinstance(one, Sample) else one.class_ids[~one.ignored] for one in pictures]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *ids]), minlength=classes)


def _not_in(val: Sequence[Picture], fit: Sequence[Picture], say: Say) -> list[Picture]:
    """The pictures to learn from of several data sets without exact copies of those that one of them measures with."""
    measured = {picture_hash(picture.path) for picture in val}
    kept = [picture for picture in fit if picture_hash(picture.path) not in measured]
    if len(kept) < len(fit):
        say(f"{len(fit) - len(kept)} pictures are in another data set's val part, too, and are not learned from")
    return kept


def picture_hash(path: Path) -> bytes:
    """What makes a file the same as another; of one that cannot be read, its path."""
    try:
        return content_key(path.read_bytes())
    except OSError:
        return os.fsencode(path)


def without_learned(parts: Parts, learned: Sequence[Picture], say: Say) -> Parts:
    """The parts with what the run that is gone on from has learned moved out of val. Raises DataError when none is left."""
    known = {os.path.realpath(picture.path) for picture in learned}
    val = [picture for picture in parts.val if os.path.realpath(picture.path) not in known]
    moved = len(parts.val) - len(val)
    if not moved:
        return parts
    if not val:
        raise DataError("--weights: that run has learned from all pictures that would measure; keep others apart in a val part")
    say(f"{moved} pictures that would measure are what the run to start from has learned; they are learned from again")
    chosen = {id(picture) for picture in val}
    return Parts([*parts.fit, *(picture for picture in parts.val if id(picture) not in chosen)], val)


def _shards(data: Sequence[str], labels: Sequence[Label], cache: ShardCache | None) -> Parts:
    if len(data) > 1:
        raise UsageError("--data: shards are one data set; pack several into one with edge-train pack")
    fit, val, _ = open_shards(data[0], labels, cache)
    if val is None:
        raise DataError(f"{data[0]}: has no shard whose name begins with val; edge-train pack makes some")
    return Parts(fit, val)
