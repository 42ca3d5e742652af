"""What is wrong with a data set, in the order in which it hurts: found by reading all of it, nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.boxes_data import BoxSample, labelled_boxes
from edge.card import Label
from edge.datasets import PICTURES, Sample, class_folders, class_names, has_parts, part_folder
from edge.errors import DataError
from edge.kept import is_kept
from edge.layouts import PARTS, Task, labels_of, task_of
from edge.lists import place_of
from train.check_boxes import BoxNotes, box_findings, same_labels
from train.check_findings import Finding, Item, Severity, finding, nested
from train.duplicates import Near, exact_groups, groups, in_threads
from train.picture_facts import ODD, Facts, read_facts

LARGEST_CLASS = 10_000
"""Class numbers of YOLO labels without names are below it."""
FEW = 10
"""Pictures of a class, or boxes, below which it can hardly be learnt."""
IMBALANCE = {"warning": 10.0, "note": 3.0}
"""The most frequent class against the rarest, from which it is a warning or a note."""
SMALL = 32
"""Pixels of the shorter side below which a picture shows little."""
LONG = 4.0
"""Longer side against the shorter, from which a model's near-square input sees little of it."""
SMALL_WORDS, LONG_WORDS = f"smaller than {SMALL} pixels", f"more than {LONG:g} times as long as wide"
ONE_SIZE = 0.9
"""Share of pictures of one size from which the others are worth a look."""


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A data set's figures and findings; `dropped` says why a cleaned list leaves a picture out, `kept` what it holds.

    `counts` is pictures of each part, `classes` pictures, or boxes, of each class in each part. Of shards nothing is kept
    or dropped.
    """

    data: Path | str
    task: Task
    counts: dict[str, int]
    classes: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    kept: tuple[Path, ...] = ()
    dropped: dict[Path, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def count(self, severity: Severity) -> int:
        """How many findings of a severity there are."""
        return sum(item.severity == severity for item in self.findings)


def check(
    data: Path, labels: Sequence[Label] | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Check:
    """Read every picture and label of a data set and judge them; `progress` is told pictures done and in all.

    Raises DataError for what is no data set.
    """
    task = task_of(data)
    remarks: list[str] = []
    if labels is None:
        labels = _labels(data, remarks)
    notes = BoxNotes()
    parts = _boxes(data, labels, notes) if task == "detect" else _classes(data, labels)
    items = [Item(part, sample) for part, samples in parts.items() for sample in samples]
    facts = []
    for done, read in enumerate(in_threads(lambda item: read_facts(item.path), items), start=1):
        facts.append(read)
        progress(done, len(items))
    judged = _Judged(data, tuple(items), tuple(facts))
    found = [*_unreadable(judged), *_duplicates(judged), *_sizes(judged), *_oddities(judged), *_strangers(data, task)]
    if task == "detect":
        found += box_findings(data, notes, items, facts)
    keys = class_keys(labels)
    counted = {key: dict.fromkeys(parts, 0) for key in keys}
    for item in items:
        for class_id in item.class_ids:
            counted[keys[class_id]][item.part] += 1
    found += balance(counted, tuple(parts), task)
    dropped = _to_drop(judged, found, remarks)
    return Check(
        data,
        task,
        {part: len(samples) for part, samples in parts.items()},
        counted,
        by_severity(found),
        tuple(item.path for item in items if item.path not in dropped),
        dropped,
        tuple(remarks),
    )


def class_keys(labels: Sequence[Label]) -> list[str]:
    """What each class is called: its name, or its id where another has the same."""
    names = Counter(label.name for label in labels)
    return [label.name if names[label.name] == 1 else label.id for label in labels]


def by_severity(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in the order in which they hurt."""
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda item: order[item.severity]))


class _Judged:
    """All pictures with their facts, and which of them are copies of each other: `exact` groups and `near` pairs."""

    def __init__(self, data: Path, items: tuple[Item, ...], facts: tuple[Facts, ...]) -> None:
        self.items, self.facts = items, facts
        self.exact = exact_groups([read.key or str(item.path).encode() for read, item in zip(facts, items, strict=True)])
        self.prints = Near([read.print for read in facts])
        self.near = self.prints.pairs(self.exact)
        self._folder = place_of(data).folder

    def name(self, place: int) -> str:
        """A picture as findings name it: below the data set's folder."""
        return self.items[place].name(self._folder)


def _labels(data: Path, remarks: list[str]) -> tuple[Label, ...]:
    """The data set's own classes; numbers, up to the largest used, for YOLO's without names."""
    try:
        return labels_of(data)
    except DataError as error:
        if task_of(data) != "detect" or "have numbers and no names" not in str(error):
            raise
        remarks.append(f"{error}; checked by number")
        notes = BoxNotes()
        labels = tuple(Label(id=str(number), name=str(number)) for number in range(LARGEST_CLASS))
        for part in PARTS:
            labelled_boxes(data, labels, part, notes)  # type: ignore[arg-type]
        largest = max((number for _, _, class_ids in notes.written for number in class_ids), default=0)
        return labels[: largest + 1]


def _classes(data: Path, labels: Sequence[Label]) -> dict[str, list[Sample]]:
    if not has_parts(data):
        return {"all": class_folders(data, labels)}
    return {part: class_folders(part_folder(data, part), labels) for part in PARTS}


def _boxes(data: Path, labels: Sequence[Label], notes: BoxNotes) -> dict[str, list[BoxSample]]:
    train, val = labelled_boxes(data, labels, "train", notes), labelled_boxes(data, labels, "val", notes)
    if {sample.path for sample in train}.isdisjoint(sample.path for sample in val):
        return {"train": train, "val": val}
    notes.clear()
    return {"all": labelled_boxes(data, labels, None, notes)}


def _unreadable(judged: _Judged) -> Sequence[Finding]:
    places = [place for place, facts in enumerate(judged.facts) if facts.problem]
    said = [f"{judged.name(place)}: {judged.facts[place].problem}" for place in places]
    return finding("unreadable", "error", "cannot be read", said, [judged.items[place].path for place in places])


def _duplicates(judged: _Judged) -> list[Finding]:
    """Exact and near copies: within a part, across parts, and with other labels."""
    items, name = judged.items, judged.name
    within, across, torn = [], [], []
    for group in judged.exact:
        said = " = ".join(name(place) for place in group)
        if not all(same_labels(items[group[0]].sample, items[place].sample) for place in group[1:]):
            torn.append(said)
        elif len({items[place].part for place in group}) > 1:
            across.append(said)
        else:
            within.append(said)
    near_within, near_across, near_torn = [], [], []
    for a, b in judged.near:
        said = f"{name(a)} ~ {name(b)}"
        if items[a].part != items[b].part:
            near_across.append(said)
        elif not same_labels(items[a].sample, items[b].sample, boxes=False):
            near_torn.append(said)
        else:
            near_within.append(said)
    return [
        *finding("two-labels", "error", "the same picture with different labels", torn),
        *finding("leak", "error", "the same picture in train and in val", across),
        *finding("near-leak", "warning", "nearly the same picture in train and in val", near_across),
        *finding("duplicate", "warning", "the same picture more than once", within),
        *finding("near-two-labels", "warning", "nearly the same picture in two classes", near_torn),
        *finding("near-duplicate", "note", "nearly the same picture more than once", near_within),
    ]


def _sizes(judged: _Judged) -> list[Finding]:
    sizes = {place: facts.size_wh for place, facts in enumerate(judged.facts) if not facts.problem}
    small = sorted((min(size), place) for place, size in sizes.items() if min(size) < SMALL)
    long = sorted(((max(size) / min(size), place) for place, size in sizes.items()), reverse=True)
    long = [(aspect, place) for aspect, place in long if aspect >= LONG]
    [(usual, count)] = Counter(sizes.values()).most_common(1) or [((0, 0), 0)]
    others = [place for place, size in sizes.items() if size != usual] if count >= ONE_SIZE * len(sizes) else []

    def said(places: Iterable[int]) -> list[str]:
        return [f"{judged.name(place)}: {sizes[place][0]} x {sizes[place][1]}" for place in places]

    return [
        *finding("small", "warning", SMALL_WORDS, said(place for _, place in small)),
        *finding("long", "note", LONG_WORDS, said(place for _, place in long)),
        *finding("size", "note", f"of another size than the usual {usual[0]} x {usual[1]}", said(others)),
    ]


def _oddities(judged: _Judged) -> list[Finding]:
    found: list[Finding] = []
    for kind, what in ODD.items():
        odd = [(judged.name(place), facts) for place, facts in enumerate(judged.facts) if kind in facts.odd]
        said = [f"{name}: a {facts.format.upper()}" if kind == "name" else name for name, facts in odd]
        found += finding(kind, severity_of(kind), what, said)
    return found


def severity_of(odd: str) -> Literal["warning", "note"]:
    """How much a kind of oddity matters."""
    return "warning" if odd in ("grey", "animated", "cmyk") else "note"


def _strangers(data: Path, task: Task) -> list[Finding]:
    """What lies in a folder and is not read: links to nothing, and among class folders loose pictures and other files."""
    root = place_of(data).folder
    if place_of(data).kept is not None:
        return []
    roots = [part_folder(root, part) for part in PARTS] if has_parts(data) else [root]
    folders = [place / name for place in roots for name in class_names(place)]
    inside = sorted({path for folder in folders for path in folder.rglob("*")})
    beside = sorted({path for place in (root, *roots) for path in place.iterdir()})

    def named(paths: Iterable[Path]) -> list[str]:
        return [str(path.relative_to(root)) for path in paths]

    dangling = [path for path in sorted({*inside, *beside}) if path.is_symlink() and not path.exists()]
    found = [*finding("dangling", "warning", "links to what is not there", named(dangling))]
    if task == "detect" or is_kept(root):
        return found
    files = [path for path in inside if path.is_file()]
    others = [path for path in files if not _is_picture(path)]
    pictures = set(files).difference(others)
    filled = {parent for path in pictures for parent in path.parents}
    return [
        *found,
        *finding(
            "loose", "warning", "pictures beside the class folders, which are not read", named(filter(_is_picture, beside))
        ),
        *finding(
            "empty-class", "warning", "class folders without a picture", named(path for path in folders if path not in filled)
        ),
        *nested(root, folders, pictures),
        *finding("not-read", "note", "files that are not read as pictures", named(others)),
    ]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith(".") and path.is_file()


def balance(counted: dict[str, dict[str, int]], parts: Sequence[str], task: Task) -> list[Finding]:
    """Classes that a part lacks, that have few examples, and how unevenly they are spread; `counted` is as a Check's."""
    found: list[Finding] = []
    what = "boxes" if task == "detect" else "pictures"
    unseen = [name for name, counts in counted.items() if not any(counts.values())]
    if task == "classify" and len(counted) - len(unseen) == 1:
        alone = [name for name in counted if name not in unseen]
        found += finding("one-class", "warning", "one class alone, where a classifier needs two at least", alone)
    found += finding("missing", "warning", f"classes without {what}", unseen)
    for part in parts:
        severity: Severity = "warning" if part == "val" else "error"
        missing = [name for name, counts in counted.items() if not counts[part] and name not in unseen]
        found += finding(f"missing-{part}", severity, f"classes without {what}" + _in(part), missing)
    first = parts[0]
    known = {name: counts[first] for name, counts in counted.items() if counts[first]}
    few = [f"{name}: {count}" for name, count in sorted(known.items(), key=lambda item: item[1]) if count < FEW]
    found += finding("few", "warning", f"classes with fewer than {FEW} {what}" + _in(first), few)
    if len(known) > 1:
        most, least = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
        ratio = known[most] / known[least]
        if ratio >= IMBALANCE["note"]:
            severity = "warning" if ratio >= IMBALANCE["warning"] else "note"
            said = [f"{most}: {known[most]}, {least}: {known[least]}, {ratio:.1f} times"]
            found += finding("imbalance", severity, f"classes with very different numbers of {what}" + _in(first), said)
    return found


def _in(part: str) -> str:
    return "" if part == "all" else f" in {part}"


def _to_drop(judged: _Judged, found: Sequence[Finding], remarks: list[str]) -> dict[Path, str]:
    """Which pictures a cleaned list leaves out, and why."""
    items, dropped = judged.items, dict[Path, str]()
    for item in found:
        for path in item.paths:
            dropped.setdefault(path, item.what)
    for group in judged.exact:
        left = [place for place in group if items[place].path not in dropped]
        first = min(left, key=lambda place: (items[place].part != "val", place), default=None)
        if first is None:
            continue
        torn = any(not same_labels(items[first].sample, items[place].sample) for place in left)
        for place in left:
            if torn and isinstance(items[first].sample, Sample):
                dropped[items[place].path] = "the same picture is there with different labels, of which one is wrong"
            elif items[place].path != items[first].path:  # two label files may speak of one picture
                dropped[items[place].path] = f"the same picture as {judged.name(first)}"
    leaks = _near_leaks(judged, dropped)
    train = sum(item.part == "train" and item.path not in dropped for item in items)
    if 2 * len(leaks) > train:
        camera = " (a fixed camera?)" if len(leaks) >= FEW else ""
        remarks.append(
            f"{len(leaks)} of {train} train pictures are nearly the same as one in val{camera} and are kept in the list; take "
            f"{'train and val apart in time' if camera else 'other pictures for val'}, or figures will flatter"
        )
        return dropped
    return dropped | leaks


def _near_leaks(judged: _Judged, dropped: dict[Path, str]) -> dict[Path, str]:
    items = judged.items
    exact = [(group[0], other) for group in judged.exact for other in group[1:]]
    leaks: dict[Path, str] = {}
    for group in groups(len(items), [*exact, *judged.near]):
        val = [place for place in group if items[place].part == "val" and items[place].path not in dropped]
        for place in group if val else ():
            if items[place].part == "train" and items[place].path not in dropped:
                close = judged.prints.near(place, val)
                if close:
                    leaks[items[place].path] = f"nearly the same picture as {judged.name(close[0])}"
    return leaks
