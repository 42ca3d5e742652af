"""A build's variants beside float32, one row each: what the report's first table and the terminal's last lines are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from edge.errors import one_line
from quantize.record import Chosen, Left, Record

FLOAT32 = "float32"
METRIC_WORDS = {"top1": "top-1", "top5": "top-5", "ap50": "AP50", "ap": "AP", "ece": "calibration error"}
NOT_METRICS = ("ms", "bytes")
"""What `Record.float32` holds beside metrics."""
WIDTH = 100
LONGEST_NAME = 24


@dataclass(frozen=True, slots=True)
class Row:
    """One variant's figures. `drop_points` are points of the task's metric below float32; ratios are its own over float32's."""

    variant: str
    status: str
    candidate: str = ""
    processors: str = ""
    why: str = ""
    metrics: Mapping[str, float] | None = None
    metric: float | None = None
    drop_points: float | None = None
    ms: float | None = None
    speedup: float | None = None
    instructions: Mapping[str, float] | None = None
    instruction_ratios: Mapping[str, float] | None = None
    bytes: int = 0
    size_ratio: float | None = None


def rows(record: Record) -> list[Row]:
    """float32 as the reference, then the variants in the bundle, then those left out."""
    packed = {chosen.variant: chosen for chosen in record.chosen}
    found = []
    if record.float32 or record.float32_instructions or FLOAT32 in packed:
        found.append(_reference(record, packed.get(FLOAT32)))
    found += [_row(record, chosen, "chosen") for chosen in record.chosen if chosen.variant != FLOAT32]
    return found + [_row(record, left, "left out") for left in record.left_out]


def _reference(record: Record, packed: Chosen | None) -> Row:
    metrics = {name: value for name, value in record.float32.items() if name not in NOT_METRICS}
    metrics = metrics or (dict(packed.metrics) if packed else {})
    return Row(
        FLOAT32,
        "chosen" if packed else "reference",
        packed.candidate if packed else "",
        packed.processors if packed else "",
        packed.why if packed else "",
        metrics,
        metrics.get(record.metric_name),
        ms=record.float32.get("ms"),
        instructions=record.float32_instructions or (packed.instructions if packed else {}),
        bytes=int(record.float32.get("bytes", 0)) or (packed.bytes if packed else 0),
    )


def _row(record: Record, variant: Chosen | Left, status: str) -> Row:
    metric = variant.metrics.get(record.metric_name)
    size = record.float32.get("bytes", 0)
    return Row(
        variant.variant,
        status,
        variant.candidate,
        variant.processors,
        variant.why,
        variant.metrics,
        metric,
        drop_points(record.float32.get(record.metric_name), metric),
        speedup=variant.speedup,
        instructions=variant.instructions,
        instruction_ratios=instruction_ratios(record, variant.instructions),
        bytes=variant.bytes,
        size_ratio=variant.bytes / size if size and variant.bytes else None,
    )


def drop_points(reference: float | None, metric: float | None) -> float | None:
    """Points (hundredths) that a metric lies below its reference, negative when above; None when either is unknown."""
    return None if reference is None or metric is None else 100 * (reference - metric)


def instruction_ratios(record: Record, instructions: Mapping[str, float]) -> dict[str, float]:
    """Instructions by CPU over float32's, for the CPUs on which both were counted."""
    reference = record.float32_instructions
    return {cpu: count / reference[cpu] for cpu, count in instructions.items() if reference.get(cpu)}


def metric_word(name: str) -> str:
    """What people call a metric."""
    return METRIC_WORDS.get(name, name)


def metric_text(name: str, value: float) -> str:
    """A metric as its field writes it: top-k in percent, the others as a fraction of three digits."""
    return f"{value:.2%}" if name.startswith("top") else f"{value:.3f}"


def size_text(size: float) -> str:
    """Bytes as megabytes of 10^6, kilobytes below one."""
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def summary_lines(record: Record) -> list[str]:
    """The figures of each variant in aligned columns of ASCII, at most 100 wide, each reason below its variant."""
    table = rows(record)
    if not table:
        return ["no variant was measured"]
    cpus = dict.fromkeys(cpu for row in table for cpu in row.instruction_ratios or {})
    heads = ["variant", metric_word(record.metric_name), "drop", "speed-up", *(f"instr {cpu}" for cpu in cpus), "size", ""]
    cells = [heads] + [_cells(record, row, list(cpus)) for row in table]
    cells = [[ascii_line(cell, LONGEST_NAME) for cell in row] for row in cells]
    while len(cells[0]) > 6 and _width(cells) > WIDTH:  # the report has every CPU; here those that fit
        cells = [row[: len(row) - 3] + row[len(row) - 2 :] for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line, row in zip(cells, [None, *table], strict=True):
        first, *middle = zip(line, widths, strict=True)
        text = "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in middle[:-1]), line[-1]])
        lines.append(text.rstrip()[:WIDTH])
        if row is not None and row.status == "left out":
            why = ascii_line(one_line(row.why), 10 * WIDTH)
            lines += textwrap.wrap(why, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def _cells(record: Record, row: Row, cpus: list[str]) -> list[str]:
    ratios = row.instruction_ratios or {}
    return [
        row.variant,
        "-" if row.metric is None else metric_text(record.metric_name, row.metric),
        "-" if row.drop_points is None else f"{row.drop_points:.2f} pt".replace("-0.00", "0.00"),
        "-" if row.speedup is None else f"{row.speedup:.2f}x",
        *(f"{ratios[cpu]:.2f}x" if cpu in ratios else "-" for cpu in cpus),
        size_text(row.bytes) if row.bytes else "-",
        row.status,
    ]


def _width(cells: list[list[str]]) -> int:
    return sum(max(map(len, column)) for column in zip(*cells, strict=True)) + 2 * (len(cells[0]) - 1)


def ascii_line(text: str, longest: int) -> str:
    """The text on one line of at most `longest` ASCII characters."""
    text = one_line(text).encode("ascii", "replace").decode()
    return text if len(text) <= longest else text[: longest - 3] + "..."
