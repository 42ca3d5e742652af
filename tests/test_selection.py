"""Promises and the alarm: thresholds that keep their word on fresh answers, and changes that are noticed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.card import Selection
from edge.evaluate import Scored
from edge.selection import ALPHAS, DELTA, ShiftAlarm, fit_promise, fit_selection, most_errors
from edge.types import Bools, Float32


def answers(count: int, seed: int) -> tuple[Float32, Bools]:
    """Answers of a calibrated model: each is right with the probability that its confidence says."""
    source = np.random.default_rng(seed)
    confidence = np.sqrt(source.random(count)).astype(np.float32)
    return confidence, source.random(count) < confidence


@given(st.integers(1, 300), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_the_most_errors_are_the_binomial_tail_s(count: int, alpha: float, delta: float) -> None:
    def tail(most: int) -> float:
        return math.fsum(math.comb(count, k) * alpha**k * (1 - alpha) ** (count - k) for k in range(most + 1))

    errors = most_errors(count, alpha, delta)
    assert tail(errors) <= delta * (1 + 1e-9)
    assert errors == count or tail(errors + 1) > delta * (1 - 1e-9)


def test_a_promise_is_kept_in_nine_of_ten_calibrations_and_not_by_asking_about_everything() -> None:
    """The true error rate of what is accepted is known here: the mean of 1 - confidence above the threshold."""
    kept, coverage = [], []
    for seed in range(400):
        promise = fit_promise(*answers(1000, seed), alpha=0.1)
        if promise is None:
            kept.append(True)
            continue
        accepted = np.linspace(promise.threshold, 1, 10_001)  # the density of sqrt(u) is 2c
        kept.append(bool(np.average(1 - accepted, weights=accepted) <= 0.1))
        coverage.append(1 - promise.threshold**2)
    assert np.mean(kept) >= 1 - DELTA - 0.03  # three standard deviations of 400 tries are 0.045
    assert np.mean(coverage) > 0.65 * 0.374  # which the threshold 0.791 would give
    assert len(coverage) > 370


def test_too_few_answers_promise_nothing() -> None:
    sure = np.linspace(0.9, 1, 40).astype(np.float32)
    assert fit_promise(sure, np.ones(40, np.bool_), alpha=0.05) is None  # 0.95^40 > 0.1
    assert fit_promise(sure, np.ones(40, np.bool_), alpha=0.2) is not None
    assert fit_promise(np.empty(0, np.float32), np.empty(0, np.bool_), alpha=0.2) is None
    assert fit_selection("frame", np.empty(0, np.float32), np.empty(0, np.bool_)) is None


def test_a_model_that_is_always_wrong_promises_nothing() -> None:
    selection = fit_selection("frame", answers(500, 0)[0], np.zeros(500, np.bool_))
    assert selection is not None
    assert selection.promises == ()


def test_a_model_that_is_always_right_is_accepted_whole() -> None:
    confidence = answers(1000, 0)[0]
    promise = fit_promise(confidence, np.ones(1000, np.bool_), alpha=0.05)
    assert promise is not None
    assert (promise.coverage, promise.threshold) == (1.0, pytest.approx(confidence.min()))


def test_equal_confidences_are_accepted_together_or_not_at_all() -> None:
    confidence = np.repeat(np.array([0.9, 0.5], np.float32), 500)
    right = np.concatenate((np.ones(500, np.bool_), np.zeros(500, np.bool_)))
    promise = fit_promise(confidence, right, alpha=0.05)
    assert promise is not None
    assert (promise.threshold, promise.coverage) == (pytest.approx(0.9), 0.5)


def test_a_selection_tells_all_that_a_device_needs() -> None:
    confidence, right = answers(2000, 3)
    selection = fit_selection("object", confidence, right)
    assert selection is not None
    assert (selection.unit, selection.answers, selection.delta) == ("object", 2000, DELTA)
    assert [promise.alpha for promise in selection.promises] == [alpha for alpha in ALPHAS if alpha >= 0.05]
    thresholds = [promise.threshold for promise in selection.promises]
    assert thresholds == sorted(thresholds, reverse=True)
    assert list(selection.quantiles) == sorted(selection.quantiles)
    assert selection.quantiles[0] == pytest.approx(confidence.min(), abs=1e-6)
    assert selection.quantiles[-1] == pytest.approx(confidence.max(), abs=1e-6)


def calibrated(count: int = 1000) -> Selection:
    selection = fit_selection("frame", *answers(count, 7))
    assert selection is not None
    return selection


@pytest.mark.parametrize("count", [200, 1000])
def test_no_alarm_while_nothing_changes(count: int) -> None:
    alarm = ShiftAlarm(calibrated(count))
    assert not any(alarm.add(float(confidence)) for confidence in answers(20_000, 8)[0])
    assert alarm.answers == 20_000


@pytest.mark.parametrize(
    ("change", "within"),
    [
        (lambda c: c**4, 100),
        (lambda c: c**0.2, 200),
        (lambda c: 0.5 + 0 * c, 600),
        (lambda c: 0 * c, 60),
        (lambda c: 1 + 0 * c, 60),
    ],
    ids=["less certain", "more certain", "always the same", "never certain", "always certain"],
)
@pytest.mark.parametrize("before", [0, 3000])
def test_a_change_is_noticed_whenever_it_comes(change, within: int, before: int) -> None:  # type: ignore[no-untyped-def]
    alarm = ShiftAlarm(calibrated())
    assert not any(alarm.add(float(confidence)) for confidence in answers(before, 9)[0])
    fired = [alarm.add(float(confidence)) for confidence in change(answers(within, 10)[0])]
    assert fired[-1]
    assert fired == sorted(fired)  # once on, it stays


def test_confidences_beyond_all_that_calibration_saw_have_a_place() -> None:
    alarm = ShiftAlarm(Selection(unit="frame", answers=100, delta=0.1, promises=(), quantiles=(0.4, 0.5, 0.6)))
    for confidence in (0.0, 0.4, 0.6, 1.0):
        assert 0 < alarm.place(confidence) < 1


def test_where_calibration_saw_one_value_only_a_tie_lies_anywhere() -> None:
    alarm = ShiftAlarm(Selection(unit="frame", answers=1000, delta=0.1, promises=(), quantiles=(1.0, 1.0, 1.0)))
    assert not any(alarm.add(1.0) for _ in range(5000))
    assert any(alarm.add(0.5) for _ in range(100))


def test_scored_is_what_a_selection_is_fitted_to() -> None:
    scored = Scored(*answers(300, 1))
    assert fit_selection("frame", scored.confidence, scored.right) == fit_selection("frame", *answers(300, 1))
