"""A tiny classifier of random weights and pictures to quantize it with; its factory is tests.quantize.tiny:classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

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


class _Doubled(nn.Module):
    """Begins with what no quantizer takes as a convolution's input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, value: Tensor) -> Tensor:
        logits: Tensor = self.network(torch.exp(value) - 1)
        return logits


class _Returns(nn.Module):
    def __init__(self, what: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.what = what

    def forward(self, value: Tensor) -> Any:
        return self.what(value)


def _with(**changes: Any) -> Callable[[], Classifier]:
    return lambda: replace(classifier(), **changes)


per_channel = _with(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
between_integers = _with(mean=(127.5,) * 3, std=(127.5,) * 3)
integers = _with(mean=(124, 116, 104), std=(58, 57, 57))
zero_std = _with(std=(128.0, 0.0, 128.0))
no_mean = _with(mean=127.0)
spaced_name = _with(name="my model")
no_name = _with(name=None)
few_labels = _with(labels=(Label(id="blue", name="blue"), Label(id="red", name="red")))
text_labels = _with(labels=CLASSES)
same_labels = _with(labels=(Label(id="blue", name="blue"),) * 3)
feature_map = _with(network=nn.Conv2d(3, 3, 1))
two_outputs = _with(network=_Returns(lambda value: {"logits": value}))
wrong_size = _with(network=nn.Sequential(nn.Flatten(), nn.Linear(7, 3)))
no_onnx = _with(network=_Returns(lambda value: torch.special.bessel_j0(value).mean((2, 3))))
no_tflite = _with(network=_Returns(lambda value: torch.fft.fft(value).real.mean((2, 3))))
branches = _with(network=_Returns(lambda value: value.mean((2, 3)) if value.sum() > 1 else value.amax((2, 3))))


def begins_in_float() -> Classifier:
    """A network whose first operator no quantizer takes."""
    tiny = classifier()
    return replace(tiny, network=_Doubled(tiny.network))


def interrupted() -> None:
    """A factory during which the user presses Ctrl-C."""
    raise KeyboardInterrupt


def leaves() -> None:
    """A factory that ends the process."""
    raise SystemExit(0)


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
