"""What accuracy is measured on, and by which figures."""

from __future__ import annotations

from pathlib import Path

from edge.boxes_data import BoxSample, labelled_boxes
from edge.bundle import Bundle
from edge.datasets import Labelled, Sample, class_folders, evaluation_split

FIGURES = {"classify": {"top1": "top-1", "top5": "top-5"}, "detect": {"ap50": "AP50", "ap": "AP"}}
"""Task → its figures of accuracy and their titles, the one to compare by first."""


def labelled(bundle: Bundle, data: Path, limit: int | None) -> list[Sample] | list[BoxSample]:
    """The labelled pictures, or `limit` of them, spread evenly, as the bundle's task wants them. Raises DataError."""
    if bundle.card.task == "detect":
        return _spread(labelled_boxes(data, bundle.card.labels, split="val"), limit)
    return _spread(class_folders(evaluation_split(data), bundle.card.labels), limit)


def _spread(samples: list[Labelled], limit: int | None) -> list[Labelled]:
    if limit is None or limit >= len(samples):
        return samples
    return [samples[i * len(samples) // limit] for i in range(limit)]
