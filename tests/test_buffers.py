"""Memory that is leased: when it comes back, that it is used again, and that nobody shares it."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from edge import geometry as geometry_module
from edge.buffers import KEPT, SHAPES, Pool, leased
from edge.card import InputGeometry
from edge.geometry import prepare
from edge.sources.video import VideoSource
from edge.types import Frame, UInt8
from tests.samples import frame, picture, video

SHAPE = (48, 64, 3)


def address(array: UInt8) -> int:
    return int(array.__array_interface__["data"][0])


# leases

VIEWS = {
    "itself": lambda array: array,
    "slice": lambda array: array[10:20, ::2],
    "slice of a slice": lambda array: array[10:20][1:3],
    "reshaped": lambda array: array.reshape(-1),
    "row": lambda array: array[0],
    "frombuffer": lambda array: np.frombuffer(array, np.uint8),
    "memoryview": lambda array: memoryview(array),
    "asarray of a transposed": lambda array: np.asarray(array.transpose(2, 0, 1)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_lease_ends_with_the_last_view(name: str) -> None:
    memory, returned = np.zeros(SHAPE, np.uint8), []
    array = leased(memory, lambda: returned.append(True))
    view = VIEWS[name](array)
    del array
    gc.collect()
    assert returned == []
    del view
    assert returned == [True]


def test_a_lease_is_the_memory_itself() -> None:
    memory = np.zeros(SHAPE, np.uint8)
    array = leased(memory, lambda: None)
    assert np.shares_memory(array, memory)
    assert (array.shape, array.dtype) == (SHAPE, np.uint8)
    array[5] = 7
    assert (memory[5] == 7).all()


def test_a_copy_is_no_lease() -> None:
    returned: list[bool] = []
    copy = leased(np.zeros(SHAPE, np.uint8), lambda: returned.append(True)).copy()
    assert returned == [True]
    assert copy.shape == SHAPE


# pools


def test_a_steady_state_allocates_nothing() -> None:
    pool = Pool()
    for _ in range(1000):
        one, other = pool.take(SHAPE), pool.take(SHAPE)
        del one, other
    assert pool.allocated == 2


def test_what_is_held_is_not_given_out_again() -> None:
    pool = Pool()
    held = [pool.take(SHAPE) for _ in range(20)]
    assert len({address(array) for array in held}) == 20
    assert pool.allocated == 20


def test_a_pool_keeps_a_few_buffers_of_a_few_shapes() -> None:
    pool = Pool()
    held = [pool.take(SHAPE) for _ in range(KEPT + 5)]
    del held
    again = [pool.take(SHAPE) for _ in range(KEPT + 5)]
    assert pool.allocated == KEPT + 5 + 5
    del again
    for height in range(1, 3 * SHAPES):  # as with a stream whose size changes all the time
        assert pool.take((height, 4, 3)).shape == (height, 4, 3)
    assert len(pool._free) <= SHAPES


def test_a_shape_that_was_forgotten_may_still_come_back() -> None:
    pool = Pool()
    held = pool.take(SHAPE)
    for height in range(1, SHAPES + 2):
        pool.take((height, 4, 3))
    held[:] = 9
    del held
    assert pool.take(SHAPE).shape == SHAPE


def test_threads_never_share_a_buffer() -> None:
    pool, torn = Pool(), []

    def work(value: int) -> None:
        for _ in range(300):
            array = pool.take(SHAPE)
            array[:] = value
            if not (array == value).all():
                torn.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torn == []
    assert pool.allocated <= 2 * len(threads)  # each holds one while it takes another


def test_a_buffer_taken_by_one_thread_comes_back_from_another() -> None:
    pool = Pool()
    box = [pool.take(SHAPE)]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    pool.take(SHAPE)
    assert pool.allocated == 1


# tensors


SPECS = [
    InputGeometry(width=32, height=24, color=color, resize=resize, crop_fraction=0.875)
    for color in ("rgb", "bgr")
    for resize in ("letterbox", "crop", "stretch")
]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A new pool for `prepare`."""
    fresh = Pool()
    monkeypatch.setattr(geometry_module, "POOL", fresh)
    return fresh


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.color}-{spec.resize}")
def test_prepare_uses_memory_again(pool: Pool, spec: InputGeometry) -> None:
    of = frame(picture(100, 75))
    first = prepare(of, spec).data.copy()
    allocated = pool.allocated
    for _ in range(100):
        np.testing.assert_array_equal(prepare(of, spec).data, first)
    assert pool.allocated == allocated <= 2


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.color}-{spec.resize}")
def test_live_tensors_share_nothing(pool: Pool, spec: InputGeometry) -> None:
    prepare(frame(picture(100, 75, seed=9)), spec)  # leaves memory that is not zero
    tensors = [prepare(frame(picture(100, 75, seed=seed)), spec) for seed in range(4)]
    kept = [tensor.data.copy() for tensor in tensors]
    prepare(frame(picture(100, 75, seed=5)), spec)
    for number, tensor in enumerate(tensors):
        np.testing.assert_array_equal(tensor.data, kept[number])
        assert not any(np.shares_memory(tensor.data, other.data) for other in tensors[:number])


def test_a_tensor_of_the_same_size_is_no_view_of_the_frame(pool: Pool) -> None:
    of = frame(picture(32, 24))
    tensor = prepare(of, InputGeometry(width=32, height=24, color="bgr", resize="stretch"))
    np.testing.assert_array_equal(tensor.data[0], of.image)
    assert not np.shares_memory(tensor.data, of.image)


# videos


def test_a_video_uses_few_buffers(tmp_path: Path) -> None:
    used: set[int] = set()
    with VideoSource(video(tmp_path / "a.avi", frames=100)) as source:
        for one in source:
            used.add(address(one.image))
    assert one.sequence == 99
    assert len(used) <= 4


def test_frames_of_a_video_that_are_held_keep_their_pictures(tmp_path: Path) -> None:
    held: list[tuple[Frame, UInt8]] = []
    with VideoSource(video(tmp_path / "a.avi", frames=60)) as source:
        held.extend((one, one.image.copy()) for one in source if one.sequence % 3 == 0)
    assert len(held) == 20
    for one, kept in held:
        np.testing.assert_array_equal(one.image, kept)
