"""Suggested labels as a table for a person: one CSV row a picture, and of a detector one more for each object."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edge.boxes import box_iou
from edge.datasets import label_index, name_key
from edge.errors import UsageError
from edge.events import ObjectRecord, ResultRecord
from edge.kept import LARGEST, Example, answered, of_one_model, records, seen_labels
from edge.review import Verdict, Verdicts, read_review

COLUMNS = {
    "classify": ("picture", "suggested", "local", "confidence", "disagreement", "decision", "label"),
    "detect": ("picture", "object", "suggested", "local", "confidence", "disagreement", "box", "decision", "label"),
}
IOU = 0.5
"""A local object that overlaps an answered one by as much is an opinion about it."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute: names come from whoever was let in to ask."""
UNDECIDED = Verdict("", "", "")


def write_review(folder: Path, out: Path, model: str | None, say: Callable[[str], None]) -> int:
    """Write the table to `out`, with what the folder's review.csv says already; how many pictures it has.

    Raises UsageError for an `out` that is there or cannot be written, and DataError.
    """
    examples = of_one_model(folder, records(folder, say), model)
    review, task = read_review(folder), examples[0][1].task
    named = _namer([example for _, example in examples])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS[task], restval="", extrasaction="ignore")
    writer.writeheader()
    for path, example in examples:
        for row in _rows(path.name, example, named, review.get(path.name, {})):
            writer.writerow({column: _harmless(str(value)) for column, value in row.items()})
    try:
        with open(out, "x", encoding="utf-8-sig", newline="") as file:  # a spreadsheet takes other UTF-8 for something else
            file.write(text.getvalue())
    except FileExistsError:
        raise UsageError(f"--out {out}: is there already; give a new name, what {folder} has decided is taken over") from None
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}; give another file") from None
    return len(examples)


def _rows(name: str, example: Example, named: Callable[[str], str], verdicts: Verdicts) -> Iterator[dict[str, object]]:
    names = [named(label_id) for label_id in example.label_ids]
    shown = names[0] if example.task == "classify" else _counted(names)
    whole = {"suggested": shown, "local": _local(example.local), "confidence": f"{example.confidence:.3f}"}
    known = {} if example.local is None else {"disagreement": f"{example.disagreement:.3f}"}
    yield {"picture": name, **whole, **known, **_decided(verdicts.get(None, UNDECIDED))}
    if example.task == "classify":
        return
    items = [item for _, item in answered(example) if isinstance(item, ObjectRecord)]
    for number, (item, local) in enumerate(zip(items, _locals(items, example.local), strict=True), start=1):
        box = " ".join(f"{edge:.0f}" for edge in item.box_xyxy)
        about = {"suggested": names[number - 1], "local": local, "confidence": f"{item.score:.3f}", "box": box}
        yield {"picture": name, "object": number, **about, **_decided(verdicts.get(number, UNDECIDED))}


def _namer(examples: Sequence[Example]) -> Callable[[str], str]:
    """What a label of an id is called in the table, and may be called by the person: its name unless others have it, too."""
    labels = seen_labels(examples)
    index = label_index(labels)
    names = {label.id: label.name for place, label in enumerate(labels) if index.get(name_key(label.name)) == place}
    return lambda label_id: names.get(label_id, label_id)


def _decided(verdict: Verdict) -> dict[str, object]:
    return {"decision": verdict.decision, "label": verdict.label}


def _local(opinion: ResultRecord | None) -> str:
    if opinion is None:
        return ""
    if isinstance(opinion.classes, list):
        return opinion.classes[0].label if opinion.classes else ""
    return _counted([item.label for item in opinion.objects]) if isinstance(opinion.objects, list) else ""


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).items()) or "nothing"


def _locals(items: Sequence[ObjectRecord], opinion: ResultRecord | None) -> list[str]:
    """What the device called each of the answer's objects; empty for what it did not see."""
    theirs = opinion.objects if opinion is not None and isinstance(opinion.objects, list) else []
    if not theirs or not items:
        return [""] * len(items)
    ours_xyxy, theirs_xyxy = (np.array([item.box_xyxy for item in some]).clip(0, LARGEST) for some in (items, theirs))
    overlaps = box_iou(ours_xyxy.astype(np.float32), theirs_xyxy.astype(np.float32))
    return [theirs[int(row.argmax())].label if row.max() >= IOU else "" for row in overlaps]


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
