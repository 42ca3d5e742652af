"""A detector that quantizes well: EfficientNet-Lite, a feature pyramid of separable convolutions, an anchor-free head.

Every activation is ReLU6 or none, levels are added and never concatenated, and enlarged by repeating: what an integer
engine has. The head predicts as NanoDet's does (edge.tasks.heads), so that a device decodes it already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edge.card import DetectOptions, InputGeometry, Label
from edge.errors import UsageError
from train.efficientnet_lite import ConvNorm, EfficientNetLite, InvertedResidual
from train.models import MODELS, Detector, load

STRIDES = (8, 16, 32)
"""Pixels a cell of each grid."""
NORM_MOMENTUM = 0.05
FROZEN_BLOCKS = 5
"""Up to stride 8, where a backbone sees edges and textures; without them a step costs half."""
PRIOR = 0.01
"""The probability of each class that an untrained head gives (Lin et al., 2017, Focal Loss)."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A detector as data: its `backbone` by name, the side of its input in pixels, and the size of what is new.

    `width` channels run through the pyramid and the head, which is `depth` separable convolutions deep; a distance is a
    distribution over `bins` whole strides, from 0.
    """

    name: str
    backbone: str
    size: int
    width: int = 96
    depth: int = 2
    bins: int = 8


DETECTORS: Mapping[str, Architecture] = {
    f"efficientnet-lite{number}-det": Architecture(f"efficientnet-lite{number}-det", f"efficientnet-lite{number}", size)
    for number, size in enumerate((320, 384, 448))
}
"""Name → what can be trained."""


class FixedNorm(nn.Module):
    """Batch norm by statistics that stay as they are in every mode: those of a small batch are no better.

    Its scale and shift learn.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.eps = norm.eps
        self.weight, self.bias = nn.Parameter(norm.weight.detach().clone()), nn.Parameter(norm.bias.detach().clone())
        self.register_buffer("running_mean", norm.running_mean.clone())
        self.register_buffer("running_var", norm.running_var.clone())

    def forward(self, value: Tensor) -> Tensor:
        return functional.batch_norm(value, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


def _fix(network: nn.Module) -> None:
    """Fix every batch norm of a network, in place."""
    for module in network.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.norm = FixedNorm(module.norm)  # type: ignore[assignment]


def _fold(network: nn.Module) -> None:
    """Fold every batch norm into its convolution, in place: a third less to compute where nothing is learned."""
    for module in network.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]


class Trunk(nn.Module):
    """A backbone without its classifier: images [n, 3, h, w] to features of strides 8, 16 and 32.

    The stem and the first `frozen` blocks do not learn, and cost no gradient.
    """

    def __init__(self, backbone: EfficientNetLite, frozen: int) -> None:
        super().__init__()
        self.stem = backbone.stem
        self.blocks = backbone.blocks
        blocks = [cast(InvertedResidual, block) for block in self.blocks]
        strided = [index for index, block in enumerate(blocks) if block.depthwise.conv.stride[0] == 2]
        self._taps = frozenset(index - 1 for index in [*strided[2:], len(blocks)])
        self.channels = [blocks[index].project.conv.out_channels for index in sorted(self._taps)]
        for module in [self.stem, *blocks[:frozen]]:
            _fold(module)
            module.requires_grad_(False)
        _fix(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        value = self.stem(images)
        features = []
        for index, block in enumerate(self.blocks):
            value = block(value)
            if index in self._taps:
                features.append(value)
        return features


def separable(inputs: int, outputs: int, kernel: int = 5, stride: int = 1) -> nn.Sequential:
    """A convolution of each channel, then one across them, each with batch norm and ReLU6."""
    return nn.Sequential(ConvNorm(inputs, inputs, kernel, stride, groups=inputs), ConvNorm(inputs, outputs))


class Pyramid(nn.Module):
    """Features of several strides, each told of the others: coarse to fine (Lin et al., 2017) and back (Liu et al., 2018)."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(count, width, linear=True) for count in channels)
        self.down = nn.ModuleList(separable(width, width) for _ in channels[1:])
        self.up = nn.ModuleList(separable(width, width, stride=2) for _ in channels[1:])
        self.mix = nn.ModuleList(separable(width, width) for _ in channels[1:])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            enlarged = functional.interpolate(levels[index + 1], scale_factor=2.0, mode="nearest")
            levels[index] = self.down[index](levels[index] + enlarged)
        for index, (up, mix) in enumerate(zip(self.up, self.mix, strict=True), start=1):
            levels[index] = mix(levels[index] + up(levels[index - 1]))
        return levels


class Head(nn.Module):
    """A level's features to class logits [n, classes, h, w] and distributions of distances [n, 4 bins, h, w]."""

    def __init__(self, width: int, depth: int, classes: int, bins: int) -> None:
        super().__init__()
        self.tower = nn.Sequential(*(separable(width, width) for _ in range(depth)))
        self.classify = nn.Conv2d(width, classes, 1)
        self.locate = nn.Conv2d(width, 4 * bins, 1)
        assert self.classify.bias is not None
        assert self.locate.bias is not None
        with torch.no_grad():
            self.classify.weight.normal_(std=0.01)
            self.classify.bias.fill_(torch.logit(torch.tensor(PRIOR)).item())
            self.locate.weight.normal_(std=0.01)
            self.locate.bias.zero_()

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        value = self.tower(value)
        return self.classify(value), self.locate(value)


class DetectionNetwork(nn.Module):
    """Normalized float32 RGB [n, 3, h, w], sides multiples of 32, to [n, cells, classes + 4 bins].

    A row holds class probabilities and the logits of four distance distributions, left, top, right and bottom, of a cell
    of the grids, as head `nanodet` reads it. In training mode the classes are logits, too.
    """

    def __init__(self, trunk: Trunk, classes: int, width: int, depth: int, bins: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.pyramid = Pyramid(trunk.channels, width)
        self.heads = nn.ModuleList(Head(width, depth, classes, bins) for _ in STRIDES)
        for part in (self.pyramid, self.heads):
            for module in part.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = NORM_MOMENTUM

    def train(self, mode: bool = True) -> DetectionNetwork:
        for module in self.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = mode  # a third of the time of layers that do not learn; exporters know the other one
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        rows = []
        for head, level in zip(self.heads, self.pyramid(self.trunk(images)), strict=True):
            logits, distances = head(level)
            rows.append(torch.cat([logits if self.training else torch.sigmoid(logits), distances], 1))
        return torch.cat([row.permute(0, 2, 3, 1).flatten(1, 2) for row in rows], 1)


def build(
    name: str,
    labels: Sequence[Label],
    *,
    size_wh: tuple[int, int] | None = None,
    pretrained: bool = True,
    frozen: int = FROZEN_BLOCKS,
) -> Detector:
    """The named detector for these classes, its backbone with ImageNet weights when `pretrained`, the rest untrained.

    The stem and the first `frozen` blocks of the backbone will not learn. What is untrained comes from torch's random
    numbers. Raises UsageError for an unknown name or a size that the strides do not divide, and what train.models.load
    raises.
    """
    if name not in DETECTORS:
        raise UsageError(f"no detector named {name!r}; there are {', '.join(DETECTORS)}")
    made = DETECTORS[name]
    width, height = size_wh or (made.size, made.size)
    if width % STRIDES[-1] or height % STRIDES[-1]:
        raise UsageError(f"--size {width}x{height}: {name} takes multiples of {STRIDES[-1]} pixels; give others")
    backbone = MODELS[made.backbone]
    trunk = Trunk(cast(EfficientNetLite, load(made.backbone, pretrained)), frozen)
    network = DetectionNetwork(trunk, len(labels), made.width, made.depth, made.bins)
    return Detector(
        name=made.name,
        network=network.eval(),
        head="nanodet",
        input=InputGeometry(width=width, height=height, color="rgb", resize="letterbox"),
        mean=backbone.mean,
        std=backbone.std,
        labels=tuple(labels),
        source=f"backbone: ImageNet weights of {backbone.package}, converted from tensorflow/tpu efficientnet/lite",
        license=backbone.license,
        options=DetectOptions(strides=STRIDES, cell_offset=0.5),
    )
