"""VGG16: thirteen convolutions of 3x3 and three large linear layers, as published or with batch norm.

Simonyan & Zisserman, "Very Deep Convolutional Networks" (ICLR 2015), configuration D.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.networks.layers import he_normal

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each; a pooling layer follows it."""


class Vgg16(nn.Module):
    """Normalized float32 RGB [n, 3, height, width] to logits [n, classes]."""

    def __init__(self, batch_norm: bool = False, classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels, repeats in STAGES:
            for _ in range(repeats):
                layers.append(nn.Conv2d(inputs, channels, 3, padding=1))
                layers += [nn.BatchNorm2d(channels)] if batch_norm else []
                layers.append(nn.ReLU())
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, classes),
        )
        he_normal(self)

    def forward(self, input: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(input)).flatten(1))
        return logits
