"""What may not leave the device is marked next to the detector, whatever is reported of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import open_bundle
from edge.errors import UsageError
from edge.model import Model, open_model
from edge.privacy import Private, grown
from edge.protocols import Task
from edge.regions import Chosen, Focus, outside, parse_region
from edge.types import Classes, Detections, Float32, Frame, UInt8
from tests.samples import frame, squares

LABELS = ("red", "green", "blue")
RED = frozenset({"red"})


@pytest.fixture
def model(tiny_detector: Path) -> Model:
    return open_model(open_bundle(tiny_detector))


def seen(model: Model, task: Task, image: UInt8) -> Detections:
    tensor = task.prepare(Frame(image, 0, 0.0, "test"))
    result = task.decode(model.engine.infer(tensor), tensor)
    assert isinstance(result, Detections)
    return result


def covered(boxes_xyxy: Float32 | None, size_wh: tuple[int, int] = (32, 32)) -> UInt8:
    """1 where the boxes are."""
    assert boxes_xyxy is not None
    area = np.zeros(size_wh[::-1], np.uint8)
    for left, top, right, bottom in np.rint(boxes_xyxy).astype(int).clip(0).tolist():
        area[top:bottom, left:right] = 1
    return area


PICTURE = squares(("red", 0, 0), ("green", 2, 1), ("red", 3, 3))


def test_boxes_of_the_classes_are_private_and_grown_by_a_tenth(model: Model) -> None:
    found = seen(model, Private(model.task, RED, labels=LABELS), PICTURE)
    assert sorted(found.labels) == ["green", "red", "red"]
    assert found.private_xyxy is not None
    np.testing.assert_allclose(
        np.sort(found.private_xyxy, axis=0), [[-0.8, -0.8, 8.8, 8.8], [23.2, 23.2, 32.8, 32.8]], atol=1e-4
    )


def test_what_is_not_reported_is_private_all_the_same(model: Model) -> None:
    """--classes, --score-threshold and --roi take objects out of the result, not out of the picture."""
    task: Task = Private(model.task, RED, labels=LABELS)
    task = Chosen(task, frozenset({"green"}), {"green": 1.0, "red": 1.0}, labels=LABELS)
    found = seen(model, task, PICTURE)
    assert set(found.labels) <= {"green"}
    assert covered(found.private_xyxy)[0:8, 0:8].all()
    assert covered(found.private_xyxy)[24:, 24:].all()


def test_what_the_model_was_not_shown_is_private(model: Model) -> None:
    """Nobody looked outside of the region of interest."""
    region = parse_region("0.5,0,1,0.75")
    task = Focus(Chosen(Private(model.task, RED, labels=LABELS), frozenset({"green"}), {}, labels=LABELS), region)
    area = covered(seen(model, task, PICTURE).private_xyxy)
    assert area[:, :16].all()
    assert area[24:].all()
    assert not area[1:23, 17:].any()


def test_private_objects_in_a_region_are_in_the_frame_s_pixels(model: Model) -> None:
    # an object whose centre is outside of the polygon is not reported; it is private
    region = parse_region("0,0,0.5,0,0.5,0.5")
    found = seen(model, Focus(Private(model.task, RED, labels=LABELS), region), squares(("red", 0, 1), ("red", 1, 0)))
    area = covered(found.private_xyxy)
    assert (found.boxes_xyxy[:, 0] >= 8).all()
    assert area[8:16, 0:8].all()
    assert area[0:8, 8:16].all()
    assert not area[0:6, 0:6].any()


def test_without_private_objects_nothing_is_private(model: Model) -> None:
    found = seen(model, Private(model.task, RED, labels=LABELS), squares(("blue", 1, 1)))
    assert found.private_xyxy is not None
    assert found.private_xyxy.shape == (0, 4)
    assert found.private_xyxy.dtype == np.float32


def test_nobody_looked(model: Model) -> None:
    assert seen(model, model.task, PICTURE).private_xyxy is None


def test_what_is_private_stays_with_the_result(model: Model) -> None:
    found = seen(model, Private(model.task, RED, labels=LABELS), PICTURE)
    assert found.private_xyxy is not None
    assert found[:0].private_xyxy is found.private_xyxy
    moved = found.moved((10.0, 20.0)).private_xyxy
    assert moved is not None
    np.testing.assert_allclose(moved, found.private_xyxy + np.array([10, 20, 10, 20]))


def test_a_classifier_stays_as_it_is(tiny_edge: Path) -> None:
    model = open_model(open_bundle(tiny_edge))
    task = Private(model.task, frozenset({"class 1"}), labels=["class 1"])
    tensor = task.prepare(frame())
    assert isinstance(task.decode(model.engine.infer(tensor), tensor), Classes)


def test_a_class_that_the_model_does_not_know(model: Model) -> None:
    with pytest.raises(UsageError, match="class 'rod': the model does not know it; did you mean red"):
        Private(model.task, frozenset({"rod"}), labels=LABELS)


def test_grown() -> None:
    np.testing.assert_allclose(grown(np.array([[10, 20, 30, 60]], np.float32)), [[8, 16, 32, 64]])


@pytest.mark.parametrize(
    "shown",
    [(0, 0, 20, 10), (5, 0, 20, 10), (0, 3, 20, 10), (5, 3, 15, 10), (5, 3, 15, 7), (0.4, 0.4, 19.6, 9.6), (3, 3, 4, 4)],
)
def test_all_but_what_was_shown(shown: tuple[float, float, float, float]) -> None:
    area = covered(outside(shown, (20, 10)), (20, 10))
    left, top, right, bottom = (round(edge) for edge in shown)
    expected = np.ones((10, 20), np.uint8)
    expected[top:bottom, left:right] = 0
    np.testing.assert_array_equal(area, expected)
