"""DenseNet-121: every layer reads what all layers before it in its block gave.

Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017). Batch norm and ReLU come before each convolution.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from train.networks.layers import he_normal

BLOCKS = (6, 12, 24, 16)
STEM_CHANNELS = 64
GROWTH = 32
BOTTLENECK = 4
"""A layer's 1x1 convolution gives this many times what its 3x3 convolution gives."""


class DenseLayer(nn.Module):
    """`GROWTH` channels more, read from all there are."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, BOTTLENECK * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * GROWTH)
        self.conv2 = nn.Conv2d(BOTTLENECK * GROWTH, GROWTH, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        value = self.conv1(self.relu(self.norm1(input)))
        more = self.conv2(self.relu(self.norm2(value)))
        return torch.cat([input, more], 1)


def _block(inputs: int, repeats: int) -> nn.Sequential:
    layers = ((f"denselayer{index + 1}", DenseLayer(inputs + index * GROWTH)) for index in range(repeats))
    return nn.Sequential(OrderedDict[str, nn.Module](layers))


def _transition(inputs: int) -> nn.Sequential:
    layers: dict[str, nn.Module] = {
        "norm": nn.BatchNorm2d(inputs),
        "relu": nn.ReLU(),
        "conv": nn.Conv2d(inputs, inputs // 2, 1, bias=False),
        "pool": nn.AvgPool2d(2),
    }
    return nn.Sequential(OrderedDict(layers))


class DenseNet121(nn.Module):
    """Normalized float32 RGB [n, 3, height, width], 32 pixels at least, to logits [n, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        channels = STEM_CHANNELS
        layers: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            "norm0": nn.BatchNorm2d(channels),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, 2, 1),
        }
        for number, repeats in enumerate(BLOCKS, start=1):
            layers[f"denseblock{number}"] = _block(channels, repeats)
            channels += repeats * GROWTH
            if number < len(BLOCKS):
                layers[f"transition{number}"] = _transition(channels)
                channels //= 2
        layers |= {"norm5": nn.BatchNorm2d(channels), "relu5": nn.ReLU(), "pool5": nn.AdaptiveAvgPool2d(1)}
        self.features = nn.Sequential(OrderedDict(layers))
        self.classifier = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, input: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(input).flatten(1))
        return logits
