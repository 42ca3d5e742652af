"""The recipes that edge-train starts from, by what is trained from what."""

from __future__ import annotations

from collections.abc import Mapping

from train.augment import Augment
from train.recipe import Recipe

RECIPES: Mapping[str, Recipe] = {
    "transfer": Recipe(epochs=5, rate=2e-4, average=0.97, batch_norm="freeze", freeze=0.5, augment=Augment(least_area=0.5)),
    "scratch": Recipe(epochs=60, rate=1e-3, weight_decay=0.05, warmup=0.05, mixup=0.2, average=0.99, clip=5.0),
    "detect": Recipe(epochs=30, batch=16, rate=1e-3, weight_decay=0.02),
}
