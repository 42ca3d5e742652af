"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6, so that it quantizes well.

Architecture: Tan & Le, "EfficientNet" (ICML 2019), as changed for phones in tensorflow/tpu efficientnet/lite.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
BATCH_NORM_EPS = 1e-3


class Stage(NamedTuple):
    """A run of blocks: the first one strides and widens, the others keep the shape."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expand=1, channels=16),
    Stage(repeats=2, kernel=3, stride=2, expand=6, channels=24),
    Stage(repeats=2, kernel=5, stride=2, expand=6, channels=40),
    Stage(repeats=3, kernel=3, stride=2, expand=6, channels=80),
    Stage(repeats=3, kernel=5, stride=1, expand=6, channels=112),
    Stage(repeats=4, kernel=5, stride=2, expand=6, channels=192),
    Stage(repeats=1, kernel=3, stride=1, expand=6, channels=320),
)


class SamePadConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: with stride 2 on an even size, the odd pixel goes last."""

    def forward(self, input: Tensor) -> Tensor:
        left_right = _same_padding(input.shape[-1], self.kernel_size[1], self.stride[1])
        top_bottom = _same_padding(input.shape[-2], self.kernel_size[0], self.stride[0])
        if left_right[0] == left_right[1] and top_bottom[0] == top_bottom[1]:
            padding = (top_bottom[0], left_right[0])
            return functional.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        padded = functional.pad(input, (*left_right, *top_bottom))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, unless `linear`, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = SamePadConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS, momentum=0.01)
        if not linear:
            self.act = nn.ReLU6()


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to its input where the shape is kept."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = ConvNorm(inputs, hidden) if expand > 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, groups=hidden)
        self.project = ConvNorm(hidden, outputs, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.project(self.depthwise(self.expand(input)))
        return input + output if self.residual else output


class EfficientNetLite(nn.Module):
    """Normalized float32 RGB [n, 3, height, width] to logits [n, classes].

    `width` and `depth` multiply channels and repeats; stem, head and the depth of the first and last stage stay.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0, classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for index, stage in enumerate(STAGES):
            outputs = _round_channels(stage.channels * width)
            repeats = stage.repeats if index in (0, len(STAGES) - 1) else math.ceil(stage.repeats * depth)
            for repeat in range(repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, stage.kernel, stride, stage.expand))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, HEAD_CHANNELS)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(HEAD_CHANNELS, classes)

    def forward(self, input: Tensor) -> Tensor:
        features = self.head(self.blocks(self.stem(input)))
        pooled = functional.adaptive_avg_pool2d(features, 1).flatten(1)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


def _round_channels(channels: float, multiple: int = 8) -> int:
    """To the nearest multiple of 8, but never losing more than a tenth (the paper's rule)."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded
