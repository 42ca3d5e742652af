"""Learning curves for TensorBoard, in its own files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from train.loop import Row


class Curves:
    """Writes every epoch's figures under `folder`, where tensorboardX is installed; nothing elsewhere.

    A run that goes on writes a further file, from the epoch where it was left; TensorBoard shows them as one curve.
    """

    def __init__(self, folder: Path, metric: str) -> None:
        self._metric = metric
        self._writer: Any = None
        if find_spec("tensorboardX") is not None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def add(self, row: Row) -> None:
        """An epoch's figures, at its step."""
        if self._writer is None:
            return
        figures = {"loss": row.loss, "rate": row.rate, self._metric: row.metric, "images_per_s": row.images_per_s}
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, row.step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
