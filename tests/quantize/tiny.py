"""A tiny classifier of random weights and pictures to quantize it with; its factory is tests.quantize.tiny:classifier."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from edge.card import InputGeometry, Label
from train.efficientnet_lite import ConvNorm, InvertedResidual
from train.models import Classifier

SIZE = 32
CLASSES = ("blue", "green", "red")


def classifier() -> Classifier:
    """Three classes; the same weights every time, with batch norm statistics that matter."""
    torch.manual_seed(0)
    network = nn.Sequential(
        ConvNorm(3, 8, kernel=3, stride=2),
        InvertedResidual(8, 16, kernel=3, stride=2, expand=2),
        InvertedResidual(16, 16, kernel=5, stride=1, expand=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, len(CLASSES)),
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.2, 0.5)
    return Classifier(
        name="tiny",
        network=network.eval(),
        input=InputGeometry(width=SIZE, height=SIZE),
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        labels=tuple(Label(id=name, name=name) for name in CLASSES),
        source="tests/quantize/tiny.py",
        license="Apache-2.0",
    )


def broken() -> None:
    """A factory that fails."""
    raise RuntimeError("no weights\nhere")


def pictures(folder: Path, each: int = 8) -> Path:
    """Class folders of noisy pictures, `each` a class, under `folder`."""
    random = np.random.default_rng(0)
    for channel, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            picture = random.integers(0, 160, (40, 48, 3), dtype=np.uint8)
            picture[..., channel] += 90
            cv2.imwrite(str(folder / name / f"{index}.png"), picture)
    return folder
