"""Pictures with boxes: boxes follow what they are of, whatever is done to the picture, and nothing depends on who asks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge.boxes_data import BoxSample  # noqa: E402
from edge.card import InputGeometry  # noqa: E402
from edge.geometry import prepare  # noqa: E402
from edge.types import Frame  # noqa: E402
from train.augment import AUGMENTS, Augment  # noqa: E402
from train.detect.pictures import LEAST_VISIBLE, Boxes, BoxPictures, Views  # noqa: E402

SPEC = InputGeometry(width=96, height=64, color="rgb", resize="letterbox")
STILL = AUGMENTS["none"]
MOVING = Augment(exposure=0, balance=0, saturation=0)
MEAN, STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
SIZES_WH = ((120, 80), (60, 100), (200, 90), (64, 64), (90, 140), (96, 64))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[BoxSample]:
    """One white rectangle on black in each picture, and its box."""
    folder = tmp_path_factory.mktemp("boxes")
    random = np.random.default_rng(0)
    made = []
    for index, (width, height) in enumerate(SIZES_WH):
        left, top = int(random.integers(width // 3)), int(random.integers(height // 3))
        right, bottom = left + width // 3 + 8, top + height // 3 + 8
        picture = np.zeros((height, width, 3), np.uint8)
        picture[top:bottom, left:right] = 255
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), picture)
        box = np.array([[left, top, right, bottom]], np.float32)
        made.append(BoxSample(path, box, np.array([index % 2], np.int64)))
    return made


def loader(samples: list[BoxSample], spec: InputGeometry = SPEC) -> BoxPictures:
    return BoxPictures(samples, spec, MEAN, STD, pytest.fail)


def bright(image: torch.Tensor) -> np.ndarray:
    """The box around what is white in a normalized input."""
    rows, columns = np.nonzero((image * 128 + 127 > 200).all(0).numpy())
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("shrink", [1.0, 2.0])
def test_a_box_is_where_its_object_went(samples: list[BoxSample], resize: str, shrink: float) -> None:
    spec = InputGeometry(width=96, height=64, resize=resize, pad_value=0)  # type: ignore[arg-type]
    seen = 0
    for epoch in range(8):
        for _, batch in loader(samples, spec).steps(epoch, 4, 0, MOVING, Views(shrink, mosaic=0.0)):
            for image, boxes, class_ids in zip(batch.images, batch.boxes_xyxy, batch.class_ids, strict=True):
                if int(class_ids[0]) >= 0 and min(boxes[0, 2:] - boxes[0, :2]) > 3:
                    np.testing.assert_allclose(boxes[0].numpy(), bright(image), atol=1.6)
                    seen += 1
    assert seen > 40


def test_four_pictures_have_all_their_objects_in_their_quarters(samples: list[BoxSample]) -> None:
    spec = InputGeometry(width=96, height=64, resize="letterbox", pad_value=0)
    counts = []
    for _, batch in loader(samples, spec).steps(0, 6, 0, STILL, Views(1.0, mosaic=1.0)):
        for image, boxes, class_ids in zip(batch.images, batch.boxes_xyxy, batch.class_ids, strict=True):
            white = (image * 128 + 127 > 200).all(0).numpy()
            counts.append(int((class_ids >= 0).sum()))
            for left, top, right, bottom in boxes[class_ids >= 0].round().int().tolist():
                inside = white[top:bottom, left:right]
                assert inside.mean() > 0.75
                white[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False
            assert not white.any()  # nothing white is outside of every box
    assert counts == [4] * 6


def test_plain_pictures_are_the_devices_own(samples: list[BoxSample]) -> None:
    [batch] = loader(samples).plain(8)
    wanted = {}
    for sample in samples:
        tensor = prepare(Frame(cv2.imread(str(sample.path)), 0, 0.0, ""), SPEC)
        pixels = (torch.from_numpy(tensor.data[0]).permute(2, 0, 1).float() - 127) / 128
        wanted[pixels.numpy().tobytes()] = int(sample.class_ids[0])
    seen = {image.numpy().tobytes(): int(class_ids[0]) for image, class_ids in zip(batch.images, batch.class_ids, strict=True)}
    assert seen == wanted
    for image, boxes in zip(batch.images, batch.boxes_xyxy, strict=True):
        np.testing.assert_allclose(boxes[0].numpy(), bright(image), atol=1.6)


def same(a: object, b: object) -> bool:
    tensors = ("images", "boxes_xyxy", "class_ids", "ignored")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)


def test_an_epoch_is_the_same_again_from_wherever_it_begins(samples: list[BoxSample]) -> None:
    pictures, arguments = loader(samples), (3, 2, 7, AUGMENTS["camera"], Views())
    whole = dict(pictures.steps(*arguments))
    assert sorted(whole) == [0, 1, 2]
    for number, batch in pictures.steps(*arguments, first=1):
        assert number > 0
        assert same(batch, whole[number])
    other = dict(pictures.steps(4, *arguments[1:]))
    assert not same(other[0], whole[0])


def test_processes_share_a_batch_without_gap_or_overlap(samples: list[BoxSample]) -> None:
    pictures, arguments = loader(samples), (0, 4, 0, MOVING, Views(mosaic=0.0))
    whole = dict(pictures.steps(*arguments))
    shares = [dict(pictures.steps(*arguments, rank=rank, world=2)) for rank in range(2)]
    for number, batch in whole.items():
        for rank in range(2):
            assert torch.equal(batch.images[rank::2], shares[rank][number].images)


def test_pictures_that_cannot_be_read_are_named_and_left_out(samples: list[BoxSample], tmp_path: Path) -> None:
    gone = BoxSample(tmp_path / "gone.jpg", np.array([[0, 0, 9, 9]], np.float32), np.array([0], np.int64))
    lines: list[str] = []
    pictures = BoxPictures([*samples, gone], SPEC, MEAN, STD, lines.append)
    batches = dict(pictures.steps(0, 7, 0, MOVING, Views(mosaic=0.0)))
    assert len(batches[0]) == 6
    assert len(lines) == 1
    assert "gone.jpg" in lines[0]
    alone = BoxPictures([gone], SPEC, MEAN, STD, lines.append)
    assert not list(alone.steps(0, 1, 0, MOVING, Views()))
    assert not list(alone.plain(1))


def test_a_batch_in_parts_is_the_batch(samples: list[BoxSample]) -> None:
    [batch] = loader(samples).plain(8)
    parts = batch.parts(4)
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    assert torch.equal(torch.cat([part.boxes_xyxy for part in parts]), batch.boxes_xyxy)
    assert batch.to(torch.device("cpu")) is batch


def test_what_little_is_left_of_is_ignored_and_what_nothing_is_left_of_is_gone() -> None:
    xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 100], [0, 0, 10, 20], [50, 50, 60, 60]], np.float32)
    boxes = Boxes(xyxy, np.arange(4), np.zeros(4, np.bool_)).clipped(0, 0, 10, 100 * LEAST_VISIBLE / 4)
    np.testing.assert_array_equal(boxes.class_ids, [0, 1, 2])
    np.testing.assert_array_equal(boxes.ignored, [False, True, False])
    np.testing.assert_array_equal(boxes.xyxy[:, 3], [10, 10, 10])


def test_ignored_objects_and_specks_stay_ignored(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), np.zeros((64, 96, 3), np.uint8))
    xyxy = np.array([[0, 0, 30, 30], [40, 40, 41, 41], [50, 10, 90, 60]], np.float32)
    sample = BoxSample(path, xyxy, np.array([0, 1, 1], np.int64), np.array([True, False, False]))
    [batch] = loader([sample]).plain(1)
    assert batch.ignored[0].tolist() == [True, True, False]
    assert batch.class_ids[0].tolist() == [0, 1, 1]
