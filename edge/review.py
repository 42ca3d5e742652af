"""What a person decided about suggested labels: `review.csv`, as a spreadsheet saves it, in the folder it is about.

Columns, in any order: `picture`, `decision` and `label`, for a detector `object`, too; others are for the person. A row without
a decision accepts what was suggested, as a missing row does.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edge.card import Label
from edge.datasets import label_index, name_key
from edge.errors import DataError

REVIEW = "review.csv"
DECISIONS = ("accept", "correct", "drop")
PICTURE_NAME = re.compile(r"[0-9a-f]{32}\.(jpg|png)")
DELIMITERS = ",;\t"
"""What spreadsheets put between cells, by their country."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row's decision, the label as it is written there, and where that is, for an error."""

    decision: str
    label: str
    where: str


Verdicts: TypeAlias = Mapping[int | None, Verdict]
"""Those about one picture: number of the object from 1, None for all of the picture → verdict."""
Review: TypeAlias = Mapping[str, Verdicts]
"""Picture's file name → verdicts."""


def read_review(folder: Path) -> Review:
    """The rows of the folder's review.csv that say something; none without one. Raises DataError naming file and line."""
    path = folder / REVIEW
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as CSV UTF-8") from None
    found: dict[str, dict[int | None, Verdict]] = {}
    for where, row in _rows(path, text):
        verdict, about = _verdict(row, where), found.setdefault(_picture(row, where), {})
        before = about.get(number := _object(row, where))
        if before is not None:
            raise DataError(f"{where}: decided on before, in {before.where.rpartition(', ')[2]}; keep one of the two rows")
        if verdict.decision:
            about[number] = verdict
    return found


def finder(known: Sequence[Label], seen: Sequence[Label]) -> Callable[[Verdict], Label]:
    """What finds the label that a verdict names, by id or name, first among those wanted, then among those seen.

    It raises DataError for one that is neither.
    """
    places = [(label_index(labels), labels) for labels in (known, seen)]

    def find(verdict: Verdict) -> Label:
        for index, labels in places:
            if name_key(verdict.label) in index:
                return labels[index[name_key(verdict.label)]]
        like = ", ".join(label.name for label in (*known, *seen)[:3])
        raise DataError(
            f"{verdict.where}: label {verdict.label!r} is no label's id, nor the name of just one; write one, like {like}"
        )

    return find


def _rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where a row stands and its cells by column, without those of empty rows."""
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if columns is None:
                columns = [cell.strip().casefold() for cell in cells]
                lacking = [name for name in ("picture", "decision") if name not in columns]
                if lacking:
                    raise DataError(f"{where}: has no column {lacking[0]!r}; keep the first row of python -m cloud.kept review")
            elif any(cell.strip() for cell in cells):
                yield where, dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}; save it as CSV UTF-8 again") from None
    if columns is None:
        raise DataError(f"{path}: is empty; remove it, or write it by python -m cloud.kept review")


def _picture(row: Mapping[str, str], where: str) -> str:
    name = row.get("picture", "")
    if not PICTURE_NAME.fullmatch(name):
        raise DataError(f"{where}: picture {name[:80]!r} is no kept picture's file name; correct or remove the row")
    return name


def _object(row: Mapping[str, str], where: str) -> int | None:
    text = row.get("object", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text)):
        raise DataError(f"{where}: object {text[:40]!r}, expected its number from 1, or nothing for the whole picture")
    return int(text)


def _verdict(row: Mapping[str, str], where: str) -> Verdict:
    decision, label = row.get("decision", "").casefold(), row.get("label", "")
    if decision not in ("", *DECISIONS):
        raise DataError(f"{where}: decision {decision[:40]!r}, expected {', '.join(DECISIONS)} or nothing; correct it")
    if decision == "correct" and not label:
        raise DataError(f"{where}: correct without a label; write the right one under label")
    if decision in ("", "accept") and label:
        raise DataError(f"{where}: a label, {label[:40]!r}, without the decision correct; write that, or remove the label")
    return Verdict(decision, label, where)
