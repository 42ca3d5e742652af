"""How far a build is, on one line of a terminal, and its candidates as lines where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from edge.commands import has_terminal, rewrite_line
from edge.errors import one_line
from quantize.record import Candidate

PERIOD_S = 0.2
BAR = 20


class Progress:
    """A line that is rewritten at most five times a second on a terminal; elsewhere only candidates are said, when asked."""

    def __init__(self, say: Callable[[str], None], minutes: float, verbose: bool) -> None:
        self._say = say
        self._started_s = time.monotonic()
        self._budget_s = minutes * 60
        self._verbose = verbose
        self._shown_s = 0.0

    def show(self, text: str, share: float | None) -> None:
        """What is being done, and how much of it is, where that is known."""
        now_s = time.monotonic()
        if not has_terminal() or now_s - self._shown_s < PERIOD_S:
            return
        self._shown_s = now_s
        passed = int(now_s - self._started_s)
        filled = round((share or 0.0) * BAR)
        bar = f"[{'#' * filled}{'.' * (BAR - filled)}] " if share is not None else ""
        line = one_line(f"{bar}{text}  {passed // 60}:{passed % 60:02d}, searching for at most {self._budget_s / 60:g} min")
        rewrite_line(line[: shutil.get_terminal_size().columns - 1])

    def candidate(self, candidate: Candidate) -> None:
        """A candidate that was measured."""
        if not self._verbose:
            return
        settings = candidate.settings
        kept = f", {len(settings['float_layers'])} layers in float" if settings["float_layers"] else ""
        silu = ", SiLU in float" if settings["float_silu"] else ""
        fidelity = "no" if candidate.fidelity_db is None else f"{candidate.fidelity_db:.1f}"  # none of noise without bounds
        speed = f", {candidate.speedup:.2f} times float32's speed" if candidate.speedup is not None else ""
        self._say(
            f"{candidate.target}: {settings['calibrator']} ranges, {settings['rounding']} weights{kept}{silu}: "
            f"{fidelity} dB, metric {candidate.metric:.4f}{speed}" + (f"; {candidate.refused}" if candidate.refused else "")
        )

    def done(self) -> None:
        """Clear the line."""
        if has_terminal():
            rewrite_line("")
