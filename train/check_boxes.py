"""What is wrong with boxes and the files that they are in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edge.boxes import box_iou
from edge.boxes_data import BoxSample
from edge.datasets import Sample, picture_files
from edge.label_files import NAME_FILES
from edge.label_notes import LabelNotes
from edge.lists import place_of
from edge.types import Float64
from train.check_findings import Finding, Item, finding
from train.picture_facts import Facts

BEYOND = 0.02
"""Share of the picture's side by which a box may leave it: less is rounding."""
TINY = 4.0
"""Pixels of the shorter side of a box below which no detector sees it."""
TWICE = 0.9
"""Overlap (IoU) from which two boxes of a class in one picture are the same."""
WHOLE = 0.99
"""Share of the picture that a box covers from which it says nothing of where the object is."""
SAME = 0.5
"""Overlap from which boxes of two copies of a picture are of the same object."""


class BoxNotes(LabelNotes):
    """What label files hold, written down: what is wrong, which file is whose, and the boxes as they were written."""

    def __init__(self) -> None:
        self.problems: list[tuple[Path | None, str]] = []
        self.pairs: list[tuple[Path | None, Path | None]] = []
        self.written: list[tuple[Path, Float64, list[int]]] = []

    def clear(self) -> None:
        """Forget all."""
        self.problems, self.pairs, self.written = [], [], []

    def wrong(self, picture: Path | None, line: str) -> None:
        """Write a label down that cannot be."""
        self.problems.append((picture, line))

    def pair(self, picture: Path | None, labels: Path | None) -> None:
        """Write down which file a picture's labels are in."""
        self.pairs.append((picture, labels))

    def boxes(self, picture: Path, boxes_xyxy: Float64, class_ids: Sequence[int]) -> None:
        """Write boxes down as they are before the loader clips them."""
        self.written.append((picture, boxes_xyxy, list(class_ids)))


def box_findings(data: Path, notes: BoxNotes, items: Sequence[Item], facts: Sequence[Facts]) -> list[Finding]:
    """What the notes say about a data set's boxes, whose pictures' sizes are in `facts`."""
    folder = place_of(data).folder
    sizes = {item.path: read.size_wh for item, read in zip(items, facts, strict=True) if not read.problem}
    cases: dict[str, list[tuple[Path, str]]] = {"empty": [], "outside": [], "beyond": [], "twice": [], "tiny": [], "whole": []}
    for path, boxes, class_ids in notes.written:
        for kind, line in _judged(boxes, class_ids, sizes[path]) if path in sizes else ():
            cases[kind].append((path, f"{os.path.relpath(path, folder)}: {line}"))

    def found(kind: str) -> list[str]:
        return [line for _, line in cases[kind]]

    wrong = [line.replace(f"{folder}{os.sep}", "") for _, line in notes.problems]
    return [
        *finding(
            "label", "error", "labels that cannot be used", wrong, [path for path, _ in notes.problems if path is not None]
        ),
        *finding("box-empty", "error", "boxes without an area", found("empty"), [path for path, _ in cases["empty"]]),
        *finding(
            "box-outside", "error", "boxes outside their picture", found("outside"), [path for path, _ in cases["outside"]]
        ),
        *finding("box-beyond", "warning", "boxes that reach out of their picture, and are cut off", found("beyond")),
        *finding("box-twice", "warning", "boxes that are there twice", found("twice")),
        *finding("box-tiny", "note", f"boxes narrower than {TINY:g} pixels", found("tiny")),
        *finding("box-whole", "note", "boxes of the whole picture", found("whole")),
        *_without_partner(folder, notes, place_of(data).kept is None, {item.part for item in items} == {"all"}),
    ]


def _judged(boxes: Float64, class_ids: Sequence[int], size_wh: tuple[int, int]) -> Iterable[tuple[str, str]]:
    """Kind and words of what is wrong with a picture's boxes [n, 4] in pixels."""
    limit = np.array(size_wh * 2, np.float64)
    inside = np.clip(boxes, 0, limit)
    for i, box in enumerate(boxes):
        words = " ".join(f"{value:g}" for value in np.round(box, 1)) + f" in {size_wh[0]} x {size_wh[1]}"
        sides = box[2:] - box[:2]
        kept = inside[i, 2:] - inside[i, :2]
        if (sides <= 0).any():
            yield "empty", words
        elif (kept <= 0).any():
            yield "outside", words
        elif (np.abs(box - inside[i]) > np.maximum(BEYOND * limit, 1.5)).any():
            yield "beyond", words
        elif kept.min() < TINY:
            yield "tiny", words
        elif kept.prod() >= WHOLE * limit[:2].prod():
            yield "whole", words
    overlap = np.triu(box_iou(inside.astype(np.float32), inside.astype(np.float32)), 1)
    for a, b in zip(*np.nonzero(overlap >= TWICE), strict=True):
        if class_ids[a] == class_ids[b]:
            yield "twice", " ".join(f"{value:g}" for value in np.round(boxes[a], 1))


def _without_partner(folder: Path, notes: BoxNotes, everything: bool, one_part: bool) -> list[Finding]:
    """Label files without a picture and pictures without a label, where `everything` is used of the whole folder."""
    labelled = {path for picture, path in notes.pairs if picture is not None and path is not None}
    alone = [path for picture, path in notes.pairs if picture is None and path is not None]
    bare = [picture for picture, path in notes.pairs if picture is not None and path is None]
    if everything and notes.pairs:  # which what an endpoint kept has none of
        there = picture_files(folder)
        stems = {os.path.splitext(str(path).replace(f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"))[0] for path in there}
        text = sorted(path for place in folder.rglob("labels") if place.is_dir() for path in place.rglob("*.txt"))
        alone += [
            path
            for path in text
            if path not in labelled and path.name not in NAME_FILES and os.path.splitext(path)[0] not in stems
        ]
        known = {os.path.normpath(picture) for picture, _ in notes.pairs if picture is not None}
        bare += [path for path in there if one_part and os.path.normpath(path) not in known]

    def named(paths: Iterable[Path]) -> list[str]:
        return [os.path.relpath(path, folder) for path in paths]

    return [
        *finding("label-alone", "warning", "label files without a picture", named(alone)),
        *finding("picture-alone", "note", "pictures without a label file", named(bare)),
        *finding("background", "note", "pictures whose label file has no box", named(sorted(_without_boxes(notes)))),
    ]


def _without_boxes(notes: BoxNotes) -> set[Path]:
    labelled = {picture for picture, path in notes.pairs if picture is not None and path is not None}
    return ({path for path, boxes, _ in notes.written if not len(boxes)} & labelled) - {path for path, _ in notes.problems}


def same_labels(a: Sample | BoxSample, b: Sample | BoxSample, boxes: bool = True) -> bool:
    """Whether two copies of a picture say the same: its class, or as many boxes of the same classes that overlap.

    Without `boxes` all boxes are alike, as those of pictures that are only nearly the same are.
    """
    if isinstance(a, Sample) or isinstance(b, Sample):
        return isinstance(a, Sample) and isinstance(b, Sample) and a.class_id == b.class_id
    if not boxes:
        return True
    if sorted(a.class_ids) != sorted(b.class_ids):
        return False
    overlap = box_iou(a.boxes_xyxy, b.boxes_xyxy) * (a.class_ids[:, None] == b.class_ids)
    return bool((overlap.max(axis=1, initial=0) >= SAME).all() and (overlap.max(axis=0, initial=0) >= SAME).all())
