"""AlexNet as it is used today: one column of five convolutions, without local response normalization.

Krizhevsky, Sutskever & Hinton (NeurIPS 2012), in the form of Krizhevsky, "One weird trick" (arXiv 1404.5997, 2014).
"""

from __future__ import annotations

from torch import Tensor, nn

from train.networks.layers import he_normal


class AlexNet(nn.Module):
    """Normalized float32 RGB [n, 3, height, width], 63 pixels at least, to logits [n, classes]."""

    def __init__(self, classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),
        )
        he_normal(self)

    def forward(self, input: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(input)).flatten(1))
        return logits
