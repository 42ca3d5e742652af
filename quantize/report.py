"""The report of a build: one HTML page that needs nothing else, and beside it the same as JSON.

Names in it come from users' files, so everything is escaped, and the page's own policy lets nothing but its one script run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge.errors import UsageError
from quantize.figures import SYMBOLS, reliability, scatters, targets
from quantize.record import Candidate, LayerNoise, Record
from quantize.table import drop_points, metric_text, metric_word, rows, size_text
from quantize.verdict import SPLIT_WORDS, gates, headline, scatter_words, status, sureness, verdict
from train.page import SCRIPT, plain_value, printable_text, script_hash, write_together

TEMPLATE = Path(__file__).with_name("report.html.j2")
SHOWN_LAYERS = 25


def write_report(record: Record, path: Path) -> None:
    """Write the page to `path` and the record as JSON beside it, its suffix replaced; each is whole or not there.

    Raises UsageError when both would be one file, and OSError.
    """
    beside = path.with_suffix(".json")
    if beside == path:
        raise UsageError(f"{path}: the report's JSON is written beside it under that name; give a name that ends in .html")
    record = printable(record)
    write_together({path: render(record).encode(), beside: msgspec.json.encode(record) + b"\n"})


def printable(record: Record) -> Record:
    """The record as JSON can hold it: control characters and undecodable bytes of names replaced, NumPy's numbers plain.

    A figure that is not finite is left out, as if it had not been measured, and a note says so.
    """
    gone: list[str] = []
    plain = _clean(msgspec.to_builtins(record, enc_hook=plain_value), "", gone)
    plain["layers"] = [layer for layer in plain["layers"] if None not in (layer["noise"], layer["share"])]
    plain["reliability"] = [diagram for diagram in plain["reliability"] if diagram["ece"] is not None]
    for diagram in plain["reliability"]:
        for name in ("confidence", "accuracy"):  # the mean of an empty bin
            diagram[name] = [0.0 if value is None else value for value in diagram[name]]
    if gone:
        shown = ", ".join(gone[:5]) + (", ..." if len(gone) > 5 else "")
        plain["notes"].append(f"{len(gone)} figures were not finite and are left out: {shown}")
    return msgspec.convert(plain, Record)


def _clean(value: Any, where: str, gone: list[str]) -> Any:
    if isinstance(value, str):
        return printable_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        if not where.startswith(".reliability") or where.endswith(".ece"):
            gone.append(where[1:])
        return None
    if isinstance(value, dict):
        cleaned = {_clean(key, where, gone): _clean(inner, f"{where}.{key}", gone) for key, inner in value.items()}
        is_figures = where.rpartition(".")[2] in ("metrics", "gates", "instructions") or where.startswith(".float32")
        return {key: inner for key, inner in cleaned.items() if inner is not None or not is_figures}
    if isinstance(value, (list, tuple)):
        return [_clean(inner, f"{where}[{index}]", gone) for index, inner in enumerate(value)]
    return value


def render(record: Record) -> str:
    """The page of a `printable` record; the same record gives the same text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "metric": lambda value, name: "–" if value is None else metric_text(name, value),
        "metric_word": metric_word,
        "points": _points,
        "number": _number,
        "ratio": lambda value: "–" if value is None else f"{value:.2f}",
        "size": lambda size: size_text(size) if size else "–",
        "duration": _duration,
        "settings": lambda settings: ", ".join(_setting(name, value) for name, value in settings.items() if value is not None),
    }
    table = rows(record)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        record=record,
        status=status(record),
        headline=headline(record),
        verdict=list(verdict(record, table)),
        rows=[row for row in table if row.status != "left out"],
        left_out=[row for row in table if row.status == "left out"],
        extra_metrics=list(dict.fromkeys(name for row in table for name in row.metrics or {} if name != record.metric_name)),
        cpus=_cpus(row.instructions for row in table if row.status != "left out"),
        left_cpus=_cpus(row.instructions for row in table if row.status == "left out"),
        sureness=list(sureness(record)),
        panels=scatters(record),
        legend=[
            (target, SYMBOLS[index % len(SYMBOLS)][1], index % len(SYMBOLS)) for index, target in enumerate(targets(record))
        ],
        scatter_words=list(scatter_words(record)),
        candidates=sorted(record.candidates, key=_rank),
        candidate_cpus=_cpus(candidate.instructions for candidate in record.candidates),
        drop_of=lambda candidate: drop_points(record.float32_choice.get(record.metric_name), candidate.metric),
        layers=list(_layers(record.layers)),
        diagrams=[(diagram, reliability(diagram, index)) for index, diagram in enumerate(record.reliability)],
        gates=list(gates(record)),
        split=[(SPLIT_WORDS.get(name, name.replace("_", " ")), count) for name, count in record.split.items()],
        script=SCRIPT,
        script_hash=script_hash(),
    )


def _cpus(counts: Iterable[Mapping[str, float] | None]) -> list[str]:
    return list(dict.fromkeys(cpu for count in counts for cpu in count or {}))


def _rank(candidate: Candidate) -> tuple[str, bool, bool, float]:
    return candidate.target, not candidate.chosen, bool(candidate.refused), -(candidate.metric or 0.0)


def _layers(layers: Sequence[LayerNoise]) -> Iterator[dict[str, Any]]:
    """Per target its noisiest layers, and what share of the noise they are."""
    for target in dict.fromkeys(layer.target for layer in layers):
        found = sorted((layer for layer in layers if layer.target == target), key=lambda layer: -layer.share)
        shown = found[:SHOWN_LAYERS]
        yield {
            "target": target,
            "count": len(found),
            "kept_float": sum(layer.kept_float for layer in found),
            "share": sum(layer.share for layer in shown),
            "largest": max(layer.share for layer in shown) or 1.0,
            "shown": [(layer, f"{-10 * math.log10(layer.noise):.1f}" if layer.noise > 0 else "–") for layer in shown],
        }


def _setting(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _number(value: float | None) -> str:
    """Three significant digits, and no exponent."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
