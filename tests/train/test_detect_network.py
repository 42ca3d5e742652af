"""The detector's network: what its rows are, what learns, and that a device reads it as it was meant."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edge.card import Label  # noqa: E402
from edge.errors import UsageError  # noqa: E402
from edge.tasks.heads import HeadSpec, grid, nanodet  # noqa: E402
from train.detect import DETECTORS, build  # noqa: E402
from train.detect.loss import Grid  # noqa: E402
from train.models import load  # noqa: E402

LABELS = [Label(id=name, name=name) for name in ("cat", "dog", "yak")]
SIZE_WH = (128, 64)


def images(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, SIZE_WH[1], SIZE_WH[0], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", DETECTORS)
def test_rows_are_probabilities_and_distributions_of_every_cell(name: str) -> None:
    made = build(name, LABELS, size_wh=SIZE_WH, pretrained=False)
    cells, _ = grid(SIZE_WH, made.options.strides)
    with torch.no_grad():
        rows = made.network(images(2))
    assert rows.shape == (2, len(cells), len(LABELS) + 4 * DETECTORS[name].bins)
    scores = rows[..., : len(LABELS)]
    assert ((scores > 0) & (scores < 0.1)).all()  # an untrained head expects nothing anywhere
    assert len(nanodet({"predictions": rows[:1].numpy()}, spec(made.options.strides), 0.0).scores) == len(cells)


def spec(strides: tuple[int, ...]) -> HeadSpec:
    return HeadSpec(size_wh=SIZE_WH, classes=len(LABELS), strides=strides)


def test_in_training_mode_the_scores_are_logits() -> None:
    network = build("efficientnet-lite0-det", LABELS, size_wh=SIZE_WH, pretrained=False).network
    with torch.no_grad():
        scores = network(images())[..., : len(LABELS)]
        for module in network.modules():  # batch norm's statistics stay those of evaluation
            module.training = not isinstance(module, nn.BatchNorm2d)
        logits = network(images())[..., : len(LABELS)]
    torch.testing.assert_close(logits.sigmoid(), scores)
    assert (logits < 0).any()


def test_each_row_stands_where_the_device_looks_for_it() -> None:
    """A bright spot excites the cells around it more than the same network on plain grey."""
    torch.manual_seed(0)
    network = build("efficientnet-lite0-det", LABELS, size_wh=SIZE_WH).network
    plain = torch.zeros(1, 3, SIZE_WH[1], SIZE_WH[0])
    spot = plain.clone()
    spot[:, :, 40:48, 96:104] = 2.0
    with torch.no_grad():
        change = (network(spot) - network(plain)).abs().sum(2)[0]
    cells, strides = grid(SIZE_WH, (8, 16, 32))
    finest = strides == 8
    found = cells[finest][change.numpy()[finest].argmax()]
    assert np.abs(found - (12, 5)).max() <= 3  # its column and row, as far as random weights point there


def test_the_losss_boxes_are_the_devices() -> None:
    strides = (8, 16, 32)
    cells = Grid.of(SIZE_WH, strides, torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    distances = torch.randint(0, 8, (1, len(cells.strides), 4), generator=random)
    distributions = nn.functional.one_hot(distances, 8) * 100.0
    rows = torch.cat([torch.full((1, len(cells.strides), 3), 0.5), distributions.flatten(2)], 2)
    found = nanodet({"predictions": rows.numpy()}, spec(strides), 0.1)
    boxes = cells.boxes(distances.float())
    np.testing.assert_allclose(found.boxes_xyxy, boxes[0].numpy(), atol=1e-3)
    torch.testing.assert_close(cells.distances(boxes), distances.float())


def test_the_trunk_gives_the_backbones_own_features() -> None:
    """Folding what does not learn changes nothing."""
    backbone = load("efficientnet-lite0")
    trunk = build("efficientnet-lite0-det", LABELS).network.trunk
    value, wanted = backbone.stem(images()), []
    with torch.no_grad():
        for index, block in enumerate(backbone.blocks):
            value = block(value)
            if index in (4, 10, 15):
                wanted.append(value)
        for given, feature in zip(trunk(images()), wanted, strict=True):
            torch.testing.assert_close(given, feature, atol=1e-3, rtol=1e-3)
    assert [feature.shape[3] for feature in wanted] == [16, 8, 4]


def test_the_first_blocks_do_not_learn_and_statistics_of_the_backbone_stay() -> None:
    network = build("efficientnet-lite0-det", LABELS, size_wh=SIZE_WH, pretrained=False, frozen=3).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    network(images(2)).square().mean().backward()
    frozen = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert frozen == {
        name
        for name, _ in network.named_parameters()
        if name.startswith(("trunk.stem", *(f"trunk.blocks.{index}." for index in range(3))))
    }
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed  # the new layers' statistics
    assert not any(name.startswith("trunk.") for name in changed)


@pytest.mark.parametrize(
    ("name", "size_wh", "says"),
    [
        ("efficientnet-lite9-det", None, "no detector named 'efficientnet-lite9-det'; there are efficientnet-lite0-det"),
        ("efficientnet-lite0-det", (320, 100), "--size 320x100: efficientnet-lite0-det takes multiples of 32 pixels"),
    ],
)
def test_what_cannot_be_built_says_what_can(name: str, size_wh: tuple[int, int] | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build(name, LABELS, size_wh=size_wh, pretrained=False)
