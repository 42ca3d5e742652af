"""An evaluation in sentences: how good, how sure that is, where it fails, and what makes the figures say less."""

from __future__ import annotations

from collections.abc import Iterator

from train.summary import ClassRow, Figure, Summary

FIGURE_WORDS = {
    "top1": "top-1",
    "top5": "top-5",
    "ap50": "AP50",
    "ap": "AP",
    "objects_precision": "precision of what is reported",
    "objects_recall": "recall of what is there",
    "macro_precision": "precision, mean of the classes",
    "macro_recall": "recall, mean of the classes",
    "macro_f1": "F1, mean of the classes",
    "largest_class": "always answering the largest class",
}
METRIC = {"classify": "top1", "detect": "ap50"}
"""Task → the figure that the page begins with and the learning curve shows."""
FEW = 20
"""Pictures, or objects, of a class below which its figures say little."""


def figure_text(name: str, value: float | None) -> str:
    """A figure as its field writes it: average precision as a fraction of three digits, the rest in percent."""
    if value is None:
        return "–"
    return f"{value:.3f}" if name in ("ap50", "ap") else f"{value:.1%}"


def interval_text(name: str, figure: Figure) -> str:
    """The 95% interval, empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure_text(name, figure.low)} to {figure_text(name, figure.high)}"


def counted(count: int, one: str, more: str = "") -> str:
    """A count and its noun."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def headline(summary: Summary) -> str:
    """The figure that counts, in a few words."""
    name = METRIC[summary.task]
    value = figure_text(name, summary.figures[name].value)
    if summary.task == "classify":
        return f"{value} of {counted(summary.images, 'picture')} are answered right."
    return f"AP50 is {value} on {counted(summary.images, 'picture')}."


def sentences(summary: Summary) -> Iterator[str]:
    """What to know before believing the headline."""
    if summary.facts.chose:
        yield (
            f"The {summary.facts.part} pictures also chose the epoch, or the settings, so these figures are too good by an "
            "unknown amount; pictures that training never saw judge better."
        )
    yield from (_of_pictures if summary.task == "classify" else _of_boxes)(summary)
    yield from _of_classes(summary)
    yield from _of_confidence(summary)
    left_out = len(summary.facts.skipped)
    if left_out:
        yield f"{counted(left_out, 'picture')} could not be used and {'is' if left_out == 1 else 'are'} left out."


def _of_pictures(summary: Summary) -> Iterator[str]:
    interval = interval_text("top1", summary.figures["top1"])
    yield f"With so many pictures, the share of all pictures like them lies from {interval} (95% interval)."
    most = max(summary.classes, key=lambda row: row.support)
    share = figure_text("top1", summary.figures["largest_class"].value)
    alone = sum(row.support == most.support for row in summary.classes) == 1
    which = f"{most.name}, the largest class," if alone else "one and the same class"
    yield f"Always answering {which} would be right for {share}."


def _of_boxes(summary: Summary) -> Iterator[str]:
    interval = interval_text("ap50", summary.figures["ap50"])
    yield f"AP50 of all pictures like them lies from {interval} (95% interval, by drawing them again)."
    precision, recall = (summary.figures[f"objects_{name}"].value for name in ("precision", "recall"))
    yield (
        f"Reporting from a score of {summary.score_threshold:g}, {precision:.1%} of what it reports is there, and it reports "
        f"{recall:.1%} of what is there."
    )


def ranked(summary: Summary) -> list[ClassRow]:
    """The classes, the least found first; those of which there is none come last."""
    worst = {"classify": "recall", "detect": "ap50"}[summary.task]

    def rank(row: ClassRow) -> tuple[bool, float, int]:
        value = getattr(row, worst)
        return row.support == 0, 2.0 if value is None else value, -row.support

    return sorted(summary.classes, key=rank)


def _of_classes(summary: Summary) -> Iterator[str]:
    known = [row for row in ranked(summary) if row.support]
    of = "picture" if summary.task == "classify" else "object"
    if len(known) > 1:
        row = known[0]
        if summary.task == "detect":
            yield f"The worst class is {row.name}: AP50 {figure_text('ap50', row.ap50)}, of {counted(row.support, of)}."
        elif row.recall is not None and row.recall < 1:
            interval = f"{row.recall_low:.1%} to {row.recall_high:.1%}"
            taken = next((one for one in summary.confusions if one.truth == row.id), None)
            names = {one.id: one.name for one in summary.classes}
            most = f"; {taken.count} taken for {names[taken.answer]}" if taken else ""
            yield f"The worst class is {row.name}: {row.recall:.1%} of {counted(row.support, of)} ({interval}){most}."
    few = sum(row.support < FEW for row in known)
    if few:
        them = "it" if few == 1 else "them"
        yield f"{counted(few, 'class has', 'classes have')} fewer than {FEW} {of}s: the figures of {them} say little."


def _of_confidence(summary: Summary) -> Iterator[str]:
    diagram = summary.calibration.plain
    total = sum(diagram.count)
    if not total:
        return
    confidence, accuracy = (
        sum(value * count for value, count in zip(values, diagram.count, strict=True)) / total
        for values in (diagram.confidence, diagram.accuracy)
    )
    gap = confidence - accuracy
    how = "as sure as it should be" if abs(gap) < 0.005 else f"{abs(gap):.1%} too {'sure' if gap > 0 else 'unsure'}"
    scaled = summary.calibration.scaled
    after = f"; {scaled.ece:.3f} with a temperature fitted to other pictures" if scaled else ""
    error = f"calibration error {diagram.ece:.3f}{after}"
    yield f"It says {confidence:.1%} on average and is right {accuracy:.1%} of the time: {how} ({error})."
