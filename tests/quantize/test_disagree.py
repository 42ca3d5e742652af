"""The pictures that people should look at: those on which the two answers differ most."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.types import Classes, Detections, Result
from quantize.disagree import FLOAT_BGR, MOST, THUMBNAIL, disagreements
from tests.samples import plain

LABELS = (Label(id="c", name="cat"), Label(id="d", name="dog"))


def classes(best: int, score: float) -> Classes:
    ids = np.array([best, 1 - best])
    return Classes(class_ids=ids, labels=tuple(LABELS[i].name for i in ids), scores=np.array([score, 1 - score], np.float32))


def detections(*found: tuple[int, float, Sequence[float]]) -> Detections:
    ids = [one[0] for one in found]
    return Detections(
        boxes_xyxy=np.array([one[2] for one in found], np.float32).reshape(-1, 4),
        class_ids=np.array(ids, np.int64),
        labels=tuple(LABELS[index].name for index in ids),
        scores=np.array([one[1] for one in found], np.float32),
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat" / "one.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), plain(128, 448, 224))
    return path


BOX, NEAR, FAR = (10, 10, 60, 60), (12, 12, 62, 62), (200, 100, 300, 150)


@pytest.mark.parametrize(
    ("float32", "int8", "differ"),
    [
        (classes(0, 0.9), classes(0, 0.6), False),
        (classes(0, 0.6), classes(1, 0.6), True),
        (detections((0, 0.9, BOX)), detections((0, 0.5, NEAR)), False),
        (detections((0, 0.9, BOX)), detections((1, 0.9, BOX)), True),
        (detections((0, 0.9, BOX)), detections((0, 0.9, FAR)), True),
        (detections((0, 0.9, BOX)), detections(), True),
        (detections(), detections((0, 0.3, BOX)), True),
        (detections(), detections(), False),
    ],
)
def test_only_other_answers_are_shown(picture: Path, float32: Result, int8: Result, differ: bool) -> None:
    found = disagreements("int8-x86", {picture: float32}, {picture: int8}, [Sample(picture, 0)], LABELS)
    assert len(found) == differ


def test_what_is_shown_of_a_classifier(picture: Path) -> None:
    [found] = disagreements("v", {picture: classes(0, 0.75)}, {picture: classes(1, 0.6)}, [Sample(picture, 1)], LABELS)
    assert (found.variant, found.picture) == ("v", "cat/one.png")
    assert (found.float32, found.int8, found.truth) == ("cat 75%", "dog 60%", "dog")


def test_what_is_shown_of_a_detector(picture: Path) -> None:
    float32, int8 = detections((0, 0.9, BOX), (0, 0.8, FAR), (1, 0.5, NEAR)), detections()
    truth = BoxSample(picture, np.array([BOX], np.float32), np.array([1]))
    [found] = disagreements("v", {picture: float32}, {picture: int8}, [truth], LABELS)
    assert (found.float32, found.int8, found.truth) == ("2 cat, dog", "nothing", "dog")
    thumbnail = cv2.imdecode(np.frombuffer(base64.b64decode(found.jpeg_base64), np.uint8), cv2.IMREAD_COLOR)
    assert thumbnail.shape == (THUMBNAIL // 2, THUMBNAIL, 3)
    assert np.abs(thumbnail[5, 15].astype(int) - FLOAT_BGR).max() < 60  # the upper edge of BOX, at half size
    assert np.abs(thumbnail[20, 200].astype(int) - 128).max() < 20


def test_the_surest_come_first_and_no_more_than_fit(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(MOST + 5)]
    for path in paths:
        cv2.imwrite(str(path), plain(50))
    float32 = {path: classes(0, 0.5 + index / 100) for index, path in enumerate(paths)}
    int8 = dict.fromkeys(paths, classes(1, 0.5))
    found = disagreements("v", float32, int8, [Sample(path, 0) for path in paths], LABELS)
    assert [one.picture.split("/")[-1] for one in found] == [path.name for path in reversed(paths[5:])]


def test_a_picture_that_is_gone_is_left_out(tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    assert not disagreements("v", {gone: classes(0, 0.9)}, {gone: classes(1, 0.9)}, [Sample(gone, 0)], LABELS)
