"""Figures by class against cases worked out by hand and against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.calibration import expected_calibration_error, reliability
from edge.card import Label
from edge.classification_metrics import (
    Tally,
    class_counts,
    class_rows,
    confusion_matrix,
    confusions,
    top_k,
    wilson_interval,
)

LABELS = tuple(Label(id=f"c{index}", name=f"class {index}") for index in range(4))
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def tally(truth: list[int], answers: list[int]) -> Tally:
    return Tally(np.array(truth, np.int64), np.array(answers, np.int64), np.array(truth) == np.array(answers))


def test_by_hand() -> None:
    counts = class_counts(tally([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 3, 3]), 4)
    assert counts.support.tolist() == [3, 2, 1, 0]
    assert counts.answered.tolist() == [2, 2, 0, 2]
    assert counts.right.tolist() == [2, 1, 0, 0]
    np.testing.assert_allclose(counts.precision, [1, 0.5, np.nan, 0])
    np.testing.assert_allclose(counts.recall, [2 / 3, 0.5, 0, np.nan])
    np.testing.assert_allclose(counts.f1, [0.8, 0.5, 0, 0])
    macro = counts.macro  # over the three classes that there are
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx((0.5, 7 / 18, 1.3 / 3))
    assert counts.worst().tolist() == [2, 1, 0]


def test_rows_leave_out_what_does_not_occur_and_say_null_of_nothing() -> None:
    rows = class_rows(class_counts(tally([0, 1], [0, 3]), 4), LABELS, {"ap50": np.array([0.25, math.nan, 1, 1])})
    assert [row["id"] for row in rows] == ["c0", "c1", "c3"]
    assert [row["ap50"] for row in rows] == [0.25, None, 1.0]
    assert [row["precision"] for row in rows] == [1.0, None, 0.0]
    assert [row["recall"] for row in rows] == [1.0, 0.0, None]


def test_nothing_at_all() -> None:
    counts = class_counts(Tally(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.bool_))), 4)
    assert class_rows(counts, LABELS) == []
    assert counts.macro.recall == 0.0
    assert counts.worst().tolist() == []
    assert confusions(np.zeros(0, np.int64), np.zeros(0, np.int64)) == []


def test_of_equal_classes_the_largest_is_the_worst() -> None:
    assert class_counts(tally([0, 1, 1, 2], [3, 3, 3, 2]), 4).worst().tolist() == [1, 0, 2]


@given(PAIRS)
def test_counts_and_confusions_are_those_of_the_square(pairs: list[tuple[int, int]]) -> None:
    truth, answers = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    square, counts = confusion_matrix(truth, answers, 4), class_counts(tally(*map(list, zip(*pairs, strict=True))), 4)  # type: ignore[arg-type]
    assert all(square[row, column] == pairs.count((row, column)) for row in range(4) for column in range(4))
    assert counts.support.tolist() == square.sum(axis=1).tolist()
    assert counts.answered.tolist() == square.sum(axis=0).tolist()
    assert counts.right.tolist() == np.diagonal(square).tolist()
    listed = confusions(truth, answers)
    assert sum(count for *_, count in listed) == len(pairs) - np.trace(square)
    assert all(square[row, column] == count and row != column for row, column, count in listed)
    assert [count for *_, count in listed] == sorted((count for *_, count in listed), reverse=True)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=6, max_size=6), min_size=1, max_size=8), st.integers(1, 6))
def test_top_k_takes_equal_scores_in_the_order_of_their_classes(rows: list[list[float]], k: int) -> None:
    probabilities = np.array(rows, np.float32)
    for class_id in range(6):
        truth = np.full(len(rows), class_id)
        want = [class_id in sorted(range(6), key=lambda index: -row[index])[:k] for row in rows]
        assert top_k(probabilities, truth, k).tolist() == want


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_by_the_literature(right: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [low <= 0.97 <= high for low, high in (wilson_interval(int(right), 200) for right in rng.binomial(200, 0.97, 4000))]
    assert 0.93 < np.mean(held) < 0.98


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=50))
def test_calibration_error_is_that_of_the_bins(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([pair[0] for pair in pairs], np.float32), np.array([pair[1] for pair in pairs])
    bins = reliability(confidence, right)
    assert bins.count.sum() == len(pairs)
    gap = float((np.abs(bins.accuracy - bins.confidence) * bins.count).sum() / len(pairs))
    assert gap == pytest.approx(expected_calibration_error(confidence, right), abs=1e-6)
