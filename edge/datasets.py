"""Labelled pictures on disk, without torch: one loader for evaluation, calibration and training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from edge.card import Label
from edge.errors import DataError
from edge.lists import place_of
from edge.pictures import read_picture
from edge.types import Frame, UInt8

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
VAL_FOLDERS = ("val", "valid", "validation")
"""What the folder to measure with is called: by most, by Roboflow's exports, and by Keras's tutorials."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture: its file, and the index of its class in the label list it was loaded against."""

    path: Path
    class_id: int


class HasPath(Protocol):
    """Whatever knows its picture's file."""

    @property
    def path(self) -> Path: ...


@runtime_checkable
class Readable(Protocol):
    """A sample whose picture is no file of its own: `read` gives it as BGR uint8 [h, w, 3], or raises DataError."""

    def read(self) -> UInt8: ...


Labelled = TypeVar("Labelled", bound=HasPath)


def picture_files(folder: Path) -> list[Path]:
    """The picture files below `folder`, sorted by path; hidden ones and those in hidden folders are left out."""

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file() and not hidden(path))


def class_folders(folder: Path, labels: Sequence[Label]) -> list[Sample]:
    """The pictures of a folder of class folders; a folder's name matches a label by its id or its name, case aside.

    A picture list (edge/lists.py) stands for its folder. Raises DataError when the folder is missing, has no class
    folders, a name matches no label, or there is no picture.
    """
    from edge.kept import is_kept, kept_classes  # which imports this module

    place = place_of(folder)
    if is_kept(place.folder):
        return [sample for sample in kept_classes(place.folder, labels) if place.keeps(sample.path)]
    if not os.path.isdir(place.folder):
        raise DataError(f"{folder}: no such folder; give a folder of class folders of pictures")
    names = class_names(place.folder)
    if not names:
        raise DataError(f"{folder}: has no class folders; expected {folder}/CLASS/PICTURE.jpg")
    found = {name: [path for path in picture_files(place.folder / name) if place.keeps(path)] for name in names}
    index = label_index(labels)
    unknown = [name for name in names if name_key(name) not in index and (found[name] or place.kept is None)]
    if unknown:
        raise DataError(
            f"{folder}: folder {unknown[0]!r} matches no label's id, nor the name of just one"
            + (f", as do {len(unknown) - 1} others" if len(unknown) > 1 else "")
            + f"; the labels are like {', '.join(label.id for label in labels[:3])}"
        )
    samples = [Sample(path, index[name_key(name)]) for name in names for path in found[name]]
    if not samples:
        raise DataError(f"{folder}: its class folders hold no pictures ({', '.join(sorted(PICTURES))})")
    return samples


def class_names(folder: Path) -> list[str]:
    """The names of a folder's class folders, sorted."""
    return [path.name for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def has_parts(folder: Path) -> bool:
    """Whether a data set has the folders `train` and `val`, or another of VAL_FOLDERS."""
    root = place_of(folder).folder
    return os.path.isdir(root / "train") and any(os.path.isdir(root / name) for name in VAL_FOLDERS)


def part_folder(folder: Path, part: str) -> Path:
    """A part of a data set or list: its `train`, or of VAL_FOLDERS the first that it has; FOLDER/PART where it has none."""
    root, names = place_of(folder).folder, VAL_FOLDERS if part == "val" else (part,)
    return folder / next((name for name in names if os.path.isdir(root / name)), part)


def evaluation_split(folder: Path) -> Path:
    """The part of a dataset to measure on: its `val` folder where it has one beside `train`, else all of it."""
    return part_folder(folder, "val") if has_parts(folder) else folder


def frames(samples: Iterable[Sample], bad: Callable[[str], None]) -> Iterator[tuple[Frame, int]]:
    """Each sample as a Frame with its class; unreadable pictures are named to `bad` and left out."""
    for frame, sample in labelled_frames(samples, bad):
        yield frame, sample.class_id


def labelled_frames(samples: Iterable[Labelled], bad: Callable[[str], None]) -> Iterator[tuple[Frame, Labelled]]:
    """Each sample's picture as a Frame, with the sample; unreadable pictures are named to `bad` and left out."""
    for sequence, sample in enumerate(samples):
        try:
            image = sample.read() if isinstance(sample, Readable) else read_picture(sample.path)
        except DataError as error:
            bad(str(error))
            continue
        yield Frame(image, sequence, 0.0, str(sample.path.parent), name=sample.path.name), sample


def name_key(name: str) -> str:
    """What of a class's name is compared: case aside, underscores as spaces."""
    return " ".join(name.replace("_", " ").split()).casefold()


def label_index(labels: Sequence[Label]) -> dict[str, int]:
    """Label ids and names → index; a name that two labels share is left out, so that only their ids match."""
    names = Counter(name_key(label.name) for label in labels)
    index = {name_key(label.name): i for i, label in enumerate(labels) if names[name_key(label.name)] == 1}
    return index | {name_key(label.id): i for i, label in enumerate(labels)}
