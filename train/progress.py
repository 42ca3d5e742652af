"""How far a training is: a line of a terminal that is rewritten, with the time left; elsewhere a line an epoch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from edge.commands import has_terminal, rewrite_line
from train.loop import Progress, Row

PERIOD_S = 0.2
BAR = 20


class Meter:
    """Says what the loop tells; `metric` is the name of what is measured."""

    def __init__(self, say: Callable[[str], None], metric: str) -> None:
        self._say, self._metric = say, metric
        self._shown_s = 0.0
        self._first: Progress | None = None

    def step(self, told: Progress) -> None:
        """A step was done."""
        self._first = self._first or told
        now_s = time.monotonic()
        if not has_terminal() or now_s - self._shown_s < PERIOD_S:
            return
        self._shown_s = now_s
        filled = round(told.done * BAR)
        text = f"[{'#' * filled}{'.' * (BAR - filled)}] step {told.step}, loss {told.loss:.3f}{self._left(told)}"
        rewrite_line(text[: shutil.get_terminal_size().columns - 1])

    def epoch(self, row: Row) -> None:
        """An epoch was measured."""
        measured = "" if row.metric is None else f", {self._metric} {row.metric:.4f}"
        self._say(f"epoch {row.epoch}: loss {row.loss:.4f}{measured}, {row.images_per_s:.1f} pictures/s, {clock(row.seconds)}")

    def done(self) -> None:
        """Clear the line."""
        if has_terminal():
            rewrite_line("")

    def _left(self, told: Progress) -> str:
        """By the speed since this process began: an earlier one may have had another machine."""
        assert self._first is not None
        share, seconds = told.done - self._first.done, told.seconds - self._first.seconds
        return f", {clock(seconds / share * (1 - told.done))} left" if share > 0 else ""


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
