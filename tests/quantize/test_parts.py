"""Each step of quantization on its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from dataclasses import replace  # noqa: E402

from edge.calibration import fit_temperature  # noqa: E402
from edge.card import Label  # noqa: E402
from edge.errors import DataError  # noqa: E402
from quantize import onnx_int8  # noqa: E402
from quantize.data import load_split  # noqa: E402
from quantize.export import Front, to_onnx, uint8_nhwc, with_front, with_weights  # noqa: E402
from quantize.float_model import float_model  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.graph import layers, weight_and_bias  # noqa: E402
from quantize.quiet import quiet  # noqa: E402
from quantize.rounding import LayerInputs, on_grid, round_weights  # noqa: E402
from tests.quantize import tiny  # noqa: E402

EXAMPLE = torch.zeros(1, 3, tiny.SIZE, tiny.SIZE)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_fit_recovers_a_known_temperature(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 10))
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (odds.cumsum(1) < random.random((len(odds), 1))).sum(1)
    assert fit_temperature((logits * temperature).astype(np.float32), truth) == pytest.approx(temperature, rel=0.05)


def test_split_is_disjoint_and_deterministic(tmp_path: Path) -> None:
    labels = [Label(id=name, name=name) for name in tiny.CLASSES]
    tiny.pictures(tmp_path)
    split = load_split(tmp_path, labels, 5)
    assert split == load_split(tmp_path, labels, 5)
    parts = [{sample.path for sample in part} for part in (split.calibration, split.choice, split.measure)]
    assert [len(part) for part in parts] == [5, 7, 12]
    assert len(set.union(*parts)) == 24


def test_split_measures_on_val_alone(tmp_path: Path) -> None:
    labels = [Label(id=name, name=name) for name in tiny.CLASSES]
    tiny.pictures(tmp_path / "train")
    tiny.pictures(tmp_path / "val", each=2)
    split = load_split(tmp_path, labels, 1000)
    assert (len(split.calibration), len(split.choice), len(split.measure)) == (12, 12, 6)
    assert all("val" in sample.path.parts for sample in split.measure)


def test_split_of_boxes_is_disjoint_too(tmp_path: Path) -> None:
    labels = [Label(id=name, name=name) for name in tiny.COLORS]
    split = load_split(tiny.squares(tmp_path / "data"), labels, 3, "detect")
    parts = [{sample.path for sample in part} for part in (split.calibration, split.choice, split.measure)]
    assert [len(part) for part in parts] == [3, 5, 8]
    assert len(set.union(*parts)) == 16


def test_too_few_pictures(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").touch()
    with pytest.raises(DataError, match="too few"):
        load_split(tmp_path, [Label(id="red", name="red")], 5)


@pytest.mark.parametrize(
    ("mean", "std", "front"),
    [((127.0,) * 3, (128.0,) * 3, Front(1 / 128, 127)), ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), Front(1.0, 0))],
)
def test_float_onnx_on_pixels_is_torch_on_normalized_pixels(
    mean: tuple[float, float, float], std: tuple[float, float, float], front: Front
) -> None:
    classifier = replace(tiny.classifier(), mean=mean, std=std)
    network, found = with_front(float_model(classifier))
    assert found == front
    with quiet():
        graph = fold(network, EXAMPLE)
    model = uint8_nhwc(to_onnx(graph, EXAMPLE, "logits"), found, (tiny.SIZE, tiny.SIZE))
    picture = np.random.default_rng(1).integers(0, 256, (1, tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
    [logits] = ort.InferenceSession(model.SerializeToString()).run(["logits"], {"image": picture})
    pixels = torch.from_numpy(picture).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        want = classifier.network((pixels - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1))
    np.testing.assert_allclose(logits, want.numpy(), atol=1e-4)


@pytest.mark.parametrize("limit", [64, 127])
def test_weights_on_the_grid_are_found_again_by_a_min_max_quantizer(limit: int) -> None:
    with quiet():
        graph = fold(tiny.classifier().network, EXAMPLE)
    inputs = LayerInputs(graph).observe([torch.randn(1, 3, tiny.SIZE, tiny.SIZE) for _ in range(4)])
    rounded = on_grid(graph, inputs, limit)
    assert len(layers(rounded)) == 8
    for layer in layers(rounded):
        weight = weight_and_bias(rounded, layer)[0].flatten(1)
        integers = weight / (weight.abs().amax(1, keepdim=True) / limit)
        assert torch.allclose(integers, integers.round(), atol=1e-3)


@pytest.mark.parametrize("limit", [64, 127])
def test_rounding_leaves_normalization_as_it_was(limit: int) -> None:
    classifier = tiny.per_channel()
    network, _ = with_front(float_model(classifier))
    with quiet():
        graph = fold(network, EXAMPLE)
    inputs = LayerInputs(graph).observe([torch.rand(1, 3, tiny.SIZE, tiny.SIZE) * 255 for _ in range(4)])
    rounded = on_grid(graph, inputs, limit)
    weight, bias = weight_and_bias(rounded, layers(rounded)[0])
    std = torch.tensor(classifier.std)
    torch.testing.assert_close(weight.flatten(), 1 / std)
    torch.testing.assert_close(bias, -torch.tensor(classifier.mean) / std)


def test_rounding_keeps_outputs_better_than_rounding_each_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(32, 32, generator=generator)
    inputs = torch.randn(500, 32, generator=generator) @ mix
    weight = torch.randn(1, 8, 32, generator=generator)
    integers, scale = round_weights(weight, (inputs.T @ inputs / 500)[None], 7)

    def lost(close: torch.Tensor) -> float:
        return float(((weight - close)[0].float() @ inputs.T).square().mean())

    assert lost(integers * scale) < 0.7 * lost(torch.round(weight / scale) * scale)


@pytest.mark.parametrize("limit", [64, 127])
def test_an_export_takes_other_weights_as_if_it_were_made_again(limit: int) -> None:
    with quiet():
        graph = fold(tiny.classifier().network, EXAMPLE)
    rounded = on_grid(graph, None, limit)
    swapped = with_weights(to_onnx(graph, EXAMPLE, "logits"), rounded)
    assert swapped is not None
    picture = {"normalized": np.random.default_rng(1).normal(size=EXAMPLE.shape).astype(np.float32)}
    [got], [want] = (
        ort.InferenceSession(model.SerializeToString()).run(["logits"], picture)
        for model in (swapped, to_onnx(rounded, EXAMPLE, "logits"))
    )
    np.testing.assert_array_equal(got, want)
    with torch.no_grad():
        np.testing.assert_allclose(got, rounded(torch.from_numpy(picture["normalized"])).numpy(), atol=1e-5)


def test_an_export_of_another_network_takes_no_weights() -> None:
    with quiet():
        graph = fold(tiny.classifier().network, EXAMPLE)
        other = fold(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(3600, 3)), EXAMPLE)
    assert with_weights(to_onnx(graph, EXAMPLE, "logits"), other) is None


def test_seven_bit_weights_cannot_saturate_a_pair_of_products() -> None:
    assert 2 * 255 * onnx_int8.U8S8.weight_limit <= np.iinfo(np.int16).max
