"""Which cells learn which object: tables of small cases."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from edge.boxes import box_iou  # noqa: E402
from train.detect.assign import CANDIDATES, Targets, assign, pairwise_iou  # noqa: E402

CLASSES = 2


def four_by_four() -> Tensor:
    """The centres of a grid of 4x4 cells of 8 pixels."""
    steps = torch.arange(4) * 8.0 + 4
    return torch.stack((steps.repeat(4), steps.repeat_interleave(4)), 1)


def assigned(
    truth: list[list[float]], class_ids: list[int], boxes: Tensor | None = None, ignored: list[bool] | None = None
) -> Targets:
    """Targets of cells that all give both classes 0.5, and boxes of 16 pixels around their centres unless others are given."""
    centres = four_by_four()
    boxes = torch.cat((centres - 8, centres + 8), 1) if boxes is None else boxes
    return assign(
        torch.full((1, 16, CLASSES), 0.5),
        boxes[None],
        centres,
        8.0,
        torch.tensor(truth, dtype=torch.float32).reshape(1, -1, 4),
        torch.tensor([class_ids]),
        torch.tensor([ignored or [False] * len(class_ids)]),
    )


def test_the_best_cell_should_say_its_overlap_and_others_less() -> None:
    targets = assigned([[4, 4, 20, 20]], [1])  # exactly the box of no cell; those at 12, 12 overlap it most
    scores = targets.scores[0]
    assert (scores[:, 0] == 0).all()
    assert scores[:, 1].argmax() == 5  # centre 12, 12
    assert scores[5, 1] == pytest.approx(1.0)  # its box is 4..20
    inside = {index for index, (x, y) in enumerate(four_by_four().tolist()) if 4 <= x <= 20 and 4 <= y <= 20}
    assert {index for index in range(16) if targets.weights[0, index] > 0} == inside
    assert all(scores[index, 1] < 0.5 for index in inside - {5})
    torch.testing.assert_close(targets.weights[0], scores.sum(1))
    torch.testing.assert_close(targets.boxes[0, 5], torch.tensor([4.0, 4.0, 20.0, 20.0]))
    assert targets.counted.all()


def test_no_more_cells_than_candidates_learn_an_object() -> None:
    targets = assigned([[0, 0, 32, 32]], [0])
    assert int((targets.weights > 0).sum()) == CANDIDATES < 16


def test_a_cell_learns_one_object_the_one_it_overlaps_more() -> None:
    targets = assigned([[4, 4, 20, 20], [0, 0, 32, 32]], [0, 1])
    assert targets.scores[0, 5, 0] > 0
    assert targets.scores[0, 5, 1] == 0
    assert ((targets.scores[0] > 0).sum(1) <= 1).all()
    assert (targets.scores[0, :, 1] > 0).any()
    wanted = torch.where(targets.scores[0, :, 0] > 0, 20.0, 32.0)
    learning = targets.weights[0] > 0
    torch.testing.assert_close(targets.boxes[0, learning, 2], wanted[learning])


def test_an_object_smaller_than_a_cell_and_between_centres_is_learned() -> None:
    targets = assigned([[7, 7, 9, 9]], [0])
    assert (targets.weights > 0).any()


@pytest.mark.parametrize("class_ids", [[-1], [-1, -1]])
def test_a_picture_without_objects_is_background(class_ids: list[int]) -> None:
    targets = assigned([[0.0] * 4] * len(class_ids), class_ids)
    assert not targets.scores.any()
    assert not targets.weights.any()
    assert targets.counted.all()


def test_where_an_ignored_object_is_its_class_alone_does_not_count() -> None:
    targets = assigned([[0, 0, 16, 16]], [1], ignored=[True])
    assert not targets.scores.any()
    assert not targets.weights.any()
    assert targets.counted[0, :, 0].all()
    inside = (four_by_four() < 16).all(1)
    assert torch.equal(targets.counted[0, :, 1], ~inside)


def test_an_object_in_an_ignored_crowd_still_counts() -> None:
    targets = assigned([[0, 0, 32, 32], [4, 4, 20, 20]], [0, 0], ignored=[True, False])
    assert targets.counted[0, 5, 0]
    assert targets.scores[0, 5, 0] > 0
    assert not targets.counted[0, 15, 0]


def test_iou_is_the_devices() -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 7, 4, generator=random)
    boxes = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:]), -1)
    given = pairwise_iou(boxes[:, :3], boxes[:, 3:])
    for index in range(2):
        wanted = box_iou(boxes[index, :3].numpy(), boxes[index, 3:].numpy())
        torch.testing.assert_close(given[index], torch.from_numpy(wanted))
