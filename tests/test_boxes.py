"""Box maths and suppression: tables of small cases, and what holds for any boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.boxes import BLOCK, box_areas, box_iou, nms, xywh_to_xyxy
from edge.types import Float32, Int64

CORNER = st.integers(-50, 50)
Cases = tuple[Float32, Float32, Int64]


def boxes(*rows: tuple[float, float, float, float]) -> Float32:
    return np.array(rows, np.float32).reshape(-1, 4)


@st.composite
def cases(draw: st.DrawFn, most: int = 30) -> Cases:
    """Boxes on a small grid, so that many overlap and touch, with scores that all differ."""
    count = draw(st.integers(0, most))
    corners = draw(hnp.arrays(np.float32, (count, 2), elements=st.integers(-20, 40).map(float)))
    sizes = draw(hnp.arrays(np.float32, (count, 2), elements=st.integers(0, 30).map(float)))
    ranks = draw(st.permutations(range(count)))
    scores = (np.array(ranks, np.float32) + 1) / np.float32(count + 1)
    class_ids = draw(hnp.arrays(np.int64, count, elements=st.integers(0, 2)))
    return np.concatenate((corners, corners + sizes), axis=1), scores.astype(np.float32), class_ids


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((-10, -10, 0, 0), (-5, -5, 5, 5), 25 / 175),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((3, 3, 3, 9), (0, 0, 10, 10), 0.0),
        ((10, 10, 0, 0), (0, 0, 10, 10), 0.0),
    ],
)
def test_iou(a: tuple[float, ...], b: tuple[float, ...], iou: float) -> None:
    found = box_iou(np.array([a], np.float32), np.array([b], np.float32))
    np.testing.assert_allclose(found, [[iou]], atol=1e-6)
    assert found.dtype == np.float32


@given(cases(), cases())
def test_iou_is_symmetric_and_a_fraction(one: Cases, other: Cases) -> None:
    found = box_iou(one[0], other[0])
    assert found.shape == (len(one[0]), len(other[0]))
    np.testing.assert_array_equal(found, box_iou(other[0], one[0]).T)
    assert ((found >= 0) & (found <= 1)).all()


def test_areas_and_corners() -> None:
    np.testing.assert_array_equal(box_areas(boxes((0, 0, 2, 3), (5, 5, 1, 9), (1, 1, 1, 1))), [6, 0, 0])
    np.testing.assert_array_equal(xywh_to_xyxy(boxes((10, 20, 4, 6))), boxes((8, 17, 12, 23)))
    assert xywh_to_xyxy(boxes()).shape == (0, 4)


A, NEAR_A, FAR = (0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)


@pytest.mark.parametrize(
    ("rows", "scores", "class_ids", "threshold", "kept"),
    [
        ([], [], [], 0.5, []),
        ([A], [0.1], [3], 0.5, [0]),
        ([A, NEAR_A], [0.6, 0.9], [0, 0], 0.5, [1]),
        ([A, NEAR_A], [0.6, 0.9], [0, 1], 0.5, [1, 0]),  # of two classes
        ([A, NEAR_A], [0.6, 0.9], [0, 0], 0.9, [1, 0]),  # 0.9 is not more than 0.9
        ([A, A], [0.5, 0.5], [0, 0], 0.5, [0]),  # equal scores: the first
        ([A, A], [0.5, 0.6], [0, 0], 1.0, [1, 0]),
        ([FAR, A, NEAR_A], [0.2, 0.3, 0.4], [0, 0, 0], 0.5, [2, 0]),
        # the middle one is beaten by the left one, and therefore does not beat the right one
        ([(0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10)], [0.9, 0.8, 0.7], [0, 0, 0], 0.3, [0, 2]),
    ],
)
def test_nms(
    rows: list[tuple[float, ...]], scores: list[float], class_ids: list[int], threshold: float, kept: list[int]
) -> None:
    found = nms(
        np.array(rows, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(class_ids, np.int64), threshold
    )
    assert found.tolist() == kept
    assert found.dtype == np.int64


def greedy(rows: Float32, scores: Float32, class_ids: Int64, threshold: float) -> list[int]:
    """The definition, box by box."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        rivals = [j for j in kept if class_ids[j] == class_ids[i]]
        if not len(rivals) or (box_iou(rows[[i]], rows[rivals]) <= threshold).all():
            kept.append(i)
    return kept


@given(cases(), st.floats(0, 1))
def test_nms_is_what_the_definition_says(case: Cases, threshold: float) -> None:
    assert nms(*case, threshold).tolist() == greedy(*case, threshold)


@pytest.mark.parametrize("seed", range(3))
def test_nms_over_several_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 200, (3 * BLOCK, 2))
    rows = np.concatenate((corners, corners + rng.uniform(5, 60, corners.shape)), axis=1).astype(np.float32)
    scores, class_ids = rng.uniform(0, 1, len(rows)).astype(np.float32), rng.integers(0, 3, len(rows))
    want = greedy(rows, scores, class_ids, 0.4)
    assert nms(rows, scores, class_ids, 0.4).tolist() == want
    for limit in (0, 1, 100, BLOCK):
        assert nms(rows, scores, class_ids, 0.4, limit).tolist() == want[:limit]


@given(cases(), st.floats(0, 1))
def test_what_nms_keeps(case: Cases, threshold: float) -> None:
    rows, scores, class_ids = case
    kept = nms(rows, scores, class_ids, threshold)
    assert (np.diff(scores[kept]) <= 0).all()
    overlap = (box_iou(rows[kept], rows[kept]) > threshold) & (class_ids[kept][:, None] == class_ids[kept])
    assert not np.triu(overlap, 1).any()
    again = nms(rows[kept], scores[kept], class_ids[kept], threshold)
    assert again.tolist() == list(range(len(kept)))


@given(cases(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_nms_does_not_ask_in_which_order_boxes_came(case: Cases, threshold: float, random: object) -> None:
    rows, scores, class_ids = case
    order = np.array(random.sample(range(len(scores)), len(scores)), np.int64)  # type: ignore[attr-defined]
    shuffled = nms(rows[order], scores[order], class_ids[order], threshold)
    assert order[shuffled].tolist() == nms(rows, scores, class_ids, threshold).tolist()
