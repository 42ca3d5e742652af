"""Which labelled pictures calibrate, which fit the temperature and which measure: never the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.card import Label
from edge.datasets import Sample, class_folders
from edge.errors import DataError

TEMPERATURE_PICTURES = 512


@dataclass(frozen=True, slots=True)
class Split:
    """Three disjoint sets of pictures; the same for the same files."""

    calibration: tuple[Sample, ...]
    temperature: tuple[Sample, ...]
    measure: tuple[Sample, ...]


def load_split(folder: Path, labels: Sequence[Label], calibration: int) -> Split:
    """The pictures of `folder`: its `train` and `val`, or one set of class folders of which half is kept to measure.

    At most `calibration` pictures calibrate, and at most half of those not measured with. Raises DataError.
    """
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        fit, measure = class_folders(folder / "train", labels), class_folders(folder / "val", labels)
    else:
        mixed = shuffled(class_folders(folder, labels))
        fit, measure = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
    fit = shuffled(fit)
    count = min(calibration, len(fit) // 2)
    if count < 1 or not measure:
        raise DataError(f"{folder}: {len(fit) + len(measure)} pictures are too few to calibrate and measure; give at least 8")
    return Split(tuple(fit[:count]), tuple(fit[count : count + TEMPERATURE_PICTURES]), tuple(measure))


def shuffled(samples: Sequence[Sample]) -> list[Sample]:
    """The samples in an order that mixes classes and depends only on their class folder's and file's name."""
    return sorted(samples, key=lambda sample: hashlib.sha256("/".join(sample.path.parts[-2:]).encode()).digest())
