"""Training pictures: as the device would see them when plain, changed at random when augmented, always the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from edge.card import InputGeometry  # noqa: E402
from edge.datasets import Sample, class_folders, frames  # noqa: E402
from edge.geometry import prepare  # noqa: E402
from edge.types import Frame  # noqa: E402
from tests.quantize import tiny  # noqa: E402
from train.augment import Augment  # noqa: E402
from train.pictures import Pictures, augmented  # noqa: E402

NOTHING = Augment(least_area=1, aspect=1, flip=False, exposure=0, balance=0, saturation=0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return class_folders(tiny.pictures(tmp_path_factory.mktemp("pictures") / "set"), tiny.classifier().labels)


def loader(samples: list[Sample]) -> Pictures:
    classifier = tiny.classifier()
    return Pictures(samples, classifier.input, classifier.mean, classifier.std, pytest.fail)


def picture(height: int = 40, width: int = 48) -> Frame:
    return Frame(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8), 0, 0.0, "test")


def test_plain_pictures_are_the_devices_own_and_each_comes_once(samples: list[Sample]) -> None:
    classifier = tiny.classifier()
    wanted = {}
    for frame, class_id in frames(samples, pytest.fail):
        pixels = torch.from_numpy(prepare(frame, classifier.input).data).permute(0, 3, 1, 2).float()
        wanted[((pixels - 127) / 128).numpy().tobytes()] = class_id
    batches = list(loader(samples).plain(5))
    assert [len(batch.images) for batch in batches] == [5, 5, 5, 5, 4]
    seen = {
        image.numpy().tobytes(): int(class_id)
        for batch in batches
        for image, class_id in zip(batch.images, batch.class_ids, strict=True)
    }
    assert seen == wanted
    assert len(set(batches[0].class_ids.tolist())) > 1  # mixed, for the statistics of batch norm


def test_a_limit_takes_some_of_every_class(samples: list[Sample]) -> None:
    [batch] = loader(samples).plain(12, limit=12)
    assert set(batch.class_ids.tolist()) == {0, 1, 2}


def test_an_epoch_holds_every_picture_and_fills_up_its_last_batch(samples: list[Sample]) -> None:
    batches = list(loader(samples).epoch(0, 7, 0, NOTHING))
    assert [len(batch.images) for batch in batches] == [7, 7, 7, 7]
    classes = torch.cat([batch.class_ids for batch in batches])
    assert torch.bincount(classes[:24]).tolist() == [8, 8, 8]
    assert classes[24:].tolist() == classes[:4].tolist()
    assert batches[0].images.is_contiguous(memory_format=torch.channels_last)


def test_what_is_random_depends_on_seed_and_epoch_alone(samples: list[Sample]) -> None:
    def first(epoch: int, seed: int) -> bytes:
        return bytes(next(loader(samples).epoch(epoch, 8, seed, Augment())).images.numpy().tobytes())

    assert first(0, 0) == first(0, 0)
    assert len({first(0, 0), first(1, 0), first(0, 1)}) == 3


def test_unreadable_pictures_are_named_and_left_out(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8torn")
    named: list[str] = []
    classifier = tiny.classifier()
    mixed = [*samples[:3], Sample(tmp_path / "torn.jpg", 0)]
    pictures = Pictures(mixed, classifier.input, classifier.mean, classifier.std, named.append)
    assert sum(len(batch.images) for batch in pictures.plain(2)) == 3
    assert len(named) == 1
    assert "torn.jpg" in named[0]


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("resize", ["crop", "stretch", "letterbox"])
def test_nothing_random_is_the_devices_own_resize(resize: str, color: str) -> None:
    spec = InputGeometry(width=24, height=32, resize=resize, color=color)  # type: ignore[arg-type]
    frame = picture(64, 48) if resize == "crop" else picture()  # a crop of another shape is anywhere
    np.testing.assert_array_equal(augmented(frame, spec, NOTHING, np.random.default_rng(0)), prepare(frame, spec).data[0])


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    resize=st.sampled_from(["crop", "stretch", "letterbox"]),
    seed=st.integers(0, 1000),
)
def test_any_size_of_picture_gives_the_models_size(height: int, width: int, resize: str, seed: int) -> None:
    spec = InputGeometry(width=9, height=16, resize=resize)  # type: ignore[arg-type]
    pixels = augmented(picture(height, width), spec, Augment(least_area=0.05), np.random.default_rng(seed))
    assert pixels.shape == (16, 9, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_no_saturation_is_luma_whatever_the_order_of_colours(color: str) -> None:
    green = Frame(np.full((8, 8, 3), (0, 200, 0), np.uint8), 0, 0.0, "green")
    spec = InputGeometry(width=8, height=8, color=color)  # type: ignore[arg-type]
    grey = augmented(green, spec, Augment(1, 1, False, 0, 0, 0), np.random.default_rng(0))
    assert grey[0, 0].tolist() == [0, 200, 0]
    blue = Frame(np.full((8, 8, 3), (200, 0, 0), np.uint8), 0, 0.0, "blue")
    changed = [augmented(blue, spec, Augment(1, 1, False, 0, 0, 1.0), np.random.default_rng(seed))[0, 0] for seed in range(20)]
    luma = 0.114 * 200
    at = 2 if color == "rgb" else 0
    for pixel in changed:  # grey stays where it is, and colour moves away from or towards it
        others = [int(pixel[i]) for i in range(3) if i != at]
        assert others[0] == others[1] <= luma + 1
        assert pixel[at] >= luma - 1
