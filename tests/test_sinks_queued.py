"""Sinks on threads of their own: nothing holds up the loop, and every loss is counted."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.sinks.jsonl import JsonlSink, ReaderGoneError
from edge.sinks.queued import QueuedSink
from edge.types import Event, Notice
from tests.samples import event, frame, picture

NOTICE = Notice("source-lost", "camera", "unplugged; trying again", 1.7e9)


class Recorder:
    """A sink that remembers, and that does first what it is told: wait for `gate`, or `work`."""

    def __init__(self, *, wants_images: bool = False, work: Callable[[Event | Notice], None] | None = None) -> None:
        self.lost = 0
        self.wants_images = wants_images
        self.seen: list[Event | Notice] = []
        self.gate = threading.Event()
        self.gate.set()
        self.taken = threading.Semaphore(0)
        self.closed_by: list[threading.Thread] = []
        self.lost_at_close = 0
        self._work = work

    def emit(self, event: Event | Notice) -> None:
        self.taken.release()
        self.gate.wait()
        if self._work is not None:
            self._work(event)
        self.seen.append(event)

    def close(self) -> None:
        self.lost += self.lost_at_close
        self.closed_by.append(threading.current_thread())

    @property
    def numbers(self) -> list[int]:
        return [event.frame.sequence for event in self.seen if isinstance(event, Event)]


def queued(sink: Recorder, *, depth: int = 4, waits: bool = False, **more: bool) -> tuple[QueuedSink, list[str]]:
    said: list[str] = []
    return QueuedSink(sink, "events", said.append, depth=depth, waits=waits, **more), said


def numbered(count: int, first: int = 0) -> list[Event]:
    return [event(frame(sequence=number)) for number in range(first, first + count)]


def eventually(condition: Callable[[], object], seconds: float = 2.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def fail(event: Event | Notice) -> None:
    raise ValueError("of no use\nat all")


@pytest.mark.parametrize("waits", [False, True])
def test_all_arrive_in_order_and_the_sink_is_closed(waits: bool) -> None:
    inner = Recorder()
    sink, said = queued(inner, depth=1000, waits=waits)
    for one in numbered(300):
        sink.emit(one)
    sink.emit(NOTICE)
    sink.close()
    assert inner.numbers == list(range(300))
    assert inner.seen[-1] is NOTICE
    assert len(inner.closed_by) == 1
    assert (sink.lost, said) == (0, [])


def test_an_event_reaches_the_sink_at_once() -> None:
    inner = Recorder()
    sink, _ = queued(inner)
    latencies = []
    for one in numbered(20):
        begun_s = time.perf_counter()
        sink.emit(one)
        assert inner.taken.acquire(timeout=1)
        latencies.append(time.perf_counter() - begun_s)
        eventually(lambda: len(inner.seen) == len(latencies))
    assert sorted(latencies)[10] < 0.1
    sink.close()


def test_a_slow_sink_does_not_slow_the_loop_and_loses_the_oldest() -> None:
    inner = Recorder()
    inner.gate.clear()
    sink, said = queued(inner, depth=4)
    sink.emit(numbered(1)[0])
    assert inner.taken.acquire(timeout=1)  # it is being written
    begun_s = time.perf_counter()
    for one in numbered(10, first=1):
        sink.emit(one)
    assert time.perf_counter() - begun_s < 0.2
    assert sink.lost == 6
    assert said == ["events: slow; 1 lost so far"]
    inner.gate.set()
    sink.close()
    assert inner.numbers == [0, 7, 8, 9, 10]
    assert sink.lost == 6
    assert said[1:] == ["events: has caught up; 6 lost so far"]


def test_each_outage_is_said() -> None:
    inner = Recorder()
    sink, said = queued(inner, depth=1)
    for outage in range(1, 4):
        inner.gate.clear()
        sink.emit(event())
        eventually(lambda: inner.taken.acquire(blocking=False))
        sink.emit(event())
        sink.emit(event())
        inner.gate.set()
        eventually(lambda outage=outage: len(said) == 2 * outage)
        while inner.taken.acquire(blocking=False):
            pass
    sink.close()
    assert sink.lost == 3
    assert [line.split("; ")[0] for line in said] == ["events: slow", "events: has caught up"] * 3


def test_one_that_waits_loses_nothing() -> None:
    inner = Recorder(work=lambda event: time.sleep(0.001))
    sink, said = queued(inner, depth=2, waits=True)
    for one in numbered(100):
        sink.emit(one)
    sink.close()
    assert inner.numbers == list(range(100))
    assert (sink.lost, said) == (0, [])


def test_one_that_waits_gives_a_hung_sink_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.PATIENCE_S", 0.1)
    inner = Recorder()
    inner.gate.clear()
    sink, said = queued(inner, depth=2, waits=True)
    begun_s = time.monotonic()
    for one in numbered(10):
        sink.emit(one)
    assert 0.1 <= time.monotonic() - begun_s < 0.3  # patience is lost once, not with every event
    assert sink.lost == 7  # one is being written, two wait
    assert len(said) == 1
    inner.gate.set()
    sink.close()
    assert inner.numbers == [0, 8, 9]


def test_a_sink_that_had_nothing_to_do_for_long_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.PATIENCE_S", 0.1)
    inner = Recorder(work=lambda event: time.sleep(0.01))
    sink, said = queued(inner, depth=1, waits=True)
    time.sleep(0.15)
    for one in numbered(5):
        sink.emit(one)
    sink.close()
    assert inner.numbers == list(range(5))
    assert (sink.lost, said) == (0, [])


def test_a_hung_sink_does_not_hang_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.DRAIN_S", 0.1)
    monkeypatch.setattr("edge.sinks.queued.PARTING_S", 0.1)
    inner = Recorder()
    inner.gate.clear()
    sink, said = queued(inner)
    for one in numbered(3):
        sink.emit(one)
    begun_s = time.monotonic()
    sink.close()
    sink.close()
    assert 0.2 <= time.monotonic() - begun_s < 0.5
    assert sink.lost == 3
    assert said == ["events: 3 events could not be written before the end and are lost"]
    assert inner.closed_by == []
    inner.gate.set()  # the thread goes, for the sake of the next tests


def test_what_waits_is_drained_while_there_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.DRAIN_S", 0.1)
    inner = Recorder(work=lambda event: time.sleep(0.02))
    sink, said = queued(inner, depth=100)
    for one in numbered(15):
        sink.emit(one)
    sink.close()  # 0.3 s in all
    assert inner.numbers == list(range(15))
    assert (sink.lost, said) == (0, [])


def test_draining_a_live_one_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.LONGEST_DRAIN_S", 0.1)
    inner = Recorder(work=lambda event: time.sleep(0.02))
    sink, _ = queued(inner, depth=200)
    for one in numbered(100):
        sink.emit(one)
    begun_s = time.monotonic()
    sink.close()
    assert time.monotonic() - begun_s < 0.5
    assert len(inner.closed_by) == 1
    assert len(inner.numbers) + sink.lost == 100
    assert sink.lost > 80


def test_an_unexpected_failure_is_counted_and_said_once() -> None:
    inner = Recorder(work=fail)
    sink, said = queued(inner, depth=100)
    for one in numbered(5):
        sink.emit(one)
    sink.close()
    assert sink.lost == 5
    assert said == ["events: ValueError: of no use at all; the loop goes on"]
    assert len(inner.closed_by) == 1


def test_a_failure_does_not_stop_the_next_event() -> None:
    inner = Recorder(work=lambda event: fail(event) if isinstance(event, Notice) else None)
    sink, _ = queued(inner)
    for one in (NOTICE, *numbered(2)):
        sink.emit(one)
    sink.close()
    assert (inner.numbers, sink.lost) == ([0, 1], 1)


def test_a_failure_to_close_is_said() -> None:
    inner = Recorder()
    inner.close = lambda: fail(NOTICE)  # type: ignore[method-assign]
    sink, said = queued(inner)
    sink.close()
    assert said == ["events: ValueError: of no use at all"]


def test_a_reader_that_went_away_is_told_to_the_loop() -> None:
    def gone(event: Event | Notice) -> None:
        raise ReaderGoneError

    inner = Recorder(work=gone)
    sink, said = queued(inner)
    sink.emit(event())
    eventually(lambda: sink._reader_gone)
    for _ in range(2):
        with pytest.raises(ReaderGoneError):
            sink.emit(event())
    sink.close()
    assert (sink.lost, said) == (0, [])


def test_one_that_waits_for_room_learns_that_the_reader_went_away() -> None:
    def gone(event: Event | Notice) -> None:
        raise ReaderGoneError

    inner = Recorder(work=gone)
    inner.gate.clear()
    sink, said = queued(inner, depth=1, waits=True)
    sink.emit(event())
    assert inner.taken.acquire(timeout=1)
    sink.emit(event())  # the queue is full
    threading.Timer(0.05, inner.gate.set).start()
    with pytest.raises(ReaderGoneError):
        sink.emit(event())
    sink.close()
    assert (sink.lost, said) == (0, [])


def test_what_the_sink_lost_is_lost_too() -> None:
    inner = Recorder()
    inner.lost, inner.lost_at_close = 2, 3
    sink, _ = queued(inner)
    sink.emit(event())
    sink.close()
    assert sink.lost == 5
    sink.emit(event())  # too late
    assert sink.lost == 6


def test_what_the_sink_loses_meanwhile_is_counted_at_once() -> None:
    inner = Recorder()
    sink, _ = queued(inner)
    sink.emit(event())
    eventually(lambda: inner.seen)
    inner.lost += 3  # on a thread of its own, as a broker's refusal of what was handed over
    assert sink.lost == 3
    sink.close()
    assert sink.lost == 3


@pytest.mark.parametrize("wants", [False, True])
def test_pictures_are_let_go_of(wants: bool) -> None:
    inner = Recorder(wants_images=wants)
    inner.gate.clear()
    sink, _ = queued(inner)
    image = picture().copy()
    released: list[bool] = []
    weakref.finalize(image, released.append, True)
    sink.emit(event(frame(image, 7)))
    del image
    gc.collect()
    assert bool(released) != wants
    inner.gate.set()
    sink.close()
    (seen,) = inner.seen
    assert isinstance(seen, Event)
    assert seen.frame.sequence == 7
    assert seen.frame.image.shape == ((48, 64, 3) if wants else (0, 0, 3))
    assert seen.frame.image.dtype == np.uint8


def test_a_picture_is_not_held_by_a_thread_that_waits() -> None:
    inner = Recorder(wants_images=True)
    sink, _ = queued(inner)
    image = picture().copy()
    released: list[bool] = []
    weakref.finalize(image, released.append, True)
    sink.emit(event(frame(image)))
    del image
    eventually(lambda: inner.seen)
    inner.seen.clear()
    eventually(lambda: released)
    sink.close()


def test_a_lossy_one_shows_the_newest_and_counts_nothing() -> None:
    inner = Recorder()
    inner.gate.clear()
    sink, said = queued(inner, depth=1, lossy=True)
    sink.emit(event())
    assert inner.taken.acquire(timeout=1)
    for one in numbered(5, first=1):
        sink.emit(one)
    inner.gate.set()
    sink.close()
    assert inner.numbers == [0, 5]
    assert (sink.lost, said) == (0, [])


class Odd(Recorder):
    """One with all hooks: it wants notices only."""

    def __init__(self, idles: int = 0) -> None:
        super().__init__()
        self.idled: list[threading.Thread] = []
        self.stopped = 0
        self._idles = idles

    def wants(self, event: Event | Notice) -> bool:
        return isinstance(event, Notice)

    def idle(self) -> bool:
        self.idled.append(threading.current_thread())
        return len(self.idled) < self._idles

    def stop(self) -> None:
        self.stopped += 1
        self.lost += 1
        self.gate.set()


def test_what_a_sink_does_not_want_takes_no_room() -> None:
    inner = Odd()
    inner.gate.clear()
    sink, said = queued(inner, depth=2)
    for one in (NOTICE, *numbered(10), NOTICE):
        sink.emit(one)
    inner.gate.set()
    sink.close()
    assert inner.seen == [NOTICE, NOTICE]
    assert (sink.lost, said, inner.stopped) == (0, [], 0)


def test_idling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.IDLE_S", 0.02)
    inner = Odd(idles=3)
    sink, _ = queued(inner)
    eventually(lambda: len(inner.idled) == 3)
    time.sleep(0.1)
    assert len(inner.idled) == 3  # it has nothing to do any more
    sink.emit(NOTICE)
    eventually(lambda: len(inner.idled) == 4)
    sink.close()
    assert {*inner.idled} == {*inner.closed_by}  # all on its own thread
    assert threading.current_thread() not in inner.closed_by


def test_one_that_sleeps_is_stopped_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.DRAIN_S", 0.1)
    inner = Odd()
    inner.gate.clear()
    sink, said = queued(inner)
    for _ in range(3):
        sink.emit(NOTICE)
    sink.close()
    assert inner.stopped == 1
    assert len(inner.closed_by) == 1
    assert sink.lost == 3  # two that waited, and one that the sink itself counted
    assert len(said) == 1


def test_many_threads_lose_no_count() -> None:
    inner = Recorder()
    sink, _ = queued(inner, depth=3)

    def emit() -> None:
        for one in numbered(200):
            sink.emit(one)

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert len(inner.seen) + sink.lost == 800


def test_lines_on_a_thread(tmp_path: Path) -> None:
    said: list[str] = []
    sink = QueuedSink(JsonlSink(str(tmp_path / "e"), said.append), "events", said.append, waits=True)
    for one in numbered(500):
        sink.emit(one)
    sink.close()
    assert (tmp_path / "e").read_bytes().count(b"\n") == 500
    assert (sink.lost, said) == (0, [])
