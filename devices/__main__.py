"""`python -m devices`: the boards that are known; with --here, this one and what its sensors read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from devices.board import Board
from devices.detection import BOARDS, GENERIC, detect
from devices.sensors import Sensors

HEADER = ("board", "cores", "memory, GiB", "integers", "engines in order", "throttles at", "limit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m devices", description="The boards that are known.")
    parser.add_argument("--here", action="store_true", help="this machine's board and what its sensors read")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.here:
        sys.stdout.write(table((*BOARDS, *GENERIC)))
        return 0
    board = detect(options.root)
    sys.stdout.write(table((board,)) + "\n")
    for name, value in asdict(Sensors(board, options.root).read()).items():
        shown = ", ".join(sorted(value)) if isinstance(value, frozenset) else "" if value is None else str(value)
        sys.stdout.write(f"{name}: {shown or '-'}\n")
    return 0


def table(boards: Sequence[Board]) -> str:
    """A Markdown table, a board a line."""
    rows = [HEADER, tuple("---" for _ in HEADER), *map(_row, boards)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(board: Board) -> tuple[str, ...]:
    clusters = [f"{cluster.count} × {cluster.core or 'core'}" + _clock(cluster.mhz) for cluster in board.clusters]
    memory = [f"{memory_mb / 1024:.3g}" for memory_mb in board.memory_mb]
    engines = [choice.engine + ("" if choice.accelerator == "cpu" else f" {choice.accelerator}") for choice in board.engines]
    thermal = board.thermal
    return (
        board.name,
        " + ".join(clusters) or "-",
        ", ".join(memory) or "-",
        board.integers,
        ", ".join(engines),
        f"{thermal.throttle_c:g} °C",
        f"{thermal.limit_c:g} °C",
    )


def _clock(mhz: int) -> str:
    return f" at {mhz / 1000:.3g} GHz" if mhz else ""


if __name__ == "__main__":
    sys.exit(main())
