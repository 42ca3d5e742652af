"""The newest are kept, in order, and what is lost is counted."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt.outbox import WINDOW, Outbox
from edge.mqtt.topics import Message


def message(number: int, until_s: float | None = None, *, counted: bool = True) -> Message:
    return Message("t", b"%d" % number, 1, until_s=until_s, counted=counted)


def drained(outbox: Outbox) -> list[int]:
    return [int(found.payload) for found in iter(outbox.take, None)]


def filled(limit: int, numbers: Iterable[int]) -> Outbox:
    outbox = Outbox(limit, clock=lambda: 100.0)
    for number in numbers:
        outbox.put(message(number))
    return outbox


def test_the_newest_are_kept_in_order_and_the_loss_is_counted() -> None:
    outbox = filled(3, range(5))
    assert outbox.lost == 2
    assert drained(outbox) == [2, 3, 4]


def test_it_says_when_something_had_to_go() -> None:
    outbox = filled(1, [])
    assert outbox.put(message(0))
    assert not outbox.put(message(1))


def test_nothing_is_kept_of_nothing_but_what_waits_its_turn() -> None:
    outbox = filled(0, range(3))
    assert (len(outbox), outbox.lost) == (0, 3)
    outbox.broker_is(there=True)
    for number in range(WINDOW):
        assert outbox.put(message(number))
    outbox.broker_is(there=False)
    assert (len(outbox), outbox.lost) == (0, 3 + WINDOW)


def test_what_is_put_back_goes_first() -> None:
    outbox = filled(10, [3, 4])
    outbox.put_back([message(1), message(2)])
    assert drained(outbox) == [1, 2, 3, 4]


def test_what_has_outlived_its_time_is_lost() -> None:
    outbox = filled(10, [])
    for number, until_s in enumerate([99.0, 101.0, 100.0]):
        outbox.put(message(number, until_s))
    assert (drained(outbox), outbox.lost) == ([1], 2)


def test_only_what_counts_is_counted() -> None:
    outbox = filled(10, [1])
    outbox.put(message(2, counted=False))
    assert (outbox.clear(), outbox.lost, len(outbox)) == (1, 1, 0)


@given(limit=st.integers(0, 5), steps=st.lists(st.sampled_from(["put", "take", "there", "away"]), max_size=60))
def test_nothing_disappears_uncounted(limit: int, steps: list[str]) -> None:
    outbox, put, taken = Outbox(limit), 0, []
    for step in steps:
        if step == "put":
            outbox.put(message(put))
            put += 1
        elif step == "take":
            found = outbox.take()
            taken += [] if found is None else [int(found.payload)]
        else:
            outbox.broker_is(there=step == "there")
    taken += drained(outbox)
    assert len(taken) + outbox.lost == put
    assert taken == sorted(set(taken))
