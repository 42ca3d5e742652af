"""A short training without a run of its own: a network that is nearly right, from labels, from a teacher, or from both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edge.errors import DataError
from train.loop import Progress, recalibrate, seeded, train
from train.losses import distance, features, learning_loss, tensors
from train.pictures import Batch, Pictures
from train.recipe import Recipe, schedule
from train.team import Team

__all__ = [
    "ClassifierJob",
    "Progress",
    "Recipe",
    "accuracy",
    "distance",
    "features",
    "fine_tune",
    "recalibrate",
    "schedule",
    "seeded",
    "tensors",
]

RECALIBRATION_PICTURES = 512


@dataclass(slots=True, eq=False)
class ClassifierJob:
    """A network, or a pair of them, on labelled pictures: train.loop's job of classifiers and of what has a teacher.

    `check`, when given, measures top-1 after each epoch; `class_weights` [classes] weigh the labels' loss.
    """

    network: nn.Module
    pictures: Pictures
    recipe: Recipe
    teacher: nn.Module | None = None
    check: Pictures | None = None
    class_weights: Tensor | None = None

    def batches_an_epoch(self) -> int:
        """How many steps an epoch has."""
        return self.pictures.batches_an_epoch(self.recipe.batch)

    def batches(self, epoch: int, first: int, team: Team) -> Iterator[tuple[int, Batch]]:
        """The process's shares of an epoch's batches, with their numbers."""
        recipe = self.recipe
        return self.pictures.steps(
            epoch, recipe.batch, recipe.seed, recipe.augment, first=first, rank=team.rank, world=team.world
        )

    def loss(self, network: nn.Module, batch: Batch, random: np.random.Generator) -> Tensor:
        """The mean loss of a batch as the recipe weighs labels and teacher."""
        return learning_loss(network, batch, self.recipe, teacher=self.teacher, class_weights=self.class_weights, mixing=random)

    def plain(self) -> Iterator[Tensor]:
        """Some training pictures as the device sees them."""
        return (batch.images for batch in self.pictures.plain(self.recipe.batch, RECALIBRATION_PICTURES))

    def measure(self, network: nn.Module) -> float | None:
        """Top-1 of the pictures to check with; None without any."""
        return None if self.check is None else accuracy(network, self.check)


def fine_tune(
    network: nn.Module,
    pictures: Pictures,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> nn.Module:
    """A trained copy of `network` in evaluation mode: averaged weights, batch norm measured again on plain pictures.

    With a `teacher`, `recipe.distill` of the loss is the distance to its outputs. Raises DataError when no picture is
    readable, and EdgeError when the loss is no longer finite.
    """
    job = ClassifierJob(network, pictures, recipe, teacher)
    return train(job, recipe, team=Team(torch.device("cpu")), progress=progress).network


def accuracy(network: nn.Module, pictures: Pictures, size: int = 32) -> float:
    """The share of pictures, as the device would see them, whose best class is their own. Raises DataError."""
    right = count = 0
    network.eval()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        for batch in pictures.plain(size):
            placed = batch.to(device)
            right += int((network(placed.images).argmax(1) == placed.class_ids).sum())
            count += len(batch)
    if not count:
        raise DataError("no picture to measure on is readable; give more pictures")
    return right / count
