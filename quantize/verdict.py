"""A build in sentences, for the engineer who decides whether to ship it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from quantize.record import Record
from quantize.table import FLOAT32, Row, metric_text, metric_word

GATE_WORDS = {
    "max_drop_points": "at most {:g} points of {metric} below float32",
    "min_speedup": "at least {:g} times float32's speed; for emulated processors, that many times fewer instructions",
    "max_mb": "at most {:g} MB",
    "max_ece": "calibration error of at most {:g}",
}
SPLIT_WORDS = {
    "calibration": "calibrate: the ranges and the rounding of the integers",
    "choice": "choose between the candidates",
    "temperature": "fit the temperature of each variant's confidence",
    "measure": "measure: the figures of the variants, kept from all other steps",
}


def status(record: Record) -> str:
    """`passed`, `partly` or `refused`."""
    quantized = [chosen for chosen in record.chosen if chosen.variant != FLOAT32]
    if quantized or record.left_out:
        return "refused" if not quantized else "partly" if record.left_out else "passed"
    return "passed" if record.chosen else "refused"


def headline(record: Record) -> str:
    """The outcome in a few words."""
    passed = sum(chosen.variant != FLOAT32 for chosen in record.chosen)
    asked = passed + len(record.left_out)
    if not asked:
        return "Only float32 was asked for, and it is in the bundle." if record.chosen else "Nothing was built."
    if passed:
        if asked == 1:
            return "The one int8 variant passes the gates."
        return f"{f'All {asked}' if passed == asked else f'{passed} of {asked}'} int8 variants pass the gates."
    rest = "only float32 is in the bundle" if record.chosen else "there is nothing to ship"
    outcome = "the one int8 variant misses a gate" if asked == 1 else f"none of {asked} int8 variants passes the gates"
    return f"Refused: {outcome}; {rest}."


def verdict(record: Record, table: Sequence[Row]) -> Iterator[str]:
    """A sentence a variant: what it is for, what it costs and what it gives; or why it is left out."""
    metric = metric_word(record.metric_name)
    for row in table:
        if row.variant == FLOAT32 and row.status == "reference":
            continue
        name = f"{row.variant}, for {row.processors}," if row.processors else row.variant
        if row.status == "left out":
            yield f"{name} is left out: {row.why}"
            continue
        said = []
        if row.drop_points is not None and row.metric is not None:
            change = "gains" if row.drop_points < -0.005 else "loses"
            value = metric_text(record.metric_name, row.metric)
            said.append(f"{change} {abs(row.drop_points):.2f} points of {metric} ({value})")
        elif row.metric is not None:
            said.append(f"has {metric} {metric_text(record.metric_name, row.metric)}")
        if row.speedup is not None:
            said.append(f"runs at {row.speedup:.2f} times float32's speed here")
        ratios = [f"{ratio:.2f} ({cpu})" for cpu, ratio in (row.instruction_ratios or {}).items()]
        if ratios:
            said.append(f"needs {_listed(ratios)} of float32's instructions")
        if row.size_ratio is not None:
            said.append(f"is {row.size_ratio:.2f} times as large")
        yield f"{name} is in the bundle{'; it ' if said else ''}{_listed(said)}."


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def sureness(record: Record) -> Iterator[str]:
    """How far the measured drop can be trusted: what one picture is worth, and how top-k varies with the pictures drawn."""
    pictures = record.split.get("measure", 0)
    if not pictures:
        return
    metric = metric_word(record.metric_name)
    if not record.metric_name.startswith("top"):
        yield f"{metric} is measured on {pictures} pictures; what one of them is worth depends on its objects."
        return
    worth = 100 / pictures
    yield f"{metric} is measured on {pictures} pictures: one picture is {worth:.2f} points, and no smaller drop can be seen."
    value = record.float32.get(record.metric_name)
    if value is not None and 0 <= value <= 1:  # Wald's interval of a binomial share
        half = 100 * 1.96 * math.sqrt(value * (1 - value) / pictures)
        yield (
            f"Had other pictures of the same kind been kept, float32's {metric} would move by about ±{half:.1f} points "
            "(95%, binomial). All variants see the same pictures, so their differences move less than that."
        )
    drop = record.gates.get("max_drop_points")
    if drop is not None and drop < 2 * worth:
        yield f"The gate of {drop:g} points is {drop / worth:.1f} pictures: give more before you trust a near miss or pass."


def scatter_words(record: Record) -> Iterator[str]:
    """What the scatter does not show."""
    absent = sum(candidate.metric is None for candidate in record.candidates)
    if absent:
        yield f"Given up before the accuracy was known: {absent} of {len(record.candidates)} candidates; the table says why."
    if record.candidates and record.metric_name not in record.float32_choice:
        yield "float32 was not measured on the pictures that choose, so its mark and the accuracy gate are not drawn."


def gates(record: Record) -> Iterator[str]:
    """Each limit that was asked for."""
    metric = metric_word(record.metric_name)
    for name, limit in record.gates.items():
        words = GATE_WORDS.get(name)
        yield words.format(limit, metric=metric) if words else f"{name.replace('_', ' ')} {limit:g}"
