"""Every model that can be asked for by name, through edge-quantize's code to int8 on both engines, against its own float32."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from edge.card import Label, Variant  # noqa: E402
from edge.engines import EngineOptions, open_engine  # noqa: E402
from edge.types import Geometry, Tensor, UInt8  # noqa: E402
from quantize.float_model import float_model  # noqa: E402
from quantize.readback import read_back  # noqa: E402
from quantize.store import Store  # noqa: E402
from quantize.targets import KINDS, Settings, target, variant_of  # noqa: E402
from quantize.workshop import Workshop  # noqa: E402
from train import models  # noqa: E402

SIZE, CLASSES = 64, 8
CLOSE_DB = 4.0
"""What differs between pictures, over the noise; a wrong scale, padding or order of channels leaves less than none."""
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE"}


def pictures(count: int, seed: int) -> list[UInt8]:
    """Smooth patches of colour under noise, each uint8 [1, h, w, 3]."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        patches = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        smooth = cv2.resize(patches, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        made.append(np.clip(smooth + random.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)[None])
    return made


def made(name: str) -> models.Classifier:
    """The model with random weights, its batch norms fitted to pictures.

    They shift most values above zero: a deep network of random weights and as many values cut off by ReLU as not is chaotic,
    and would multiply the least rounding.
    """
    model = models.MODELS[name]
    torch.manual_seed(0)
    network = model.make(CLASSES)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.bias, 0.5, 1.5)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (model.mean, model.std))
    pixels = torch.from_numpy(np.concatenate(pictures(32, 1))).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        network.train()((pixels - mean) / std)
    return models.Classifier(
        name=name,
        network=network.eval(),
        input=models.geometry(name, (SIZE, SIZE)),
        mean=model.mean,
        std=model.std,
        labels=tuple(Label(id=str(index), name=str(index)) for index in range(CLASSES)),
        source="tests",
        license="Apache-2.0",
    )


def logits(data: bytes, variant: Variant, given: list[UInt8]) -> npt.NDArray[np.float64]:
    engine = open_engine(data, variant, EngineOptions(threads=2, exact=True))
    same = Geometry((1.0, 1.0), (0.0, 0.0), (SIZE, SIZE))
    found = [np.array(engine.infer(Tensor(picture, same))["logits"], np.float64).reshape(-1) for picture in given]
    engine.close()
    return np.stack(found)


def signal_db(got: npt.NDArray[np.float64], want: npt.NDArray[np.float64]) -> float:
    return 10 * math.log10(float(np.square(want - want.mean(0)).sum() / np.square(got - want).sum()))


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_it_exports_quantizes_and_runs_on_both_engines(name: str, tmp_path: Path) -> None:
    classifier = made(name)
    workshop = Workshop(float_model(classifier), pictures(8, 2), 2, Store(tmp_path), lambda line: None)
    seen = pictures(8, 3)
    data = workshop.float32()
    float32 = logits(data, variant_of(KINDS["float32"], data, "logits"), seen)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (classifier.mean, classifier.std))
    with torch.no_grad():
        pixels = torch.from_numpy(np.concatenate(seen)).permute(0, 3, 1, 2).float()
        want = classifier.network((pixels - mean) / std).double().numpy()
    assert signal_db(float32, want) > 80
    for kind in ("int8-x86", "int8-tflite"):
        data = target(kind, workshop).build(Settings(rounding="nearest"))
        int8 = logits(data, variant_of(KINDS[kind], data, "logits"), seen)
        made_of = read_back(data, KINDS[kind].engine)
        print(name, kind, round(signal_db(int8, float32), 1), made_of)
        assert signal_db(int8, float32) > CLOSE_DB, kind
        floats = {operator: count for operator, count in made_of.floats.items() if operator not in CONVERSIONS}
        assert floats in ({}, {"FULLY_CONNECTED": 1}), kind  # the last layer's sums
