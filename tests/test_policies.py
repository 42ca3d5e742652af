"""Policies: a confidence and a threshold in, a decision with its reason out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.policies import POLICIES, LocalOnly, Threshold
from edge.types import Classes
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
