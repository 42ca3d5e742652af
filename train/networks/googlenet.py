"""GoogLeNet: nine modules of four branches side by side, with batch norm and without the two auxiliary classifiers.

Szegedy et al., "Going Deeper with Convolutions" (CVPR 2015); batch norm, which makes the auxiliary classifiers
superfluous, from Ioffe & Szegedy (ICML 2015). As in the weights that everybody has, the widest branch is one of 3x3, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.networks.layers import he_normal

BATCH_NORM_EPS = 1e-3


class ConvNorm(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.relu(self.bn(self.conv(input)))
        return output


class Inception(nn.Module):
    """Branches of 1x1, 3x3, 3x3 and pooling, concatenated; `narrow` are the channels that the 3x3 convolutions read."""

    def __init__(self, inputs: int, one: int, narrow: tuple[int, int], three: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.branch1 = ConvNorm(inputs, one)
        self.branch2 = nn.Sequential(ConvNorm(inputs, narrow[0]), ConvNorm(narrow[0], three[0], 3))
        self.branch3 = nn.Sequential(ConvNorm(inputs, narrow[1]), ConvNorm(narrow[1], three[1], 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvNorm(inputs, pooled))

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([self.branch1(input), self.branch2(input), self.branch3(input), self.branch4(input)], 1)


class GoogLeNet(nn.Module):
    """Normalized float32 RGB [n, 3, height, width] to logits [n, classes]."""

    def __init__(self, classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, 64, 7, 2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = ConvNorm(64, 64)
        self.conv3 = ConvNorm(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(192, 64, (96, 16), (128, 32), 32)
        self.inception3b = Inception(256, 128, (128, 32), (192, 96), 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(480, 192, (96, 16), (208, 48), 64)
        self.inception4b = Inception(512, 160, (112, 24), (224, 64), 64)
        self.inception4c = Inception(512, 128, (128, 24), (256, 64), 64)
        self.inception4d = Inception(512, 112, (144, 32), (288, 64), 64)
        self.inception4e = Inception(528, 256, (160, 32), (320, 128), 128)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = Inception(832, 256, (160, 32), (320, 128), 128)
        self.inception5b = Inception(832, 384, (192, 48), (384, 128), 128)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, classes)
        he_normal(self)

    def forward(self, input: Tensor) -> Tensor:
        value = self.conv3(self.conv2(self.maxpool1(self.conv1(input))))
        value = self.inception3b(self.inception3a(self.maxpool2(value)))
        value = self.inception4b(self.inception4a(self.maxpool3(value)))
        value = self.inception4e(self.inception4d(self.inception4c(value)))
        value = self.inception5b(self.inception5a(self.maxpool4(value)))
        logits: Tensor = self.fc(self.dropout(self.avgpool(value).flatten(1)))
        return logits
