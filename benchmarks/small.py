"""Published models at other sizes, for edge-quantize: `benchmarks.small:lite0 --arg size=128`."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from train.models import Classifier, pretrained


def lite0(size: int) -> Classifier:
    """EfficientNet-Lite0 as published, on smaller pictures."""
    model = pretrained("efficientnet-lite0")
    geometry = msgspec.structs.replace(model.input, width=size, height=size)
    return replace(model, name=f"efficientnet-lite0-{size}", input=geometry)
