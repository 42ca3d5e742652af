"""The detection task: thresholds, calibration, suppression and the way back to original pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bundle import open_bundle
from edge.errors import EngineError
from edge.model import Model, open_model
from edge.tasks import TASKS
from edge.tasks.detect import Detect, calibrated
from edge.types import Detections
from tests.samples import detections, frame, squares

PROBABILITY = st.floats(1e-4, 1 - 1e-4)


@pytest.fixture(scope="module")
def model(tiny_detector: Path) -> Model:
    return open_model(open_bundle(tiny_detector))


def detect(model: Model, image: Any, task: Detect | None = None) -> Detections:
    chosen = task or model.task
    tensor = chosen.prepare(frame(image))
    found = chosen.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Detections)
    return found


def changed(tiny_detector: Path, temperature: float = 1.0, **options: Any) -> Detect:
    card = open_bundle(tiny_detector).card
    return Detect(card, msgspec.structs.replace(card.variants[0], temperature=temperature), **options)


def test_squares_are_found_where_they_are(model: Model) -> None:
    found = detect(model, squares(("red", 1, 2), ("blue", 3, 0)))
    assert found.labels == ("blue", "red")
    assert found.class_ids.tolist() == [2, 0]
    np.testing.assert_allclose(found.boxes_xyxy, [[24, 0, 32, 8], [8, 16, 16, 24]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [1, 1], atol=1e-6)


def test_boxes_are_in_pixels_of_the_original(model: Model) -> None:
    """64 x 48 is halved and stands between two bars of 4 rows."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[8:24, 16:32, 1] = 255  # rows 4 + 4 .. 4 + 12, columns 8 .. 16 of the model
    found = detect(model, image)
    assert found.labels == ("green",)
    np.testing.assert_allclose(found.boxes_xyxy, [[16, 8, 32, 24]], atol=1e-3)


def test_a_box_in_the_padding_is_left_out(model: Model) -> None:
    tensor = model.task.prepare(frame(np.zeros((8, 32, 3), np.uint8)))  # rows 12 .. 20 of the model
    painted = tensor.data.copy()
    painted[0, :8, :8, 0] = 255
    outputs = model.engine.infer(type(tensor)(painted, tensor.geometry))
    assert len(model.task.decode(outputs, tensor)) == 0


@pytest.mark.parametrize(("level", "count"), [(255, 1), (129, 1), (126, 0), (0, 0)])
def test_the_card_s_score_threshold(model: Model, level: int, count: int) -> None:
    assert len(detect(model, squares(("red", 0, 0), level=level))) == count  # (level / 255)² against 0.25


def test_options_stand_above_the_card_s(model: Model, tiny_detector: Path) -> None:
    image = squares(*(("red", column, row) for column in range(4) for row in range(4)), level=100)
    low = changed(tiny_detector, score_threshold=0.1)
    assert (len(detect(model, image)), len(detect(model, image, low))) == (0, 16)
    assert len(detect(model, image, low.replaced(max_detections=3))) == 3
    assert len(detect(model, image, low.replaced(score_threshold=0.2))) == 0
    assert len(detect(model, image, low)) == 16  # unchanged itself


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 2.0])
def test_how_thorough_a_search_is_does_not_depend_on_the_temperature(
    model: Model, tiny_detector: Path, temperature: float
) -> None:
    """A square of a tenth of the light has a raw score of 0.01, and a calibrated one of 1e-20 at 0.1."""
    picture = squares(("red", 1, 2), level=26)
    assert detect(model, picture, changed(tiny_detector, temperature).thorough(0.005, 100)).labels == ("red",)
    assert not len(detect(model, picture, changed(tiny_detector, temperature).thorough(0.02, 100)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_threshold_is_on_the_calibrated_score(model: Model, tiny_detector: Path, temperature: float) -> None:
    for level in range(40, 256, 8):
        score = float(calibrated(np.array([(level / 255) ** 2]), temperature)[0])
        task = changed(tiny_detector, temperature, score_threshold=0.3)
        found = detect(model, squares(("blue", 2, 2), level=level), task)
        assert len(found) == (score >= 0.3), level
        assert found.scores == pytest.approx([score] * len(found), abs=1e-5)


def test_a_class_may_be_calibrated_by_itself(model: Model, tiny_detector: Path) -> None:
    """Red at 0.28 is sure enough by its own temperature of 3, blue at 0.35 not by the general one of 0.5."""
    card = open_bundle(tiny_detector).card
    red = next(label for label in card.labels if label.name == "red")
    variant = msgspec.structs.replace(card.variants[0], temperature=0.5, class_temperatures={red.id: 3.0})
    image = squares(("red", 1, 2), level=135) + squares(("blue", 3, 0), level=151) + squares(("green", 0, 0), level=200)
    found = detect(model, image, Detect(card, variant, score_threshold=0.4))
    assert found.labels == ("green", "red")
    expected = [calibrated(np.array([(200 / 255) ** 2]), 0.5)[0], calibrated(np.array([(135 / 255) ** 2]), 3.0)[0]]
    assert found.scores == pytest.approx(expected, abs=1e-5)


def test_scores_of_several_classes_are_calibrated_each_by_its_own() -> None:
    scores, temperatures = np.array([0.2, 0.9], np.float32), np.array([2.0, 0.5])
    one_by_one = [calibrated(scores[i : i + 1], float(temperatures[i]))[0] for i in range(2)]
    assert calibrated(scores, temperatures) == pytest.approx(one_by_one)


@given(PROBABILITY, st.floats(0.2, 5))
def test_calibration_and_its_inverse(score: float, temperature: float) -> None:
    there = calibrated(np.array([score], np.float64), temperature)
    logit = np.log(score / (1 - score)) / temperature
    assert there[0] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)


@given(st.lists(PROBABILITY, min_size=2, max_size=20), st.floats(0.2, 5))
def test_calibration_keeps_the_order(scores: list[float], temperature: float) -> None:
    ordered = np.sort(np.array(scores, np.float32))
    assert (np.diff(calibrated(ordered, temperature)) >= 0).all()
    assert calibrated(ordered, 1.0) is ordered
    ends = calibrated(np.array([0, 1], np.float32), temperature)
    assert np.isfinite(ends).all()


def test_nothing_there(model: Model) -> None:
    found = detect(model, squares())
    assert len(found) == 0
    assert found.boxes_xyxy.shape == (0, 4)


def test_outputs_of_another_model(model: Model) -> None:
    tensor = model.task.prepare(frame(squares()))
    with pytest.raises(EngineError, match=r"head yolox expects \[1, 16, 8\], the model gives \[1, 16, 9\]"):
        model.task.decode({"predictions": np.zeros((1, 16, 9), np.float32)}, tensor)


def test_it_is_the_detector_of_the_registry(model: Model) -> None:
    assert TASKS["detect"] is Detect
    assert isinstance(model.task, Detect)


# the values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes_xyxy": np.zeros((3, 4), np.float32)}, r"boxes_xyxy: expected shape \(2, 4\) for 2 labels, got \(3, 4\)"),
        ({"boxes_xyxy": np.zeros((2, 5), np.float32)}, r"got \(2, 5\)"),
        ({"scores": np.zeros(1, np.float32)}, r"scores: expected shape \(2,\) for 2 labels, got \(1,\)"),
        ({"class_ids": np.zeros((2, 1), np.int64)}, r"class_ids: expected shape \(2,\)"),
        ({"boxes_xyxy": np.zeros((2, 4))}, "boxes_xyxy: expected float32, got float64"),
        ({"scores": np.zeros(2)}, "scores: expected float32, got float64"),
        ({"class_ids": np.zeros(2, np.int32)}, "class_ids: expected int64, got int32"),
    ],
)
def test_detections_are_checked(change: dict[str, Any], message: str) -> None:
    good = {
        "boxes_xyxy": np.zeros((2, 4), np.float32),
        "scores": np.zeros(2, np.float32),
        "class_ids": np.zeros(2, np.int64),
        "labels": ("a", "b"),
    }
    Detections(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        Detections(**(good | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "labels"),
    [
        (np.array([True, False, True]), ("a", "c")),
        (np.array([2, 0]), ("c", "a")),
        (np.array([], np.int64), ()),
        (slice(1, None), ("b", "c")),
    ],
)
def test_detections_are_indexed(chosen: Any, labels: tuple[str, ...]) -> None:
    found = detections(("a", 0.9, (0, 0, 1, 1)), ("b", 0.8, (1, 1, 2, 2)), ("c", 0.7, (2, 2, 3, 3)))[chosen]
    assert found.labels == labels
    assert len(found) == len(found.scores) == len(found.boxes_xyxy) == len(labels)


def test_one_of_them_is_not_an_index() -> None:
    with pytest.raises(IndexError):
        detections(("a", 0.9, (0, 0, 1, 1)))[0]  # type: ignore[index]


def test_the_weakest_claim_is_the_confidence() -> None:
    assert detections(("a", 0.75, (0, 0, 1, 1)), ("b", 0.25, (1, 1, 2, 2))).confidence == 0.25
    assert detections().confidence == 1.0
