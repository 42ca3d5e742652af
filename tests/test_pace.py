"""The pace: how many frames go through, how they are spread, and whose memory of it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.intake import Intake
from edge.pace import Pace
from edge.types import Frame
from tests.samples import frame
from tests.test_intake import Given, endless, everything, numbered


@given(st.floats(1, 120), st.floats(0.2, 130))
def test_the_rate_is_what_was_asked_for(source_fps: float, asked_fps: float) -> None:
    pace = Pace(1)
    pace.intervals_s = [1 / asked_fps]
    seconds = max(30.0, 30 / asked_fps)
    through = sum(not pace.early_s(0, number / source_fps) for number in range(int(seconds * source_fps)))
    assert through == pytest.approx(min(source_fps, asked_fps) * seconds, rel=0.05, abs=2)
    assert through <= asked_fps * seconds + 2


@pytest.mark.parametrize("fps", [5.0, 14.9, 15.0, 30.0])
def test_a_camera_that_is_not_faster_loses_nothing(fps: float) -> None:
    pace, chance = Pace(1), random.Random(0)
    pace.intervals_s = [1 / 15.0 if fps < 30 else 1 / 30.0]
    comes_s = [number / fps + chance.uniform(-0.003, 0.003) for number in range(1000)]
    assert not any(pace.early_s(0, at_s) for at_s in comes_s)


def test_a_pause_is_not_made_up_for_by_a_burst() -> None:
    pace = Pace(1)
    pace.intervals_s = [1.0]
    assert pace.early_s(0, 0.0) == 0
    assert pace.early_s(0, 100.0) == 0
    assert [pace.early_s(0, 100.0 + tenth / 10) == 0 for tenth in range(1, 19)].count(True) == 1


def test_how_often_frames_come_is_known_after_a_while() -> None:
    pace = Pace(1)
    pace.intervals_s = [16.0]
    comes_s = [0.0, 0.0, 0.001, *(number / 8 for number in range(1, 40))]  # a burst first
    seen = {at_s: (pace.early_s(0, at_s), pace.coming_fps[0])[1] for at_s in comes_s}
    assert seen[1.875] is None
    assert seen[2.0] == pytest.approx(8, rel=0.2)
    for number in range(100):
        pace.early_s(0, 60 + number / 4)
    assert pace.coming_fps == pytest.approx([4.0])


def test_what_was_taken_and_what_waited_is_counted() -> None:
    pace = Pace(1)
    pace.intervals_s = [1.0]
    for at_s in (0.0, 0.2, 0.5, 1.0, 2.0):
        pace.early_s(0, at_s)
    assert (pace.taken, pace.delayed) == ([3], [1])


def test_a_new_pace_counts_at_once() -> None:
    pace = Pace(2)
    pace.intervals_s = [100.0, 0.0]
    assert pace.early_s(0, 0.0) == 0
    assert pace.early_s(0, 1.0) == 99.0
    assert pace.early_s(1, 1.0) == pace.early_s(1, 1.0) == 0
    pace.intervals_s = [0.5, 0.0]
    assert pace.early_s(0, 1.0) == 0.5


def test_a_live_source_is_let_go_of_what_comes_too_early_and_that_is_counted() -> None:
    source, looked = Given(endless(0.002), live=True), []
    pace = Pace(1)
    pace.intervals_s = [0.03]
    with Intake([source], lambda number, one: looked.append(one) is not None, limit=5, pace=pace) as intake:
        begun_s = time.monotonic()
        taken = everything(intake)
        spent_s = time.monotonic() - begun_s
    assert len(taken) == 5
    assert spent_s > 3 * 0.03
    assert pace.paced[0] > 5
    assert 5 <= len(looked) <= source.read - pace.paced[0]
    assert source.dropped < pace.paced[0]


def test_a_file_waits_and_loses_nothing() -> None:
    pace = Pace(1)
    pace.intervals_s = [0.02]
    begun_s = time.monotonic()
    with Intake([Given(numbered(6))], pace=pace) as intake:
        taken = everything(intake)
    assert [one.frame.sequence for one in taken] == list(range(6))
    assert time.monotonic() - begun_s > 4 * 0.02
    assert pace.paced == [0]


def test_a_file_is_read_when_its_frame_is_due() -> None:
    def read() -> Iterator[Frame]:
        for number in range(5):
            yield frame(sequence=number, captured_s=time.monotonic())

    pace = Pace(1)
    pace.intervals_s = [0.1]
    with Intake([Given(read())], pace=pace) as intake:
        ages_s = [time.monotonic() - one.frame.captured_s for one in iter(lambda: next(iter(intake.take()), None), None)]
    assert len(ages_s) == 5
    assert sorted(ages_s)[2] < 0.05


def test_a_file_that_waits_can_be_closed() -> None:
    pace = Pace(1)
    pace.intervals_s = [60.0]
    with Intake([Given(numbered(6))], pace=pace) as intake:
        intake.take()
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 1.0


def test_a_file_that_waits_hears_a_signal() -> None:
    """A handler only sets the flag: it may not notify whoever waits."""
    pace, source = Pace(1), Given(numbered(6))
    pace.intervals_s = [60.0]
    with Intake([source], pace=pace) as intake:
        assert len(intake.take()) == 1
        begun_s = time.monotonic()
        source.stop()
        assert intake.take() == []
        assert time.monotonic() - begun_s < 0.8
    assert source.read == 1
