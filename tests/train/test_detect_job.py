"""The detector's job: what the loop is given, and that a few seconds of it find drawn shapes and tell them apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge.boxes_data import BoxSample  # noqa: E402
from edge.card import Label  # noqa: E402
from edge.pictures import read_picture  # noqa: E402
from quantize.build import Ears, Plan  # noqa: E402
from quantize.build import build as quantized  # noqa: E402
from quantize.cli import GOLDEN_PICTURE  # noqa: E402
from quantize.data import Split  # noqa: E402
from quantize.float_model import float_model  # noqa: E402
from quantize.search import Gates  # noqa: E402
from quantize.store import Store  # noqa: E402
from train.augment import Augment  # noqa: E402
from train.detect import build  # noqa: E402
from train.detect.job import STATISTICS_PICTURES, DetectionJob, average_precision  # noqa: E402
from train.detect.pictures import Views  # noqa: E402
from train.loop import train  # noqa: E402
from train.models import Detector  # noqa: E402
from train.recipe import Recipe  # noqa: E402
from train.team import Team  # noqa: E402

LABELS = [Label(id=name, name=name) for name in ("disc", "bar")]
SIZE_WH = (128, 128)
RECIPE = Recipe(epochs=14, batch=16, rate=2e-3, average=0.9, augment=Augment(least_area=0.5))
ALONE = Team(torch.device("cpu"))


@dataclass(frozen=True)
class Learned:
    before: Detector
    after: Detector
    samples: list[BoxSample]
    val: list[BoxSample]


def shapes(folder: Path, count: int, seed: int) -> list[BoxSample]:
    """Pictures of noise with one or two shapes each: discs and upright bars of any colour."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        picture = random.integers(90, 166, (140, 160, 3), dtype=np.uint8)
        boxes, class_ids = [], []
        for place in range(int(random.integers(1, 3))):
            class_id, colour = int(random.integers(2)), random.choice([20, 240], 3).tolist()
            half_w = int(random.integers(12, 30)) if class_id == 0 else int(random.integers(5, 9))
            half_h = half_w if class_id == 0 else 4 * half_w
            x = int(random.integers(half_w, 80 - half_w)) + 80 * place
            y = int(random.integers(half_h, 140 - half_h))
            if class_id == 0:
                cv2.circle(picture, (x, y), half_w, colour, -1)
            else:
                cv2.rectangle(picture, (x - half_w, y - half_h), (x + half_w, y + half_h), colour, -1)
            boxes.append([x - half_w, y - half_h, x + half_w + 1, y + half_h + 1])
            class_ids.append(class_id)
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), picture)
        samples.append(BoxSample(path, np.array(boxes, np.float32), np.array(class_ids, np.int64)))
    return samples


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A detector of two shapes before and after some seconds of training."""
    folder = tmp_path_factory.mktemp("shapes")
    torch.manual_seed(0)
    detector = build("efficientnet-lite0-det", LABELS, size_wh=SIZE_WH)
    samples, val = shapes(folder / "train", 64, 0), shapes(folder / "val", 24, 1)
    job = DetectionJob(detector, samples, val, RECIPE, views=Views(1.2, 0.25), bad=pytest.fail)
    trained = train(job, RECIPE, team=ALONE)
    return Learned(detector, replace(detector, network=trained.network), samples, val)


@pytest.mark.slow
def test_two_classes_of_drawn_shapes_are_found_and_told_apart(learned: Learned) -> None:
    assert average_precision(learned.before, learned.val)[0] < 0.1
    ap50, ap = average_precision(learned.after, learned.val)
    assert ap50 > 0.8
    assert ap > 0.3
    swapped = [replace(sample, class_ids=1 - sample.class_ids) for sample in learned.val]
    assert average_precision(learned.after, swapped)[0] < 0.2


@pytest.mark.slow
def test_what_was_learned_survives_eight_bits_on_both_engines(learned: Learned, tmp_path: Path) -> None:
    float32, _ = average_precision(learned.after, learned.val)
    assert float32 > 0.8
    names = ("int8-x86", "int8-tflite", "float32")
    train_part = tuple(learned.samples)
    built = quantized(
        float_model(learned.after),
        Split(train_part[:16], train_part[16:], tuple(learned.val), train_part),
        Plan(names, Gates(max_drop=0.05, min_speedup=0.0), minutes=0.3, threads=1, qat="never"),
        golden=read_picture(GOLDEN_PICTURE),
        data_name="shapes",
        store=Store(tmp_path / "store"),
        counter=None,
        ears=Ears(print, pytest.fail, lambda candidate: None, lambda text, share: None),
    )
    ap50 = {one.variant.name: one.metrics["ap50"] for one in built.variants}
    assert set(ap50) == set(names)
    assert ap50["float32"] == pytest.approx(float32, abs=0.01)
    assert all(found > float32 - 0.05 for found in ap50.values())


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> list[BoxSample]:
    return shapes(tmp_path_factory.mktemp("few") / "set", 5, 2)


def job(samples: list[BoxSample], val: list[BoxSample], recipe: Recipe) -> DetectionJob:
    torch.manual_seed(0)
    detector = build("efficientnet-lite0-det", LABELS, size_wh=(64, 64), pretrained=False)
    return DetectionJob(detector, samples, val, recipe, bad=pytest.fail)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(few: list[BoxSample]) -> None:
    made = job(few, [], Recipe(batch=4))
    [(_, batch), _] = made.batches(0, 0, ALONE)
    network, random = made.network.eval(), np.random.default_rng(0)
    network.training = True  # logits, while batch norm's statistics stay those of evaluation
    with torch.no_grad():
        whole = made.loss(network, batch, random)
        parts = [made.loss(network, part, random) for part in batch.parts(2)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_batches_are_counted_and_begin_where_they_are_asked_to(few: list[BoxSample]) -> None:
    made = job(few, [], Recipe(batch=2))
    assert made.batches_an_epoch() == 3
    assert [number for number, _ in made.batches(0, 1, ALONE)] == [1, 2]


def test_statistics_are_measured_on_what_training_sees(few: list[BoxSample]) -> None:
    made = job(few, [], Recipe(batch=4))
    images = [image for batch in made.plain() for image in batch]
    assert STATISTICS_PICTURES <= len(images) < STATISTICS_PICTURES + 4
    assert len({image.numpy().tobytes() for image in images}) == len(images)  # of five pictures: no two looks are the same


def test_without_val_nothing_is_measured(few: list[BoxSample]) -> None:
    made = job(few, [], Recipe(batch=2))
    assert made.measure(made.network) is None
    measured = job(few, few, Recipe(batch=2)).measure(made.network)
    assert measured is not None
    assert 0 <= measured <= 1
