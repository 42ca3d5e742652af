"""The loop, with fakes around it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge import loop as loop_module
from edge.bundle import open_bundle
from edge.engines.fake import FakeEngine
from edge.errors import CaptureError, EngineError
from edge.intake import AHEAD
from edge.loop import Scene, run
from edge.model import Model
from edge.offload import Answer
from edge.policies import LocalOnly, PerFrame, Threshold
from edge.protocols import Policy
from edge.sources.base import BaseSource
from edge.tasks.classify import Classify
from edge.types import Change, Classes, Detections, Event, Frame, Notice, Opinion
from tests.endpoint import serving, until
from tests.samples import detections, frame, plain


class FakeOffloader:
    """Answers a frame after `delay` more questions for answers; never while it is down."""

    def __init__(self, delay: int = 0, down: Callable[[float], bool] = lambda now_s: False) -> None:
        self.submitted_events: list[Event] = []
        self.drained: list[float] = []
        self._delay = delay
        self._down = down
        self.declined = 0
        self.seen: list[Event] = []
        self.notices: deque[Notice] = deque()
        self._due: list[tuple[int, Answer]] = []
        self._asked = 0

    def available(self, now_s: float) -> bool:
        return not self._down(now_s)

    def see(self, event: Event) -> None:
        self.seen.append(event)

    def submit(self, event: Event) -> None:
        self.submitted_events.append(event)
        result = Classes(np.array([0]), np.array([0.875], np.float32), ("cloud's",))
        self._due.append((self._asked + self._delay, Answer(event, result, "big", "v2")))

    def answers(self) -> list[Answer]:
        ready = [answer for due, answer in self._due if due <= self._asked]
        self._due = [pair for pair in self._due if pair[0] > self._asked]
        self._asked += 1
        return ready

    def drain(self, seconds: float) -> list[Answer]:
        self.drained.append(seconds)
        return [answer for _, answer in self._due]


@pytest.fixture
def model(tiny_edge: Path) -> Model:
    """Sure of bright pictures (score near 1), unsure of dark ones (0.1 each)."""
    card = open_bundle(tiny_edge).card
    variant = msgspec.structs.replace(card.variants[0], temperature=1.0)

    def answer(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        logits = np.zeros(10, np.float32)
        logits[3] = 10 * (data.mean() > 127)
        return logits

    return Model("tiny", variant, FakeEngine(answer=answer), Classify(card, variant))


class GivenSource(BaseSource):
    """Frames from a list or a generator; it waits."""

    def __init__(self, given: Iterable[Frame]) -> None:
        super().__init__("test")
        self._given = given

    def frames(self) -> Iterator[Frame]:
        for one in self._given:
            if self.stopped:
                return
            yield one


def looped(given: Iterable[Frame], model: Model, policy: Policy, **more: Any) -> Iterator[Any]:
    """The loop over one source of these frames."""
    return run([GivenSource(given)], model, [Scene(policy)], **more)


def frames(*greys: int) -> list[Frame]:
    return [frame(plain(grey), sequence, captured_s=sequence / 10, capture_ms=1.5) for sequence, grey in enumerate(greys)]


BRIGHT, DARK = 200, 20


def test_every_frame_has_one_local_event(model: Model) -> None:
    given = frames(BRIGHT, DARK, BRIGHT, DARK)
    found = list(looped(given, model, LocalOnly()))
    assert [event.frame for event in found] == given
    for event in found:
        assert (event.served_by, event.revises, event.model, event.variant) == ("local", False, "tiny", "float32")
        assert (event.decision.action, event.decision.reason) == ("accept", "no endpoint")
        assert event.decision.confidence == event.result.confidence
        assert len(event.result) == 5
    assert found[0].result.labels[0] == "class 3"


def test_each_stage_has_its_time(model: Model) -> None:
    event = next(looped(frames(BRIGHT), model, LocalOnly(), clock=lambda: 0.103))
    timings = event.timings
    assert timings.capture == 1.5
    for stage in (timings.prepare, timings.infer, timings.decode):
        assert 0 < stage < 1000
    assert event.emitted_s == 0.103
    assert event.age_ms == pytest.approx(103)


def test_a_source_that_waits_is_read_a_few_frames_ahead_and_no_more(model: Model) -> None:
    asked: list[int] = []

    def source() -> Iterator[Frame]:
        for one in frames(*[BRIGHT] * 100):
            asked.append(one.sequence)
            yield one

    events = looped(source(), model, LocalOnly(), max_frames=50)
    assert next(events).frame.sequence == 0
    assert len(list(events)) == 49
    assert len(asked) <= 50 + AHEAD + 1


def test_no_frames_no_events(model: Model) -> None:
    offloader = FakeOffloader()
    assert list(looped([], model, PerFrame(Threshold(0.5)), offloader=offloader)) == []
    assert offloader.drained == [loop_module.DRAIN_S]


def test_the_policy_sees_the_result_and_the_time_of_capture(model: Model) -> None:
    seen: list[tuple[float, float]] = []

    class Spy(LocalOnly):
        def decide(self, result: Classes, now_s: float) -> Any:
            seen.append((round(result.confidence, 2), now_s))
            return super().decide(result, now_s)

    list(looped(frames(BRIGHT, DARK), model, Spy()))
    assert seen == [(1.0, 0.0), (0.1, 0.1)]


def test_unsure_frames_are_offloaded_and_revised(model: Model) -> None:
    offloader = FakeOffloader(delay=1)
    found = list(looped(frames(BRIGHT, DARK, BRIGHT, DARK, DARK), model, PerFrame(Threshold(0.5)), offloader=offloader))
    local = [event for event in found if not event.revises]
    assert [event.decision.action for event in local] == ["accept", "offload", "accept", "offload", "offload"]
    assert [event.frame.sequence for event in local] == [0, 1, 2, 3, 4]
    assert offloader.submitted_events == [event for event in local if event.decision.action == "offload"]
    revised = [event for event in found if event.revises]
    assert [event.frame.sequence for event in revised] == [1, 3, 4]
    for event in revised:
        original = local[event.frame.sequence]
        assert event.frame is original.frame
        assert (event.served_by, event.model, event.variant) == ("cloud", "big", "v2")
        assert event.result.labels == ("cloud's",)
        assert event.decision == original.decision
        assert event.timings == original.timings
        assert event.emitted_s >= original.emitted_s
        assert found.index(event) > found.index(original)
    assert offloader.drained == [loop_module.DRAIN_S]


def test_answers_under_way_are_waited_for_in_the_end(model: Model) -> None:
    offloader = FakeOffloader(delay=1000)
    found = list(looped(frames(DARK, DARK), model, PerFrame(Threshold(0.5)), offloader=offloader))
    assert [(event.frame.sequence, event.revises) for event in found] == [(0, False), (1, False), (0, True), (1, True)]


def test_while_the_endpoint_is_down_the_local_answer_stands(model: Model) -> None:
    offloader = FakeOffloader(down=lambda now_s: 0.1 <= now_s < 0.2)
    clock = iter([0.0, 0.05, 0.15, 0.25] + [0.3] * 20)
    found = list(
        looped(frames(DARK, DARK, DARK), model, PerFrame(Threshold(0.5)), offloader=offloader, clock=lambda: next(clock))
    )
    local = [event for event in found if not event.revises]
    assert [event.decision.action for event in local] == ["offload", "accept", "offload"]
    assert local[1].decision.reason == "confidence 0.100 < 0.5, endpoint unavailable"
    assert local[1].decision.confidence == pytest.approx(0.1)
    assert [event.frame.sequence for event in offloader.submitted_events] == [0, 2]
    assert offloader.declined == 1


@pytest.mark.parametrize("error", [CaptureError("camera 0: gone"), EngineError("it broke")])
def test_a_failure_comes_after_what_the_cloud_still_owes(model: Model, error: Exception) -> None:
    def failing() -> Iterator[Frame]:
        yield from frames(DARK, BRIGHT)
        raise error

    offloader = FakeOffloader(delay=1000)
    found = []
    with pytest.raises(type(error), match=str(error)):  # noqa: PT012
        for event in looped(failing(), model, PerFrame(Threshold(0.5)), offloader=offloader):
            if isinstance(event, Event):
                found.append((event.frame.sequence, event.revises))  # noqa: PERF401
    assert found == [(0, False), (1, False), (0, True)]


def test_a_failing_engine_ends_the_loop_with_its_line(model: Model) -> None:
    def answer(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise EngineError("the model gave up")

    broken = Model("tiny", model.variant, FakeEngine(answer=answer), model.task)
    with pytest.raises(EngineError, match="the model gave up"):
        list(looped(frames(BRIGHT), broken, LocalOnly()))


def test_leaving_early_leaves_nothing_behind(model: Model) -> None:
    closed: list[bool] = []

    def source() -> Iterator[Frame]:
        try:
            yield from frames(*[BRIGHT] * 10)
        finally:
            closed.append(True)

    events = looped(source(), model, LocalOnly())
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert until(lambda: closed)


def test_with_a_real_endpoint_that_goes_away(model: Model) -> None:
    """Every frame is answered locally, and every frame that was offloaded is revised or counted as failed."""
    from edge.offload import Offloader

    said: list[str] = []
    found: list[Event] = []
    told: list[tuple[str, str]] = []
    with serving() as endpoint:
        offloader = Offloader(endpoint.url, "tiny", say=said.append)

        def source() -> Iterator[Frame]:
            for one in frames(*[DARK] * 12):
                if one.sequence == 6:
                    assert until(lambda: endpoint.pictures)
                    endpoint.answer = lambda *arguments: (500, b"", {})
                yield replace(one, captured_s=time.monotonic())  # the endpoint's deadline counts from there
                given = one.sequence + 1
                assert until(lambda: sum(not event.revises for event in found) == given)  # noqa: B023
                assert until(lambda: offloader.idle)

        for event in looped(source(), model, PerFrame(Threshold(0.5)), offloader=offloader):
            if isinstance(event, Event):
                found.append(event)  # the source watches it grow
            else:
                told.append((event.kind, event.about))
        offloader.close()
    revised = [event for event in found if event.revises]
    local = [event for event in found if not event.revises]
    assert [event.frame.sequence for event in local] == list(range(12))
    assert revised
    assert offloader.submitted == len(revised) + offloader.given_up + offloader.failed
    assert offloader.failed >= 1
    assert any("endpoint unavailable" in event.decision.reason for event in local)
    assert len(said) == 1
    assert "status 500" in said[0]
    assert told[-1:] == [("source-ended", "test")] or told == [("endpoint-lost", endpoint.url)]


def test_every_frame_is_shown_to_the_client_and_its_notices_are_told(model: Model) -> None:
    offloader = FakeOffloader()
    offloader.notices.append(Notice("endpoint-lost", "http://x", "connection refused", 1.7e9))
    found = list(looped(frames(BRIGHT, DARK), model, LocalOnly(), offloader=offloader))
    assert [one.kind for one in found if isinstance(one, Notice)] == ["endpoint-lost"]
    assert [event.frame.sequence for event in offloader.seen] == [0, 1]
    assert offloader.submitted_events == []


def tracked(*objects: tuple[int, str, float]) -> Detections:
    """Objects side by side, (track, label, score) each."""
    found = detections(*((label, score, (20 * i, 0, 20 * i + 10, 10)) for i, (_, label, score) in enumerate(objects)))
    return replace(found, tracks=np.array([track for track, _, _ in objects], np.int64))


def test_the_cloud_s_answer_is_remembered_until_the_object_leaves() -> None:
    scene = Scene(LocalOnly())
    assert scene.opinions_of(tracked((7, "cat", 0.4))) == {}
    scene.remember([7, 8], tracked((7, "fox", 0.9), (9, "hen", 0.8), (0, "ant", 0.7)))
    assert scene.opinions_of(tracked((9, "hen", 0.4), (7, "cat", 0.5))) == {7: Opinion("fox", pytest.approx(0.9))}
    scene.remember([7], tracked((7, "wolf", 0.95)))
    assert scene.opinions_of(tracked((7, "cat", 0.5)))[7].label == "wolf"
    scene.remember([7], detections(("cow", 0.9, (0, 0, 9, 9))))  # an answer without tracks is about none
    scene.remember([7], Classes(np.array([0]), np.array([0.9], np.float32), ("cow",)))
    scene.forget([Change("change", 7, "cat")])
    assert scene.opinions_of(tracked((7, "cat", 0.5)))[7].label == "wolf"
    scene.forget([Change("leave", 7, "cat")])
    assert scene.opinions == {}


def test_what_is_remembered_takes_bounded_memory() -> None:
    scene = Scene(LocalOnly())
    for track in range(1, loop_module.REMEMBERED + 100):
        scene.remember([track], tracked((track, "fox", 0.9)))
    assert len(scene.opinions) == loop_module.REMEMBERED
    assert 1 not in scene.opinions


def test_captured_at_is_of_the_capture_and_survives_a_step_of_the_clock(model: Model) -> None:
    """A board sets its clock while the cloud thinks: the revision still tells the time of its frame."""
    offloader = FakeOffloader(delay=1)
    clock = iter([10.25] + [20.0] * 20)
    wall = iter([1000.0] + [1.7e9] * 20)
    clocks = {"clock": lambda: next(clock), "wall_clock": lambda: next(wall)}
    given = [frame(plain(DARK), captured_s=10.0)]
    found = list(looped(given, model, PerFrame(Threshold(0.5)), offloader=offloader, **clocks))
    assert [(event.revises, event.captured_at_s) for event in found] == [(False, 999.75), (True, 999.75)]


def test_leaving_early_waits_for_the_inference_under_way(tiny_edge: Path) -> None:
    """An engine that is still at work when the interpreter goes away takes the process down with it."""
    card = open_bundle(tiny_edge).card
    under_way, release, ended = threading.Event(), threading.Event(), threading.Event()

    def answer(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if data.mean() < 127:
            under_way.set()
            release.wait(10)
            ended.set()
        return np.zeros(10, np.float32)

    model = Model("tiny", card.variants[0], FakeEngine(answer=answer), Classify(card, card.variants[0]))
    events = looped(frames(BRIGHT, DARK, DARK), model, LocalOnly())
    next(events)
    assert under_way.wait(10)
    threading.Timer(0.3, release.set).start()
    events.close()  # type: ignore[attr-defined]
    assert ended.is_set()
