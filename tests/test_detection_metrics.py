"""Average precision and which detections are right, against cases worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edge.boxes_data import BoxSample
from edge.detection_metrics import detection_ap, true_positives
from edge.errors import DataError, UsageError
from tests.samples import detections

A, B, FAR = (0, 0, 10, 10), (20, 20, 40, 40), (60, 60, 70, 70)
A_BY_HALF = (0, 0, 10, 6)
"""IoU 0.6 with A: right at 0.5, 0.55 and 0.6, wrong at the seven thresholds beyond."""


def truth(*objects: tuple[tuple[float, ...], int], ignored: tuple[bool, ...] = ()) -> BoxSample:
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    return BoxSample(Path("a.png"), boxes, np.array([c for _, c in objects], np.int64), np.array(ignored, np.bool_))


@pytest.mark.parametrize(
    ("wanted", "found", "class_ids", "ap50", "ap"),
    [
        ([(A, 0)], [("a", 0.9, A)], (0,), 1.0, 1.0),
        ([(A, 0)], [], (), 0.0, 0.0),
        ([(A, 0)], [("a", 0.9, FAR)], (0,), 0.0, 0.0),
        ([(A, 0)], [("b", 0.9, A)], (1,), 0.0, 0.0),
        ([(A, 0)], [("a", 0.9, A_BY_HALF)], (0,), 1.0, 0.3),
        ([(A, 0), (B, 1)], [("a", 0.9, A)], (0,), 0.5, 0.5),  # the mean of two classes
        ([(A, 0)], [("a", 0.9, FAR), ("a", 0.8, A)], (0, 0), 0.5, 0.5),  # a false one first
        ([(A, 0)], [("a", 0.9, A), ("a", 0.8, A)], (0, 0), 1.0, 1.0),  # a second one after all is found costs nothing
        ([(A, 0), (B, 0)], [("a", 0.9, A)], (0,), 51 / 101, 51 / 101),  # recall 0 .. 0.5 of 101 points
    ],
)
def test_ap_by_hand(wanted: list[object], found: list[object], class_ids: tuple[int, ...], ap50: float, ap: float) -> None:
    pytest.importorskip("faster_coco_eval")
    got = detection_ap([truth(*wanted)], [detections(*found, class_ids=class_ids)])  # type: ignore[arg-type]
    assert got == pytest.approx((ap50, ap), abs=1e-6)


def test_pictures_are_kept_apart_and_crowds_cost_nothing() -> None:
    pytest.importorskip("faster_coco_eval")
    hit, miss = detections(("a", 0.9, A), class_ids=(0,)), detections(("a", 0.9, B), class_ids=(0,))
    assert detection_ap([truth((A, 0)), truth((B, 0))], [hit, miss])[0] == 1
    assert detection_ap([truth((A, 0)), truth((B, 0))], [miss, hit])[0] == 0
    crowd = truth((A, 0), (B, 0), ignored=(False, True))
    assert detection_ap([crowd], [detections(("a", 0.95, B), ("a", 0.9, A), class_ids=(0, 0))])[0] == 1
    assert detection_ap([truth((A, 0)), truth()], [hit, detections()])[0] == 1  # a background


def test_nothing_to_measure() -> None:
    pytest.importorskip("faster_coco_eval")
    with pytest.raises(DataError, match="none of 1 pictures has a labelled box"):
        detection_ap([truth()], [detections()])
    with pytest.raises(ValueError, match="each of 1 pictures, got 0"):
        detection_ap([truth((A, 0))], [])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match="pip install faster-coco-eval"):
        detection_ap([truth((A, 0))], [detections()])


@pytest.mark.parametrize(
    ("wanted", "found", "class_ids", "right"),
    [
        ([], [("a", 0.9, A)], (0,), [False]),
        ([(A, 0)], [], (), []),
        ([(A, 0)], [("a", 0.9, A)], (0,), [True]),
        ([(A, 0)], [("b", 0.9, A)], (1,), [False]),
        ([(A, 0)], [("a", 0.9, A_BY_HALF)], (0,), [True]),
        ([(A, 0)], [("a", 0.9, (0, 0, 10, 4))], (0,), [False]),
        ([(A, 0)], [("a", 0.8, A), ("a", 0.9, A_BY_HALF)], (0, 0), [False, True]),  # the surer one takes it
        ([(A, 0), (A_BY_HALF, 0)], [("a", 0.9, A), ("a", 0.8, A)], (0, 0), [True, True]),
    ],
)
def test_which_are_right(wanted: list[object], found: list[object], class_ids: tuple[int, ...], right: list[bool]) -> None:
    correct, counted = true_positives(truth(*wanted), detections(*found, class_ids=class_ids))  # type: ignore[arg-type]
    assert correct.tolist() == right
    assert counted.all()


def test_what_finds_a_crowd_does_not_count() -> None:
    crowd = truth((A, 0), (B, 0), ignored=(False, True))
    correct, counted = true_positives(crowd, detections(("a", 0.9, B), ("a", 0.8, A), ("a", 0.7, FAR), class_ids=(0, 0, 0)))
    assert correct.tolist() == [False, True, False]
    assert counted.tolist() == [False, True, True]
