"""The evaluation's figures: learning curves, reliability, and what a detector's score threshold trades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from train.summary import ClassRow, Diagram, Epoch, Summary
from train.svg import GOOD, INK, MUTED, SERIES, Panel, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 10
"""Answers in a bin below which its accuracy says little: drawn hollow."""
MOST_DOTS = 40
"""Epochs up to which each has a dot."""


def learning_curves(history: Sequence[Epoch], metric: str) -> list[Panel]:
    """Loss, metric and learning rate by epoch; a panel of which nothing was noted, or only one row, is left out."""
    panels = []
    for index, (name, title) in enumerate((("loss", "training loss"), ("metric", metric), ("rate", "learning rate"))):
        points = [(row.epoch, value) for row in history if (value := getattr(row, name)) is not None]
        if len(points) > 1:
            panels.append(_curve(points, title, index, best=name == "metric"))
    return panels


def _curve(points: Sequence[tuple[int, float]], title: str, index: int, best: bool) -> Panel:
    highest = max(points, key=lambda point: point[1])
    titles = {f"row-{number}": f"epoch {epoch}: {title} {value:.4g}" for number, (epoch, value) in enumerate(points)}

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        color = SERIES[index]
        axes.plot([epoch for epoch, _ in points], [value for _, value in points], color=color, linewidth=1.3)
        for number, (epoch, value) in enumerate(points if len(points) <= MOST_DOTS else ()):
            _dot(axes, epoch, value, color, gid=f"row-{number}")
        if best:
            ring: dict[str, Any] = {"marker": "o", "markeredgecolor": INK, "markerfacecolor": "none", "linestyle": "none"}
            axes.plot([highest[0]], [highest[1]], markersize=10, markeredgewidth=1.4, zorder=4, clip_on=False, **ring)
        axes.set(xlabel="epoch", ylabel=title)
        axes.locator_params(axis="x", integer=True)

    first, last = points[0], points[-1]
    alt = f"{title} by epoch: from {first[1]:.4g} at epoch {first[0]} to {last[1]:.4g} at epoch {last[0]}."
    alt += f" The best, {highest[1]:.4g}, at epoch {highest[0]} has a ring." if best else ""
    return Panel(title, alt, inline_svg(draw, (3.6, 2.6), f"curve-{index}", titles))


def _dot(axes: Axes, x: float, y: float, color: str, gid: str, hollow: bool = False) -> None:
    style: dict[str, Any] = {"marker": "o", "markeredgecolor": color, "markerfacecolor": "none" if hollow else color}
    axes.plot([x], [y], markersize=4.5, linestyle="none", clip_on=False, zorder=3, gid=gid, **style)


def reliability(diagram: Diagram, title: str, index: int) -> Panel:
    """Accuracy against confidence by bin over the diagonal of perfect calibration, and how many answers each bin has."""
    bins = [
        (confidence, accuracy, count)
        for confidence, accuracy, count in zip(diagram.confidence, diagram.accuracy, diagram.count, strict=True)
        if count > 0
    ]
    titles = {
        f"bin-{number}": f"confidence {confidence:.2f}, accuracy {accuracy:.2f}, {count} answers"
        for number, (confidence, accuracy, count) in enumerate(bins)
    }

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
        upper.plot([confidence for confidence, *_ in bins], [accuracy for _, accuracy, _ in bins], color=SERIES[0], linewidth=1)
        for number, (confidence, accuracy, count) in enumerate(bins):
            _dot(upper, confidence, accuracy, SERIES[0], f"bin-{number}", hollow=count < FEW)
        width = 1 / max(len(diagram.count), 1)
        lower.bar([(place + 0.5) * width for place in range(len(diagram.count))], diagram.count, 0.9 * width, color=SERIES[0])
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        lower.set(xlabel="confidence", ylabel="answers")
        lower.locator_params(axis="y", nbins=2, integer=True)

    alt = f"Reliability diagram, {title}: calibration error {diagram.ece:.3f} over {sum(diagram.count)} answers."
    return Panel(title, alt, inline_svg(draw, (3.4, 3.2), f"reliability-{index}", titles))


def threshold_trade(summary: Summary) -> Panel | None:
    """Precision and recall by score threshold, the card's own marked; None of a classifier, or where nothing was found."""
    if not summary.curve or summary.score_threshold is None:
        return None
    threshold = summary.score_threshold
    scores, precision, recall = (list(column) for column in zip(*summary.curve, strict=True))

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.plot(scores, precision, color=SERIES[0], linewidth=1.4, label="precision")
        axes.plot(scores, recall, color=SERIES[1], linewidth=1.4, linestyle=(0, (5, 1.5)), label="recall")
        axes.axvline(threshold, color=GOOD, linestyle="--", linewidth=1.1)
        axes.annotate(
            f"reported from {threshold:g}", (threshold, 0.02), (4, 0), ("data", "axes fraction"), "offset points", va="bottom"
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score threshold", ylabel="of all objects, IoU 0.5")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=2)

    at = min(summary.curve, key=lambda point: abs(point[0] - threshold))
    alt = f"Precision and recall by score threshold; near the card's, {threshold:g}, {at[1]:.2f} and {at[2]:.2f}."
    return Panel("precision and recall by score threshold", alt, inline_svg(draw, (4.2, 3.2), "trade", {}))


def recall_spread(classes: Sequence[ClassRow]) -> Panel | None:
    """How many classes have which recall; None where none has a picture."""
    recalls = [row.recall for row in classes if row.recall is not None]
    if not recalls:
        return None
    counts = [0] * 10
    for recall in recalls:
        counts[min(int(recall * 10), 9)] += 1

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.bar([(place + 0.5) / 10 for place in range(10)], counts, 0.09, color=SERIES[0])
        axes.set(xlim=(0, 1), xlabel="recall", ylabel="classes")
        axes.locator_params(axis="y", integer=True)

    alt = f"How many of {len(recalls)} classes have a recall of 0 to 0.1, and so on up to 1: {', '.join(map(str, counts))}."
    return Panel("recall of the classes", alt, inline_svg(draw, (3.6, 2.4), "spread", {}))
