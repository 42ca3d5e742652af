"""What a data set is before it is read: its task, its classes and its parts, told by what lies in the folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from edge.boxes_data import BoxSample, coco_categories, coco_files, labelled_boxes, voc_files, voc_names
from edge.card import Label
from edge.datasets import VAL_FOLDERS, Sample, class_folders, class_names, has_parts, part_folder, picture_files
from edge.errors import DataError
from edge.kept import is_kept, kept_labels, kept_pictures
from edge.label_files import read_text, yolo_class_names, yolo_names_file
from edge.lists import place_of

Task: TypeAlias = Literal["classify", "detect"]
Picture: TypeAlias = Sample | BoxSample
"""A labelled picture of either task."""
PARTS = ("train", "val")
OTHER_PARTS = frozenset({*PARTS, *VAL_FOLDERS, "test", "training", "testing"})
"""Folders that are parts of a data set and no classes, whatever their case."""
LOOKED_AT = 200
"""Pictures beside which a YOLO label is looked for before a folder is taken for class folders."""


def task_of(data: Path) -> Task:
    """Whether a data set's labels are boxes or the folders that its pictures are in. Raises DataError when it is neither."""
    folder = place_of(data).folder
    if not os.path.isdir(folder):
        raise DataError(f"{data}: no such folder; give class folders of pictures, or pictures with boxes")
    if is_kept(folder):
        return "detect" if kept_pictures(folder, with_redacted=True)[0].example.task == "detect" else "classify"
    roots = _roots(folder)
    if any(coco_files(root) or voc_files(root) or _has_yolo(root) for root in roots):
        return "detect"
    if any(class_names(root) for root in roots):
        return "classify"
    raise DataError(f"{data}: has neither class folders of pictures nor boxes in COCO, VOC or YOLO files beside pictures")


def labels_of(data: Path) -> tuple[Label, ...]:
    """The classes of a data set: its class folders, or what COCO's categories, VOC's objects or YOLO's names file say.

    Of what an endpoint kept, the classes of its answers as reviewed.
    In the order of the file where there is one, else sorted. Raises DataError when there are none, or YOLO's numbers
    have no names.
    """
    task, folder = task_of(data), place_of(data).folder
    if is_kept(folder):
        return kept_labels(folder)
    roots = _roots(folder)
    names = sorted({name for root in roots for name in class_names(root)}) if task == "classify" else _box_names(roots)
    if not names:
        raise DataError(f"{data}: no class is named in it; label some pictures first")
    return tuple(Label(id=name, name=name) for name in names)


def parts_of(data: Path, labels: Sequence[Label], task: Task) -> tuple[list[Picture], list[Picture] | None]:
    """A data set's pictures to train on and to measure with; None for the second where it is not in parts."""
    if task == "classify":
        if not has_parts(data):
            return list(class_folders(data, labels)), None
        fit, measure = (class_folders(part_folder(data, part), labels) for part in PARTS)
        return list(fit), list(measure)
    train, val = labelled_boxes(data, labels, "train"), labelled_boxes(data, labels, "val")
    if {sample.path for sample in train}.isdisjoint(sample.path for sample in val):
        return list(train), list(val)
    return list(labelled_boxes(data, labels)), None


def _roots(folder: Path) -> list[Path]:
    """The folder, or its train and val where it has both. Raises DataError when it has parts of other names alone."""
    if has_parts(folder):
        return [part_folder(folder, part) for part in PARTS]
    names = class_names(folder)
    if names and all(name.casefold() in OTHER_PARTS for name in names):
        raise DataError(
            f"{folder}: has the parts {', '.join(names)}; name those to use train and val, or give {folder / names[0]}"
        )
    return [folder]


def _box_names(roots: Sequence[Path]) -> list[str]:
    """Names of classes in the order in which they are first met; VOC's, which have none, sorted."""
    coco = [path for root in roots for path in coco_files(root)]
    voc = [path for root in roots for path in voc_files(root)]
    if coco:
        return list(dict.fromkeys(name for path in coco for name in coco_categories(path)))
    if voc:
        return sorted({name for path in voc for name in _known(path)} - {""})
    file = next((file for file in map(yolo_names_file, roots) if file is not None), None)
    if file is None:
        raise DataError(
            f"{roots[0]}: its YOLO labels have numbers and no names; write {roots[0] / 'classes.txt'}, a name a line"
        )
    numbered = yolo_class_names(file)
    return [numbered[number] for number in sorted(numbered)]


def _known(path: Path) -> set[str]:
    """A VOC file's names; none where it is damaged, as whoever reads its boxes will say."""
    try:
        return voc_names(path)
    except DataError:
        return set()


def _has_yolo(root: Path) -> bool:
    """Whether there are labels/ beside images/, or lines of numbers in text files beside pictures."""
    if os.path.isdir(root / "images") and os.path.isdir(root / "labels"):
        return True
    beside = (picture.with_suffix(".txt") for picture in itertools.islice(picture_files(root), LOOKED_AT))
    return any(_is_yolo(path) for path in beside if path.is_file())


def _is_yolo(path: Path) -> bool:
    try:
        words = next(_words(path), [])
        return len(words) >= 5 and all(word.replace(".", "").replace("-", "").isdigit() for word in words[:5])
    except DataError:
        return False


def _words(path: Path) -> Iterator[list[str]]:
    return (line.split() for line in read_text(path).splitlines() if line.strip())
