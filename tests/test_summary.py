"""What a run did, counted in bounded memory."""

from __future__ import annotations

import math
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.summary import STAGES, Histogram, Percentiles, Tally, cpu_seconds, peak_rss_mb, process_age_s
from edge.types import Timings
from tests.samples import event, frame

DURATIONS = st.lists(st.floats(0.001, 86_400_000), min_size=1, max_size=300)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(values=DURATIONS, percent=st.sampled_from([1, 25, 50, 90, 95, 99, 100]))
def test_percentiles_are_numpy_s_within_two_percent(values: list[float], percent: int) -> None:
    want = float(np.percentile(values, percent, method="inverted_cdf"))
    assert filled(values).percentile(percent) == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("distribution", ["lognormal", "exponential", "uniform"])
def test_percentiles_of_many(distribution: str) -> None:
    rng = np.random.default_rng(0)
    values = {
        "lognormal": rng.lognormal(3, 1, 5000),
        "exponential": rng.exponential(20, 5000),
        "uniform": rng.uniform(5, 50, 5000),
    }
    found = Percentiles.of(filled(list(values[distribution])))
    for percent, got in zip((50, 95, 99), (found.p50, found.p95, found.p99), strict=True):
        assert got == pytest.approx(np.percentile(values[distribution], percent), rel=0.02)


def test_no_durations() -> None:
    assert Percentiles.of(Histogram()) == Percentiles(0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-12, 1e-3, 1e12, 1e300])
def test_durations_beyond_the_scale_are_counted(value: float) -> None:
    histogram = filled([value])
    assert histogram.count == 1
    assert 0.0 < histogram.percentile(50) < 2e8


@given(values=DURATIONS)
def test_percentiles_grow(values: list[float]) -> None:
    found = [filled(values).percentile(percent) for percent in range(0, 101, 5)]
    assert found == sorted(found)


def test_the_memory_is_bounded() -> None:
    histogram = Histogram()
    size = sys.getsizeof(histogram._counts)
    for number in range(20_000):
        histogram.add(math.exp(number % 23 - 6))
    assert histogram.count == 20_000
    assert sys.getsizeof(histogram._counts) == size


def test_a_tally_of_events() -> None:
    tally = Tally()
    for number in range(4):
        captured_s = 100 + number * 0.5
        of = frame(sequence=number, captured_s=captured_s, capture_ms=100.0)
        tally.add(event(of, emitted_s=captured_s + 0.04, timings=Timings(100.0, 2.0, 30.0, 1.0)))
    tally.add(event(frame(sequence=1, captured_s=100.5), emitted_s=180.0, revises=True, served_by="cloud"))
    assert (tally.frames, tally.revised) == (4, 1)
    assert tally.seconds == pytest.approx(0.1 + 1.5 + 0.04)  # from the start of the first capture to the last event
    assert tally.fps == pytest.approx(3 / 1.5)  # three intervals between four events
    latencies = tally.latencies()
    assert latencies.end_to_end.p50 == pytest.approx(40, rel=0.02)  # a late answer is no latency of the loop
    for stage, want in zip(STAGES, (100, 2, 30, 1), strict=True):
        assert getattr(latencies, stage).p99 == pytest.approx(want, rel=0.02)
    assert tally.first_result_s > 0


def test_an_empty_tally() -> None:
    tally = Tally()
    assert tally.fps == 0.0
    assert (tally.frames, tally.revised, tally.seconds, tally.first_result_s) == (0, 0, 0.0, 0.0)
    assert tally.latencies().end_to_end == Percentiles(0.0, 0.0, 0.0)


def test_what_the_kernel_says_of_this_process() -> None:
    first, begun_s = process_age_s(), time.monotonic()
    assert 0 < first < 7 * 86400
    assert process_age_s() - first == pytest.approx(time.monotonic() - begun_s, abs=0.5)
    spent = cpu_seconds()
    assert spent > 0
    sum(range(300_000))
    assert cpu_seconds() >= spent
    assert 10 < peak_rss_mb() < 100_000
