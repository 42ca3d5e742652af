"""`python -m devices`: the boards that are known, one of them in words, or with --here this one and what its sensors read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from devices.board import Board
from devices.detection import BOARDS, GENERIC, detect
from devices.sensors import Sensors

HEADER = ("board", "cores", "memory, GiB", "integers", "engines in order", "throttles at", "limit")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with an argument."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"devices: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or a board in words, and return the exit code."""
    parser = Parser(prog="python -m devices", description="The boards that are known.")
    parser.add_argument("board", metavar="BOARD", nargs="?", help="this one in words, as in raspberry-pi-4  [default: a table]")
    parser.add_argument("--here", action="store_true", help="this machine's board and what its sensors read")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    boards = {board.name: board for board in (*BOARDS, *GENERIC)}
    if options.board is not None and options.here:
        parser.error(f"--here is this machine's board, {options.board} another; give one of them")
    if options.board is not None and options.board not in boards:
        close = get_close_matches(options.board.lower(), boards, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(boards)}"
        parser.error(f"BOARD {options.board!r} is not known; {hint}")
    if options.board is not None:
        sys.stdout.write(words(boards[options.board]))
        return 0
    if not options.here:
        sys.stdout.write(table((*BOARDS, *GENERIC)))
        return 0
    board = detect(options.root)
    sys.stdout.write(f"{table((board,))}\n{words(board)}\nits sensors, now; - where there is none:\n")
    for name, value in asdict(Sensors(board, options.root).read()).items():
        shown = ", ".join(sorted(value)) if isinstance(value, frozenset) else "" if value is None else str(value)
        sys.stdout.write(f"{name}: {shown or '-'}\n")
    return 0


def words(board: Board) -> str:
    """What the board's literal says, a line each."""
    _, cores, memory, integers, engines, throttles, limit = _row(board)
    activations, weights = ("signed" if integers[place] == "s" else "unsigned" for place in (0, 2))
    lines = {
        board.name: board.title,
        "cores": cores,
        "memory": f"{memory} GiB" if board.memory_mb else "-",
        "integers": f"{integers}: 8-bit activations {activations}, weights {weights}",
        "engines": f"{engines}, tried in this order with {board.threads} threads",
        "cameras": ", ".join(board.cameras) or "-",
        "power": ", ".join(board.power) or "no sensor known",
        "throttles at": f"{throttles}: the firmware or the kernel slows it down; critical {board.thermal.critical_c:g} °C",
        "limit": f"{limit}: what edge-run --max-temp auto keeps it below",
        "sources": ", ".join(board.sources) or "-",
    }
    return "".join(f"{name}: {text}\n" for name, text in lines.items())


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
