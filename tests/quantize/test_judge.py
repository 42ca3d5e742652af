"""The pictures that choose: fidelity by kind of output, the task's own metric, and how sure it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")

from edge.datasets import Sample
from edge.errors import InputError
from quantize.data import load_split
from quantize.float_model import float_model
from quantize.judge import Judge
from quantize.targets import KINDS, variant_of
from tests.quantize import tiny

Outputs = list[npt.NDArray[np.float32]]


def ignore(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tiny.pictures(tmp_path_factory.mktemp("judge") / "data", each=4)
    samples = [Sample(folder / name / f"{index}.png", i) for i, name in enumerate(tiny.CLASSES) for index in range(4)]
    return Judge(float_model(tiny.classifier()), samples, ignore)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    model = float_model(tiny.detector())
    split = load_split(tiny.squares(tmp_path_factory.mktemp("judge") / "data"), model.labels, 1, "detect")
    return Judge(model, split.measure, ignore)


def right(judge: Judge, wrong: int = 0) -> Outputs:
    """Logits that are right but for the first `wrong` pictures."""
    outputs = []
    for index, sample in enumerate(judge.truth):
        assert isinstance(sample, Sample)
        logits = np.zeros((1, 3), np.float32)
        logits[0, (sample.class_id + (index < wrong)) % 3] = 4.0
        outputs.append(logits)
    return outputs


def test_top1_and_its_standard_error(classifier: Judge) -> None:
    of = variant_of(KINDS["float32"], b"data", "logits")
    classifier.refer_to(right(classifier))
    same = classifier.verdict(of, right(classifier))
    assert (same.metric, same.error) == (1.0, 0.0)
    assert same.fidelity_db == pytest.approx(120)
    worse = classifier.verdict(of, right(classifier, wrong=3))
    assert worse.metric == 0.75
    assert 0.5 < worse.error / np.sqrt(0.75 * 0.25 / 12) < 1.6  # that of a share of twelve
    assert classifier.verdict(of, right(classifier, wrong=3)) == worse


def test_an_error_both_make_alike_is_no_uncertainty(classifier: Judge) -> None:
    of = variant_of(KINDS["float32"], b"data", "logits")
    classifier.refer_to(right(classifier, wrong=5))
    found = classifier.verdict(of, right(classifier, wrong=5))
    assert found.metric == pytest.approx(7 / 12)
    assert found.error == 0.0


@pytest.mark.parametrize("decibels", [10.0, 25.0])
def test_fidelity_is_signal_over_noise(classifier: Judge, decibels: float) -> None:
    reference = right(classifier)
    classifier.refer_to(reference)
    random = np.random.default_rng(0)
    noise = [random.choice([-1.0, 1.0], (1, 3)) * np.sqrt(np.square(one).mean() * 10 ** (-decibels / 10)) for one in reference]
    noisy = [(one + error).astype(np.float32) for one, error in zip(reference, noise, strict=True)]
    assert -10 * np.log10(classifier.noise(noisy)) == pytest.approx(decibels, abs=0.1)


def test_outputs_that_are_not_finite_are_infinitely_noisy(classifier: Judge) -> None:
    classifier.refer_to(right(classifier))
    assert classifier.noise([np.full((1, 3), np.nan, np.float32)] * 12) == np.inf


def predictions(judge: Judge, shift: float = 0.0, scale: float = 1.0) -> Outputs:
    """YOLOX rows that find every square, `shift` cells to the side, all scores times `scale`."""
    cells = tiny.DETECTOR_SIZE // tiny.CELL
    outputs = []
    for sample in judge.truth:
        rows = np.zeros((1, 84, 8), np.float32)
        for box, class_id in zip(sample.boxes_xyxy, sample.class_ids, strict=True):  # type: ignore[union-attr]
            row = int(box[1] // tiny.CELL) * cells + int(box[0] // tiny.CELL)
            rows[0, row] = [0.5 + shift, 0.5, 0, 0, *(scale * one for one in (1.0, *np.eye(3)[class_id]))]
        outputs.append(rows)
    return outputs


def test_average_precision_of_boxes(detector: Judge) -> None:
    of = variant_of(KINDS["float32"], b"data", "predictions")
    detector.refer_to(predictions(detector))
    assert detector.metric(of, predictions(detector)) == pytest.approx(1.0)
    assert detector.metric(of, predictions(detector, shift=0.6)) == 0.0
    found = detector.verdict(of, predictions(detector, scale=0.9))
    assert (found.metric, found.error) == (pytest.approx(1.0), 0.0)


def test_boxes_and_scores_count_alike_however_large_they_are(detector: Judge) -> None:
    detector.refer_to(predictions(detector))
    boxes, scores = predictions(detector), predictions(detector)
    for one, other in zip(boxes, scores, strict=True):
        one[..., :4] *= 1.1
        other[..., 4:] *= 1.1
    assert detector.noise(boxes) == pytest.approx(detector.noise(scores), rel=1e-3)
    assert detector.noise(boxes) == pytest.approx(0.01 / 2, rel=1e-3)


def test_pictures_that_cannot_be_read_are_named_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "data", each=2)
    (folder / "red" / "0.png").write_bytes(b"no picture")
    model = float_model(tiny.classifier())
    heard: list[str] = []
    judge = Judge(model, [Sample(folder / "red" / f"{index}.png", 2) for index in range(2)], heard.append)
    assert len(judge.tensors) == len(judge.truth) == 1
    assert [("red/0.png" in line, "\n" in line) for line in heard] == [(True, False)]
    with pytest.raises(InputError, match="none of the pictures that choose"):
        Judge(model, [Sample(folder / "red" / "0.png", 2)], heard.append)


def test_the_key_says_which_pictures_these_are(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "data", each=3)
    model = float_model(tiny.classifier())
    samples = [Sample(folder / "red" / f"{index}.png", 2) for index in range(3)]
    assert Judge(model, samples, ignore).key == Judge(model, samples, ignore).key
    assert Judge(model, samples[:2], ignore).key != Judge(model, samples, ignore).key
