"""How to train, as data: the recipe, and the rate that it asks for at each moment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from train.augment import Augment

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. `rate` is the peak of a cosine that rises over the share `warmup` of the steps.

    `batch` pictures of all processes together make a step, in `accumulate` parts one after another where memory is short.
    `mixup` is the alpha of Beta(alpha, alpha), which weighs two pictures of a batch against each other (Zhang et al.,
    2018); 0 mixes none. `distill` is the teacher's share of the loss, the rest is the labels'; `temperature` softens the
    logits of both. `hints` weighs what is added to it: the distance of features inside (Romero et al., FitNets, ICLR 2015)
    wherever the two networks have a layer of the same name and input shape, as a pruned one and the one that it came from
    do. `average` is the decay a step of the averaged weights that are returned. `clip` bounds the norm of a step's
    gradient. The first share `freeze` of the layers with weights keeps them. `minutes`, when given, shortens the schedule
    to fit, and then the result depends on the machine's speed. With `patience`, it ends when the metric has not improved
    for so many epochs, and the best epoch's weights are returned. `precision` "auto" is bfloat16 where a GPU has it, and
    float32 elsewhere.
    """

    epochs: float = 3
    batch: int = 32
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    rate: float = 5e-4
    warmup: float = 0.1
    weight_decay: float = 0.02
    clip: float | None = None
    smoothing: float = 0.1
    mixup: float = 0.0
    distill: float = 0.0
    hints: float = 0.0
    temperature: float = 2.0
    average: float = 0.98
    batch_norm: Literal["train", "freeze"] = "train"
    freeze: float = 0.0
    augment: Augment = field(default_factory=Augment)
    precision: Precision = "auto"
    seed: int = 0
    minutes: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        least = {"epochs": self.epochs, "batch": self.batch, "accumulate": self.accumulate, "rate": self.rate}
        for name, value in least.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if not 0 <= self.freeze < 1:
            raise ValueError(f"freeze is {self.freeze}, expected a share below 1")


def schedule(done: float, warmup: float) -> float:
    """The share of the peak rate at a share of the schedule: a line up, then half a cosine down to zero."""
    if done < warmup:
        return (done + 0.02) / (warmup + 0.02)
    return 0.5 + 0.5 * math.cos(math.pi * (done - warmup) / (1 - warmup))
