"""The report of an evaluation: one HTML page that needs nothing else, and beside it the same as JSON.

Names in it come from users' files, so everything is escaped, and the page's own policy lets nothing but its one script run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge.errors import UsageError
from train.evaluation import Evaluation
from train.page import SCRIPT, plain_value, printable, script_hash, write_together
from train.plots import learning_curves, recall_spread, reliability, threshold_trade
from train.summary import Confusion, Facts, Summary, summarize
from train.words import FIGURE_WORDS, METRIC, counted, figure_text, headline, interval_text, ranked, sentences

TEMPLATE = Path(__file__).with_name("report.html.j2")
SQUARE = 30
"""Classes up to which the confusions are a square; of more the most frequent ones are listed."""
LISTED = 40
SHOWN_SKIPPED = 20


def write_report(out: Path, evaluation: Evaluation, history: Iterable[Any], facts: Facts) -> Summary:
    """Write the page to `out`, which ends in .html, and the same as JSON beside it; each is whole or not there.

    The rows of `history` are train.loop.Row's, or have their names. Raises UsageError for another ending, and OSError.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: the report is a page with its JSON beside it; give a name that ends in .html")
    summary = presentable(summarize(evaluation, history, facts))
    write_together({out: render(summary).encode(), out.with_suffix(".json"): msgspec.json.encode(summary) + b"\n"})
    return summary


def presentable(summary: Summary) -> Summary:
    """The summary as JSON can hold it, names without control characters and nothing that is not finite."""
    return msgspec.convert(printable(msgspec.to_builtins(summary, enc_hook=plain_value)), Summary)


def render(summary: Summary) -> str:
    """The page of a `presentable` summary; the same summary gives the same text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "share": lambda value: "–" if value is None else f"{value:.1%}",
        "average_precision": lambda value: "–" if value is None else f"{value:.3f}",
        "duration": _duration,
    }
    facts, calibration = summary.facts, summary.calibration
    diagrams = [("as it is", calibration.plain)]
    diagrams += [("with a temperature", calibration.scaled)] if calibration.scaled else []
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        summary=summary,
        facts=facts,
        counted=counted,
        headline=headline(summary),
        sentences=list(sentences(summary)),
        figures=[
            (FIGURE_WORDS[name], figure_text(name, figure.value), interval_text(name, figure))
            for name, figure in summary.figures.items()
            if len(summary.classes) >= _fewest(name)
        ],
        curves=learning_curves(summary.history, FIGURE_WORDS[METRIC[summary.task]]),
        diagrams=[(diagram, reliability(diagram, title, index)) for index, (title, diagram) in enumerate(diagrams)],
        trade=threshold_trade(summary),
        spread=recall_spread(summary.classes) if len(summary.classes) > SQUARE else None,
        classes=ranked(summary),
        square=_square(summary),
        listed=_listed(summary),
        parts=list(facts.counts),
        counts=_counts(facts, {row.id: row.name for row in summary.classes}),
        settings=list(_flat(facts.settings)),
        shown_skipped=facts.skipped[:SHOWN_SKIPPED],
        script=SCRIPT,
        script_hash=script_hash(),
    )


def _fewest(name: str) -> int:
    """Classes from which a figure says something."""
    return 6 if name == "top5" else 2 if name.startswith("macro") else 0


def _square(summary: Summary) -> list[tuple[str, list[tuple[int, float, str]]]]:
    """A row a class: its name, and for every class the pictures, their share of the row, and what they are in words."""
    if summary.task != "classify" or len(summary.classes) > SQUARE:
        return []
    times = {(one.truth, one.answer): one.count for one in summary.confusions}
    times |= {(row.id, row.id): row.right for row in summary.classes}
    return [
        (
            row.name,
            [
                (count, count / max(row.support, 1), f"{count} of {row.name} answered as {column.name}")
                for column in summary.classes
                for count in [times.get((row.id, column.id), 0)]
            ],
        )
        for row in summary.classes
    ]


def _listed(summary: Summary) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions: truth, answer, pictures, and their share of the truth's."""
    rows = {row.id: row for row in summary.classes}

    def line(one: Confusion) -> tuple[str, str, int, float]:
        truth = rows[one.truth]
        return truth.name, rows[one.answer].name, one.count, one.count / max(truth.support, 1)

    return sorted(map(line, summary.confusions), key=lambda line: (-line[2], -line[3]))[:LISTED]


def _counts(facts: Facts, names: Mapping[str, str]) -> list[tuple[str, list[int]]]:
    """A row a class: its name and its count in every part; the smallest of the first part first."""
    ids = dict.fromkeys(label for counts in facts.counts.values() for label in counts)
    rows = [(names.get(label, label), [counts.get(label, 0) for counts in facts.counts.values()]) for label in ids]
    return sorted(rows, key=lambda row: row[1])


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Settings as name and text, those within others by both names."""
    for name, value in settings.items():
        words = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{words}: ")
        elif value is not None:
            yield (
                words,
                ("yes" if value else "no")
                if isinstance(value, bool)
                else f"{value:g}"
                if isinstance(value, float)
                else str(value),
            )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
