"""The detector's loss: nothing where the predictions are right, and every picture by itself."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from train.detect.loss import Grid, detection_loss, generalized_iou  # noqa: E402

SIZE_WH, STRIDES, CLASSES, BINS = (64, 64), (8, 16), 2, 8
TRUTH = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]])
CLASS_IDS = torch.tensor([[1]])
NOT_IGNORED = torch.tensor([[False]])


def cells() -> Grid:
    return Grid.of(SIZE_WH, STRIDES, torch.device("cpu"))


def rows(truth: Tensor, certain: float = 12.0) -> Tensor:
    """Predictions whose every cell has the box exactly, as far as it reaches, and is as certain of class 1 as it is right."""
    distances = cells().distances(truth.expand(1, len(cells().strides), 4)).clamp(0, BINS - 1.001)
    left = distances.floor().long()
    share = distances - left
    distribution = torch.full((*distances.shape, BINS), 1e-6)
    distribution.scatter_(-1, left[..., None], (1 - share)[..., None].clamp_min(1e-6))
    distribution.scatter_(-1, left[..., None] + 1, share[..., None].clamp_min(1e-6))
    logits = torch.full((1, len(cells().strides), CLASSES), -certain)
    return torch.cat([logits, distribution.log().flatten(2)], 2)


def loss(given: Tensor, truth: Tensor = TRUTH, class_ids: Tensor = CLASS_IDS, ignored: Tensor = NOT_IGNORED) -> Tensor:
    return detection_loss(given, cells(), CLASSES, truth, class_ids, ignored)


def test_a_right_prediction_costs_less_than_a_missed_a_doubled_and_a_moved_one() -> None:
    right = rows(TRUTH)
    inside = ((cells().centres_xy > 8) & (cells().centres_xy < 40)).all(1)
    right[0, inside, 1] = 2.0
    missed, wrong_class, moved = right.clone(), right.clone(), rows(TRUTH + 6)
    missed[0, :, 1] = -12.0
    wrong_class[0, inside, 0] = 2.0
    moved[0, inside, 1] = 2.0
    assert loss(right) < min(loss(missed), loss(wrong_class), loss(moved))


def test_where_there_is_nothing_saying_so_costs_nothing() -> None:
    background = torch.tensor([[-1]])
    silent = loss(rows(TRUTH), class_ids=background)
    assert float(silent) == pytest.approx(0.0, abs=1e-6)
    loud = rows(TRUTH)
    loud[0, 3, 0] = 3.0
    assert loss(loud, class_ids=background) > 1


def test_an_ignored_object_is_neither_missed_nor_wrongly_found() -> None:
    ignored = torch.tensor([[True]])
    found = rows(TRUTH)
    inside = ((cells().centres_xy > 8) & (cells().centres_xy < 40)).all(1)
    found[0, inside, 1] = 3.0
    assert float(loss(found, ignored=ignored)) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(rows(TRUTH), ignored=ignored)) == pytest.approx(0.0, abs=1e-6)
    found[0, inside, 0] = 3.0  # another class is not excused
    assert loss(found, ignored=ignored) > 1


def test_each_pictures_loss_is_its_own_however_the_batch_is_cut_and_padded() -> None:
    random = torch.Generator().manual_seed(0)
    given = torch.randn(3, len(cells().strides), CLASSES + 4 * BINS, generator=random)
    truth = torch.tensor([[[8.0, 8, 40, 40], [30, 20, 60, 60]], [[0, 0, 20, 30], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    class_ids = torch.tensor([[1, 0], [0, -1], [-1, -1]])
    ignored = torch.zeros(3, 2, dtype=torch.bool)
    whole = detection_loss(given, cells(), CLASSES, truth, class_ids, ignored)
    assert whole.shape == (3,)
    alone = loss(given[1:2], truth[1:2, :1], class_ids[1:2, :1], ignored[1:2, :1])
    torch.testing.assert_close(whole[1:2], alone)
    torch.testing.assert_close(whole[2:], loss(given[2:], truth[2:], class_ids[2:], ignored[2:]))


def test_gradients_lead_to_the_object() -> None:
    """Free predictions, pushed downhill, end at the object's box, class and place."""
    given = torch.zeros(1, len(cells().strides), CLASSES + 4 * BINS)
    given[..., :CLASSES] = -3
    given.requires_grad_(True)
    optimizer = torch.optim.Adam([given], 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(given).sum().backward()
        optimizer.step()
    with torch.no_grad():
        distances = given[..., CLASSES:].unflatten(-1, (4, BINS)).softmax(-1) @ torch.arange(float(BINS))
        boxes = cells().boxes(distances)[0]
        best = int(given[0, :, :CLASSES].max(1).values.argmax())
    assert int(given[0, best, :CLASSES].argmax()) == 1
    np.testing.assert_allclose(boxes[best].numpy(), TRUTH[0, 0].numpy(), atol=1.5)
    assert float(given.detach()[0, best, 1].sigmoid()) > 0.8


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 0, 3, 2], 2 / 6),  # the hull is the union
        ([0, 0, 1, 1], [2, 0, 3, 1], -1 / 3),  # a third of the hull is neither's
    ],
)
def test_generalized_iou(a: list[float], b: list[float], wanted: float) -> None:
    assert float(generalized_iou(torch.tensor([a]).float(), torch.tensor([b]).float())) == pytest.approx(wanted)
