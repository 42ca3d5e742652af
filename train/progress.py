"""How far a training is: a line of a terminal that is rewritten, with the time left; elsewhere a line an epoch."""

from __future__ import annotations

from collections.abc import Callable

from edge.progress import Progress, clock
from train import loop


class Meter:
    """Says what the loop tells; `metric` is the name of what is measured."""

    def __init__(self, say: Callable[[str], None], metric: str, progress: Progress) -> None:
        self._say, self._metric, self._progress = say, metric, progress

    def step(self, told: loop.Progress) -> None:
        """A step was done."""
        self._progress("training", told.done, 1.0, f"step {told.step}, loss {told.loss:.3f}")

    def epoch(self, row: loop.Row) -> None:
        """An epoch was measured."""
        measured = "" if row.metric is None else f", {self._metric} {row.metric:.4f}"
        self._say(f"epoch {row.epoch}: loss {row.loss:.4f}{measured}, {row.images_per_s:.1f} pictures/s, {clock(row.seconds)}")

    def done(self) -> None:
        """Clear the line."""
        self._progress.done()
