"""The labelled pictures that accuracy is measured on."""

from __future__ import annotations

from pathlib import Path

from edge.boxes_data import BoxSample, labelled_boxes
from edge.bundle import Bundle
from edge.datasets import Labelled, Sample, class_folders, evaluation_split

FIGURES = {"classify": ("top1", "top-1"), "detect": ("ap50", "AP50")}
"""Task → the figure of accuracy that configurations are compared by, and its title."""


def labelled(bundle: Bundle, data: Path, limit: int | None) -> list[Sample] | list[BoxSample]:
    """At most `limit` pictures, spread evenly, as the bundle's task wants them. Raises DataError."""
    if bundle.card.task == "detect":
        return _spread(labelled_boxes(data, bundle.card.labels, split="val"), limit)
    return _spread(class_folders(evaluation_split(data), bundle.card.labels), limit)


def _spread(samples: list[Labelled], limit: int | None) -> list[Labelled]:
    if limit is None or limit >= len(samples):
        return samples
    return [samples[i * len(samples) // limit] for i in range(limit)]
