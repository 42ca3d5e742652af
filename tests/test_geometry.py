"""Pictures into model inputs and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.card import InputGeometry
from edge.geometry import INTERPOLATIONS, crop_box, fit
from edge.types import Geometry, UInt8
from tests.samples import picture

SIDES = st.integers(1, 400)
SIZES = st.tuples(SIDES, SIDES)
RESIZES = st.sampled_from(["crop", "letterbox", "stretch"])


def spec(width: int, height: int, **more: object) -> InputGeometry:
    return InputGeometry(width=width, height=height, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size_wh", "target_wh", "fraction", "box"),
    [
        ((640, 480), (224, 224), 1.0, (80, 0, 480, 480)),
        ((480, 640), (224, 224), 1.0, (0, 80, 480, 480)),
        ((640, 480), (224, 224), 0.875, (110, 30, 420, 420)),
        ((224, 224), (224, 224), 1.0, (0, 0, 224, 224)),
        ((224, 224), (224, 224), 0.5, (56, 56, 112, 112)),
        ((1920, 1080), (320, 240), 1.0, (240, 0, 1440, 1080)),
        ((1920, 1080), (240, 320), 1.0, (555, 0, 810, 1080)),
        ((100, 100), (200, 100), 1.0, (0, 25, 100, 50)),
        ((1, 1), (224, 224), 1.0, (0, 0, 1, 1)),
        ((1, 1000), (32, 32), 0.5, (0, 499, 1, 1)),
        ((5, 3), (32, 32), 1.0, (1, 0, 3, 3)),
    ],
)
def test_crop_box(
    size_wh: tuple[int, int], target_wh: tuple[int, int], fraction: float, box: tuple[int, int, int, int]
) -> None:
    assert crop_box(size_wh, target_wh, fraction) == box


@given(size_wh=SIZES, target_wh=SIZES, fraction=st.floats(0.01, 1))
def test_a_crop_box_is_inside_centred_and_of_the_right_shape(
    size_wh: tuple[int, int], target_wh: tuple[int, int], fraction: float
) -> None:
    x, y, width, height = crop_box(size_wh, target_wh, fraction)
    assert width >= 1
    assert height >= 1
    assert x >= 0
    assert y >= 0
    assert x + width <= size_wh[0]
    assert y + height <= size_wh[1]
    assert 0 <= size_wh[0] - width - 2 * x <= 1  # as much on the right as on the left
    assert 0 <= size_wh[1] - height - 2 * y <= 1
    scale = fraction * min(size_wh[0] / target_wh[0], size_wh[1] / target_wh[1])
    assert abs(width - target_wh[0] * scale) <= 1
    assert abs(height - target_wh[1] * scale) <= 1


@given(size_wh=SIZES, target_wh=st.tuples(st.integers(1, 100), st.integers(1, 100)), resize=RESIZES, fraction=st.floats(0.1, 1))
def test_fit_gives_the_model_s_size_and_leaves_the_picture(
    size_wh: tuple[int, int], target_wh: tuple[int, int], resize: str, fraction: float
) -> None:
    image = picture(*size_wh)
    image.flags.writeable = False
    fitted, geometry = fit(image, spec(*target_wh, resize=resize, crop_fraction=fraction))
    assert fitted.shape == (target_wh[1], target_wh[0], 3)
    assert fitted.dtype == np.uint8
    assert geometry.original_wh == size_wh


@given(size_wh=SIZES, target_wh=SIZES, resize=RESIZES, anchor=st.sampled_from(["center", "topleft"]), data=st.data())
def test_to_original_inverts(
    size_wh: tuple[int, int], target_wh: tuple[int, int], resize: str, anchor: str, data: st.DataObject
) -> None:
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    _, geometry = fit(image, spec(*target_wh, resize=resize, letterbox_anchor=anchor))
    xs = sorted(data.draw(st.tuples(st.floats(0, size_wh[0]), st.floats(0, size_wh[0]))))
    ys = sorted(data.draw(st.tuples(st.floats(0, size_wh[1]), st.floats(0, size_wh[1]))))
    original = np.array([[xs[0], ys[0], xs[1], ys[1]]], np.float32)
    model = original * np.array(geometry.scale_xy * 2, np.float32) + np.array(geometry.offset_xy * 2, np.float32)
    tolerance = 1e-3 * max(1.0, *size_wh)
    np.testing.assert_allclose(geometry.to_original(model.astype(np.float32)), original, atol=tolerance)


@given(size_wh=SIZES, resize=RESIZES)
def test_to_original_stays_inside_the_picture(size_wh: tuple[int, int], resize: str) -> None:
    _, geometry = fit(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), spec(64, 48, resize=resize))
    boxes = geometry.to_original(np.array([[-1e6, -1e6, 1e6, 1e6], [0, 0, 64, 48]], np.float32))
    assert boxes.dtype == np.float32
    assert boxes.min() >= 0
    assert (boxes[:, [0, 2]] <= size_wh[0]).all()
    assert (boxes[:, [1, 3]] <= size_wh[1]).all()
    np.testing.assert_allclose(boxes[0], [0, 0, *size_wh])


def test_no_boxes() -> None:
    assert Geometry((2.0, 2.0), (0.0, 0.0), (10, 10)).to_original(np.zeros((0, 4), np.float32)).shape == (0, 4)


@given(size_wh=SIZES, target_wh=st.tuples(st.integers(1, 100), st.integers(1, 100)))
def test_letterbox_keeps_the_aspect_and_pads_evenly(size_wh: tuple[int, int], target_wh: tuple[int, int]) -> None:
    image = np.full((size_wh[1], size_wh[0], 3), 255, np.uint8)
    fitted, geometry = fit(image, spec(*target_wh, resize="letterbox", pad_value=7))
    inside = fitted[..., 0] == 255
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert (fitted[~inside] == 7).all()
    ratio = min(target_wh[0] / size_wh[0], target_wh[1] / size_wh[1])
    assert abs(len(columns) - size_wh[0] * ratio) <= 1
    assert abs(len(rows) - size_wh[1] * ratio) <= 1
    assert 0 <= target_wh[0] - len(columns) - 2 * columns[0] <= 1
    assert 0 <= target_wh[1] - len(rows) - 2 * rows[0] <= 1
    assert geometry.offset_xy == (columns[0], rows[0])


@given(size_wh=SIZES, target_wh=st.tuples(st.integers(1, 100), st.integers(1, 100)))
def test_letterbox_at_the_top_left_pads_the_other_sides(size_wh: tuple[int, int], target_wh: tuple[int, int]) -> None:
    image = np.full((size_wh[1], size_wh[0], 3), 255, np.uint8)
    fitted, geometry = fit(image, spec(*target_wh, resize="letterbox", letterbox_anchor="topleft", pad_value=7))
    centred, _ = fit(image, spec(*target_wh, resize="letterbox", pad_value=7))
    inside = fitted[..., 0] == 255
    assert inside.sum() == (centred[..., 0] == 255).sum()
    assert inside[: int(inside.any(axis=1).sum()), : int(inside.any(axis=0).sum())].all()
    assert geometry.offset_xy == (0.0, 0.0)


def marked(width: int, height: int, x: int, y: int, side: int) -> UInt8:
    image = np.zeros((height, width, 3), np.uint8)
    image[y : y + side, x : x + side] = 255
    return image


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (200, 200)])
def test_the_geometry_says_where_things_are(resize: str, width: int, height: int) -> None:
    image = marked(width, height, x=100, y=90, side=40)
    fitted, geometry = fit(image, spec(96, 96, resize=resize))
    ys, xs = np.nonzero(fitted[..., 0] == 255)
    box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    np.testing.assert_allclose(geometry.to_original(box), [[100, 90, 140, 130]], atol=4)


def test_each_interpolation_is_used() -> None:
    found = {
        name: fit(picture(37, 23), spec(20, 11, resize="stretch", interpolation=name))[0].tobytes() for name in INTERPOLATIONS
    }
    assert len(set(found.values())) == len(INTERPOLATIONS) == 4


def test_a_picture_of_the_right_size_is_taken_as_it_is() -> None:
    image = picture(32, 32)
    for resize in ("crop", "letterbox", "stretch"):
        fitted, geometry = fit(image, spec(32, 32, resize=resize))
        np.testing.assert_array_equal(fitted, image)
        assert (geometry.scale_xy, geometry.offset_xy) == ((1.0, 1.0), (0.0, 0.0))
