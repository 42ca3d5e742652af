"""ResNet-18 and ResNet-50: convolutions that learn what to add to their input.

He et al., "Deep Residual Learning" (CVPR 2016); the bottleneck strides in its 3x3 convolution, as is usual since Goyal et al.,
"Accurate, Large Minibatch SGD" (2017).
"""

from __future__ import annotations

from torch import Tensor, nn

from train.networks.layers import conv_norm, he_normal


class Basic(nn.Module):
    """Two convolutions of 3x3."""

    widens = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(inputs, channels, stride)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        value = self.relu(self.bn1(self.conv1(input)))
        value = self.bn2(self.conv2(value))
        output: Tensor = self.relu(value + self.downsample(input))
        return output


class Bottleneck(nn.Module):
    """A 3x3 convolution between one of 1x1 that narrows and one that widens to four times its channels."""

    widens = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.widens
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        value = self.relu(self.bn1(self.conv1(input)))
        value = self.relu(self.bn2(self.conv2(value)))
        value = self.bn3(self.conv3(value))
        output: Tensor = self.relu(value + self.downsample(input))
        return output


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 and inputs == outputs else conv_norm(inputs, outputs, stride=stride)


def _stage(block: type[Basic | Bottleneck], inputs: int, channels: int, repeats: int, stride: int) -> nn.Sequential:
    rest = (block(channels * block.widens, channels, 1) for _ in range(repeats - 1))
    return nn.Sequential(block(inputs, channels, stride), *rest)


class ResNet(nn.Module):
    """Normalized float32 RGB [n, 3, height, width] to logits [n, classes]; `repeats` are the blocks of each stage."""

    def __init__(self, block: type[Basic | Bottleneck], repeats: tuple[int, int, int, int], classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = (64, 128, 256, 512)
        inputs = (64, *(block.widens * count for count in channels))
        self.layer1 = _stage(block, inputs[0], channels[0], repeats[0], stride=1)
        self.layer2 = _stage(block, inputs[1], channels[1], repeats[1], stride=2)
        self.layer3 = _stage(block, inputs[2], channels[2], repeats[2], stride=2)
        self.layer4 = _stage(block, inputs[3], channels[3], repeats[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs[4], classes)
        he_normal(self)

    def forward(self, input: Tensor) -> Tensor:
        value = self.maxpool(self.relu(self.bn1(self.conv1(input))))
        value = self.layer4(self.layer3(self.layer2(self.layer1(value))))
        logits: Tensor = self.fc(self.avgpool(value).flatten(1))
        return logits
