"""A finding of `edge-train check`, and the labelled picture that it is about."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from edge.boxes_data import BoxSample
from edge.datasets import Sample

Severity: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a data set: its `kind` for programs, `what` in words, and one line for each case, the worst first.

    An error makes a training or its figures wrong. `paths` are pictures that a cleaned list leaves out for it, `more` how
    many cases there are beside those that are named.
    """

    kind: str
    severity: Severity
    what: str
    cases: tuple[str, ...]
    paths: tuple[Path, ...] = ()
    more: int = 0

    @property
    def count(self) -> int:
        """How many cases there are."""
        return len(self.cases) + self.more


def finding(
    kind: str, severity: Severity, what: str, cases: Sequence[str], paths: Sequence[Path] = ()
) -> tuple[Finding] | tuple[()]:
    """One finding, or none where there is no case of it."""
    return (Finding(kind, severity, what, tuple(cases), tuple(dict.fromkeys(paths))),) if cases else ()


def nested(root: Path, class_folders: Sequence[Path], pictures: Iterable[Path]) -> tuple[Finding] | tuple[()]:
    """Folders with pictures within class folders: they may have been meant as classes."""
    deeper = Counter(path.parent.relative_to(root) for path in pictures if path.parent not in class_folders)
    said = [f"{folder}: {count}" for folder, count in sorted(deeper.items()) if not folder.name.startswith(".")]
    what = "folders within a class folder, whose pictures are read as that class; move them up if they are classes"
    return finding("nested", "note", what, said)


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A labelled picture and the part that it is in: train, val, or all of a data set without parts."""

    part: str
    sample: Sample | BoxSample

    @property
    def path(self) -> Path:
        """The picture's file."""
        return self.sample.path

    @property
    def class_ids(self) -> list[int]:
        """The class of the picture, or of each of its boxes that counts."""
        if isinstance(self.sample, Sample):
            return [self.sample.class_id]
        return [int(class_id) for class_id in self.sample.class_ids[~self.sample.ignored]]

    def name(self, folder: Path) -> str:
        """The picture's path below the data set's folder."""
        return os.path.relpath(self.path, folder)
