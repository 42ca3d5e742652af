"""Regions: how they are told, what is blacked out, and tasks that look at a part or report a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bundle import open_bundle
from edge.card import InputGeometry
from edge.errors import UsageError
from edge.geometry import prepare
from edge.model import Model, open_model
from edge.regions import Chosen, Focus, PrivacyMask, Region, parse_region
from edge.types import Classes, Detections, Frame, Outputs, Result, Tensor, UInt8
from tests.samples import detections, frame, picture, plain, squares

UNIT = st.floats(0, 1)
SIZES = st.tuples(st.integers(1, 200), st.integers(1, 200))
TRIANGLES = st.lists(st.tuples(UNIT, UNIT), min_size=3, max_size=8).map(tuple)
LABELS = ("person", "car", "traffic light", "truck")


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("0,0,1,0,1,1", ((0, 0), (1, 0), (1, 1))),
        (" 0.1 , .2, 5e-1,0.2,1,1,0,1", ((0.1, 0.2), (0.5, 0.2), (1, 1), (0, 1))),
        ("0.1,0.2,0.5,0.6", ((0.1, 0.2), (0.5, 0.2), (0.5, 0.6), (0.1, 0.6))),
        ("0.5,0.6,0.1,0.2", ((0.5, 0.6), (0.1, 0.6), (0.1, 0.2), (0.5, 0.2))),
    ],
)
def test_parse_region(text: str, points: tuple[tuple[float, float], ...]) -> None:
    assert parse_region(text) == Region(points)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected numbers"),
        ("porch", "expected numbers"),
        ("0,0,1,1,", "expected numbers"),
        ("0;0;1;1", "expected numbers"),
        ("0.5,0.5", "2 numbers"),
        ("0,0,1,1,0.5", "5 numbers"),
        ("0,0,640,480", "640 is not in parts of the picture"),
        ("0,0,1,-0.1", "-0.1 is not in parts"),
        ("0,0,1,nan", "nan is not in parts"),
        ("0,0,1,inf", "inf is not in parts"),
        ("0.2,0.2,0.2,0.9", "no area"),
        ("0,0,0.5,0.5,1,1", "no area"),
        ("0.3,0.3,0.3,0.3", "no area"),
        (",".join(["0.5"] * 4000), "4000 numbers"),
    ],
)
def test_what_is_no_region_is_told_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as refused:
        parse_region(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


@given(st.text(alphabet="0123456789.,-e nai", max_size=40))
def test_any_text_is_a_region_or_refused(text: str) -> None:
    try:
        region = parse_region(text)
    except UsageError:
        return
    assert len(region.points) >= 3
    assert all(0 <= value <= 1 for point in region.points for value in point)


@given(TRIANGLES)
def test_what_is_written_is_read(points: tuple[tuple[float, float], ...]) -> None:
    text = ",".join(f"{x!r},{y!r}" for x, y in points)
    if cv2.contourArea(cv2.convexHull(np.array(points, np.float32))) > 0:
        assert parse_region(text) == Region(points)
    else:
        with pytest.raises(UsageError, match="no area"):
            parse_region(text)


@pytest.mark.parametrize(
    ("text", "size_wh", "bounds"),
    [
        ("0,0,1,1", (640, 480), (0, 0, 640, 480)),
        ("0.5,0.25,1,1", (640, 480), (320, 120, 640, 480)),
        ("0.01,0.01,0.02,0.02", (10, 10), (0, 0, 1, 1)),
        ("1,0.999,0.9999,1", (10, 10), (9, 9, 10, 10)),
        ("0.5,0.1,0.9,0.9,0.1,0.9", (100, 50), (10, 5, 90, 45)),
    ],
)
def test_bounds(text: str, size_wh: tuple[int, int], bounds: tuple[int, int, int, int]) -> None:
    assert parse_region(text).bounds(size_wh) == bounds


@given(points=TRIANGLES, size_wh=SIZES)
def test_bounds_are_inside_and_of_a_pixel_at_least(points: tuple[tuple[float, float], ...], size_wh: tuple[int, int]) -> None:
    left, top, right, bottom = Region(points).bounds(size_wh)
    assert 0 <= left < right <= size_wh[0]
    assert 0 <= top < bottom <= size_wh[1]


def test_contains() -> None:
    region = parse_region("0.5,0,1,1,0,1")  # a triangle that stands on the floor
    points = np.array([(50, 50), (50, 99), (5, 5), (95, 5), (2, 99), (50, 0), (50, 100)], np.float32)
    assert region.contains(points, (100, 100)).tolist() == [True, True, False, False, True, True, True]
    assert region.contains(points[:0], (100, 100)).shape == (0,)


def test_a_mask_blacks_out_in_place_and_nothing_else() -> None:
    image = plain(200, 100, 50)
    PrivacyMask([parse_region("0.5,0,1,0.5"), parse_region("0,0.9,0.1,1")]).apply(image)
    assert (image[:25, 50:] == 0).all()
    assert (image[45:, :10] == 0).all()
    assert (image[27:, 12:] == 200).all()
    assert (image[:44, :48] == 200).all()


def test_a_mask_follows_the_size_of_the_picture() -> None:
    mask = PrivacyMask([parse_region("0,0,0.5,1")])
    for size in (64, 20, 64):
        image = plain(9, size, size)
        mask.apply(image)
        assert (image[:, : size // 2] == 0).all()
        assert (image[:, size // 2 + 2 :] == 9).all()


def test_no_region_masks_nothing() -> None:
    image = picture()
    PrivacyMask([]).apply(image)
    np.testing.assert_array_equal(image, picture())


@given(points=TRIANGLES, size_wh=SIZES, seed=st.integers(0, 99))
def test_no_pixel_of_a_region_is_seen(points: tuple[tuple[float, float], ...], size_wh: tuple[int, int], seed: int) -> None:
    image = plain(255, *size_wh)
    region = Region(points)
    PrivacyMask([region]).apply(image)
    inside = (np.random.default_rng(seed).random((500, 2)) * size_wh).astype(np.float32)
    inside = inside[region.contains(inside, size_wh)]
    columns, rows = np.minimum(inside.astype(int), np.array(size_wh) - 1).T
    assert (image[rows, columns] == 0).all()


@pytest.fixture(scope="module")
def model(tiny_detector: Path) -> Model:
    return open_model(open_bundle(tiny_detector))


def look(model: Model, task: Any, image: UInt8) -> Detections:
    tensor = task.prepare(frame(image))
    found = task.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Detections)
    return found


def scene(*cells: tuple[str, int, int]) -> UInt8:
    """The squares in a black picture of 128 x 128, their origin at 64, 32."""
    image = np.zeros((128, 128, 3), np.uint8)
    image[32:64, 64:96] = squares(*cells)
    return image


def test_focus_finds_what_is_in_the_region_where_it_is_in_the_picture(model: Model) -> None:
    focus = Focus(model.task, parse_region("0.5,0.25,0.75,0.5"))
    found = look(model, focus, scene(("red", 1, 2), ("blue", 3, 0)))
    assert found.labels == ("blue", "red")
    np.testing.assert_allclose(found.boxes_xyxy, [[88, 32, 96, 40], [72, 48, 80, 56]], atol=1e-3)


def test_focus_drops_what_has_its_centre_outside_the_polygon(model: Model) -> None:
    lower_left = parse_region("0.5,0.25,0.75,0.5,0.5,0.5")
    found = look(model, Focus(model.task, lower_left), scene(("red", 0, 2), ("blue", 3, 0)))
    assert found.labels == ("red",)


def test_focus_hands_over_a_view_and_says_where_it_was() -> None:
    seen: list[Frame] = []

    class Spy:
        def prepare(self, frame: Frame) -> Tensor:
            seen.append(frame)
            return prepare(frame, InputGeometry(width=32, height=32, resize="letterbox"))

        def decode(self, outputs: Outputs, tensor: Tensor) -> Result:
            assert tensor.geometry.original_wh == (50, 30)
            return detections(("a", 0.9, (0, 0, 50, 30)), ("b", 0.8, (10, 5, 20, 15)))

    focus = Focus(Spy(), parse_region("0.2,0.3,0.7,0.6"))
    whole = frame(picture(100, 100), sequence=7)
    tensor = focus.prepare(whole)
    assert np.shares_memory(seen[0].image, whole.image)
    assert (seen[0].size_wh, seen[0].sequence) == ((50, 30), 7)
    assert tensor.geometry.original_wh == (100, 100)
    corners = np.array([[0, 6, 32, 25]], np.float32)  # where the part lies in the model's picture, 19 rows high
    np.testing.assert_allclose(tensor.geometry.to_original(corners), [[20, 30, 70, 60]], atol=1.2)
    found = focus.decode({}, tensor)
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes_xyxy, [[20, 30, 70, 60], [30, 35, 40, 45]], atol=1e-4)


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
@given(size_wh=st.tuples(st.integers(8, 300), st.integers(8, 300)), region=st.tuples(UNIT, UNIT, UNIT, UNIT))
def test_the_geometry_of_a_focus_maps_the_whole_picture(
    resize: str, size_wh: tuple[int, int], region: tuple[float, float, float, float]
) -> None:
    """Model pixels → picture is the same by the tensor's own geometry as by the part's, moved."""
    x1, y1, x2, y2 = region
    part = Region(((x1, y1), (x2, y1), (x2, y2), (x1, y2)))
    spec = InputGeometry(width=32, height=24, resize=resize)  # type: ignore[arg-type]

    class Plain:
        def prepare(self, frame: Frame) -> Tensor:
            return prepare(frame, spec)

        def decode(self, outputs: Outputs, tensor: Tensor) -> Result:
            boxes = tensor.geometry.to_original(np.array([[8, 8, 20, 16]], np.float32))
            return Detections(boxes, np.ones(1, np.float32), np.zeros(1, np.int64), ("a",))

    focus = Focus(Plain(), part)
    whole = frame(np.zeros((size_wh[1], size_wh[0], 3), np.uint8))
    tensor = focus.prepare(whole)
    left, top, right, bottom = part.bounds(size_wh)
    found = focus.decode({}, tensor)
    assert isinstance(found, Detections)
    box = tensor.geometry.to_original(np.array([[8, 8, 20, 16]], np.float32))
    box = np.clip(box, (left, top, left, top), (right, bottom, right, bottom)).astype(np.float32)
    if len(found):
        np.testing.assert_allclose(found.boxes_xyxy, box, atol=1e-2)
    else:  # its centre lies on the other side of the edge, as far as rounding goes
        centre = ((box[0, :2] + box[0, 2:]) / 2).tolist()
        assert cv2.pointPolygonTest(part.pixels(size_wh), centre, True) < 0.01


class Given:
    """A task that finds what it is told to."""

    def __init__(self, result: Result) -> None:
        self.result = result

    def prepare(self, frame: Frame) -> Tensor:
        return prepare(frame, InputGeometry(width=8, height=8))

    def decode(self, outputs: Outputs, tensor: Tensor) -> Result:
        return self.result


FOUND = detections(
    ("person", 0.9, (0, 0, 1, 1)), ("car", 0.5, (1, 1, 2, 2)), ("person", 0.25, (2, 2, 3, 3)), ("truck", 0.125, (3, 3, 4, 4))
)


@pytest.mark.parametrize(
    ("classes", "thresholds", "kept"),
    [
        (None, {}, [0, 1, 2, 3]),
        ({"person"}, {}, [0, 2]),
        ({"truck", "car"}, {}, [1, 3]),
        (None, {"person": 0.5}, [0, 1, 3]),
        ({"person"}, {"person": 0.25, "car": 0.1}, [0, 2]),
        (None, {"car": 0.5, "truck": 1.0}, [0, 1, 2]),
        (set(), {}, []),
    ],
)
def test_chosen(classes: set[str] | None, thresholds: dict[str, float], kept: list[int]) -> None:
    wanted = None if classes is None else frozenset(classes)
    chosen = Chosen(Given(FOUND), wanted, thresholds, labels=LABELS)
    found = chosen.decode({}, chosen.prepare(frame()))
    assert isinstance(found, Detections)
    assert found.scores.tolist() == [FOUND.scores[i] for i in kept]
    assert found.labels == tuple(FOUND.labels[i] for i in kept)


def test_chosen_and_focus_with_classes() -> None:
    best = Classes(np.array([1, 0, 3]), np.array([0.5, 0.25, 0.125], np.float32), ("car", "person", "truck"))
    task = Focus(Chosen(Given(best), frozenset({"person", "truck"}), {"person": 0.9}, labels=LABELS), parse_region("0,0,0.5,1"))
    found = task.decode({}, task.prepare(frame()))
    assert isinstance(found, Classes)
    assert (found.labels, found.class_ids.tolist(), found.scores.tolist()) == (("person", "truck"), [0, 3], [0.25, 0.125])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("persn", "class 'persn': the model does not know it; did you mean person?"),
        ("Person", "class 'Person': the model does not know it; did you mean person?"),
        ("trafic-light", "class 'trafic-light': the model does not know it; did you mean traffic light?"),
        ("zebra", "class 'zebra': the model does not know it; it knows person, car, traffic light, truck"),
    ],
)
def test_an_unknown_class_is_told_with_those_like_it(name: str, line: str) -> None:
    with pytest.raises(UsageError) as refused:
        Chosen(Given(FOUND), frozenset({"person", name}), {}, labels=LABELS)
    assert str(refused.value) == line
    with pytest.raises(UsageError) as refused:
        Chosen(Given(FOUND), None, {name: 0.5}, labels=LABELS)
    assert str(refused.value) == line


def test_of_many_classes_a_few_are_told() -> None:
    with pytest.raises(UsageError, match=r"it knows a0, a1, a2, a3, a4 and 995 more$"):
        Chosen(Given(FOUND), frozenset({"zebra"}), {}, labels=[f"a{i}" for i in range(1000)])


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_cannot_be(threshold: float) -> None:
    with pytest.raises(UsageError, match="expected a number from 0 to 1"):
        Chosen(Given(FOUND), None, {"car": threshold}, labels=LABELS)
