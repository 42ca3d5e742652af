"""Policies: a confidence and a threshold in, a decision with its reason out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.card import Promise
from edge.policies import Allowance, Budget, Guarantee, LocalOnly, PerFrame, PerObject, Threshold
from edge.selection import fit_selection
from edge.types import Classes, Detections, Result
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
    decision = PerFrame(Threshold(threshold)).decide(result(score, 0.1), 0.0)
    assert (decision.action, decision.reason, decision.confidence) == (action, reason, score)


def test_no_class_is_no_confidence() -> None:
    decision = PerFrame(Threshold(0.5)).decide(result(), 0.0)
    assert (decision.action, decision.confidence) == ("offload", 0.0)


@given(threshold=st.floats(0, 1), score=st.floats(0, 1, width=32), now_s=st.floats(0, 1e9))
def test_threshold_depends_on_the_confidence_only(threshold: float, score: float, now_s: float) -> None:
    decision = PerFrame(Threshold(threshold)).decide(result(score), now_s)
    assert decision.action == ("accept" if score >= threshold else "offload")
    assert decision == PerFrame(Threshold(threshold)).decide(result(score), 0.0)


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_without_an_endpoint_everything_is_accepted(score: float) -> None:
    decision = LocalOnly().decide(result(score), 0.0)
    assert (decision.action, decision.reason) == ("accept", "no endpoint")
    assert decision.confidence == pytest.approx(score)


@pytest.mark.parametrize(
    ("scores", "action"), [((), "accept"), ((0.9,), "accept"), ((0.9, 0.5), "accept"), ((0.9, 0.49), "offload")]
)
def test_a_detector_s_weakest_object_decides_and_an_empty_picture_is_certain(scores: tuple[float, ...], action: str) -> None:
    found = detections(*(("a", score, (0, 0, 1, 1)) for score in scores))
    assert PerFrame(Threshold(0.5)).decide(found, 0.0).action == action


def tracked(*objects: tuple[int, float]) -> Detections:
    """Persons, (track, score) each."""
    found = detections(*(("person", score, (0, 0, 1, 1)) for _, score in objects))
    return replace(found, tracks=np.array([track for track, _ in objects], np.int64))


@pytest.mark.parametrize(
    ("objects", "action", "reason", "confidence"),
    [
        ([], "accept", "no tracked object", 1.0),
        ([(0, 0.25)], "accept", "no tracked object", 1.0),
        ([(7, 0.5), (8, 0.75)], "accept", "track 7 person 0.500 >= 0.5", 0.5),
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
    decision = PerObject(Threshold(0.5)).decide(tracked(*objects), 0.0)
    assert (decision.action, decision.reason, decision.confidence) == (action, reason, confidence)
    doubtful = tuple(place for place, (track, score) in enumerate(objects) if track and score < 0.5)
    assert decision.about == doubtful


def test_an_object_is_asked_about_once_in_retry_s() -> None:
    policy = PerObject(Threshold(0.5), retry_s=10.0)
    asked = [now_s for now_s in np.arange(0, 25, 0.5).tolist() if policy.decide(tracked((3, 0.25)), now_s).action == "offload"]
    assert asked == [0.0, 10.0, 20.0]


def test_another_object_is_asked_about_at_once() -> None:
    policy = PerObject(Threshold(0.5))
    assert policy.decide(tracked((3, 0.25)), 0.0).action == "offload"
    decision = policy.decide(tracked((3, 0.25)), 1.0)
    assert (decision.action, decision.reason, decision.confidence) == ("accept", "asked about before", 0.25)
    assert policy.decide(tracked((3, 0.125), (4, 0.25)), 2.0).reason == "track 4 person 0.250 < 0.5"
    assert policy.decide(tracked((3, 0.25), (4, 0.25)), 31.0).reason == "track 3 person 0.250 < 0.5"


def test_what_is_forgotten_takes_no_memory() -> None:
    policy = PerObject(Threshold(0.5), retry_s=1.0)
    for track in range(1, 1000):
        policy.decide(tracked((track, 0.1)), track * 0.1)
    assert len(policy._asked_s) <= 11


def test_without_tracks_it_is_the_threshold() -> None:
    for found in (result(0.25), result(0.75), detections(("a", 0.25, (0, 0, 1, 1)))):
        assert PerObject(Threshold(0.5)).decide(found, 0.0) == PerFrame(Threshold(0.5)).decide(found, 0.0)


def test_an_object_that_could_not_be_asked_about_may_be_at_once() -> None:
    policy = PerObject(Threshold(0.5))
    assert policy.decide(tracked((7, 0.3)), 1.0).action == "offload"
    policy.declined(1.0)
    assert policy.decide(tracked((7, 0.3)), 1.1).action == "offload"
    assert policy.decide(tracked((7, 0.3)), 1.2).action == "accept"


def test_an_answer_is_remembered_for_as_long_as_the_object_lives() -> None:
    policy = PerObject(Threshold(0.5), retry_s=1.0)
    assert policy.decide(tracked((7, 0.3), (8, 0.9)), 1.0).action == "offload"
    policy.answered([7, 0])
    assert policy.decide(tracked((7, 0.3)), 100.0).reason == "asked about before"
    assert policy.decide(tracked((8, 0.3)), 101.0).action == "offload"
    assert policy.decide(tracked((8, 0.3)), 200.0).action == "offload"  # nobody answered


def test_what_was_answered_takes_bounded_memory() -> None:
    policy = PerObject(Threshold(0.5))
    policy.answered(range(1, 3 * PerObject.REMEMBERED))
    assert len(policy._answered) == PerObject.REMEMBERED


# budgets

SOURCE = np.random.default_rng(5)
CONFIDENCES = SOURCE.beta(4, 1, 20_000).tolist()


def asked_of(policy: PerFrame | PerObject, confidences: list[float], *, fps: float = 30.0, start_s: float = 0.0) -> list[bool]:
    decisions = [policy.decide(result(each), start_s + number / fps) for number, each in enumerate(confidences)]
    return [decision.action == "offload" for decision in decisions]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
def test_a_share_of_the_frames_is_spent_on_the_least_certain_without_bursts(share: float) -> None:
    asked = np.array(asked_of(PerFrame(Budget(Allowance("", per_frame=share))), CONFIDENCES))
    assert 0.95 * share < asked.mean() <= share
    assert np.mean(np.array(CONFIDENCES)[asked] <= np.quantile(CONFIDENCES, 1.5 * share)) > 0.85
    burst = max(Budget.BURST_QUESTIONS, share * Budget.BURST_FRAMES)
    assert np.convolve(asked, np.ones(100)).max() <= share * 100 + burst


@pytest.mark.parametrize("per_s", [0.1, 2.0])
def test_an_hourly_budget_is_never_exceeded_and_nearly_used(per_s: float) -> None:
    asked = np.array(asked_of(PerFrame(Budget(Allowance("", per_s=per_s))), CONFIDENCES))
    seconds = len(CONFIDENCES) / 30
    assert 0.93 * per_s * seconds - 4 < asked.sum() <= per_s * seconds
    assert np.convolve(asked, np.ones(30)).max() <= per_s + max(Budget.BURST_QUESTIONS, per_s * Budget.BURST_S)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5)), max_size=200),
    st.sampled_from([Allowance("", per_frame=0.1), Allowance("", per_s=0.3), Allowance("", per_frame=1.0)]),
)
def test_whatever_comes_no_more_is_spent_than_was_earned(frames: list[tuple[float, float]], allowance: Allowance) -> None:
    policy, now_s, earned, spent = PerFrame(Budget(allowance)), 0.0, 0.0, 0.0
    for number, (confidence, gap_s) in enumerate(frames):
        earned += allowance.per_frame + (allowance.per_s * gap_s if number else 0)
        now_s += gap_s if number else 0.0
        spent += policy.decide(result(confidence), now_s).action == "offload"
        assert spent <= earned + 1e-6


def test_a_change_of_scene_is_followed() -> None:
    """Ten times as many uncertain frames are no reason to spend ten times as much."""
    harder = [confidence / 3 for confidence in CONFIDENCES[:5000]]
    asked = np.array(asked_of(PerFrame(Budget(Allowance("", per_frame=0.1))), CONFIDENCES[:5000] + harder))
    assert 0.08 < asked[:5000].mean() <= 0.1
    assert 0.08 < asked[5000:].mean() <= 0.1 + Budget.BURST_FRAMES * 0.1 / 5000


def test_nothing_is_spent_on_what_is_certain_enough() -> None:
    policy = PerFrame(Budget(Allowance("", per_frame=1.0), threshold=0.6))
    assert not any(asked_of(policy, [0.6, 0.7, 1.0] * 50))
    assert any(asked_of(policy, [0.59]))


def test_costs_are_those_of_now() -> None:
    price = 1.0
    policy = PerFrame(Budget(Allowance("", per_s=0.5), cost=lambda: price))
    cheap = sum(asked_of(policy, CONFIDENCES[:6000]))
    price = 4.0
    dear = sum(asked_of(PerFrame(Budget(Allowance("", per_s=0.5), cost=lambda: price)), CONFIDENCES[:6000]))
    assert cheap == pytest.approx(100, abs=5)
    assert dear == pytest.approx(25, abs=3)


def test_a_question_that_was_not_asked_costs_nothing() -> None:
    rule = Budget(Allowance("3/h", per_s=3 / 3600))
    policy = PerFrame(rule)
    policy.decide(result(0.5), 0.0)
    reasons = []
    for number in range(3):
        decision = policy.decide(result(0.5), 1300.0 + number)
        reasons.append(decision.action)
        policy.declined(1300.0 + number)
    assert reasons == ["offload"] * 3
    assert policy.decide(result(0.5), 1310.0).action == "offload"
    assert policy.decide(result(0.5), 1311.0).reason == "confidence 0.500 <= 0.500, but nothing is left of 3/h for now"


def test_cameras_that_share_a_budget_spend_it_once() -> None:
    rule = Budget(Allowance("", per_s=1.0))
    policies = [PerFrame(rule), PerObject(rule)]
    spent = sum(
        policies[number % 2].decide(result(confidence), number / 60 - 0.05 * (number % 2)).action == "offload"
        for number, confidence in enumerate(CONFIDENCES[:6000])
    )
    assert 90 <= spent <= 100


# guarantees


def guarantee(spacing_s: float = 0.0) -> Guarantee:
    confidence = np.array(CONFIDENCES[:1000], np.float32)
    selection = fit_selection("frame", confidence, np.ones(1000, np.bool_))
    assert selection is not None
    return Guarantee(Promise(alpha=0.05, threshold=0.75, coverage=0.5), selection, source="cam", spacing_s=spacing_s)


def test_a_guarantee_is_its_threshold_and_says_what_it_promises() -> None:
    policy = PerFrame(guarantee())
    accepted, offloaded = policy.decide(result(0.75), 0.0), policy.decide(result(0.5), 1.0)
    assert (accepted.action, accepted.reason) == ("accept", "confidence 0.750 >= 0.750, error rate < 0.05")
    assert (offloaded.action, offloaded.reason) == ("offload", "confidence 0.500 < 0.750, not promised")
    assert not policy.notices


def test_it_is_withdrawn_once_and_aloud_when_the_pictures_are_others() -> None:
    policy = PerFrame(guarantee())
    asked_of(policy, CONFIDENCES[1000:6000])
    assert not policy.notices
    asked_of(policy, [confidence**6 for confidence in CONFIDENCES[:200]], start_s=1e3)
    [notice] = policy.notices
    assert (notice.kind, notice.about) == ("guarantee-withdrawn", "cam")
    assert notice.text.startswith("an error rate below 0.05 is not promised any more: after 50")
    assert policy.decide(result(0.8), 1e6).reason == "confidence 0.800 >= 0.750, promise withdrawn"
    assert policy.decide(result(0.7), 1e6).action == "offload"


def crowds(count: int, seed: int) -> list[list[float]]:
    """Half of the frames have one sure object, half have ten less sure ones."""
    source = np.random.default_rng(seed)
    return [(source.beta(6, 1.5, 1) if source.random() < 0.5 else source.beta(2, 2, 10)).tolist() for _ in range(count)]


@pytest.mark.parametrize("spacing_s", [0.0, 1.0])
def test_a_crowd_weighs_as_much_as_in_calibration(spacing_s: float) -> None:
    pooled = np.array([confidence for scores in crowds(400, 0) for confidence in scores], np.float32)
    selection = fit_selection("object", pooled, np.ones(len(pooled), np.bool_))
    assert selection is not None
    rule = Guarantee(Promise(alpha=0.05, threshold=0.75, coverage=0.5), selection, spacing_s=spacing_s)
    policy = PerObject(rule)
    for number, scores in enumerate(crowds(3000, 1)):
        policy.decide(tracked(*((track, score) for track, score in enumerate(scores))), number / 10)
    assert not policy.notices


def test_neighbouring_frames_are_one_witness() -> None:
    policy = PerFrame(guarantee(spacing_s=1.0))
    asked_of(policy, [0.1] * 200, fps=1000.0)
    assert not policy.notices
    asked_of(policy, [0.1] * 200, fps=1.0, start_s=1e3)
    assert len(policy.notices) == 1


def test_another_variant_is_not_what_was_promised() -> None:
    rule = guarantee()
    rule.withdraw("float32 runs instead of int8")
    rule.withdraw("again")
    assert [notice.text for notice in rule.notices] == [
        "an error rate below 0.05 is not promised any more: float32 runs instead of int8"
    ]


def test_a_frame_without_an_object_is_no_answer() -> None:
    policy = PerFrame(guarantee())
    nothing: Result = detections()
    for number in range(500):
        assert policy.decide(nothing, float(number)).reason == "no object"
    assert not policy.notices


# what may not be shown


def partly_hidden(*objects: tuple[float, bool], tracks: bool) -> Detections:
    """Objects side by side, each of a score, hidden or not."""
    found = detections(*(("person", score, (20 * i, 0, 20 * i + 10, 10)) for i, (score, _) in enumerate(objects)))
    private = found.boxes_xyxy[[hidden for _, hidden in objects]] + np.array([-1, -1, 1, 1], np.float32)
    ids = np.arange(1, len(objects) + 1) if tracks else None
    return replace(found, private_xyxy=private, tracks=ids)


@pytest.mark.parametrize("tracks", [False, True])
def test_nobody_is_asked_about_what_may_not_be_shown(tracks: bool) -> None:
    for policy in (PerFrame(Threshold(0.5)), PerObject(Threshold(0.5))):
        assert policy.decide(partly_hidden((0.25, True), (0.75, False), tracks=tracks), 0.0).action == "accept"
        assert policy.decide(partly_hidden((0.25, True), tracks=tracks), 1.0).action == "accept"
        asked = policy.decide(partly_hidden((0.125, True), (0.25, False), tracks=tracks), 2.0)
        assert (asked.action, asked.confidence) == ("offload", 0.25)
