"""Policies: a confidence and a threshold in, a decision with its reason out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.policies import POLICIES, LocalOnly, PerObject, Threshold
from edge.types import Classes, Detections
from tests.samples import detections


def result(*scores: float) -> Classes:
    return Classes(np.arange(len(scores)), np.array(scores, np.float32), tuple(f"class {i}" for i in range(len(scores))))


@pytest.mark.parametrize(
    ("threshold", "score", "action", "reason"),
    [
        (0.5, 0.75, "accept", "confidence 0.750 >= 0.5"),
        (0.5, 0.5, "accept", "confidence 0.500 >= 0.5"),
        (0.5, 0.25, "offload", "confidence 0.250 < 0.5"),
        (0.0, 0.0, "accept", "confidence 0.000 >= 0"),
        (1.0, 1.0, "accept", "confidence 1.000 >= 1"),
        (1.0, 0.9921875, "offload", "confidence 0.992 < 1"),
    ],
)
def test_threshold(threshold: float, score: float, action: str, reason: str) -> None:
    decision = Threshold(threshold).decide(result(score, 0.1), 0.0)
    assert (decision.action, decision.reason, decision.confidence) == (action, reason, score)


def test_no_class_is_no_confidence() -> None:
    decision = Threshold(0.5).decide(result(), 0.0)
    assert (decision.action, decision.confidence) == ("offload", 0.0)


@given(threshold=st.floats(0, 1), score=st.floats(0, 1, width=32), now_s=st.floats(0, 1e9))
def test_threshold_depends_on_the_confidence_only(threshold: float, score: float, now_s: float) -> None:
    decision = Threshold(threshold).decide(result(score), now_s)
    assert decision.action == ("accept" if score >= threshold else "offload")
    assert decision == Threshold(threshold).decide(result(score), 0.0)


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_without_an_endpoint_everything_is_accepted(score: float) -> None:
    decision = LocalOnly().decide(result(score), 0.0)
    assert (decision.action, decision.reason) == ("accept", "no endpoint")
    assert decision.confidence == pytest.approx(score)


def test_policies_are_built_from_a_threshold() -> None:
    for make in POLICIES.values():
        assert make(0.9).decide(result(0.1), 0.0).action in ("accept", "offload", "skip")


@pytest.mark.parametrize(
    ("scores", "action"), [((), "accept"), ((0.9,), "accept"), ((0.9, 0.5), "accept"), ((0.9, 0.49), "offload")]
)
def test_a_detector_s_weakest_object_decides_and_an_empty_picture_is_certain(scores: tuple[float, ...], action: str) -> None:
    found = detections(*(("a", score, (0, 0, 1, 1)) for score in scores))
    assert Threshold(0.5).decide(found, 0.0).action == action


def tracked(*objects: tuple[int, float]) -> Detections:
    """Persons, (track, score) each."""
    found = detections(*(("person", score, (0, 0, 1, 1)) for _, score in objects))
    return replace(found, tracks=np.array([track for track, _ in objects], np.int64))


@pytest.mark.parametrize(
    ("objects", "action", "reason", "confidence"),
    [
        ([], "accept", "no tracked object < 0.5", 1.0),
        ([(0, 0.25)], "accept", "no tracked object < 0.5", 1.0),
        ([(7, 0.5)], "accept", "no tracked object < 0.5", 0.5),
        ([(7, 0.3125)], "offload", "track 7 person 0.312 < 0.5", 0.3125),
        ([(7, 0.75), (0, 0.125), (9, 0.25)], "offload", "track 9 person 0.250 < 0.5", 0.25),
        ([(1, 0.25), (2, 0.125)], "offload", "track 1 person 0.250, track 2 person 0.125 < 0.5", 0.125),
        (
            [(i, 0.25) for i in range(1, 7)],
            "offload",
            "track 1 person 0.250, track 2 person 0.250, track 3 person 0.250 and 3 more < 0.5",
            0.25,
        ),
    ],
)
def test_per_object(objects: list[tuple[int, float]], action: str, reason: str, confidence: float) -> None:
    decision = PerObject(0.5).decide(tracked(*objects), 0.0)
    assert (decision.action, decision.reason, decision.confidence) == (action, reason, confidence)


def test_an_object_is_asked_about_once_in_retry_s() -> None:
    policy = PerObject(0.5, retry_s=10.0)
    asked = [now_s for now_s in np.arange(0, 25, 0.5).tolist() if policy.decide(tracked((3, 0.25)), now_s).action == "offload"]
    assert asked == [0.0, 10.0, 20.0]


def test_another_object_is_asked_about_at_once() -> None:
    policy = PerObject(0.5)
    assert policy.decide(tracked((3, 0.25)), 0.0).action == "offload"
    decision = policy.decide(tracked((3, 0.25)), 1.0)
    assert (decision.action, decision.reason, decision.confidence) == ("accept", "asked about track 3 within 30 s", 0.25)
    assert policy.decide(tracked((3, 0.125), (4, 0.25)), 2.0).reason == "track 4 person 0.250 < 0.5"
    assert policy.decide(tracked((3, 0.25), (4, 0.25)), 31.0).reason == "track 3 person 0.250 < 0.5"


def test_what_is_forgotten_takes_no_memory() -> None:
    policy = PerObject(0.5, retry_s=1.0)
    for track in range(1, 1000):
        policy.decide(tracked((track, 0.1)), track * 0.1)
    assert len(policy._asked_s) <= 11


def test_without_tracks_it_is_the_threshold() -> None:
    for found in (result(0.25), result(0.75), detections(("a", 0.25, (0, 0, 1, 1)))):
        assert PerObject(0.5).decide(found, 0.0) == Threshold(0.5).decide(found, 0.0)


def test_an_object_that_could_not_be_asked_about_may_be_at_once() -> None:
    policy = PerObject(0.5)
    assert policy.decide(tracked((7, 0.3)), 1.0).action == "offload"
    policy.declined(1.0)
    assert policy.decide(tracked((7, 0.3)), 1.1).action == "offload"
    assert policy.decide(tracked((7, 0.3)), 1.2).action == "accept"
