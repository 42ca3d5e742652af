"""Activation ranges: what each calibrator keeps of a tensor's values, and what it gives up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.calibrate import (
    CALIBRATORS,
    LEVELS,
    SHARES,
    Function,
    Observer,
    Values,
    entropy,
    identity,
    least_error,
    percentile,
    sigmoid,
    silu,
    whole,
)


def error(values: Values, low: float, high: float, function: Function = identity) -> float:
    """The squared error of function(values) when values are represented by 255 steps over [low, high]."""
    step = (high - low) / LEVELS
    zero = np.round(-low / step)
    close = (np.clip(np.round(values / step) + zero, 0, LEVELS) - zero) * step
    return float(np.square(function(close) - function(values)).sum())


def normal(count: int = 20_000, scale: float = 1.0) -> Values:
    return np.random.default_rng(0).normal(0, scale, count)


def extremes(values: Values) -> tuple[float, float]:
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


many = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60).map(lambda values: np.array(values, np.float32))


@pytest.mark.parametrize("name", CALIBRATORS)
@given(values=many)
@settings(max_examples=40)
def test_zero_is_inside_and_no_range_is_empty_or_wider_than_what_was_seen(name: str, values: Values) -> None:
    low, high = extremes(values)
    bottom, top = CALIBRATORS[name](values, low, high, identity)
    assert bottom <= 0 <= top
    assert bottom < top
    assert bottom >= low
    assert top <= max(high, low + 1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-20])
@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_tensor_that_is_as_good_as_zero_has_a_range_that_is_not_empty(name: str, value: float) -> None:
    observer = Observer()
    observer.see({"dead": np.full((1, 4), value, np.float32)})
    low, high = observer.ranges(name)["dead"]
    assert low <= 0 < high


@pytest.mark.parametrize(
    ("values", "function"),
    [
        (normal(), identity),
        (np.append(normal(scale=0.1), 5.0), identity),
        (np.maximum(normal(), 0), identity),
        (-np.abs(normal()), identity),
        (np.append(normal(scale=2.0), [-120.0] * 50), silu),
        (normal(scale=6.0), sigmoid),
    ],
    ids=["normal", "outlier", "relu", "negative", "silu", "sigmoid"],
)
def test_least_error_is_hardly_worse_than_the_best_of_all_pairs_of_ends(values: Values, function: Function) -> None:
    low, high = extremes(values)
    found = least_error(values, low, high, function)
    best = min(
        error(values, a * low, b * high, function) for a in SHARES[::2] for b in SHARES[::2] if b * high - a * low > 1e-9
    )
    assert error(values, *found, function) <= 1.15 * best
    assert error(values, *found, function) <= 1.02 * error(values, low, high, function)


def test_a_lone_outlier_is_clipped_and_an_even_spread_is_not() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 10_000).astype(np.float32)
    assert least_error(values, -1.0, 3.0) == pytest.approx((-1.0, 3.0), rel=0.03)
    assert least_error(np.append(normal(100_000, 0.1), 5.0), -5.0, 5.0)[1] < 5.0


def test_a_tail_on_one_side_costs_the_other_nothing() -> None:
    values = np.append(normal(1_000_000, 0.1), -5.0)
    bottom, top = least_error(values, *extremes(values))
    assert top > 0.7 * values.max()
    assert -5 < bottom < -0.3


def test_what_a_silu_reads_may_end_where_it_is_zero_anyway() -> None:
    values = np.append(normal(scale=2.0), np.linspace(-120, -20, 3000))
    low, high = extremes(values)
    plain, aware = least_error(values, low, high), least_error(values, low, high, silu)
    assert plain[0] < -60
    assert -15 < aware[0] < -2
    assert aware[1] > 0.8 * high
    assert error(values, *aware, silu) < 0.1 * error(values, *plain, silu)


def test_percentile_leaves_out_one_in_ten_thousand_at_either_end() -> None:
    values = normal(100_000)
    bottom, top = percentile(values, *extremes(values))
    assert np.mean(values > top) == pytest.approx(1e-4, abs=2e-5)
    assert np.mean(values < bottom) == pytest.approx(1e-4, abs=2e-5)


def test_minmax_is_all_that_was_seen() -> None:
    values = np.append(normal(), 77.0)
    assert whole(values, *extremes(values)) == extremes(values)


def test_entropy_clips_a_long_tail_and_keeps_a_uniform_spread() -> None:
    random = np.random.default_rng(0)
    uniform = random.uniform(-1, 3, 50_000)
    assert entropy(uniform, -1.0, 3.0) == pytest.approx((-1.0, 3.0), rel=0.03)
    tailed = np.append(random.laplace(0, 0.1, 50_000), [8.0, -4.0])
    bottom, top = entropy(tailed, *extremes(tailed))
    assert top < 6
    assert bottom / top == pytest.approx(-4.0 / 8.0)  # both ends shrink together


def test_an_observer_remembers_extremes_that_its_sample_misses() -> None:
    observer = Observer()
    big = np.zeros(1_000_000, np.float32)
    big[123_456] = 9.0
    observer.see({"a": big, "b": np.array([1.0, 2.0])})
    observer.see({"a": np.full(4, -3.0, np.float32), "b": np.array([4.0])})
    assert observer.ranges("minmax") == {"a": (-3.0, 9.0), "b": (0.0, 4.0)}


def test_an_observer_reads_each_tensor_through_its_own_function() -> None:
    observer = Observer()
    values = np.append(normal(4000, 2.0), np.linspace(-120, -20, 600)).astype(np.float32)
    observer.see({"through": values, "plain": values})
    ranges = observer.ranges("error", {"through": silu})
    assert ranges["plain"][0] < -60 < -15 < ranges["through"][0]
