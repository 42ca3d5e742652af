"""MobileNetV2: inverted residuals with linear bottlenecks.

Sandler et al., "MobileNetV2" (CVPR 2018), width 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.networks.layers import conv_norm, he_normal

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, and the first one's stride."""


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to its input where the shape is kept."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.conv = nn.Sequential(
            *([conv_norm(inputs, hidden, act=nn.ReLU6())] if expand > 1 else []),
            conv_norm(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6()),
            *conv_norm(hidden, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.conv(input)
        return input + output if self.residual else output


class MobileNetV2(nn.Module):
    """Normalized float32 RGB [n, 3, height, width] to logits [n, classes]."""

    def __init__(self, classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, STEM_CHANNELS, 3, 2, act=nn.ReLU6())]
        channels = STEM_CHANNELS
        for expand, outputs, repeats, stride in STAGES:
            for index in range(repeats):
                layers.append(InvertedResidual(channels, outputs, 1 if index else stride, expand))
                channels = outputs
        layers.append(conv_norm(channels, HEAD_CHANNELS, act=nn.ReLU6()))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(HEAD_CHANNELS, classes))
        he_normal(self)

    def forward(self, input: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(input)).flatten(1))
        return logits
