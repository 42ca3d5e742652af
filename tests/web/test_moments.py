"""What is worth a look, and what is one too many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge.types import Change, Classes, Event, Notice
from edge.web.moments import ASKED, KEPT, Moments, differ
from tests.samples import detections, event, frame, picture
from tests.web.serving import decoded


class Watch:
    """Moments of sources `a` and `b`; each picture that is wanted is given at once, unless `lazy`."""

    def __init__(self, *, lazy: bool = False) -> None:
        self.now_s, self.lazy, self.sequence, self.wanted = 100.0, lazy, 0, 0
        self.moments = Moments(["a", "b"], clock=lambda: self.now_s)

    def see(self, source: int = 0, *, label: str = "cup", score: float = 0.75, later_s: float = 0.1, **more: Any) -> Event:
        self.sequence += 1
        self.now_s += later_s
        of = frame(picture(640, 480), self.sequence, self.now_s, source="ab"[source])
        classes = Classes(np.zeros(1, np.int64), np.array([score], np.float32), (label,))
        one = replace(event(of, action=more.pop("action", "accept")), **({"result": classes} | more))
        self.take(source, one)
        return one

    def take(self, source: int, one: Event) -> None:
        if self.moments.see(source, one):
            self.wanted += 1
            if not self.lazy:
                self.moments.illustrate(source, one)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(moment.kind, moment.text) for moment in self.moments.newest()]

    def see_for(self, seconds: float, label: str, score: float = 0.75) -> None:
        for _ in range(round(seconds / 0.25)):
            self.see(label=label, score=score, later_s=0.25)


def test_what_goes_on_as_before_is_no_moment() -> None:
    watch = Watch()
    for _ in range(20):
        watch.see()
    assert (watch.told, watch.wanted) == ([], 0)


def test_a_label_that_has_settled() -> None:
    watch = Watch()
    watch.see_for(3, "cup")
    for _ in range(5):
        watch.see_for(1.75, "bowl")
        watch.see_for(0.25, "cup")
    assert watch.told == []
    watch.see_for(2.25, "bowl")
    assert watch.told == [("label", "bowl 75%, before it was cup")]
    assert watch.moments.newest()[0].seq == watch.sequence


def test_a_label_that_comes_seldom_has_come_often_enough() -> None:
    watch = Watch()
    for label in ("cup", "cup", "cup", "bowl", "bowl"):
        watch.see(label=label, later_s=5)
    assert watch.told == []
    watch.see(label="bowl", later_s=5)
    assert watch.told == [("label", "bowl 75%, before it was cup")]


def test_an_unsure_label_changes_nothing() -> None:
    watch = Watch()
    watch.see_for(3, "espresso", 0.6)
    watch.see_for(60, "drumstick", 0.29)
    watch.see(label="drumstick", score=0.6)
    watch.see(label="drumstick", score=0.6)
    assert watch.told == []
    watch.see(label="drumstick", score=0.6)
    assert watch.told == [("label", "drumstick 60%, before it was espresso")]


def test_labels_that_come_and_go_are_told_every_ten_seconds_at_most() -> None:
    watch = Watch()
    watch.see_for(3, "cup")
    watch.see_for(3, "bowl")
    watch.see_for(4, "cup")
    watch.see_for(9, "bowl")  # where it was when that was told: nothing new
    assert watch.told == [("label", "bowl 75%, before it was cup")]
    watch.see_for(3, "cup")
    assert watch.told[1:] == [("label", "cup 75%, before it was bowl")]
    watch.see_for(4, "bowl")
    assert len(watch.told) == 2
    watch.see_for(6, "bowl")  # it stays so, which is told in the end
    assert watch.told[2:] == [("label", "bowl 75%, before it was cup")]


def test_a_still_scene_does_not_settle_a_label() -> None:
    watch = Watch()
    watch.see_for(3, "cup")
    for _ in range(20):
        watch.see(label="bowl", later_s=0.25, action="skip")
    assert watch.told == []


def test_objects_enter_change_and_leave() -> None:
    watch = Watch()
    things = detections(("cat", 0.9, (0, 0, 9, 9)))
    watch.see(result=things, changes=(Change("enter", 3, "cat"),))
    watch.see(result=things, changes=(Change("change", 3, "dog"), Change("leave", 2, "cup")))
    watch.see(later_s=2, result=things, changes=tuple(Change("leave", track, "bird") for track in range(4, 9)))
    assert watch.told == [
        ("enter", "cat #3 entered"),
        ("leave", "cup #2 left"),
        ("change", "#3 is dog now"),
        ("leave", "bird #4, bird #5, bird #6 and 2 more left"),
    ]


def test_a_crowd_is_told_once_a_second_with_how_many_more() -> None:
    watch = Watch()
    for track in range(1, 10):
        watch.see(later_s=0.125, changes=(Change("enter", track, "person"),))
    assert watch.told == [("enter", "person #1 entered"), ("enter", "person #9 entered")]
    assert [moment.more for moment in watch.moments.newest()] == [0, 7]


def test_offloads_are_told_every_two_seconds_of_each_source() -> None:
    watch = Watch()
    for _ in range(10):
        watch.see(0, action="offload")
        watch.see(1, action="offload")
    assert [(moment.source, moment.picture) for moment in watch.moments.newest()] == [(1, True), (2, True)]
    watch.see(0, action="offload", later_s=2)
    assert watch.told[-1] == ("offload", "asked the cloud about cup 75%")
    assert watch.moments.newest()[-1].more == 9


def test_the_cloud_sees_something_else() -> None:
    watch = Watch()
    same, other = watch.see(action="offload"), watch.see(action="offload")
    for asked, label in ((same, "cup"), (other, "bowl")):
        result = Classes(np.zeros(1, np.int64), np.array([0.9], np.float32), (label,))
        answer = replace(asked, result=result, revises=True, served_by="cloud")
        watch.take(0, answer)
        watch.take(0, answer)  # nobody asked twice
    assert watch.told[1:] == [("answer", "the cloud says bowl 90%, here it was cup 75%")]


def test_an_answer_shows_its_own_frame_or_none() -> None:
    watch = Watch(lazy=True)
    asked = watch.see(action="offload")
    watch.see(later_s=3)
    answer = replace(asked, result=detections(("bowl", 0.9, (0, 0, 9, 9))), revises=True)
    assert watch.moments.see(0, answer)
    later = watch.see()
    assert not watch.moments.awaited(0, later)
    assert watch.moments.awaited(0, answer)
    watch.moments.illustrate(0, answer)
    assert [(moment.kind, moment.picture) for moment in watch.moments.newest()] == [("offload", False), ("answer", True)]


@pytest.mark.parametrize(
    ("local", "cloud", "expected"),
    [
        (["cat", "dog"], ["dog", "cat"], False),
        (["cat"], ["cat", "cat"], True),
        ([], [], False),
        ([], ["cat"], True),
    ],
)
def test_answers_about_objects(local: list[str], cloud: list[str], expected: bool) -> None:
    here, there = (detections(*((label, 0.5, (0, 0, 1, 1)) for label in labels)) for labels in (local, cloud))
    assert differ(here, there) is expected


def test_answers_about_tracks() -> None:
    here = replace(detections(("cat", 0.5, (0, 0, 1, 1)), ("dog", 0.5, (0, 0, 1, 1))), tracks=np.array([1, 0]))
    assert not differ(here, replace(here, labels=("cat", "cow")))
    assert differ(here, replace(here, labels=("cow", "dog")))


def test_notices_are_moments_but_not_the_same_one_again_and_again() -> None:
    watch = Watch()
    for number in range(5):
        watch.moments.notice(Notice("frame-failed", "int8", f"frame {number} failed\nbadly", 1.7e9))
    watch.moments.notice(Notice("source-lost", "b", "unplugged", 1.7e9))
    for value in (0.5, 0.6, 0.7):
        watch.moments.notice(Notice("control", "web", f"threshold {value}", 1.7e9))
    assert watch.told == [
        ("notice", "frame 0 failed badly"),
        ("notice", "unplugged"),
        *(("notice", f"threshold {value}") for value in (0.5, 0.6, 0.7)),
    ]
    assert [moment.source for moment in watch.moments.newest()] == [None, 2, None, None, None]


def test_what_the_cloud_never_answers_is_forgotten() -> None:
    watch = Watch()
    for _ in range(2 * ASKED):
        watch.see(action="offload")
    assert len(watch.moments._watched[0].asked) == ASKED


def test_the_newest_are_kept_with_their_pictures() -> None:
    watch = Watch()
    for _ in range(KEPT + 5):
        watch.see(action="offload", later_s=2)
    moments = watch.moments.newest()
    assert [moment.id for moment in moments] == list(range(6, KEPT + 6))
    assert len(watch.moments._pictures) == KEPT
    assert watch.moments.picture(5) is None
    thumbnail = watch.moments.picture(6)
    assert thumbnail is not None
    assert decoded(thumbnail).shape == (240, 320, 3)
    assert [moment.id for moment in watch.moments.since(KEPT + 4)] == [KEPT + 5]


def test_a_missed_picture_is_made_of_the_next_frame_or_not_at_all() -> None:
    watch = Watch(lazy=True)
    watch.see(action="offload")
    assert watch.told == []
    later = watch.see()
    assert watch.wanted == 2
    watch.moments.illustrate(0, later)
    assert [moment.picture for moment in watch.moments.newest()] == [True]
    watch.see(action="offload", later_s=3)
    watch.now_s += 1
    assert [moment.picture for moment in watch.moments.newest()] == [True, False]
    assert not watch.moments.awaited(0, later)
