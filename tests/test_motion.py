"""The motion gate: still scenes are skipped, and everything that matters opens it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge.motion import MotionGate, _shrunk
from edge.types import UInt8
from tests.samples import picture

FPS = 10
SIZE_WH = (640, 480)
STREET = picture(*SIZE_WH, seed=1)


@lru_cache
def noises(sigma: float) -> list[npt.NDArray[np.int16]]:
    """A second of noise, over and over."""
    random = np.random.default_rng(0)
    return [np.rint(random.normal(0, sigma, STREET.shape)).astype(np.int16) for _ in range(FPS)]


def noisy(image: UInt8, i: int, sigma: float = 6.0) -> UInt8:
    return cv2.add(image.astype(np.int16), noises(sigma)[i % FPS], dtype=cv2.CV_8U)  # type: ignore[return-value]


def with_walker(left: float, size_wh: tuple[int, int] = (24, 60), value: int = 30) -> UInt8:
    image = STREET.copy()
    x = round(left)
    image[200 : 200 + size_wh[1], x : x + size_wh[0]] = value
    return image


def runs(gate: MotionGate, scene: Callable[[int], UInt8], frames: int, first: int = 0) -> list[bool]:
    return [gate.moves(scene(i), i / FPS) for i in range(first, first + frames)]


def settled(**options: float) -> MotionGate:
    """A gate that has seen two seconds of the empty street."""
    gate = MotionGate(refresh_s=1e9, **options)  # type: ignore[arg-type]
    runs(gate, lambda i: noisy(STREET, i), 20)
    assert not gate.moves(noisy(STREET, 20), 20 / FPS)
    return gate


def test_the_first_frame_is_looked_at() -> None:
    assert MotionGate().moves(STREET, 123.0)


def test_a_still_scene_with_noise_is_skipped_but_for_the_refresh() -> None:
    gate = MotionGate(refresh_s=2.0, calm_frames=5)
    inferred = runs(gate, lambda i: noisy(STREET, i), 100)
    assert [i for i, fresh in enumerate(inferred) if fresh] == [0, 1, 2, 3, 4, 24, 44, 64, 84]
    assert (gate.inferred, gate.skipped) == (9, 91)


@pytest.mark.parametrize("refresh_s", [0.5, 1.0, 3.0])
def test_refresh(refresh_s: float) -> None:
    gate = MotionGate(refresh_s=refresh_s)
    fresh_s = [i / FPS for i, fresh in enumerate(runs(gate, lambda i: STREET, 100)) if fresh]
    assert max(np.diff([*fresh_s, 10.0])) <= refresh_s + 1e-9


def test_someone_walks_in_and_stays() -> None:
    gate = settled()
    inferred = runs(gate, lambda i: noisy(with_walker(min(10.0 * (i - 20), 200)), i), 80, first=21)
    assert all(inferred[:20])
    assert not any(inferred[50:])  # the standing one is part of the scene by now


def test_someone_leaves() -> None:
    gate = settled()
    runs(gate, lambda i: noisy(with_walker(200), i), 60, first=21)
    assert gate.moves(noisy(STREET, 82), 8.2)


@pytest.mark.parametrize("speed", [1.0, 2.0, 5.0])
def test_a_small_slow_mover_is_noticed(speed: float) -> None:
    """1 to 5 pixels of 640 a second: frames next to each other hardly differ, and a background follows."""
    gate = MotionGate(refresh_s=1e9)
    inferred = runs(gate, lambda i: noisy(with_walker(100 + speed * i / FPS), i, 3), 400)
    fresh_s = [i / FPS for i, fresh in enumerate(inferred) if fresh and i > 20]
    moved = np.diff([100.0, *(100 + speed * second for second in fresh_s)])
    assert moved.max() <= 12  # half its width
    assert len(fresh_s) > 0


@pytest.mark.parametrize(("gain", "offset"), [(1.3, 0.0), (0.7, 0.0), (1.0, 30.0), (0.8, 20.0)])
def test_a_jump_of_brightness_does_not_hold_it_open(gain: float, offset: float) -> None:
    gate = settled()
    brighter = np.clip(STREET * gain + offset, 0, 255).astype(np.uint8)
    inferred = runs(gate, lambda i: noisy(brighter, i), 60, first=21)
    assert not any(inferred[30:])


def test_a_jump_of_brightness_without_saturation_is_no_change_at_all() -> None:
    dim = (STREET * 0.5 + 20).astype(np.uint8)
    gate = MotionGate(refresh_s=1e9)
    runs(gate, lambda i: noisy(dim, i), 20)
    assert not any(runs(gate, lambda i: noisy((dim * 1.3).astype(np.uint8), i), 20, first=20))


def test_slow_dusk_is_no_change() -> None:
    gate = settled()
    assert not any(runs(gate, lambda i: noisy((STREET * (1 - i / 400)).astype(np.uint8), i), 150, first=21))


@pytest.mark.parametrize("value", [0, 128])
def test_a_covered_camera_is_a_change(value: int) -> None:
    assert settled().moves(np.full_like(STREET, value), 2.1)


def test_something_before_a_wall_is_a_change() -> None:
    wall = np.full((480, 640, 3), 90, np.uint8)
    gate = MotionGate(refresh_s=1e9)
    runs(gate, lambda i: noisy(wall, i), 20)
    wall[100:160, 100:130] = 140
    assert gate.moves(noisy(wall, 20), 2.0)


def test_hysteresis() -> None:
    """Between the two shares it stays as it is."""
    blocks = {"little": 3, "some": 30, "none": 0}

    def scene(kind: str) -> UInt8:
        image = np.full((72, 96, 3), 100, np.uint8)
        image[10 : 10 + blocks[kind], 10 : 10 + blocks[kind]] = 200
        return image

    gate = MotionGate(start_share=0.01, stop_share=0.0005, calm_frames=2, refresh_s=1e9, adapt_s=1e9)
    told = ["none"] * 3 + ["little"] * 2 + ["some"] + ["none", "little"] * 2 + ["none"] * 4 + ["little"]
    inferred = [gate.moves(scene(kind), float(i)) for i, kind in enumerate(told)]
    assert inferred == [True, True, False, False, False, True, True, True, True, True, True, True, False, False, False]


def test_another_size_is_another_scene() -> None:
    gate = settled()
    assert gate.moves(picture(320, 240), 2.1)
    assert gate.moves(picture(240, 320), 2.2)


@pytest.mark.parametrize(
    ("size_wh", "small_wh"),
    [((768, 576), (96, 72)), ((1920, 1080), (96, 54)), ((1080, 1920), (54, 96)), ((640, 360), (91, 51)), ((1, 1), (1, 1)),
     ((5, 300), (1, 100)), ((3000, 2), (96, 1)), ((3840, 2160), (96, 54))],
)  # fmt: skip
def test_shrunk(size_wh: tuple[int, int], small_wh: tuple[int, int]) -> None:
    small = _shrunk(np.full((size_wh[1], size_wh[0], 3), 77, np.uint8))
    assert small.shape[::-1] == small_wh
    assert (small == 77).all()
    assert small.dtype == np.float32


def test_a_busy_square_is_always_open(shared_data: Path) -> None:
    capture = cv2.VideoCapture(str(shared_data / "videos" / "vtest.avi"))
    gate = MotionGate()
    for i in range(30):
        assert gate.moves(capture.read()[1], i / 10)
    capture.release()
