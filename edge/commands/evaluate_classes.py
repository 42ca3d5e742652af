"""What edge-eval says of each class: figures for its JSON, and the worst ones for its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.card import Label
from edge.classification_metrics import (
    ClassCounts,
    class_counts,
    class_rows,
    confusion_matrix,
    confusions,
    rounded_macro,
    wilson_interval,
)
from edge.evaluate import DetectionReport, Report
from edge.types import Float64

WORST = 5
"""Classes that the table shows of each variant unless all are asked for."""
LONGEST_NAME = 24


def class_figures(report: Report | DetectionReport, labels: Sequence[Label], confusion: bool) -> dict[str, Any]:
    """What the JSON has of each class that occurs, and of all together; with `confusion` the square of a classifier's."""
    counts = class_counts(report.tally, len(labels))
    macro = rounded_macro(counts)
    if isinstance(report, DetectionReport):
        return {"macro": macro, "classes": class_rows(counts, labels, {"ap50": by_class(report.class_ap50, len(labels))})}
    interval = wilson_interval(int(report.tally.right.sum()), report.images)
    figures: dict[str, Any] = {"top1_interval": [round(end, 6) for end in interval], "macro": macro}
    figures["classes"] = class_rows(counts, labels)
    if confusion:
        square = confusion_matrix(report.tally.truth, report.tally.answers, len(labels))
        figures["confusion"] = square[np.ix_(counts.occurring, counts.occurring)].tolist()
    return figures


def by_class(values: dict[int, float], classes: int) -> Float64:
    """Values by class id as an array [classes], not a number where there is none."""
    return np.array([values.get(index, np.nan) for index in range(classes)])


def class_table(report: Report | DetectionReport, labels: Sequence[Label], everything: bool) -> list[str]:
    """The classes in lines, the least found first; no line where there are only two and not everything is asked for."""
    counts = class_counts(report.tally, len(labels))
    worst = counts.worst()
    if not everything and len(worst) <= 2:
        return []
    shown = np.concatenate((worst, np.setdiff1d(counts.occurring, worst))) if everything else worst[:WORST]
    title = f"the worst {len(shown)} of {len(worst)} classes" if len(shown) < len(worst) else f"all {len(shown)} classes"
    columns = {"recall": counts.recall, "prec.": counts.precision}
    taken_for: dict[int, tuple[int, int]] = {}
    if isinstance(report, DetectionReport):
        title += " by recall, at the score threshold of the card"
        columns["AP50"] = by_class(report.class_ap50, len(labels))
    else:
        title += " by recall"
        taken_for = _taken_for(report)
    lines = [f"{title}:", f"{'class':<{LONGEST_NAME}} " + " ".join(f"{head:>7}" for head in (*columns, "count"))]
    for index in shown.tolist():
        line = _class_line(labels[index].name, [float(column[index]) for column in columns.values()], counts, index)
        if index in taken_for:
            answer, count = taken_for[index]
            line += f"  {count} taken for {_short(labels[answer].name)}"
        lines.append(line)
    return lines


def _class_line(name: str, shares: Sequence[float], counts: ClassCounts, index: int) -> str:
    cells = " ".join(f"{'-':>7}" if np.isnan(share) else f"{share:>7.1%}" for share in shares)
    return f"{_short(name):<{LONGEST_NAME}} {cells} {counts.support[index]:>7}"


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def _taken_for(report: Report) -> dict[int, tuple[int, int]]:
    """Class → what it was most often taken for, and how often."""
    found: dict[int, tuple[int, int]] = {}
    for truth, answer, count in confusions(report.tally.truth, report.tally.answers):
        found.setdefault(truth, (answer, count))
    return found
