"""When an endpoint is left in peace, which frames go first, and how large a picture is: on clocks that tests turn."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.offload.breaker import FAILURES, LONGEST_REST_S, Breaker
from edge.offload.uplink import LADDER, PATIENCE, Rung, Uplink
from edge.offload.waiting import Job, Waiting
from tests.samples import event, frame, plain

# the breaker


def opened(now_s: float = 100.0) -> Breaker:
    breaker = Breaker(jitter=lambda: 1.0)
    for number in range(FAILURES):
        assert breaker.enter(now_s)
        assert breaker.failed(now_s) == (number == FAILURES - 1)
    return breaker


def test_it_opens_after_three_failures_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(10):
        assert not breaker.failed(0.0)
        assert not breaker.failed(0.0)
        assert not breaker.succeeded()
        assert breaker.state(0.0) == "closed"
    assert [breaker.failed(0.0) for _ in range(3)] == [False, False, True]
    assert breaker.state(0.0) == "open"
    assert not breaker.admits(0.0)
    assert not breaker.enter(0.0)


def test_what_lasts_opens_it_at_once() -> None:
    breaker = Breaker()
    assert breaker.failed(0.0, at_once=True)
    assert breaker.state(0.0) == "open"


def test_half_open_admits_one_probe_which_closes_it() -> None:
    breaker = opened(100.0)
    assert breaker.state(100.4) == "open"
    assert breaker.state(100.5) == "half-open"
    assert breaker.admits(100.5)
    assert breaker.enter(100.5)
    assert not breaker.admits(100.5)
    assert not breaker.enter(101.0)  # one probe, however long it takes
    assert breaker.succeeded()
    assert breaker.state(101.0) == "closed"
    assert not breaker.succeeded()  # said once


def test_a_probe_that_fails_doubles_the_pause_up_to_half_a_minute() -> None:
    now_s, pauses = 100.0, []
    breaker = opened(now_s)
    for _ in range(1200):  # a night: 2 ** 1024 is no float
        pauses.append(breaker.until_s - now_s)
        now_s = breaker.until_s
        assert breaker.enter(now_s)
        assert not breaker.failed(now_s)  # it was open already: nothing to say
    assert pauses[:9] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert set(pauses[9:]) == {30}


def test_after_it_closed_the_pauses_begin_anew() -> None:
    breaker = opened(0.0)
    for now_s in (0.5, 1.5):
        assert breaker.enter(now_s)
        breaker.failed(now_s)
    assert breaker.enter(3.5)
    assert breaker.succeeded()
    for _ in range(FAILURES):
        breaker.failed(10.0)
    assert breaker.until_s == 10.5


def test_pauses_have_jitter() -> None:
    ends = set()
    for _ in range(20):
        breaker = Breaker()
        breaker.failed(0.0, at_once=True)
        ends.add(breaker.until_s)
        assert 0.375 <= breaker.until_s <= 0.625
    assert len(ends) > 10


def test_a_failure_that_was_under_way_when_it_opened_changes_nothing() -> None:
    breaker = opened(100.0)
    assert not breaker.failed(100.2)
    assert breaker.until_s == 100.5


def test_a_probe_without_a_verdict_lets_another_one_in() -> None:
    breaker = opened(100.0)
    assert breaker.enter(101.0)
    breaker.left()
    assert breaker.state(101.0) == "half-open"
    assert breaker.enter(101.0)


@pytest.mark.parametrize(("asked_s", "rest_s"), [(0.0, 0.0), (7.0, 7.0), (1e9, LONGEST_REST_S)])
def test_an_endpoint_is_left_in_peace_for_as_long_as_it_asked(asked_s: float, rest_s: float) -> None:
    breaker = Breaker()
    breaker.failed(100.0, rest_s=asked_s)
    assert breaker.state(100.0) == "closed"
    assert breaker.until_s == (100.0 + rest_s)
    assert breaker.admits(100.0 + rest_s)
    assert not breaker.admits(99.9 + rest_s)


# the queue


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), max_size=30))
def test_the_queue_keeps_the_most_valuable_and_gives_them_best_first(frames: list[tuple[float, int]]) -> None:
    waiting = Waiting(4)
    jobs = [Job(event(frame(plain(0), captured_s=float(at_s)), scores=(score,))) for score, at_s in frames]
    given_up = [least for job in jobs if (least := waiting.add(job)) is not None]
    taken = [waiting.take() for _ in range(len(waiting))]
    assert len(taken) == min(4, len(jobs))
    assert {id(job) for job in taken + given_up} == {id(job) for job in jobs}
    assert [job.value for job in taken] == sorted((job.value for job in jobs), reverse=True)[:4]


def test_keys_differ_and_stay() -> None:
    jobs = [Job(event()) for _ in range(100)]
    assert len({job.key for job in jobs}) == 100
    assert jobs[0].key == jobs[0].key


# the ladder


BUDGET_S, DEADLINE_S = 2.5, 5.0
OVERHEAD_S = 0.05
FIRST_BYTES = 300e3


def seconds_of(rung: Rung, bytes_per_s: float) -> float:
    return OVERHEAD_S + FIRST_BYTES * rung.share / bytes_per_s


def sent(uplink: Uplink, requests: int, *, bytes_per_s: float, overhead_s: float = OVERHEAD_S) -> list[Rung]:
    """Requests over a link of that rate, given up at their deadline; the rungs that were used."""
    used = []
    for _ in range(requests):
        rung = uplink.rung
        size = int(FIRST_BYTES * rung.share)
        seconds = overhead_s + size / bytes_per_s
        if seconds < DEADLINE_S:
            uplink.note(rung, size, seconds)
        else:
            uplink.late(rung, size, DEADLINE_S)
        used.append(rung)
    return used


def test_a_fast_uplink_stays_at_the_top() -> None:
    uplink = Uplink(BUDGET_S)
    assert set(sent(uplink, 50, bytes_per_s=10e6)) == {LADDER[0]}
    assert math.isinf(Uplink(BUDGET_S).bytes_per_s)


@pytest.mark.parametrize("bytes_per_s", [100e3, 50e3, 20e3, 16e3, 12e3, 8e3, 5e3])
def test_a_slow_uplink_gets_pictures_that_fit_after_a_handful_that_did_not(bytes_per_s: float) -> None:
    uplink = Uplink(BUDGET_S)
    seconds = [seconds_of(rung, bytes_per_s) for rung in sent(uplink, 60, bytes_per_s=bytes_per_s)]
    possible_s = max(BUDGET_S, seconds_of(LADDER[-1], bytes_per_s))
    assert max(seconds[3:]) <= possible_s  # answered, and fitting where any does
    assert uplink.bytes_per_s == pytest.approx(bytes_per_s, rel=0.2)


@pytest.mark.parametrize("bytes_per_s", [16e3, 12e3, 8e3, 5e3])
def test_an_uplink_that_becomes_slow_goes_on_answering(bytes_per_s: float) -> None:
    uplink = Uplink(BUDGET_S)
    sent(uplink, 50, bytes_per_s=10e6)
    used = sent(uplink, 200, bytes_per_s=bytes_per_s)
    late = [seconds_of(rung, bytes_per_s) >= DEADLINE_S for rung in used]
    assert not all(late[:4])
    assert sum(late) <= 0.1 * len(late)
    assert not any(late[100:])


def test_requests_that_were_late_together_are_one_step() -> None:
    uplink = Uplink(BUDGET_S)
    for _ in range(3):
        uplink.late(LADDER[0], 300_000, BUDGET_S)
    assert uplink.rung == LADDER[1]


def test_recovery_is_a_rung_at_a_time_and_slow() -> None:
    uplink = Uplink(BUDGET_S)
    sent(uplink, 5, bytes_per_s=8e3)
    assert uplink.rung == LADDER[-1]
    used = [LADDER.index(rung) for rung in sent(uplink, 200, bytes_per_s=5e6)]
    assert used[-1] == 0
    steps = [(before, after) for before, after in itertools.pairwise(used) if before != after]
    assert steps == [(place, place - 1) for place in range(len(LADDER) - 1, 0, -1)]
    assert all(used.count(place) >= PATIENCE for place in range(len(LADDER) - 1, 0, -1))


def test_a_slow_server_is_told_from_a_slow_uplink() -> None:
    """Smaller pictures would not help it: they grow again once that has been seen."""
    uplink = Uplink(BUDGET_S)
    sent(uplink, 200, bytes_per_s=2e6, overhead_s=3.0)
    assert uplink.rung == LADDER[0]


@given(st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 100), st.booleans()), max_size=60))
def test_whatever_is_observed_there_is_a_rung(observed: list[tuple[int, float, bool]]) -> None:
    uplink = Uplink(BUDGET_S)
    for size, seconds, late in observed:
        (uplink.late if late else uplink.note)(uplink.rung, size, seconds)
        assert uplink.rung in LADDER
        assert uplink.overhead_s >= 0
        assert uplink.bytes_per_s > 0
        assert uplink.request_bytes > 0


def test_the_ladder_goes_down() -> None:
    shares = [rung.share for rung in LADDER]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
