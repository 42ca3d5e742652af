"""The tracker: who is who over time, and what entered, left or changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking import TAKEOVER, VOTES, Tracker
from edge.types import Change, Detections
from tests.samples import detections

CLASSES = {"person": 0, "car": 2, "truck": 7}
Seen = tuple[str, float, float]
"""Label, score and the left edge of a box of 40 x 80."""


def frame_of(*objects: Seen) -> Detections:
    boxes = [(label, score, (left, 10.0, left + 40.0, 90.0)) for label, score, left in objects]
    return detections(*boxes, class_ids=tuple(CLASSES[label] for label, _, _ in objects))


def follow(tracker: Tracker, frames: Sequence[tuple[float, Sequence[Seen]]]) -> tuple[list[list[int]], list[list[str]]]:
    """The tracks and the changes, as `enter 1 person`, of each frame."""
    tracks, changes = [], []
    for now_s, objects in frames:
        found, changed = tracker.update(frame_of(*objects), now_s)
        assert found.tracks is not None
        tracks.append(found.tracks.tolist())
        changes.append([f"{change.kind} {change.track} {change.label}" for change in changed])
    return tracks, changes


def still(label: str = "person", score: float = 0.9, left: float = 100.0) -> list[Seen]:
    return [(label, score, left)]


def test_an_object_enters_at_its_second_hit_and_leaves_after_lost_s() -> None:
    frames = [(0.0, still()), (0.1, still()), (0.2, still()), (0.7, []), (1.2, []), (1.21, []), (1.3, [])]
    tracks, changes = follow(Tracker(), frames)
    assert tracks == [[0], [1], [1], [], [], [], []]
    assert changes == [[], ["enter 1 person"], [], [], [], ["leave 1 person"], []]


@pytest.mark.parametrize(("confirm", "first"), [(1, 0), (2, 1), (3, 2)])
def test_confirm(confirm: int, first: int) -> None:
    tracks, _ = follow(Tracker(confirm=confirm), [(i / 10, still()) for i in range(4)])
    assert tracks == [[0]] * first + [[1]] * (4 - first)


def test_hits_of_a_tentative_track_must_be_consecutive() -> None:
    tracks, changes = follow(Tracker(), [(0.0, still()), (0.1, []), (0.2, still()), (0.3, []), (0.4, still())])
    assert tracks == [[0], [], [0], [], [0]]
    assert not any(changes)


def test_a_missed_frame_does_not_cost_the_identity() -> None:
    walk = [(i / 10, [("person", 0.9, 100.0 + 8 * i)] if i not in (5, 6, 9) else []) for i in range(14)]
    tracks, changes = follow(Tracker(), walk)
    assert {track for each in tracks[1:] for track in each} == {1}
    assert list(chain(*changes)) == ["enter 1 person"]


def test_low_scores_keep_a_track_but_start_none() -> None:
    frames = [(i / 10, [("person", 0.9 if i < 3 else 0.2, 100.0), ("person", 0.3, 400.0)]) for i in range(40)]
    tracks, changes = follow(Tracker(), frames)
    assert tracks == [[0, 0], *[[1, 0]] * 39]
    assert list(chain(*changes)) == ["enter 1 person"]


def test_a_high_score_goes_before_a_low_one_that_fits_better() -> None:
    tracker = Tracker()
    follow(tracker, [(0.0, still()), (0.1, still())])
    assert follow(tracker, [(0.2, [("person", 0.2, 100.0), ("person", 0.9, 108.0)])])[0] == [[0, 1]]


def test_everything_above_high_works() -> None:
    tracks, _ = follow(Tracker(high=0.0), [(i / 10, still(score=0.1)) for i in range(3)])
    assert tracks == [[0], [1], [1]]


@pytest.mark.parametrize("step_s", [0.04, 0.1, 0.2])
def test_crossing_objects_keep_their_identities(step_s: float) -> None:
    """One walks at 100 pixels a second to the right, the other to the left; for a frame they are at the same place."""
    tracker, tracks = Tracker(), []
    for i in range(round(4 / step_s)):
        now_s = i * step_s
        a, b = (0 + 100 * now_s, 10.0), (400 - 100 * now_s, 14.0)
        boxes = [("person", 0.9, (x, y, x + 40, y + 80)) for x, y in (a, b)]
        found, _ = tracker.update(detections(*boxes, class_ids=(0, 0)), now_s)
        assert found.tracks is not None
        tracks.append(found.tracks.tolist())
    assert tracks[1:] == [[1, 2]] * (len(tracks) - 1)


def test_uneven_intervals_are_uneven_steps() -> None:
    """At 150 pixels a second and 40 wide, the boxes of frames 0.3 s apart do not overlap: only the motion tells."""
    gaps = [0.05] * 8 + [0.3, 0.05, 0.05, 0.3, 0.1, 0.05, 0.3, 0.3]
    times = np.cumsum(gaps).tolist()
    tracks, changes = follow(Tracker(), [(now_s, [("person", 0.9, 150 * now_s)]) for now_s in times])
    assert tracks[1:] == [[1]] * (len(times) - 1)
    assert list(chain(*changes)) == ["enter 1 person"]


@pytest.mark.parametrize("step_s", [1.5, 3.0])
def test_frames_further_apart_than_lost_s(step_s: float) -> None:
    tracks, changes = follow(Tracker(), [(i * step_s, still()) for i in range(4)] + [(4 * step_s, [])])
    assert tracks == [[0], [1], [1], [1], []]
    assert changes[-1] == ["leave 1 person"]


def test_a_long_gap_is_another_scene() -> None:
    tracks, changes = follow(Tracker(), [(0.0, still()), (0.1, still()), (60.0, still()), (60.1, still())])
    assert tracks == [[0], [1], [0], [2]]
    assert changes == [[], ["enter 1 person"], ["leave 1 person"], ["enter 2 person"]]


def test_identities_are_never_used_again() -> None:
    frames = [(10.0 * turn + hit / 10, still(left=300.0 * turn)) for turn in range(5) for hit in range(2)]
    tracker = Tracker()
    tracks, _ = follow(tracker, frames)
    assert [each[0] for each in tracks[1::2]] == [1, 2, 3, 4, 5]
    assert follow(tracker, [(60.0, still()), (60.1, still())])[0] == [[0], [6]]
    assert tracker.created == 6


def test_a_label_changes_when_a_clear_majority_says_so() -> None:
    tracker = Tracker()
    labels = ["car"] * 10 + ["truck"] * (TAKEOVER + 2)
    tracks, changes = follow(tracker, [(i / 10, still(label)) for i, label in enumerate(labels)])
    assert tracks[1:] == [[1]] * (len(labels) - 1)
    assert [i for i, each in enumerate(changes) if each] == [1, 10 + TAKEOVER - 1]
    assert changes[10 + TAKEOVER - 1] == ["change 1 truck"]
    assert tracker.update(frame_of(), 1e6)[1] == (Change("leave", 1, "truck"),)


def test_a_label_that_flickers_does_not_change() -> None:
    labels = ["car", "car"] + ["truck", "car"] * 20
    tracks, changes = follow(Tracker(), [(i / 10, still(label)) for i, label in enumerate(labels)])
    assert tracks[1:] == [[1]] * (len(labels) - 1)
    assert list(chain(*changes)) == ["enter 1 car"]
    assert TAKEOVER > VOTES / 2


def test_another_class_beside_it_is_another_object() -> None:
    frames = [(i / 10, [("car", 0.9, 100.0), ("person", 0.8, 120.0)]) for i in range(5)]
    assert follow(Tracker(), frames)[0][1:] == [[1, 2]] * 4
    tracker = Tracker()
    follow(tracker, [(0.0, still("car")), (0.1, still("car"))])
    assert follow(tracker, [(0.2, still("person", left=115.0))])[0] == [[0]]


def test_an_empty_picture_is_nothing() -> None:
    found, changes = Tracker().update(frame_of(), 0.0)
    assert found.tracks is not None
    assert (len(found), len(found.tracks), changes) == (0, 0, ())


def test_time_that_stands_still_or_goes_back_is_no_time() -> None:
    tracks, _ = follow(Tracker(), [(5.0, still()), (5.0, still()), (4.0, still()), (4.1, still())])
    assert tracks == [[0], [1], [1], [1]]


OBJECTS = st.lists(
    st.tuples(st.sampled_from(sorted(CLASSES)), st.floats(0, 1, width=32), st.floats(0, 300, width=32)), max_size=6
)
RUNS = st.lists(st.tuples(st.floats(0, 3), OBJECTS), max_size=20)


@given(RUNS)
def test_whatever_comes_the_detections_stay_and_the_changes_add_up(run: list[tuple[float, list[Seen]]]) -> None:
    tracker, now_s, here, ever = Tracker(), 0.0, set[int](), set[int]()
    for gap_s, objects in run:
        now_s += gap_s
        given_ = frame_of(*objects)
        found, changes = tracker.update(given_, now_s)
        assert found.labels == given_.labels
        assert found.boxes_xyxy is given_.boxes_xyxy
        entered = {change.track for change in changes if change.kind == "enter"}
        left = {change.track for change in changes if change.kind == "leave"}
        assert not entered & ever
        assert left <= here
        ever |= entered
        here = (here | entered) - left
        assert found.tracks is not None
        tracks = [track for track in found.tracks.tolist() if track]
        assert len(set(tracks)) == len(tracks)
        assert set(tracks) <= here
    assert {change.track for change in tracker.update(frame_of(), now_s + 1e6)[1]} == here


def test_no_box_becomes_none_however_it_shrinks() -> None:
    tracker = Tracker()
    for i, side in enumerate([80.0, 40.0, 20.0, 10.0, 5.0, 1.0, 0.0, 0.0]):
        found, _ = tracker.update(
            detections(("person", 0.9, (50 - side / 2, 50 - side / 2, 50 + side / 2, 50 + side / 2))), i / 10
        )
        assert np.isfinite(tracker._tracks.at).all()
        assert (tracker._tracks.at[:, 2:] > 0).all()
        assert found.tracks is not None
