"""What the monitor tells of a loop, from its events and notices."""

from __future__ import annotations

import threading
from typing import Any, cast

import msgspec
import pytest

from devices import Reading, detect
from edge.controls import Controls
from edge.errors import CaptureError
from edge.model import Model
from edge.monitor import HISTORY_S, Monitor
from edge.pace import Pace
from edge.sources.base import BaseSource
from edge.status import Status
from edge.summary import Tally
from edge.types import Event, Notice, Timings
from tests.samples import event, frame, plain


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Nothing(BaseSource):
    def frames(self) -> Any:
        return iter(())


class FakeModel:
    """As much of a model as is told."""

    name = "tiny"
    variant = type("Variant", (), {"name": "float32"})
    engine = type("Engine", (), {"name": "fake", "threads": 2, "lanes": 2})


class Watched:
    """A monitor of two sources, fed as a Session feeds it."""

    def __init__(self, **more: Any) -> None:
        self.clock = Clock()
        self.tally = Tally()
        self.sources = [Nothing("a"), Nothing("b")]
        self.sources[1].live = True
        self.readings = 0
        self.monitor = Monitor(
            self.tally,
            lambda: cast(Model, FakeModel),
            self.sources,
            Controls(Pace(2)),
            detect(),
            read=self.read,
            clock=self.clock,
            wall_clock=lambda: 1.7e9,
            **more,
        )

    def read(self) -> Reading:
        self.readings += 1
        return Reading(temperature_c=51.5, throttled=frozenset({"throttled"}))

    def see(self, item: Event | Notice) -> None:
        self.tally.add(item)
        self.monitor.add(item)

    def frame(self, source: str = "a", sequence: int = 0, **more: Any) -> None:
        of = frame(plain(100), sequence, captured_s=self.clock.now_s - 0.02, source=source)
        self.see(event(of, timings=Timings(1.0, 2.0, 10.0, 0.5), **more))


def test_before_the_first_frame() -> None:
    status = Watched().monitor.status()
    assert [source.state for source in status.sources] == ["starting", "starting"]
    assert [source.live for source in status.sources] == [False, True]
    assert (status.fps, status.stages_ms, status.offload, status.governor) == (0.0, None, None, None)
    assert status.sources[0].result is None
    assert (status.model.name, status.model.threads) == ("tiny", 4)
    assert (status.board.temperature_c, status.board.throttled) == (51.5, ["throttled"])


def test_rates_and_stages_are_those_of_the_last_seconds() -> None:
    watched = Watched()
    for second in range(8):
        for number in range(10):
            watched.clock.now_s = 1000 + second + number / 10
            watched.frame("a" if number % 2 else "b", sequence=second * 10 + number)
    watched.clock.now_s = 1008.0
    status = watched.monitor.status()
    assert status.fps == 10.0
    assert [source.fps for source in status.sources] == [5.0, 5.0]
    stages = status.stages_ms
    assert stages is not None
    assert (stages.capture, stages.prepare, stages.infer, stages.decode) == (1.0, 2.0, 10.0, 0.5)
    assert stages.age == pytest.approx(20.0)
    assert status.history.fps == [10] * 8
    assert status.history.infer_ms == [10.0] * 8
    assert status.sources[0].frames == 40


def test_silence_shows_as_zero_and_as_quiet() -> None:
    watched = Watched()
    watched.frame()
    watched.clock.now_s += 30
    status = watched.monitor.status()
    assert status.fps == 0.0
    assert status.sources[0].quiet_s == 30.0
    assert status.stages_ms is None
    assert status.history.fps == [1] + [0] * 29
    assert status.history.age_ms[-1] is None


def test_the_history_is_bounded() -> None:
    watched = Watched()
    for second in range(3 * HISTORY_S):
        watched.clock.now_s = 1000.0 + second
        watched.frame(sequence=second)
    history = watched.monitor.status().history
    assert len(history.fps) == HISTORY_S
    assert history.end == 3 * HISTORY_S - 1
    assert set(history.fps) == {1}


def test_a_source_s_state_follows_its_notices() -> None:
    watched = Watched()

    def state() -> tuple[str, str]:
        source = watched.monitor.status().sources[1]
        return source.state, source.trouble

    watched.frame("b")
    assert state() == ("open", "")
    watched.see(Notice("source-lost", "b", "no frame for 3 s", 1.7e9))
    assert state() == ("lost", "no frame for 3 s")
    watched.see(Notice("source-open", "b", "640x480", 1.7e9))
    assert state() == ("open", "")
    watched.see(Notice("source-stalled", "b", "no frame for 1 s", 1.7e9))
    watched.frame("b", sequence=1)
    assert state() == ("open", "")
    watched.see(Notice("source-ended", "b", "gone", 1.7e9))
    watched.frame("b", sequence=2)  # what was under way
    assert state() == ("ended", "gone")


def test_the_newest_result_and_the_cloud_s() -> None:
    watched = Watched()
    watched.frame(sequence=7, action="offload", scores=(0.25, 0.125))
    watched.frame(sequence=7, revises=True, served_by="cloud", scores=(0.9,))
    source = watched.monitor.status().sources[0]
    assert source.result is not None
    assert source.cloud is not None
    assert (source.result.seq, source.result.label, source.result.confidence) == (7, "class 0", 0.25)
    assert (source.result.action, source.result.served_by) == ("offload", "local")
    assert source.cloud.confidence == pytest.approx(0.9)
    assert source.cloud.served_by == "cloud"


def test_still_frames_have_an_age_but_no_stages() -> None:
    watched = Watched()
    watched.frame(action="skip")
    watched.clock.now_s += 1
    history = watched.monitor.status().history
    assert history.fps == [1]
    assert history.infer_ms == [None]
    assert history.age_ms[0] is not None


def test_no_picture_is_kept() -> None:
    watched = Watched()
    watched.frame()
    kept = watched.monitor._watched[0].result
    assert kept is not None
    assert kept.frame.image.size == 0


def test_sensors_are_read_once_a_second_whoever_asks() -> None:
    watched = Watched()
    for _ in range(5):
        watched.monitor.status()
    assert watched.readings == 1
    watched.clock.now_s += 1
    watched.monitor.status()
    assert watched.readings == 2


def test_who_has_paused_is_told() -> None:
    watched = Watched()
    watched.monitor.controls.pause(True, "mqtt")
    controls = watched.monitor.status().controls
    assert (controls.paused, controls.paused_by) == (True, "mqtt")


def test_a_status_is_json_that_reads_back() -> None:
    watched = Watched()
    watched.frame("b")
    status = watched.monitor.status()
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


def test_many_may_ask_while_it_runs() -> None:
    watched, failures = Watched(), []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                watched.monitor.status()
            except Exception as error:
                failures.append(error)
                return

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for number in range(300):
        watched.clock.now_s += 0.05
        watched.frame("ab"[number % 2], sequence=number)
        watched.see(Notice("control", f"who {number}", "x", 1.7e9))
    done.set()
    for thread in asking:
        thread.join()
    assert failures == []


def test_a_frame_of_no_source() -> None:
    with pytest.raises(CaptureError, match="a frame of 'c': no Source here has that name; give both the same"):
        Watched().monitor.add(event(frame(source="c")))
