"""Accuracy and calibration error against cases worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.boxes_data import BoxSample
from edge.bundle import open_bundle
from edge.calibration import ECE_BINS, expected_calibration_error
from edge.datasets import Sample
from edge.engines.fake import FakeEngine
from edge.errors import DataError
from edge.evaluate import DetectionReport, evaluate
from edge.model import Model, open_model
from edge.tasks.classify import Classify
from tests.samples import encoded, frame, plain, squares
from tests.tiny import COLORS


def by_brightness(tiny_edge: Path, logit: float = 2.0) -> Model:
    """A model that says class g // 10 for a picture of grey g."""
    card = open_bundle(tiny_edge).card
    variant = msgspec.structs.replace(card.variants[0], temperature=1.0)

    def answer(data: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        logits = np.linspace(0, -0.09, 10, dtype=np.float32)  # behind the best, the classes in their order
        logits[round(float(data.mean())) // 10] = logit
        return logits

    return Model("fake", variant, FakeEngine(answer=answer), Classify(card, variant))


def samples(folder: Path, *greys_and_classes: tuple[int, int]) -> list[Sample]:
    found = []
    for number, (grey, class_id) in enumerate(greys_and_classes):
        path = folder / f"{number}.png"
        path.write_bytes(encoded(plain(grey), ".png"))
        found.append(Sample(path, class_id))
    return found


@pytest.mark.parametrize(
    ("cases", "top1", "top5"),
    [
        ([(15, 1), (25, 2), (95, 9)], 1.0, 1.0),
        ([(15, 1), (25, 1)], 0.5, 1.0),  # 1 is among the five of the second: 2, 0, 1, 3, 4
        ([(15, 9), (25, 9)], 0.0, 0.0),
        ([(15, 1), (25, 4), (25, 5), (25, 9)], 0.25, 0.5),
    ],
)
def test_accuracy(tiny_edge: Path, tmp_path: Path, cases: list[tuple[int, int]], top1: float, top5: float) -> None:
    report = evaluate(by_brightness(tiny_edge), samples(tmp_path, *cases))
    assert (report.images, report.skipped, report.top1, report.top5) == (len(cases), 0, top1, top5)
    confidence = float(np.exp(2) / (np.exp(2) + np.exp(np.delete(np.linspace(0, -0.09, 10), cases[0][0] // 10)).sum()))
    assert report.ece == pytest.approx(abs(top1 - confidence), abs=0.01)
    assert report.ms_per_image > 0


def test_unreadable_pictures_are_named_and_left_out(tiny_edge: Path, tmp_path: Path) -> None:
    given_samples = samples(tmp_path, (15, 1), (25, 2))
    given_samples[0].path.write_bytes(b"")
    bad: list[str] = []
    report = evaluate(by_brightness(tiny_edge), given_samples, bad.append)
    assert (report.images, report.skipped, report.top1) == (1, 1, 1.0)
    assert len(bad) == 1
    assert "0.png" in bad[0]


def test_nothing_to_measure_on(tiny_edge: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none given"):
        evaluate(by_brightness(tiny_edge), [])
    with pytest.raises(DataError, match=r"none of 2 pictures could be read; the first: .*gone\.jpg"):
        evaluate(by_brightness(tiny_edge), [Sample(tmp_path / "gone.jpg", 0)] * 2)


@pytest.mark.parametrize(
    ("confidence", "correct", "ece"),
    [
        ([], [], 0.0),
        ([1.0], [True], 0.0),
        ([1.0], [False], 1.0),
        ([0.0], [False], 0.0),
        ([0.0], [True], 1.0),
        ([0.9, 0.9], [True, False], 0.4),
        ([0.5, 0.5], [True, False], 0.0),
        ([0.95, 0.35], [True, False], (0.05 + 0.35) / 2),  # two bins, each with its gap
        ([0.05, 0.1], [True, False], (0.95 + 0.1) / 2),  # the first two bins
        ([0.61, 0.65], [True, False], (0.39 - 0.65) / -2),  # one bin (0.6, 0.667]: the gaps cancel
        ([0.95, 0.94, 0.12, 0.1], [True, True, False, True], (0.05 + 0.06 + abs(0.9 - 0.12)) / 4),
    ],
)
def test_calibration_error_by_hand(confidence: list[float], correct: list[bool], ece: float) -> None:
    assert expected_calibration_error(np.array(confidence, np.float32), np.array(correct, bool)) == pytest.approx(ece, abs=1e-6)


def test_perfect_calibration_has_next_to_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, 200_000).astype(np.float32)
    correct = rng.uniform(0, 1, 200_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.006
    assert expected_calibration_error(confidence, rng.uniform(0, 1, 200_000) < confidence**2) > 0.1


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=50))
def test_calibration_error_against_the_definition(pairs: list[tuple[float, bool]]) -> None:
    confidence = np.array([pair[0] for pair in pairs], np.float32)
    correct = np.array([pair[1] for pair in pairs])
    want, edges = 0.0, np.linspace(0, 1, ECE_BINS + 1)
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = (confidence.astype(np.float64) > low) & (confidence <= high) | ((number == 0) & (confidence == 0))
        if inside.any():
            want += abs(correct[inside].mean() - confidence[inside].astype(np.float64).mean()) * inside.mean()
    near_an_edge = (np.abs(confidence[:, None].astype(np.float64) - edges) < 1e-6).any() and not np.isin(
        confidence, (0, 1)
    ).all()
    if not near_an_edge:
        assert expected_calibration_error(confidence, correct) == pytest.approx(want, abs=1e-6)


# a detector


def scenes(folder: Path) -> list[BoxSample]:
    """Three pictures of the tiny detector's squares: of four labelled objects it finds three, and one that is not there."""
    cells = {"a": [("red", 0, 0), ("blue", 2, 3)], "b": [("green", 1, 1)], "c": []}
    seen = {"a": cells["a"], "b": [], "c": [("red", 3, 3)]}
    seen["b"] = [("green", 1, 1), ("green", 3, 0)]
    labelled = cells | {"b": [("green", 1, 1), ("blue", 0, 3)]}
    found = []
    for name, shown in seen.items():
        (folder / f"{name}.png").write_bytes(encoded(squares(*shown), ".png"))
        boxes = [[8 * x, 8 * y, 8 * x + 8, 8 * y + 8] for _, x, y in labelled[name]]
        class_ids = [COLORS.index(color) for color, _, _ in labelled[name]]
        found.append(
            BoxSample(folder / f"{name}.png", np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, np.int64))
        )
    return found


def test_a_detector_s_accuracy(tiny_detector: Path, tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    model = open_model(open_bundle(tiny_detector))
    report = evaluate(model, scenes(tmp_path))
    assert isinstance(report, DetectionReport)
    assert (report.images, report.skipped) == (3, 0)
    # of equal scores the first counts first: red's right one, green's wrong one; of blue's two one is found
    assert report.ap50 == pytest.approx((1 + 0.5 + 51 / 101) / 3, abs=1e-6)
    by_name = {COLORS[class_id]: ap50 for class_id, ap50 in report.class_ap50.items()}
    assert by_name == pytest.approx({"red": 1.0, "green": 0.5, "blue": 51 / 101}, abs=1e-6)
    assert report.ap == pytest.approx(report.ap50, abs=1e-6)
    assert len(report.tally.truth) == 4
    assert sorted(report.tally.answers[report.tally.right].tolist()) == [
        COLORS.index(name) for name in ("red", "green", "blue")
    ]
    assert report.ece == pytest.approx(2 / 5, abs=1e-3)  # five of score 1, three right
    assert report.ms_per_image > 0


def test_a_detector_is_judged_below_the_score_that_it_reports_from(tiny_detector: Path, tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    model = open_model(open_bundle(tiny_detector))
    (tmp_path / "a.png").write_bytes(encoded(squares(("red", 1, 1), level=60), ".png"))
    sample = BoxSample(tmp_path / "a.png", np.array([[8, 8, 16, 16]], np.float32), np.array([0]))
    assert evaluate(model, [sample]).ap50 == 1.0
    assert len(model.task.decode(model.engine.infer(t := model.task.prepare(frame(squares(("red", 1, 1), level=60)))), t)) == 0


def test_a_detector_and_unreadable_pictures(tiny_detector: Path, tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    given_samples = scenes(tmp_path)
    (tmp_path / "b.png").write_bytes(b"")
    bad: list[str] = []
    report = evaluate(open_model(open_bundle(tiny_detector)), given_samples, bad.append)
    assert (report.images, report.skipped, len(bad)) == (2, 1, 1)
    assert "b.png" in bad[0]
