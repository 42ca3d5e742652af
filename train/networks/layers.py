"""What the networks of this folder share: a convolution with batch norm and ReLU, and the weights they start from."""

from __future__ import annotations

from torch import nn


def conv_norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """Convolution that keeps the size but for its stride, batch norm and, where there is one, an activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([] if act is None else [act]))


def he_normal(network: nn.Module) -> None:
    """Weights to train from, in place: what comes out of a layer and a ReLU varies as much as what went in.

    He et al., "Delving Deep into Rectifiers" (ICCV 2015), by fan-out for convolutions; linear layers vary by 0.01, as the
    papers of AlexNet and VGG say, so that a first guess favours no class.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
