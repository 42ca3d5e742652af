"""The controls of a running loop: what each does, who is told, and what cannot be set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import open_bundle
from edge.controls import Controls
from edge.engines.fake import FakeEngine
from edge.loop import Scene, _Tasks, run
from edge.model import Model
from edge.motion import MotionGate
from edge.pace import Pace
from edge.policies import Allowance, Budget, LocalOnly, PerFrame, Threshold
from edge.protocols import Task
from edge.sources.base import BaseSource
from edge.tasks.classify import Classify
from edge.types import Event, Frame, Notice
from tests.samples import frame, picture, plain


def controls(*rules: Threshold | Budget, gates: int = 0, score_threshold: float | None = None) -> Controls:
    made = [MotionGate() for _ in range(gates)]
    return Controls(Pace(1), rules, made, score_threshold=score_threshold, wall_clock=lambda: 1.7e9)


def texts(of: Controls) -> list[tuple[str, str]]:
    return [(notice.about, notice.text) for notice in of.notices]


def test_pausing_is_told_once_with_whoever_did_it() -> None:
    of = controls()
    assert not of.paused
    of.pause(True, "web")
    of.pause(True, "mqtt")
    assert of.paused
    assert of.paused_by == "web"
    of.pause(False, "mqtt")
    assert not of.paused
    assert of.paused_by is None
    assert texts(of) == [("web", "paused"), ("mqtt", "goes on")]
    assert of.notices[0] == Notice("control", "web", "paused", 1.7e9)


def test_a_threshold_is_set_for_all_sources() -> None:
    rules = Threshold(0.5), Threshold(0.5)
    of = controls(*rules)
    assert of.threshold == 0.5
    of.set_threshold(0.7, "web")
    of.set_threshold(0.7, "web")
    assert [rule.threshold for rule in rules] == [0.7, 0.7]
    assert texts(of) == [("web", "threshold 0.7, was 0.5")]


def test_a_budget_has_a_ceiling_to_set() -> None:
    budget = Budget(Allowance("100%", per_frame=1.0))
    of = controls(budget)
    assert of.threshold == 1.0
    of.set_threshold(0.3, "web")
    budget.begin([0.5], 0.0)
    assert not budget.judge(0.5).uncertain
    assert budget.judge(0.1).uncertain


def test_a_score_threshold_has_versions() -> None:
    of = controls(score_threshold=0.25)
    of.set_score_threshold(0.25, "web")
    assert of.version == 0
    of.set_score_threshold(0.5, "web")
    assert (of.version, of.score_threshold) == (1, 0.5)
    assert texts(of) == [("web", "score threshold 0.5, was 0.25")]


def test_a_gate_is_switched() -> None:
    of = controls(gates=2)
    assert of.gate is True
    of.set_gate(False, "web")
    assert of.gate is False
    assert texts(of) == [("web", "motion gate off")]


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_values_beyond_the_scale_are_refused(value: float) -> None:
    of = controls(Threshold(0.5), score_threshold=0.25)
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        of.set_threshold(value, "web")
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        of.set_score_threshold(value, "web")
    assert (of.threshold, of.score_threshold, list(of.notices)) == (0.5, 0.25, [])


def test_what_is_not_there_cannot_be_set() -> None:
    of = controls()
    assert (of.threshold, of.score_threshold, of.gate) == (None, None, None)
    with pytest.raises(ValueError, match="nothing is offloaded by a threshold here"):
        of.set_threshold(0.5, "web")
    with pytest.raises(ValueError, match="there is no score threshold"):
        of.set_score_threshold(0.5, "web")
    with pytest.raises(ValueError, match="there is no motion gate here"):
        of.set_gate(True, "web")


def test_a_gate_that_is_off_lets_everything_through_and_begins_anew() -> None:
    gate, image = MotionGate(refresh_s=100.0), picture()
    assert gate.moves(image, 0.0)
    assert not [moved for number in range(1, 20) if (moved := gate.moves(image, number / 10)) and number > 6]
    gate.enabled = False
    assert gate.moves(image, 2.0)
    gate.enabled = True
    assert gate.moves(image, 2.1)


# in the loop


class Stream(BaseSource):
    """A live camera of these pictures, one whenever the last one was let go or answered; it calls `at` before each."""

    live = True

    def __init__(self, given: list[Frame], at: dict[int, object], pace: Pace) -> None:
        super().__init__("test")
        self._given, self._at, self._pace = given, at, pace

    def frames(self) -> Iterator[Frame]:
        for one in self._given:
            act = self._at.get(one.sequence)
            if callable(act):
                act()
            yield one


@pytest.fixture
def model(tiny_edge: Path) -> Model:
    card = open_bundle(tiny_edge).card
    return Model(
        "tiny", card.variants[0], FakeEngine(answer=lambda data: np.zeros(10, np.float32)), Classify(card, card.variants[0])
    )


def test_a_paused_loop_lets_the_frames_of_a_camera_go(model: Model) -> None:
    of = controls()
    given = [frame(plain(100), number, captured_s=number / 10) for number in range(6)]
    source = Stream(given, {2: lambda: of.pause(True, "web"), 4: lambda: of.pause(False, "web")}, of.pace)
    found = list(run([source], model, [Scene(LocalOnly())], controls=of))
    seen = {item.frame.sequence for item in found if isinstance(item, Event)}
    assert not seen & {2, 3}
    assert 5 in seen
    assert of.pace.paced == [2]
    assert [item.text for item in found if isinstance(item, Notice)] == ["paused", "goes on"]


def test_a_threshold_counts_from_the_next_frame_on(model: Model) -> None:
    rule = Threshold(0.0)
    of = controls(rule)
    given = [frame(plain(100), number) for number in range(3)]

    class Given(BaseSource):
        def frames(self) -> Iterator[Frame]:
            yield from given

    actions = []
    for item in run([Given("test")], model, [Scene(PerFrame(rule))], controls=of):
        if isinstance(item, Event):
            actions.append(item.decision.action)
            of.set_threshold(1.0, "web")
    assert actions == ["accept", "offload", "offload"]


def test_a_score_threshold_makes_the_tasks_anew(model: Model) -> None:
    of = controls(score_threshold=0.25)
    asked: list[float | None] = []

    def view(task: Task) -> Task:
        asked.append(of.score_threshold)
        return task

    class Given(BaseSource):
        def frames(self) -> Iterator[Frame]:
            for number in range(20):
                yield frame(plain(100), number)

    for item in run([Given("test")], model, [Scene(LocalOnly(), view=view)], controls=of):
        if isinstance(item, Event) and item.frame.sequence == 0:
            of.set_score_threshold(0.75, "web")
    assert asked == [0.25, 0.75]


def test_a_worker_never_takes_tasks_that_another_is_still_making(model: Model) -> None:
    """Between reading the tasks and what they are for, another worker may have put both."""
    of = controls(score_threshold=0.25)
    tasks = _Tasks([Scene(LocalOnly())], of)

    class Meanwhile:
        """A version whose reading lets the other worker do all of its work."""

        version = property(lambda self: tasks_by_the_other())

    def tasks_by_the_other() -> int:
        tasks._controls = of
        tasks(0, model)
        return 0

    tasks._controls = Meanwhile()  # type: ignore[assignment]
    assert tasks(0, model) is model.task
