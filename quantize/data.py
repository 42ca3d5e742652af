"""Which labelled pictures calibrate, which choose and which measure: never the same ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.errors import DataError
from edge.layouts import parts_of

Picture: TypeAlias = Sample | BoxSample
"""A labelled picture of either task."""

CHOICE_PICTURES = {"classify": 256, "detect": 256}
"""At most so many choose among candidates and fit temperatures."""
VAL_PICTURES = 200
"""With fewer, a run's val only measures: half of them would say too little."""


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
    fit, measure = parts_of(folder, labels, "detect" if task == "detect" else "classify")
    if measure is None:
        fit, measure = _halves(fit)
    return divided(fit, measure, calibration, task, folder)


def divided(fit: Sequence[Picture], measure: Sequence[Picture], calibration: int, task: str, folder: Path) -> Split:
    """Pictures of `folder`, those to fit with and those to measure with, as a split. Raises DataError for too few."""
    fit = shuffled(fit)
    count = min(calibration, len(fit) // 2)
    if count < 1 or not measure:
        raise DataError(f"{folder}: {len(fit) + len(measure)} pictures are too few to calibrate and measure; give at least 8")
    return Split(tuple(fit[:count]), tuple(fit[count : count + CHOICE_PICTURES[task]]), tuple(measure), tuple(fit))


def of_run(fit: Sequence[Picture], val: Sequence[Picture], calibration: int, task: str, folder: Path) -> Split:
    """The split of a run that has learned from `fit`: what it learned calibrates, what it has never seen chooses and measures.

    It is surer of what it learned than of anything else, so candidates and temperatures chosen by that would flatter. Half of
    `val`, as far as CHOICE_PICTURES, chooses; of fewer than VAL_PICTURES none, and what it learned does. Raises DataError.
    """
    split = divided(fit, val, calibration, task, folder)
    if len(val) < VAL_PICTURES:
        return split
    mixed = shuffled(val)
    count = min(CHOICE_PICTURES[task], len(mixed) // 2)
    return replace(split, choice=tuple(mixed[:count]), measure=tuple(mixed[count:]))


def unseen_split(
    folder: Path, labels: Sequence[Label], calibration: int, task: str, learned: Sequence[Picture]
) -> Split | None:
    """As `of_run`, of another data set than the run's, some of whose pictures it has learned from; None where there are none.

    Raises DataError where it has learned from all.
    """
    fit, measure = parts_of(folder, labels, "detect" if task == "detect" else "classify")
    pictures = [*fit, *(measure or [])]
    known = {os.path.realpath(picture.path) for picture in learned}
    seen = [picture for picture in pictures if os.path.realpath(picture.path) in known]
    if not seen:
        return None
    unseen = [picture for picture in pictures if os.path.realpath(picture.path) not in known]
    if not unseen:
        raise DataError(f"{folder}: the run has learned from all of its {len(seen)} pictures; leave out --data, or give others")
    return of_run(seen, unseen, calibration, task, folder)


def _halves(samples: list[Picture]) -> tuple[list[Picture], list[Picture]]:
    mixed = shuffled(samples)
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def shuffled(samples: Sequence[Picture]) -> list[Picture]:
    """The samples in an order that mixes classes and depends only on their folder's and file's name."""
    return sorted(samples, key=lambda sample: hashlib.sha256("/".join(sample.path.parts[-2:]).encode()).digest())
