"""The report's figures as inline SVG: text stays text, colours are the page's, and the same data gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from quantize.record import Candidate, Record, Reliability
from quantize.table import ascii_line, drop_points, instruction_ratios, metric_text, metric_word
from train.svg import GOOD, INK, MUTED, SERIES, Panel, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SYMBOLS = (("o", "●"), ("s", "■"), ("D", "◆"), ("^", "▲"), ("P", "✚"), ("X", "✖"))
"""matplotlib's marker of a target, and the character of the legend: a target is told by its shape, not by colour alone."""

LOWEST_DROP_POINTS = 5.0
"""The frame goes down to four times the gate, or this far, where something lies there; what is below is drawn at its edge."""
SLOWEST = 2.0
"""The frame ends at twice float32's time at most; what is slower is drawn at its edge."""
FEW = 10
"""Answers in a bin below which its accuracy says little: drawn hollow."""


def targets(record: Record) -> list[str]:
    """The targets in the order of their colours."""
    return list(dict.fromkeys(candidate.target for candidate in record.candidates))


def scatters(record: Record) -> list[Panel]:
    """Accuracy against cost relative to float32, a panel for the time here and one for each CPU's instructions.

    Panels without a candidate whose accuracy and cost are both known are left out.
    """
    cpus = dict.fromkeys(cpu for candidate in record.candidates for cpu in candidate.instructions)
    panels: list[tuple[str, str, Callable[[Candidate], float | None]]] = [
        ("time of one inference here", "time", _relative_time),
        *((f"instructions of one inference on {cpu}", "instructions", _relative_instructions(record, cpu)) for cpu in cpus),
    ]
    return [panel for index, words in enumerate(panels) if (panel := _scatter(record, index, *words)) is not None]


def _relative_time(candidate: Candidate) -> float | None:
    return 1 / candidate.speedup if candidate.speedup else None


def _relative_instructions(record: Record, cpu: str) -> Callable[[Candidate], float | None]:
    return lambda candidate: instruction_ratios(record, candidate.instructions).get(cpu)


def _scatter(record: Record, index: int, title: str, unit: str, cost_of: Callable[[Candidate], float | None]) -> Panel | None:
    points = [
        (candidate, cost, candidate.metric)
        for candidate in record.candidates
        if candidate.metric is not None and (cost := cost_of(candidate)) is not None
    ]
    if not points:
        return None
    reference = record.float32_choice.get(record.metric_name)
    scale = 100.0 if record.metric_name.startswith("top") else 1.0
    order = {target: position for position, target in enumerate(targets(record))}
    titles: dict[str, str] = {}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _frame(axes, record, [cost for _, cost, _ in points], [metric * scale for _, _, metric in points], scale)
        low, right = axes.get_ylim()[0], axes.get_xlim()[1]
        for number, (candidate, cost, metric) in enumerate(points):
            x, y = min(cost, right), max(metric * scale, low)
            position = order[candidate.target] % len(SYMBOLS)
            marker, color = SYMBOLS[position][0], SERIES[position]
            if y > metric * scale or x < cost:
                marker = "v" if y > metric * scale else ">"
            face = "none" if candidate.refused else color
            style: dict[str, Any] = {"marker": marker, "markeredgecolor": color, "markerfacecolor": face, "linestyle": "none"}
            gid = f"dot-{number}"
            axes.plot([x], [y], markersize=6, alpha=0.85, zorder=3, clip_on=False, gid=gid, **style)
            titles[gid] = describe(record, candidate)
            if candidate.chosen:
                ring: dict[str, Any] = {"marker": "o", "markeredgecolor": INK, "markerfacecolor": "none", "linestyle": "none"}
                axes.plot([x], [y], markersize=13, markeredgewidth=1.6, zorder=4, clip_on=False, **ring)
        if reference is not None:
            axes.plot(
                [1], [reference * scale], marker="+", color=INK, markersize=12, markeredgewidth=1.8, gid="float32", zorder=5
            )
            titles["float32"] = f"float32: {metric_word(record.metric_name)} {metric_text(record.metric_name, reference)}"
            axes.annotate("float32", (1, reference * scale), (0, 7), textcoords="offset points", ha="center")
        axes.set_xlabel(f"{unit}, float32 = 1 (left is faster)")
        axes.set_ylabel(ascii_line(metric_word(record.metric_name), 40) + (" (%)" if scale > 1 else ""))

    chosen = [describe(record, candidate) for candidate, _, _ in points if candidate.chosen]
    alt = f"Scatter of {len(points)} candidates, {metric_word(record.metric_name)} against {title}. "
    alt += f"Chosen: {'; '.join(chosen)}." if chosen else "None of them was chosen."
    return Panel(title, alt, inline_svg(draw, (4.7, 3.5), f"scatter-{index}", titles))


def _frame(axes: Axes, record: Record, costs: Sequence[float], metrics: Sequence[float], scale: float) -> None:
    """Limits that show what competes, and the gates as lines: the corner that passes both is tinted."""
    reference = record.float32_choice.get(record.metric_name)
    drop, speedup = record.gates.get("max_drop_points"), record.gates.get("min_speedup")
    low, high = min(metrics), max(metrics)
    if reference is not None:
        lowest = (reference - max(LOWEST_DROP_POINTS, 4 * (drop or 0)) / 100) * scale
        low = min([reference * scale, *(metric for metric in metrics if metric >= lowest)])
        high = max(high, reference * scale)
    margin = max(0.12 * (high - low), 0.002 * scale)
    axes.set_ylim(low - margin, high + 2 * margin)
    left, right = min([*costs, 1.0]), max([1.0, *(cost for cost in costs if cost <= SLOWEST)])
    axes.set_xlim(max(0.0, left - 0.1), right + 0.1)
    floor = None if drop is None or reference is None else (reference - drop / 100) * scale
    line: dict[str, Any] = {"color": GOOD, "linestyle": "--", "linewidth": 1.1, "zorder": 1}
    if floor is not None and axes.get_ylim()[0] <= floor <= axes.get_ylim()[1]:  # words outside the frame would squeeze it
        axes.axhline(floor, **line)
        axes.annotate(
            f"gate: {drop:g} points", (1, floor), (0, -2), ("axes fraction", "data"), "offset points", ha="right", va="top"
        )
    if speedup and axes.get_xlim()[0] <= 1 / speedup <= axes.get_xlim()[1]:
        axes.axvline(1 / speedup, **line)
        across: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "bottom"}
        axes.annotate(f"gate: {speedup:g}x", (1 / speedup, 0.02), (-2, 0), ("data", "axes fraction"), "offset points", **across)
    if floor is not None and speedup:
        axes.axvspan(0, 1 / speedup, _share(axes, floor), 1, color=GOOD, alpha=0.08, linewidth=0, zorder=0)


def _share(axes: Axes, value: float) -> float:
    low, high = axes.get_ylim()
    return min(max((value - low) / (high - low), 0.0), 1.0)


def describe(record: Record, candidate: Candidate) -> str:
    """One line about a candidate: what it is, what it reaches and why it was refused."""
    parts = []
    if candidate.metric is not None:
        parts.append(f"{metric_word(record.metric_name)} {metric_text(record.metric_name, candidate.metric)}")
    drop = drop_points(record.float32_choice.get(record.metric_name), candidate.metric)
    if drop is not None:
        parts.append(f"{abs(drop):.2f} points {'above' if drop < 0 else 'below'} float32")
    if candidate.speedup is not None:
        parts.append(f"{candidate.speedup:.2f} times its speed")
    ratios = instruction_ratios(record, candidate.instructions)
    parts += [f"{ratio:.2f} of its instructions on {cpu}" for cpu, ratio in ratios.items()]
    if candidate.refused:
        parts.append(f"refused: {candidate.refused}")
    return f"{candidate.id} ({candidate.target}): {', '.join(parts) or 'not measured'}"


def reliability(diagram: Reliability, index: int) -> Panel:
    """Accuracy against confidence by bin over the diagonal of perfect calibration, and how many answers each bin has."""
    bins = [
        (confidence, accuracy, count)
        for confidence, accuracy, count in zip(diagram.confidence, diagram.accuracy, diagram.count, strict=True)
        if count > 0
    ]
    titles: dict[str, str] = {}

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
        upper.plot([confidence for confidence, *_ in bins], [accuracy for _, accuracy, _ in bins], color=SERIES[0], linewidth=1)
        for number, (confidence, accuracy, count) in enumerate(bins):
            face = "none" if count < FEW else SERIES[0]
            style: dict[str, Any] = {
                "marker": "o",
                "markeredgecolor": SERIES[0],
                "markerfacecolor": face,
                "clip_on": False,
                "zorder": 3,
            }
            upper.plot([confidence], [accuracy], markersize=5, gid=f"bin-{number}", **style)
            titles[f"bin-{number}"] = f"confidence {confidence:.2f}, accuracy {accuracy:.2f}, {count} answers"
        width = 1 / max(len(diagram.count), 1)
        lower.bar([(place + 0.5) * width for place in range(len(diagram.count))], diagram.count, 0.9 * width, color=SERIES[0])
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        lower.set(xlabel="confidence", ylabel="answers")
        lower.locator_params(axis="y", nbins=2, integer=True)

    total = sum(diagram.count)
    alt = f"Reliability diagram of {diagram.variant}: calibration error {diagram.ece:.3f} over {total} answers."
    return Panel(diagram.variant, alt, inline_svg(draw, (2.7, 3.0), f"reliability-{index}", titles))
