"""Tiny networks and pictures to quantize them with: a classifier of random weights, and a detector of coloured squares.

Their factories are tests.quantize.tiny:classifier and tests.quantize.tiny:detector.
"""

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
from train.models import Classifier, Detector

SIZE = 32
CLASSES = ("blue", "green", "red")
DETECTOR_SIZE = 64
CELL = 8
COLORS = ("red", "green", "blue")
"""The detector's classes, in the order of its channels."""


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


class _Squares(nn.Module):
    """YOLOX's outputs for squares that fill a cell of the finest of three grids, by weights set by hand.

    A convolution says by how much each cell is redder, greener and bluer than the other two channels; the coarser grids
    see it, too, but are told not to speak.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, CELL, CELL)
        self.mix = nn.Conv2d(6, 6, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(6, 6, 3, 2, 1) for _ in range(2))
        self.boxes = nn.ModuleList(nn.Conv2d(6, 4, 1) for _ in range(3))
        self.scores = nn.ModuleList(nn.Conv2d(6, 1 + len(COLORS), 1) for _ in range(3))
        random = torch.Generator().manual_seed(0)
        colors = 1.5 * torch.eye(3) - 0.5
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.02)
            self.stem.weight[:3] = colors.reshape(3, 3, 1, 1) * 4 / CELL**2
            for index in range(6):
                self.mix.weight[index, index, 1, 1] += 0.3
                for layer in self.down:
                    layer.weight[index, index] += 0.25
            for boxes, scores, silent in zip(self.boxes, self.scores, (0.0, 12.0, 12.0), strict=True):
                boxes.weight.mul_(0.2)
                boxes.bias.copy_(torch.tensor([0.5, 0.5, 0.0, 0.0]))
                scores.weight[0, :3] += 2.0
                scores.weight[1:, :3, 0, 0] += 2 * torch.eye(3)
                scores.bias -= 4.0
                scores.bias[0] -= silent

    def forward(self, value: Tensor) -> Tensor:
        value = nn.functional.silu(self.stem(value))
        value = value + nn.functional.silu(self.mix(value))
        rows = []
        for index, (boxes, scores) in enumerate(zip(self.boxes, self.scores, strict=True)):
            if index:
                value = nn.functional.silu(self.down[index - 1](value))
            rows.append(torch.cat([boxes(value), torch.sigmoid(scores(value))], 1).flatten(2))
        return torch.cat(rows, 2).permute(0, 2, 1)


def detector() -> Detector:
    """Three classes on strides 8, 16 and 32; the same weights every time."""
    return Detector(
        name="squares",
        network=_Squares().eval(),
        head="yolox",
        input=InputGeometry(width=DETECTOR_SIZE, height=DETECTOR_SIZE, resize="letterbox"),
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        labels=tuple(Label(id=name, name=name) for name in COLORS),
        source="tests/quantize/tiny.py",
        license="Apache-2.0",
    )


def squares(folder: Path, count: int = 16, part: str = "") -> Path:
    """Pictures of the detector's size with one to four squares on grey noise each, and their YOLO boxes, under `folder`.

    `part` is train or val, where there are both.
    """
    random = np.random.default_rng(0)
    cells = DETECTOR_SIZE // CELL
    for name in ("images", "labels"):
        (folder / name / part).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(COLORS))
    for index in range(count):
        picture = random.integers(110, 145, (DETECTOR_SIZE, DETECTOR_SIZE, 3), dtype=np.uint8)
        lines = []
        for place in random.choice(cells**2, random.integers(1, 5), replace=False).tolist():
            row, column, color = place // cells, place % cells, int(random.integers(3))
            square = picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            square[:] = 60
            square[..., 2 - color] = 230  # BGR
            lines.append(f"{color} {(column + 0.5) / cells} {(row + 0.5) / cells} {1 / cells} {1 / cells}")
        cv2.imwrite(str(folder / "images" / part / f"{index}.png"), picture)
        (folder / "labels" / part / f"{index}.txt").write_text("\n".join(lines))
    return folder


def squares_and_noise(folder: Path) -> Path:
    """Pictures to measure with squares, and six others, to calibrate with and to choose with, of nothing but grey noise."""
    squares(folder, 16, "val")
    random = np.random.default_rng(1)
    for name in ("images", "labels"):
        (folder / name / "train").mkdir()
    for index in range(6):
        noise = random.integers(110, 145, (DETECTOR_SIZE, DETECTOR_SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / "train" / f"{index}.png"), noise)
        (folder / "labels" / "train" / f"{index}.txt").write_text("0 0.5 0.5 0.1 0.1")  # without any it would be no data set
    return folder
