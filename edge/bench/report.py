"""What edge-bench tells: a table for people, JSON for programs, and what makes the figures doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from devices import Board, Reading
from edge import __version__
from edge.accuracy import FIGURES
from edge.bench.measure import Row, Watch
from edge.bench.sustained import Sustained
from edge.bundle import Bundle
from edge.choice import bundle_hash, engine_version

SLOWING_GOVERNORS = ("powersave", "ondemand")
BUSY_LOAD = 0.5
"""From this load a core on, before the bench has begun, it shares the machine with something."""
UNSTEADY = 1.25
"""Rounds whose medians differ more than by this were not measured on the same machine, so to speak."""
SLOWING = {"frequency-capped", "throttled", "soft-temperature-limit"}


@dataclass(frozen=True, slots=True)
class Bench:
    """A whole bench: on what, of what, and what came of it; `left_out` says which configurations do not work, and why."""

    board: Board
    processor: str
    bundle: Bundle
    seconds: float
    rounds: int
    watch: Watch
    rows: Sequence[Row]
    winner: Row
    left_out: Sequence[str]
    sustained: Sustained | None = None


def warnings(bench: Bench) -> Iterator[str]:
    """A line for each thing that makes the figures other than they would be."""
    governors = {bench.watch.begin.governor, bench.watch.end.governor} & set(SLOWING_GOVERNORS)
    for governor in sorted(governors):
        yield (
            f"the governor {governor} slows an idle core down: short inferences look slower than they are; "
            "sudo cpupower frequency-set -g performance, and measure again"
        )
    if (bench.watch.begin.load or 0.0) >= BUSY_LOAD:
        yield (
            f"the machine was busy before the bench (load {bench.watch.begin.load:.2f} a core), which favours few threads; "
            "stop what else runs, edge-run for one, and measure again"
        )
    medians = [median(one) for one in bench.winner.frame_ms]
    if max(medians) > UNSTEADY * min(medians):
        yield (
            f"rounds of {bench.winner.configuration} took from {min(medians):.1f} to {max(medians):.1f} ms a frame: something "
            "else was running, or the board slowed down; measure again"
        )
    meanwhile = bench.watch.throttled_meanwhile
    if meanwhile & SLOWING:
        yield f"the board was slowed down meanwhile ({', '.join(sorted(meanwhile))}): cool it, let it rest, and measure again"
    elif meanwhile:
        yield f"{', '.join(sorted(meanwhile))} meanwhile: use a stronger power supply, and measure again"


def table(bench: Bench) -> Iterator[str]:
    """The lines of the table, the fastest first."""
    card = bench.bundle.card
    yield f"{card.name} on {bench.board.title} ({bench.board.name}): {bench.processor}"
    yield (
        f"frames of 640x480; {bench.seconds:g} s each in {bench.rounds} rounds by turns; "
        + ", ".join(sorted({engine_version(row.configuration.engine) for row in bench.rows}))
    )
    yield f"at the begin {_state(bench.watch.begin)}"
    yield f"at the end   {_state(bench.watch.end)}"
    yield ""
    name_width = max(len("variant"), *(len(row.configuration.variant) for row in bench.rows))
    where_width = max(len("engine"), *(len(row.configuration.where) for row in bench.rows))
    head = f"{'variant':<{name_width}}  {'engine':<{where_width}}  threads"
    yield f"{'':<{len(head)}}  {'engine, ms':^22}  {'prepare+infer+decode':^22}"
    yield (
        f"{head}  {'p50':>6}  {'p95':>6}  {'p99':>6}  {'p50':>6}  {'p95':>6}  {'p99':>6}  {'MB':>5}  {'golden':>7}  "
        f"{_figure_title(bench):>6}  {'mJ':>6}"
    )
    for row in sorted(bench.rows, key=lambda one: one.frame[0]):
        of = row.configuration
        times = "  ".join(f"{value:>6.2f}" for value in (*row.engine, *row.frame))
        energy = "-" if row.energy_mj is None else f"{row.energy_mj:.1f}"
        yield (
            f"{of.variant:<{name_width}}  {of.where:<{where_width}}  {of.threads:>7}  {times}  {row.memory_mb:>5.0f}  "
            f"{row.judged.difference:>7.4f}  {_figure(row):>6}  {energy:>6}"
        )
    yield ""
    yield f"fastest: {bench.winner.configuration}, {bench.winner.frame[0]:.2f} ms a frame"
    if bench.sustained is not None:
        yield _sustained(bench.sustained)


def _figure_title(bench: Bench) -> str:
    return next(iter(FIGURES.get(bench.bundle.card.task, {"": "same"}).values()))


def _figure(row: Row) -> str:
    if row.judged.figure is not None:
        return f"{row.judged.figure:.2%}"
    return {True: "same", False: "other", None: "-"}[row.judged.same_best]


def _state(reading: Reading) -> str:
    parts = [f"governor {reading.governor or 'unknown'}", "MHz unknown" if reading.mhz is None else f"{reading.mhz:.0f} MHz"]
    temperature = "temperature unknown" if reading.temperature_c is None else f"{reading.temperature_c:.1f} °C"
    parts.append(temperature + (f" ({reading.zone})" if reading.zone else ""))
    if reading.load is not None:
        parts.append(f"load {reading.load:.2f} a core")
    if reading.throttled:
        parts.append(", ".join(sorted(reading.throttled)))
    return ", ".join(parts)


def _sustained(found: Sustained) -> str:
    warmth = "no temperature sensor" if found.temperature_c is None else f"{found.temperature_c:.1f} °C"
    how = {True: "settled", False: "not settled yet", None: "not known to have settled"}[found.settled]
    return (
        f"sustained: {found.p50_ms:.2f} ms a frame after {found.seconds:.0f} s ({found.first_p50_ms:.2f} in the first second), "
        f"{warmth}, {how}"
    )


def document(bench: Bench, figures: Mapping[str, float | None]) -> dict[str, Any]:
    """The same as JSON; times in ms, energy in mJ a frame, temperatures in °C."""
    watch, card = bench.watch, bench.bundle.card
    return {
        "edge_run": __version__,
        "board": bench.board.name,
        "title": bench.board.title,
        "processor": bench.processor,
        "model": card.name,
        "task": card.task,
        "bundle_sha256": bundle_hash(bench.bundle),
        "engines": {name: engine_version(name) for name in sorted({row.configuration.engine for row in bench.rows})},
        "seconds": bench.seconds,
        "rounds": bench.rounds,
        "begin": _reading(watch.begin),
        "end": _reading(watch.end),
        "throttled_meanwhile": sorted(watch.throttled_meanwhile),
        "warnings": list(warnings(bench)),
        "idle_watts": _rounded(watch.idle_watts),
        "configurations": [_row(row, figures) for row in sorted(bench.rows, key=lambda one: one.frame[0])],
        "left_out": list(bench.left_out),
        "winner": _row(bench.winner, figures),
        "sustained": None if bench.sustained is None else {k: _rounded(v) for k, v in asdict(bench.sustained).items()},
    }


def _reading(reading: Reading) -> dict[str, Any]:
    return {name: sorted(value) if isinstance(value, frozenset) else _rounded(value) for name, value in asdict(reading).items()}


def _row(row: Row, figures: Mapping[str, float | None]) -> dict[str, Any]:
    of, judged = row.configuration, row.judged
    return {
        "variant": of.variant,
        "engine": of.engine,
        "accelerator": of.accelerator,
        "options": dict(of.options),
        "threads": of.threads,
        "engine_ms": _named(row.engine),
        "frame_ms": _named(row.frame),
        "rounds_frame_p50_ms": [round(median(one), 4) for one in row.frame_ms],
        "frames": sum(len(one) for one in row.frame_ms),
        "load_s": round(min(row.load_s), 3),
        "peak_memory_mb": round(row.memory_mb, 1),
        "golden_difference": judged.difference,
        "golden_tolerance": judged.tolerance,
        "golden_same_best": judged.same_best,
        "accuracy": judged.figure,
        "images": judged.images,
        "build_accuracy": figures.get(of.variant),
        "energy_mj": _rounded(row.energy_mj),
    }


def _named(values: tuple[float, float, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in zip(("p50", "p95", "p99"), values, strict=True)}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
