"""Layers with more inputs than second moments are kept of, and linear layers before the last."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from quantize import correct, rounding  # noqa: E402
from quantize.correct import corrected  # noqa: E402
from quantize.fake import FakeQuantized, observe, place  # noqa: E402
from quantize.float_model import float_model  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.graph import layers, weight_and_bias  # noqa: E402
from quantize.quiet import quiet  # noqa: E402
from quantize.readback import read_back  # noqa: E402
from quantize.rounding import LayerInputs, nearest_scale, on_grid  # noqa: E402
from quantize.store import Store  # noqa: E402
from quantize.targets import Settings, target  # noqa: E402
from quantize.workshop import Workshop  # noqa: E402
from tests.quantize import tiny  # noqa: E402

SIDE, LIMIT = 8, 7


@pytest.fixture(autouse=True)
def few_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two linear layers, the first has more."""
    for module in (rounding, correct):
        monkeypatch.setattr(module, "MOST_FEATURES", 60)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def inputs(count: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, SIDE, SIDE, generator=generator) + 0.5 for _ in range(count)]


def graph() -> torch.fx.GraphModule:
    with quiet():
        return fold(network(), inputs(1)[0])


def mean_of(made: torch.fx.GraphModule) -> Tensor:
    with torch.no_grad():
        return torch.cat([made(value) for value in inputs()]).mean(0)


def test_a_wide_layers_weights_are_rounded_to_the_nearest_and_its_means_kept() -> None:
    exact = graph()
    moments = LayerInputs(exact).observe(inputs())
    wide = layers(exact)[1]
    assert wide.name not in moments.second_moment
    assert {layer.name for layer in layers(exact)} - set(moments.second_moment) == {wide.name}
    rounded = on_grid(exact, moments, LIMIT)
    own, own_bias = weight_and_bias(exact, wide)
    weight, bias = weight_and_bias(rounded, layers(rounded)[1])
    scale = nearest_scale(own, LIMIT)
    torch.testing.assert_close(weight, torch.round(own / scale) * scale)
    shift = (own - weight) @ moments.mean[wide.name][0]
    assert shift.abs().max() > 1e-3
    torch.testing.assert_close(bias, own_bias + shift)


def test_a_wide_layer_is_corrected_by_its_bias() -> None:
    exact = graph()
    ranges = observe(exact, place(exact), inputs())
    better = corrected(exact, inputs(), limit=LIMIT, ranges=ranges)
    weight, _ = weight_and_bias(better, layers(better)[1])
    scale = nearest_scale(weight, LIMIT)
    torch.testing.assert_close(weight, torch.round(weight / scale) * scale)

    def error(made: torch.fx.GraphModule) -> float:
        student = FakeQuantized(made, LIMIT, ranges)
        with torch.no_grad():
            outputs = torch.cat([student.run(value) for value in inputs()])
        return float((outputs.mean(0) - mean_of(exact)).abs().max())

    assert error(better) < 0.2 * error(exact)


def test_only_the_last_linear_layer_has_float_sums_in_litert(tmp_path: Path) -> None:
    classifier = tiny.classifier()
    hidden = nn.Sequential(*list(classifier.network)[:-1], nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, len(tiny.CLASSES)))
    model = float_model(tiny._with(network=hidden.eval())())
    pictures = [torch.randint(0, 256, (1, tiny.SIZE, tiny.SIZE, 3), dtype=torch.uint8).numpy() for _ in range(2)]
    workshop = Workshop(model, pictures, 1, Store(tmp_path), lambda line: None)
    data = target("int8-tflite", workshop).build(Settings(calibrator="minmax", rounding="nearest"))
    assert read_back(data, "tflite").floats == {"DEQUANTIZE": 1, "FULLY_CONNECTED": 1}
