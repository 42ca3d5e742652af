"""What an endpoint kept (`edge-cloud --keep DIR`) as labelled pictures, read as it lies there.

A kept picture is `KEY.jpg` or `KEY.png` beside `KEY.json` (`Example`). Its label is the endpoint's answer, or what a person
made of it in `review.csv` (edge.review). What lies beside is not looked at, the endpoint's index neither.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample, label_index, name_key
from edge.errors import DataError, one_line
from edge.events import ClassRecord, ObjectRecord, ResultRecord
from edge.review import PICTURE_NAME, Verdict, Verdicts, finder, read_review
from edge.types import Box

INDEX = "index.sqlite"
"""The endpoint's own; a folder that has one is a kept one, be it empty."""
RECORD = re.compile(r"[0-9a-f]{32}\.json")
LARGEST = 1e6
"""Pixels from a picture's corner; no picture is as large."""
KINDS = {"classify": "a classifier", "detect": "a detector"}


class Example(msgspec.Struct):
    """One kept picture's JSON: the model's answer, the device's opinion where it told it, and how far they differ.

    `label_ids` are the card's ids of the answer's classes or objects, in their order. `disagreement` and `confidence` are
    in [0, 1]; what is not known is None. `redacted` are the classes whose objects the device greyed out before it sent it.
    """

    picture: str
    model: str
    variant: str
    task: str
    answer: ResultRecord
    label_ids: list[str]
    local: ResultRecord | None
    disagreement: float
    confidence: float
    source: str | None = None
    captured_at: str | None = None
    key: str | None = None
    redacted: list[str] = []


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture with its labels: one of a classifier; of a detector as many as `boxes_xyxy`, in pixels."""

    path: Path
    example: Example
    labels: tuple[Label, ...]
    boxes_xyxy: tuple[Box, ...] = ()


@lru_cache(256)
def warn_once(line: str) -> None:
    """Log a line as a warning, which goes to standard error unless somebody takes it; the same one only once."""
    logging.getLogger(__name__).warning("%s", one_line(line))


def is_kept(folder: Path) -> bool:
    """Whether `edge-cloud --keep` wrote into the folder."""
    try:
        names = set(os.listdir(folder))
    except OSError:
        return False
    stems = (name[:-5] for name in names if RECORD.fullmatch(name))
    return INDEX in names or any(f"{stem}.jpg" in names or f"{stem}.png" in names for stem in stems)


def kept_classes(folder: Path, labels: Sequence[Label], say: Callable[[str], None] = warn_once) -> list[Sample]:
    """A classifier's kept pictures, those first on which the opinions differ most.

    An answer matches a label by its id, else its name, case aside; pictures of other classes are left out, and counted to
    `say`, as is what cannot be read. Raises DataError when there is none, or review.csv cannot be used.
    """
    index = label_index(labels)
    samples: list[Sample] = []
    others: Counter[str] = Counter()
    for one in kept_pictures(folder, "classify", labels=labels, say=say):
        class_id = _class_id(one.labels[0], index)
        if class_id is None:
            others[one.labels[0].name] += 1
        else:
            samples.append(Sample(one.path, class_id))
    _tell_others(folder, "pictures", others, say)
    if not samples:
        raise DataError(f"{folder}: no kept picture is of one of the labels, which are like {_like(labels)}; give other data")
    return samples


def kept_boxes(folder: Path, labels: Sequence[Label], say: Callable[[str], None] = warn_once) -> list[BoxSample]:
    """A detector's kept pictures, as `kept_classes` has a classifier's; those without an object are backgrounds.

    Objects of other classes than `labels` are left out, and so are pictures in which the device had greyed out objects.
    """
    index = label_index(labels)
    samples: list[BoxSample] = []
    others: Counter[str] = Counter()
    for one in kept_pictures(folder, "detect", labels=labels, say=say):
        found = [_class_id(label, index) for label in one.labels]
        others.update(label.name for label, class_id in zip(one.labels, found, strict=True) if class_id is None)
        objects = [(box, number) for box, number in zip(one.boxes_xyxy, found, strict=True) if number is not None]
        boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
        samples.append(BoxSample(one.path, boxes, np.array([number for _, number in objects], np.int64)))
    _tell_others(folder, "objects", others, say)
    if not any(len(sample.class_ids) for sample in samples):
        raise DataError(f"{folder}: no kept picture shows one of the labels, which are like {_like(labels)}; give other data")
    return samples


def kept_labels(folder: Path, say: Callable[[str], None] = warn_once) -> tuple[Label, ...]:
    """The labels that the kept pictures have, sorted by id: what a model can learn of them. Raises DataError."""
    found = {label.id: label for one in kept_pictures(folder, say=say) for label in one.labels}
    return tuple(found[label_id] for label_id in sorted(found))


def kept_pictures(
    folder: Path,
    task: str | None = None,
    *,
    model: str | None = None,
    labels: Sequence[Label] = (),
    with_redacted: bool = False,
    say: Callable[[str], None] = warn_once,
) -> list[Kept]:
    """The pictures of the one model that was asked, or of `model`, as reviewed; most disagreement first.

    `labels` are what a corrected label may be besides those that were answered. A detector's pictures in which objects were
    greyed out are left out unless `with_redacted`. Raises DataError.
    """
    examples = of_one_model(folder, records(folder, say), model)
    found = examples[0][1].task
    if task not in (None, found):
        raise DataError(f"{folder}: holds the answers of {KINDS[found]}, this is for {KINDS[task or found]}; give other data")
    if found == "detect" and not with_redacted:
        examples = _without_redacted(folder, examples, say)
    review, find = read_review(folder), finder(labels, seen_labels(example for _, example in examples))
    judged = [_judged(path, example, review.get(path.name, {}), find) for path, example in examples]
    kept = [one for one in judged if one is not None]
    if not kept:
        raise DataError(f"{folder}: none of its {len(examples)} pictures is left after the review; keep some of them")
    return kept


def records(folder: Path, say: Callable[[str], None] = warn_once) -> list[tuple[Path, Example]]:
    """Each picture and its record: those without greyed out objects first, then by disagreement, then by doubt.

    What is not as an endpoint writes it is told to `say` and skipped. Raises DataError for a folder that cannot be read.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if RECORD.fullmatch(name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}; give the folder of edge-cloud --keep") from None
    found = [pair for name in names if (pair := _record(folder / name, say)) is not None]
    return sorted(found, key=lambda pair: (bool(pair[1].redacted), -pair[1].disagreement, pair[1].confidence))


def of_one_model(folder: Path, examples: Sequence[tuple[Path, Example]], model: str | None) -> list[tuple[Path, Example]]:
    """Those of `model`, or of the only one there is. Raises DataError that names what there is, and how to choose."""
    models = sorted({example.model for _, example in examples})
    if not models:
        raise DataError(f"{folder}: nothing was kept there; give the folder of edge-cloud --keep")
    if model is not None and model not in models:
        raise DataError(f"{folder}: no examples of such a model, {model}; there are those of {', '.join(models)}")
    if model is None and len(models) > 1:
        raise DataError(
            f"{folder}: holds examples of {', '.join(models)}; choose one by python -m cloud.kept --model NAME --out FOLDER"
        )
    return [(path, example) for path, example in examples if model in (None, example.model)]


def answered(example: Example) -> list[tuple[Label, ClassRecord | ObjectRecord]]:
    """The answer's classes or objects with their labels."""
    items: Sequence[ClassRecord | ObjectRecord] = _items(example.answer)
    return [(Label(id=key, name=item.label), item) for key, item in zip(example.label_ids, items, strict=True)]


def seen_labels(examples: Iterable[Example]) -> tuple[Label, ...]:
    """Every label that was answered, and those that only the devices named, whose id is their name."""
    ours: dict[str, Label] = {}
    theirs: dict[str, Label] = {}
    for example in examples:
        ours.update((label.id, label) for label, _ in answered(example))
        if example.local is not None:
            theirs.update((name_key(item.label), Label(id=item.label, name=item.label)) for item in _items(example.local))
    known = {name_key(text) for label in ours.values() for text in (label.id, label.name)}
    return (*ours.values(), *(label for key, label in theirs.items() if key and key not in known))


def _items(record: ResultRecord) -> Sequence[ClassRecord | ObjectRecord]:
    if isinstance(record.classes, list):
        return record.classes
    return record.objects if isinstance(record.objects, list) else ()


def _record(path: Path, say: Callable[[str], None]) -> tuple[Path, Example] | None:
    try:
        example = msgspec.json.decode(path.read_bytes(), type=Example)
    except FileNotFoundError:  # the endpoint has just let go of it
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        say(f"{path}: left out, not a record of edge-cloud: {getattr(error, 'strerror', None) or error}")
        return None
    problem = _problem(path, example)
    if problem:
        say(f"{path}: left out, {problem}")
        return None
    picture = path.with_name(example.picture)
    return (picture, example) if picture.is_file() else None


def _problem(path: Path, example: Example) -> str:
    """What of a record is not as an endpoint writes it."""
    if not PICTURE_NAME.fullmatch(example.picture) or Path(example.picture).stem != path.stem:
        return f"its picture is {example.picture[:80]!r}, not the one beside it"
    if example.task not in KINDS:
        return f"its task is {example.task[:40]!r}, not {' or '.join(KINDS)}"
    items = example.answer.classes if example.task == "classify" else example.answer.objects
    if not isinstance(items, list) or len(items) != len(example.label_ids):
        return f"{len(example.label_ids)} label_ids do not fit its answer"
    if example.task == "classify" and not items:
        return "its answer has no class"
    if any(abs(edge) > LARGEST for item in items if isinstance(item, ObjectRecord) for edge in item.box_xyxy):
        return "its boxes are of no picture"
    return ""


def _without_redacted(
    folder: Path, examples: Sequence[tuple[Path, Example]], say: Callable[[str], None]
) -> list[tuple[Path, Example]]:
    whole = [(path, example) for path, example in examples if not example.redacted]
    classes = sorted({name for _, example in examples for name in example.redacted})
    if classes:
        say(
            f"{folder}: {len(examples) - len(whole)} pictures are left out, in which the devices greyed out "
            f"{', '.join(classes)}: a detector would learn that such objects are background"
        )
    if not whole:
        raise DataError(f"{folder}: in all of its pictures objects were greyed out; collect some without edge-run --redact")
    return whole


def _judged(path: Path, example: Example, verdicts: Verdicts, find: Callable[[Verdict], Label]) -> Kept | None:
    """The picture with the labels that its verdicts leave or give it; None when it is dropped."""
    suggested = answered(example)
    count = 0 if example.task == "classify" else len(suggested)
    for number, verdict in verdicts.items():
        if number is not None and number > count:
            raise DataError(f"{verdict.where}: object {number}, the answer has {count}; correct or remove the row")
        if number is None and verdict.decision == "correct" and example.task == "detect":
            raise DataError(f"{verdict.where}: correct, for the whole picture of a detector; write it in an object's row")
    whole = verdicts.get(None)
    if whole is not None and whole.decision == "drop":
        return None
    if example.task == "classify":
        return Kept(path, example, (_label(suggested[0][0], whole, find),))
    objects = []
    for number, (label, item) in enumerate(suggested, start=1):
        assert isinstance(item, ObjectRecord)
        left, top, right, bottom = item.box_xyxy
        box = (max(left, 0.0), max(top, 0.0), right, bottom)
        decided = verdicts.get(number)
        dropped = decided is not None and decided.decision == "drop"
        if not dropped and box[0] < right and box[1] < bottom:
            objects.append((_label(label, decided, find), box))
    return Kept(path, example, tuple(label for label, _ in objects), tuple(box for _, box in objects))


def _label(suggested: Label, verdict: Verdict | None, find: Callable[[Verdict], Label]) -> Label:
    return suggested if verdict is None or verdict.decision != "correct" else find(verdict)


def _class_id(label: Label, index: dict[str, int]) -> int | None:
    return index.get(name_key(label.id), index.get(name_key(label.name)))


def _tell_others(folder: Path, what: str, others: Counter[str], say: Callable[[str], None]) -> None:
    if others:
        ((most, _),) = others.most_common(1)
        say(f"{folder}: {others.total()} {what} are of none of the labels and left out, most of them {most!r}")


def _like(labels: Sequence[Label]) -> str:
    return ", ".join(label.id for label in labels[:3])
