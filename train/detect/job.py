"""A detector and its pictures as what the loop trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edge.boxes_data import BoxSample
from edge.detection_metrics import detection_ap
from train.detect.loss import Grid, detection_loss
from train.detect.pictures import BoxBatch, BoxPictures, Views
from train.evaluation import of_network
from train.models import Detector
from train.recipe import Recipe
from train.sources import label_counts
from train.team import Team

STATISTICS_PICTURES = 256


class DetectionJob:
    """What is trained: a detector on `samples`; the metric is the AP50 of `val` as the device would see it."""

    def __init__(
        self,
        detector: Detector,
        samples: Sequence[BoxSample],
        val: Sequence[BoxSample],
        recipe: Recipe,
        *,
        views: Views | None = None,
        bad: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.network = detector.network
        self._detector = detector
        self._val = val
        self._recipe = recipe
        self._views = views or Views()
        self._bad = bad
        self._pictures = BoxPictures(samples, detector.input, detector.mean, detector.std, bad)
        self._grids: dict[tuple[tuple[int, int], torch.device], Grid] = {}
        # a number of the data set's and not of the batch's, so that a mean over parts of a batch is the batch's
        objects = int(label_counts(samples, len(detector.labels)).sum())
        self._objects = max(1.0, objects / max(1, len(samples)))

    def batches_an_epoch(self) -> int:
        """How many steps an epoch has."""
        return self._pictures.batches_an_epoch(self._recipe.batch)

    def batches(self, epoch: int, first: int, team: Team) -> Iterator[tuple[int, BoxBatch]]:
        """This process's shares of an epoch's batches, with their numbers, from number `first` on."""
        recipe = self._recipe
        return self._pictures.steps(
            epoch, recipe.batch, recipe.seed, recipe.augment, self._views, first=first, rank=team.rank, world=team.world
        )

    def loss(self, network: nn.Module, batch: BoxBatch, random: np.random.Generator) -> Tensor:
        """The mean loss of a batch's pictures, in units of how many objects the data set has a picture."""
        rows = network(batch.images).float()
        size_wh = (batch.images.shape[3], batch.images.shape[2])
        key = (size_wh, rows.device)
        if key not in self._grids:
            self._grids[key] = Grid.of(size_wh, self._detector.options.strides, rows.device)
        classes = len(self._detector.labels)
        with torch.autocast(rows.device.type, enabled=False):  # boxes in bfloat16 would be off by pixels
            lost = detection_loss(rows, self._grids[key], classes, batch.boxes_xyxy, batch.class_ids, batch.ignored)
        return lost.mean() / self._objects

    def plain(self) -> Iterator[Tensor]:
        """Some training pictures as training sees them, to measure batch norm's statistics on.

        Mosaics have others than single pictures, and the weights are used to theirs: measured again on plain pictures,
        raccoons' AP50 went from 0.96 to 0.88, and from 0.93 to 0.75; on these it stayed at 0.96.
        """
        recipe, left = self._recipe, STATISTICS_PICTURES
        for epoch in range(-(-STATISTICS_PICTURES // (self.batches_an_epoch() * recipe.batch))):
            for _, batch in self._pictures.steps(epoch, recipe.batch, recipe.seed + 1, recipe.augment, self._views):
                yield batch.images
                left -= len(batch)
                if left <= 0:
                    return

    def measure(self, network: nn.Module) -> float | None:
        """The AP50 of a network in evaluation mode; None where there is nothing to measure on."""
        return average_precision(replace(self._detector, network=network), self._val, self._bad)[0] if self._val else None


def average_precision(
    detector: Detector, samples: Sequence[BoxSample], bad: Callable[[str], None] = lambda line: None
) -> tuple[float, float]:
    """AP50 and AP of a detector, its network in evaluation mode, prepared and decoded by the device's own code.

    Raises DataError when no picture is readable or none has a box.
    """
    answers = of_network(detector, samples, bad=bad)
    return detection_ap(answers.truth, answers.found)
