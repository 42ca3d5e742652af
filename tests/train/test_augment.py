"""What a camera does to pictures: each trouble changes what it should, is drawn anew, and is the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from edge.types import UInt8
from train.augment import AUGMENTS, LUMA_BGR, Augment, coloured, troubled

NONE = AUGMENTS["none"]


def scene() -> UInt8:
    """Edges, flat parts and a gradient."""
    picture = np.tile(np.linspace(20, 220, 96, dtype=np.uint8)[None, :, None], (72, 1, 3))
    picture[20:50, 30:60] = (10, 240, 120)
    return np.ascontiguousarray(picture)


def seen(augment: Augment, seed: int = 0) -> UInt8:
    return troubled(scene(), augment, np.random.default_rng(seed))


def sharpness(picture: UInt8) -> float:
    return float(np.abs(np.diff(picture.astype(np.float64), axis=1)).max())


def test_nothing_asked_changes_nothing() -> None:
    assert (seen(NONE) == scene()).all()
    assert (coloured(scene(), NONE, LUMA_BGR, np.random.default_rng(0)) == scene()).all()


@pytest.mark.parametrize("trouble", ["blur", "motion", "noise", "jpeg"])
def test_each_trouble_is_drawn_by_the_seed_and_keeps_shape_and_light(trouble: str) -> None:
    augment = replace(NONE, **{trouble: 1.0})
    one, again, other = seen(augment), seen(augment), seen(augment, seed=1)
    assert one.shape == scene().shape
    assert one.dtype == np.uint8
    assert (one == again).all()
    assert (one != other).any()
    assert (one != scene()).any()
    assert abs(float(one.mean()) - float(scene().mean())) < 3


@pytest.mark.parametrize("trouble", ["blur", "motion"])
def test_blurs_soften_edges(trouble: str) -> None:
    softer = [sharpness(seen(replace(NONE, **{trouble: 1.0}), seed)) for seed in range(8)]
    assert np.mean(softer) < 0.9 * sharpness(scene())


def test_noise_is_stronger_where_there_is_more_light() -> None:
    dark, bright = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    augment = replace(NONE, noise=1.0)
    spread = [troubled(flat, augment, np.random.default_rng(3)).std() for flat in (dark, bright)]
    assert 1 < spread[0] < spread[1]


def test_a_probability_is_how_often() -> None:
    changed = sum((seen(replace(NONE, noise=0.25), seed) != scene()).any() for seed in range(400))
    assert 60 < changed < 140


def test_no_saturation_is_grey_and_exposure_is_in_stops() -> None:
    random = np.random.default_rng(0)
    brighter = [
        coloured(np.full((4, 4, 3), 60, np.uint8), replace(NONE, exposure=1.0), LUMA_BGR, random).mean() for _ in range(300)
    ]
    assert 29 <= min(brighter) < 33
    assert 112 < max(brighter) <= 120


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (7, 5)])
def test_any_size_is_taken(size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    everything = Augment(blur=1, motion=1, noise=1, jpeg=1)
    for seed in range(5):
        assert troubled(picture, everything, np.random.default_rng(seed)).shape == picture.shape
