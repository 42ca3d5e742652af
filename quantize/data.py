"""Which labelled pictures calibrate, which choose and which measure: never the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edge.boxes_data import BoxSample, labelled_boxes
from edge.card import Label
from edge.datasets import Sample, class_folders
from edge.errors import DataError

Picture: TypeAlias = Sample | BoxSample
"""A labelled picture of either task."""

CHOICE_PICTURES = {"classify": 256, "detect": 256}
"""At most so many choose among candidates and fit temperatures."""


@dataclass(frozen=True, slots=True)
class Split:
    """Three disjoint sets of pictures, the same for the same files; `training` is all that does not measure."""

    calibration: tuple[Picture, ...]
    choice: tuple[Picture, ...]
    measure: tuple[Picture, ...]
    training: tuple[Picture, ...] = ()


def load_split(folder: Path, labels: Sequence[Label], calibration: int, task: str = "classify") -> Split:
    """The pictures of `folder`: its `train` and `val`, or one set of which half is kept to measure.

    At most `calibration` pictures calibrate, and at most half of those not measured with. Raises DataError.
    """
    fit, measure = _boxes(folder, labels) if task == "detect" else _classes(folder, labels)
    fit = shuffled(fit)
    count = min(calibration, len(fit) // 2)
    if count < 1 or not measure:
        raise DataError(f"{folder}: {len(fit) + len(measure)} pictures are too few to calibrate and measure; give at least 8")
    return Split(tuple(fit[:count]), tuple(fit[count : count + CHOICE_PICTURES[task]]), tuple(measure), tuple(fit))


def _classes(folder: Path, labels: Sequence[Label]) -> tuple[list[Picture], list[Picture]]:
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        return list(class_folders(folder / "train", labels)), list(class_folders(folder / "val", labels))
    return _halves(list(class_folders(folder, labels)))


def _boxes(folder: Path, labels: Sequence[Label]) -> tuple[list[Picture], list[Picture]]:
    train, val = labelled_boxes(folder, labels, "train"), labelled_boxes(folder, labels, "val")
    if {sample.path for sample in train}.isdisjoint(sample.path for sample in val):
        return list(train), list(val)
    return _halves(list(labelled_boxes(folder, labels)))


def _halves(samples: list[Picture]) -> tuple[list[Picture], list[Picture]]:
    mixed = shuffled(samples)
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def shuffled(samples: Sequence[Picture]) -> list[Picture]:
    """The samples in an order that mixes classes and depends only on their folder's and file's name."""
    return sorted(samples, key=lambda sample: hashlib.sha256("/".join(sample.path.parts[-2:]).encode()).digest())
