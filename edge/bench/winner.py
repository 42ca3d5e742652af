"""Which configuration edge-run should use: the fastest of those that are as accurate as any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge.bench.measure import Row

AS_ACCURATE = 0.01
"""One point of accuracy: what edge-quantize lets quantization cost is of that order."""
PICTURES_BY_CHANCE = 2
"""Pictures that one configuration may have wrong beyond another: of a small set that is more than a point."""
AS_FAST = 1.05


def best_of(rows: Sequence[Row], figures: Mapping[str, float | None]) -> Row:
    """The row to use; `figures` has the accuracy by variant that the build measured, where no pictures were given.

    Of those within a point, or two pictures, of the most accurate the one of least p50 a frame; of those within 5% of
    that, the one of the fewest threads. A configuration whose accuracy nobody measured counts as accurate: its golden
    check has passed.
    """

    def accuracy(row: Row) -> float | None:
        return row.judged.figure if row.judged.figure is not None else figures.get(row.configuration.variant)

    most = max((found for row in rows if (found := accuracy(row)) is not None), default=0.0)
    images = max(row.judged.images for row in rows)
    margin = max(AS_ACCURATE, PICTURES_BY_CHANCE / images) if images else AS_ACCURATE
    accurate = [row for row in rows if (found := accuracy(row)) is None or found >= most - margin - 1e-9]
    fastest = min(row.frame[0] for row in accurate)
    near = [row for row in accurate if row.frame[0] <= AS_FAST * fastest]
    return min(near, key=lambda row: (row.configuration.threads, row.frame[0]))
