"""Several sources side by side: who waits, what is dropped, whose turn it is."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest

from edge.errors import CaptureError, SourceError
from edge.intake import AHEAD, Intake, Taken
from edge.sources.base import BaseSource
from edge.types import Frame
from tests.endpoint import until
from tests.samples import frame, picture

PATIENCE_S = 20.0


class Given(BaseSource):
    """Frames of an iterable; `read` counts those that were asked for."""

    def __init__(
        self, given: Iterable[Frame | Exception | Callable[[], object]], name: str = "given", live: bool = False
    ) -> None:
        super().__init__(name)
        self.live = live
        self.read = 0
        self._given = given

    def frames(self) -> Iterator[Frame]:
        for step in self._given:
            if self.stopped:
                return
            if isinstance(step, Exception):
                raise step
            if callable(step):
                step()
                continue
            self.read += 1
            yield step


def numbered(count: int, start: int = 0) -> list[Frame]:
    image = picture()
    return [frame(image, number) for number in range(start, start + count)]


def endless(pause_s: float = 0.0) -> Iterator[Frame]:
    image, number = picture(), 0
    while True:
        yield frame(image, number)
        number += 1
        if pause_s:
            time.sleep(pause_s)


def everything(intake: Intake, most: int = 1) -> list[Taken]:
    taken: list[Taken] = []
    while batch := intake.take(most):
        taken += batch
    return taken


def fed(intake: Intake) -> bool:
    """Wait until every source has ended."""
    return until(lambda: not any(thread.is_alive() for thread in intake._threads))


# who waits


def test_a_file_is_given_out_whole_and_in_order() -> None:
    source = Given(numbered(50))
    with Intake([source]) as intake:
        taken = everything(intake)
    assert [one.frame.sequence for one in taken] == list(range(50))
    assert [one.ticket for one in taken] == list(range(50))
    assert {one.source for one in taken} == {0}
    assert source.dropped == 0
    assert intake.failures == []


def test_a_file_is_read_a_little_ahead_and_no_further() -> None:
    source = Given(endless())
    with Intake([source]) as intake:
        assert until(lambda: source.read == AHEAD + 1)  # one is in the hands of its thread
        time.sleep(0.05)
        assert source.read == AHEAD + 1
        intake.take()
        assert until(lambda: source.read == AHEAD + 2)


def test_of_a_live_source_the_newest_wins_and_the_rest_are_counted() -> None:
    release, read = threading.Event(), threading.Event()
    source = Given([*numbered(5), read.set, lambda: release.wait(PATIENCE_S), *numbered(1, start=5)], live=True)
    with Intake([source]) as intake:
        assert read.wait(PATIENCE_S)
        (newest,) = intake.take()
        assert newest.frame.sequence == 4
        assert source.dropped == 4
        release.set()
        assert [one.frame.sequence for one in everything(intake)] == [5]
    assert source.dropped == 4


def test_taking_waits_for_a_frame() -> None:
    release = threading.Event()
    with Intake([Given([lambda: release.wait(PATIENCE_S), *numbered(1)], live=True)]) as intake:
        threading.Timer(0.05, release.set).start()
        assert len(intake.take()) == 1
        assert intake.take() == []
        assert intake.take() == []


@pytest.mark.parametrize("live", [True, False])
def test_frames_that_were_taken_are_not_held(live: bool) -> None:
    """Else a camera's buffer would be missing until its next frame comes."""

    class Held:
        pass

    release, held = threading.Event(), Held()
    ended = weakref.ref(held)
    one = frame(name=held)
    del held

    class OneThenNone(Given):
        def frames(self) -> Iterator[Frame]:
            yield frames.pop()
            release.wait(PATIENCE_S)

    frames = [one]
    del one
    with Intake([OneThenNone([], live=live)]) as intake:
        assert len(intake.take()) == 1
        assert until(lambda: ended() is None)
        release.set()


# turns


def test_a_source_that_floods_does_not_keep_others_waiting() -> None:
    sources = [Given(endless(), "fast", live=True), Given(endless(0.002), "one", live=True), Given(numbered(20), "file")]
    counted: Counter[int] = Counter()
    with Intake(sources) as intake:
        assert until(lambda: all(intake._waiting))
        first = [one.source for _ in range(3) for one in intake.take()]
        while counted[2] < 17:
            counted.update(one.source for one in intake.take())
            time.sleep(0.004)  # an engine
    assert sorted(first) == [0, 1, 2]
    assert counted[0] <= counted[2] + 4
    assert counted[1] >= counted[2] / 2


def test_a_batch_has_one_frame_of_each_source_at_most() -> None:
    sources = [Given(numbered(6), str(number)) for number in range(3)]
    with Intake(sources) as intake:
        assert until(lambda: all(len(waiting) == AHEAD for waiting in intake._waiting))
        assert [one.source for one in intake.take(8)] == [0, 1, 2]
        assert until(lambda: all(len(waiting) == AHEAD for waiting in intake._waiting))
        assert [one.source for one in intake.take(2)] == [0, 1]
        assert until(lambda: all(len(waiting) == AHEAD for waiting in intake._waiting))
        two = intake.take(2)
        assert [one.source for one in two] == [2, 0]
        assert [one.ticket for one in two] == [5, 6]
        rest = everything(intake, 8)
    assert [one.ticket for one in rest] == list(range(7, 18))
    assert Counter(one.source for one in rest) == {0: 3, 1: 4, 2: 4}


def test_a_batch_does_not_wait_to_be_full() -> None:
    release = threading.Event()
    sources = [Given(numbered(1)), Given([lambda: release.wait(PATIENCE_S)])]
    with Intake(sources) as intake:
        assert len(intake.take(4)) == 1
        release.set()


# the limit


@pytest.mark.parametrize(("limit", "most", "expected"), [(0, 1, []), (1, 4, [1]), (5, 1, [1, 1, 1, 1, 1]), (5, 2, [2, 2, 1])])
def test_a_limit(limit: int, most: int, expected: list[int]) -> None:
    sources = [Given(endless()), Given(endless())]
    sizes = []
    with Intake(sources, limit=limit) as intake:
        assert until(lambda: all(len(waiting) == AHEAD for waiting in intake._waiting))
        while batch := intake.take(most):
            sizes.append(len(batch))
            assert until(lambda: all(len(waiting) == AHEAD for waiting in intake._waiting))
    assert sizes == expected


# motion


@pytest.mark.parametrize(
    ("still", "expected"),
    [([True], True), ([False], False), ([False, True, True], False), ([True, True], True), ([True, False], False)],
)
def test_a_frame_that_replaces_a_moving_one_is_not_still(still: list[bool], expected: bool) -> None:
    source = Given(numbered(len(still)), live=True)
    intake = Intake([source], look=lambda number, one: still[one.sequence])
    with intake:
        assert fed(intake)
        (newest,) = intake.take()
    assert newest.frame.sequence == len(still) - 1
    assert newest.still is expected


def test_motion_is_forgotten_once_it_was_taken() -> None:
    steps = [threading.Event(), threading.Event()]
    source = Given([*numbered(1), lambda: steps[0].wait(PATIENCE_S), *numbered(1, start=1)], live=True)
    with Intake([source], look=lambda number, one: one.sequence > 0) as intake:
        assert [one.still for one in intake.take()] == [False]
        steps[0].set()
        assert [one.still for one in intake.take()] == [True]


def test_each_source_is_looked_at_by_its_own_thread() -> None:
    seen: set[tuple[int, str]] = set()

    def look(number: int, one: Frame) -> bool:
        seen.add((number, threading.current_thread().name))
        return False

    with Intake([Given(numbered(3), "a"), Given(numbered(3), "b")], look) as intake:
        everything(intake)
    assert seen == {(0, "source a"), (1, "source b")}


# failures


def test_a_source_that_fails_does_not_end_the_others() -> None:
    broken = Given([*numbered(1), CaptureError("broken: no more")], "broken")
    well = Given(numbered(10), "well")
    with Intake([broken, well]) as intake:
        taken = everything(intake)
    assert Counter(one.source for one in taken) == {0: 1, 1: 10}
    assert [str(failure) for failure in intake.failures] == ["broken: no more"]
    assert [(notice.kind, notice.about, notice.text) for notice in broken.notices] == [
        ("source-ended", "broken", "broken: no more")
    ]
    assert [(notice.kind, notice.text) for notice in well.notices] == [("source-done", "has ended, the others go on")]


def test_the_end_of_a_source_is_told_where_others_go_on() -> None:
    alone = Given(numbered(2), "alone")
    with Intake([alone]) as intake:
        everything(intake)
    assert list(alone.notices) == []
    stopped, other = Given(numbered(5), "stopped"), Given(numbered(5), "other")
    with Intake([stopped, other]) as intake:
        stopped.stop()
        everything(intake)
    assert list(stopped.notices) == []


def test_all_sources_failing_ends_it() -> None:
    with Intake([Given([SourceError("a")], "a"), Given([SourceError("b")], "b")]) as intake:
        assert intake.take() == []
        assert {str(failure) for failure in intake.failures} == {"a", "b"}


@pytest.mark.parametrize("where", ["frames", "look"])
def test_a_fault_of_ours_is_a_failure_with_a_line_too(where: str) -> None:
    def look(number: int, one: Frame) -> bool:
        if where == "look":
            raise ValueError("two\nlines")
        return False

    source = Given(numbered(1) if where == "look" else [ValueError("two\nlines")], "cam")
    with Intake([source], look) as intake:
        assert everything(intake) == []
    assert [str(failure) for failure in intake.failures] == ["cam: a fault in the loop: ValueError: two lines"]
    assert isinstance(intake.failures[0].__cause__, ValueError)
    assert [notice.kind for notice in source.notices] == ["source-ended"]


# the end


def test_close_wakes_who_waits() -> None:
    release = threading.Event()
    silent, file = Given([lambda: release.wait(PATIENCE_S)], live=True), Given(endless())
    answers: list[list[Taken]] = []
    with Intake([silent]) as intake, Intake([file]) as full:
        takers = [threading.Thread(target=lambda: answers.append(intake.take())) for _ in range(2)]
        for taker in takers:
            taker.start()
        assert until(lambda: file.read == AHEAD + 1)
        intake.close()
        full.close()
        for taker in takers:
            taker.join(PATIENCE_S)
        assert answers == [[], []]
        assert fed(full)
        release.set()
        assert silent.stopped
        assert file.stopped
        assert intake.closed
        assert full.take() == []


def test_leaving_stops_sources_and_leaves_no_thread() -> None:
    sources = [Given(endless(0.001), live=True), Given(endless())]
    with Intake(sources) as intake:
        intake.take()
    assert all(source.stopped for source in sources)
    assert not any(thread.is_alive() for thread in intake._threads)


def test_leaving_does_not_wait_for_a_decoder_that_never_returns() -> None:
    release = threading.Event()
    begun_s = time.monotonic()
    with Intake([Given([lambda: release.wait(PATIENCE_S)])]):
        pass
    assert time.monotonic() - begun_s < PATIENCE_S / 2
    release.set()


def test_an_intake_of_nothing() -> None:
    with Intake([]) as intake:
        assert intake.take() == []
