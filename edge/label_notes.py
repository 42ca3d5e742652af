"""Who is told what label files hold while they are read: the loader's own, that stops at the first thing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.errors import DataError
from edge.types import Float64


class LabelNotes:
    """Raises DataError at the first label that cannot be; `edge-train check` has one that writes them all down."""

    def wrong(self, picture: Path | None, line: str) -> None:
        """A label that cannot be, of a picture where that is known, in words that name its file."""
        raise DataError(line)

    def pair(self, picture: Path | None, labels: Path | None) -> None:
        """A picture and the file of its labels, one of which may not be there."""

    def boxes(self, picture: Path, boxes_xyxy: Float64, class_ids: Sequence[int]) -> None:
        """A picture's n boxes [n, 4] in its pixels as they were written, not yet clipped to it."""
