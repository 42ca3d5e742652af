"""A network's evaluation: the device's own answers, the same figures as its exported bundle's, and honest intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("faster_coco_eval")

from edge.boxes_data import BoxSample, labelled_boxes
from edge.bundle import open_bundle
from edge.calibration import expected_calibration_error
from edge.card import Label
from edge.classification_metrics import class_counts, class_rows, confusion_matrix
from edge.commands.evaluate import main
from edge.datasets import Sample, class_folders
from edge.detection_metrics import average_precisions
from edge.engines import EngineOptions, open_engine
from edge.errors import DataError
from edge.evaluate import DetectionReport, Report, evaluate
from edge.model import open_model
from edge.pictures import read_picture
from edge.types import Detections, Frame
from quantize.float_model import float_model
from quantize.measure import Measured
from quantize.pack import pack
from quantize.record import Reliability
from quantize.store import Store
from quantize.targets import KINDS, variant_of
from quantize.workshop import Workshop
from tests.conftest import Finished
from tests.quantize import tiny
from train.box_figures import ap50_interval, average_precision, ranked, trade
from train.cross_fit import cross_fit, halves
from train.evaluation import Boxes, Classification, of_bundle, of_network
from train.models import Classifier, Detector
from train.summary import Facts, summarize


def exported(made: Classifier | Detector, path: Path) -> Path:
    """The network's float32 as edge-quantize exports and packs it, its temperature 1."""
    model = float_model(made)
    data = Workshop(model, [], 1, Store(path.parent / "store"), lambda line: None).float32()
    variant = variant_of(KINDS["float32"], data, model.role, tolerance=1e-3)
    picture = np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    engine = open_engine(data, variant, EngineOptions(1))
    golden = engine.infer(model.prepare(Frame(picture, 0, 0.0, "golden")))[model.role]
    engine.close()
    nothing = Reliability(variant="float32", confidence=[], accuracy=[], count=[], ece=0.0)
    pack(path, model, made.name, [Measured(variant, data, golden, {}, nothing)], picture, "none", "tests")
    return path


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Path, Path]:
    """A classifier, its bundle and its pictures."""
    folder = tmp_path_factory.mktemp("classified")
    return tiny.classifier(), exported(tiny.classifier(), folder / "tiny.edge"), tiny.pictures(folder / "data", 20)


@pytest.fixture(scope="module")
def detected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path, Path]:
    """A detector, its bundle, and pictures of which some have a label too many and others one too few.

    They are faded, each more than the one before: scores that only rounding tells apart would have no order.
    """
    folder = tmp_path_factory.mktemp("detected")
    data = tiny.squares(folder / "data", 30)
    for index, path in enumerate(sorted((data / "labels").glob("*.txt"))):
        lines = path.read_text().splitlines()
        if index % 3 == 0:
            path.write_text("\n".join(lines[1:]))
        elif index % 3 == 1:
            path.write_text("\n".join([*lines, f"{index % 2} 0.5 0.5 0.125 0.125"]))
        picture = data / "images" / f"{path.stem}.png"
        faded = 128 + (read_picture(picture).astype(np.float32) - 128) * (0.8 - 0.015 * index)
        cv2.imwrite(str(picture), faded.round().astype(np.uint8))
    return tiny.detector(), exported(tiny.detector(), folder / "squares.edge"), data


def test_a_classifier_and_its_bundle_agree(classified: tuple[Classifier, Path, Path]) -> None:
    model, bundle, data = classified
    samples = class_folders(data, model.labels)
    ours = of_network(model, samples, batch=7)
    loaded = open_model(open_bundle(bundle), threads=1)
    theirs = evaluate(loaded, samples)
    assert isinstance(theirs, Report)
    assert ours.paths == tuple(sample.path for sample in samples)
    assert ours.tally.answers.tolist() == theirs.tally.answers.tolist()
    assert ours.tally.truth.tolist() == theirs.tally.truth.tolist()
    np.testing.assert_allclose(ours.scored.confidence, theirs.scored.confidence, atol=1e-4)
    assert ours.tally.right.mean() == theirs.top1
    assert 0 < theirs.top1 < 1
    assert expected_calibration_error(ours.scored.confidence, ours.scored.right) == pytest.approx(theirs.ece, abs=1e-4)
    assert class_rows(class_counts(ours.tally, 3), model.labels) == class_rows(class_counts(theirs.tally, 3), model.labels)
    again = of_bundle(loaded, model.labels, samples)
    assert isinstance(again, Classification)
    np.testing.assert_allclose(again.logits, ours.logits, atol=1e-3)


def test_a_classifier_s_report_and_edge_eval_agree(
    classified: tuple[Classifier, Path, Path], command: Callable[..., Finished]
) -> None:
    model, bundle, data = classified
    ours = of_network(model, class_folders(data, model.labels))
    summary = summarize(ours, [], Facts(model="tiny"))
    done = command(main, "--model", bundle, "--data", data, "--json", "--confusion", "--threads", 1)
    assert (done.code, done.err) == (0, "")
    row = json.loads(done.out)["variants"]["float32"]
    for name in ("top1", "top5"):
        assert summary.figures[name].value == pytest.approx(row[name], abs=1e-6)
    assert [summary.figures["top1"].low, summary.figures["top1"].high] == pytest.approx(row["top1_interval"], abs=1e-6)
    assert {name: summary.figures[f"macro_{name}"].value for name in row["macro"]} == pytest.approx(row["macro"], abs=1e-6)
    assert summary.calibration.plain.ece == pytest.approx(row["ece"], abs=1e-4)
    agree(summary.classes, row["classes"])
    square = confusion_matrix(ours.tally.truth, ours.tally.answers, 3)
    occurring = class_counts(ours.tally, 3).occurring
    assert row["confusion"] == square[np.ix_(occurring, occurring)].tolist()
    assert sum(one.count for one in summary.confusions) == summary.wrong == square.sum() - np.trace(square)


def agree(ours: list[Any], theirs: list[dict[str, Any]]) -> None:
    """Every figure of every class that edge-eval has."""
    assert [row.id for row in ours] == [row["id"] for row in theirs]
    for own, row in zip(ours, theirs, strict=True):
        assert {name: getattr(own, name) for name in row} == row


def test_a_detector_and_its_bundle_agree(detected: tuple[Detector, Path, Path], command: Callable[..., Finished]) -> None:
    model, bundle, data = detected
    samples = labelled_boxes(data, model.labels)
    ours = of_network(model, samples, batch=4)
    theirs = evaluate(open_model(open_bundle(bundle), threads=1), samples)
    assert isinstance(theirs, DetectionReport)
    assert ours.paths == tuple(sample.path for sample in samples)
    assert sorted(ours.tally.answers.tolist()) == sorted(theirs.tally.answers.tolist())
    summary = summarize(ours, [], Facts(model="squares"))
    row = json.loads(command(main, "--model", bundle, "--data", data, "--json", "--threads", 1).out)["variants"]["float32"]
    for name in ("ap50", "ap"):
        assert summary.figures[name].value == pytest.approx(getattr(theirs, name), abs=1e-6)
        assert summary.figures[name].value == pytest.approx(row[name], abs=1e-6)
    assert 0.5 < row["ap50"] < 0.99
    assert {name: summary.figures[f"macro_{name}"].value for name in row["macro"]} == pytest.approx(row["macro"], abs=1e-6)
    assert summary.calibration.plain.ece == pytest.approx(row["ece"], abs=1e-4)
    assert summary.score_threshold == ours.score_threshold == model.options.score_threshold
    agree(summary.classes, row["classes"])


def test_unreadable_pictures_are_named_and_left_out(classified: tuple[Classifier, Path, Path], tmp_path: Path) -> None:
    model, _, data = classified
    (tmp_path / "bad.png").write_bytes(b"")
    samples = [Sample(tmp_path / "bad.png", 0), *class_folders(data, model.labels)[:5]]
    bad: list[str] = []
    found = of_network(model, samples, batch=2, bad=bad.append)
    assert len(found.paths) == 5
    assert bad == list(found.skipped)
    assert "bad.png" in bad[0]
    with pytest.raises(DataError, match=r"none of 1 pictures to measure on could be read; the first: .*bad\.png"):
        of_network(model, samples[:1])
    with pytest.raises(DataError, match="none given"):
        of_network(model, [])


# confidence


def answered(count: int, sharpness: float, seed: int = 0) -> Classification:
    """Answers right as often as their confidence says at sharpness 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 4))
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (odds.cumsum(1) < random.random((count, 1))).sum(1).clip(0, 3)
    scaled = (logits * sharpness).astype(np.float32)
    told = np.exp(scaled - scaled.max(1, keepdims=True))
    labels = tuple(Label(id=str(index), name=f"class {index}") for index in range(4))
    samples = tuple(Sample(Path(f"pictures/{index}.jpg"), class_id) for index, class_id in enumerate(truth.tolist()))
    return Classification(labels, samples, scaled, (told / told.sum(1, keepdims=True)).astype(np.float32))


def test_a_temperature_is_judged_by_what_it_was_not_fitted_to() -> None:
    evaluation = answered(6000, 3.0)
    fitted = cross_fit(evaluation)
    assert fitted is not None
    assert fitted.temperatures == pytest.approx((3.0, 3.0), rel=0.1)
    assert sum(fitted.counts) == 6000
    before = expected_calibration_error(evaluation.scored.confidence, evaluation.scored.right)
    assert before > 0.15
    assert expected_calibration_error(fitted.scored.confidence, fitted.scored.right) < 0.03
    second = halves(evaluation.paths)  # changing the truth of one half changes the confidence of the other alone
    moved = zip(evaluation.samples, second.tolist(), strict=True)
    other = replace(evaluation, samples=tuple(Sample(one.path, (one.class_id + late) % 4) for one, late in moved))
    changed = cross_fit(other)
    assert changed is not None
    np.testing.assert_array_equal(changed.scored.confidence[second], fitted.scored.confidence[second])
    assert (changed.scored.confidence[~second] != fitted.scored.confidence[~second]).any()


def test_halves_are_the_same_in_any_order_and_folder() -> None:
    paths = [Path(f"a/b/{index}.jpg") for index in range(400)]
    second = halves(paths)
    assert 140 < second.sum() < 260
    assert halves(paths[::-1]).tolist() == second[::-1].tolist()
    assert halves([Path("/elsewhere") / path for path in paths]).tolist() == second.tolist()


def test_of_too_few_nothing_is_fitted() -> None:
    assert cross_fit(answered(12, 1.0)) is None


# boxes


def random_boxes(seed: int, pictures: int = 12, classes: int = 3) -> Boxes:
    """Labelled objects, and detections of which some are near one."""
    random = np.random.default_rng(seed)
    labels = tuple(Label(id=str(index), name=f"class {index}") for index in range(classes))
    truth, found = [], []
    for number in range(pictures):
        count = int(random.integers(0, 4))
        corners = random.uniform(0, 80, (count, 2))
        boxes = np.concatenate((corners, corners + random.uniform(8, 30, (count, 2))), axis=1).astype(np.float32)
        ids = random.integers(0, classes, count)
        truth.append(BoxSample(Path(f"{number}.jpg"), boxes, ids))
        extra = random.uniform(0, 80, (3, 2))
        near = boxes + random.normal(0, 2.5, boxes.shape)
        seen = np.concatenate((near, np.concatenate((extra, extra + 15), axis=1))).astype(np.float32)
        seen_ids = np.concatenate((ids, random.integers(0, classes, 3)))
        scores = random.uniform(0.05, 1, len(seen)).astype(np.float32)
        order = np.argsort(-scores)
        found.append(Detections(seen[order], scores[order], seen_ids[order], tuple(str(i) for i in seen_ids[order])))
    reported = tuple(one[one.scores >= 0.3] for one in found)
    return Boxes(labels, tuple(truth), tuple(found), reported, 0.3)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_cocos(seed: int) -> None:
    boxes = random_boxes(seed)
    coco = average_precisions(boxes.truth, boxes.found)
    classes = sorted(coco.class_ap50)
    once = np.ones(len(boxes.truth), np.int64)
    ours = [average_precision(one, once) for one in ranked(boxes.truth, boxes.found, classes)]
    assert ours == pytest.approx([coco.class_ap50[index] for index in classes], abs=1e-6)
    assert np.mean(list(coco.class_ap50.values())) == pytest.approx(coco.ap50, abs=1e-9)


def test_a_picture_counted_twice_is_the_picture_given_twice() -> None:
    boxes = random_boxes(7)
    times = np.array([index % 3 for index in range(len(boxes.truth))])
    chosen = np.repeat(np.arange(len(boxes.truth)), times).tolist()
    coco = average_precisions([boxes.truth[i] for i in chosen], [boxes.found[i] for i in chosen])
    classes = sorted(coco.class_ap50)
    ours = [average_precision(one, times) for one in ranked(boxes.truth, boxes.found, classes)]
    assert ours == pytest.approx([coco.class_ap50[index] for index in classes], abs=1e-6)


def test_an_interval_holds_the_figure_and_narrows_with_more_pictures() -> None:
    widths = []
    for count in (12, 200):
        boxes = random_boxes(1, count)
        precisions = average_precisions(boxes.truth, boxes.found)
        low, high = ap50_interval(ranked(boxes.truth, boxes.found, sorted(precisions.class_ap50)), precisions.ap50)
        assert 0 <= low < precisions.ap50 < high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_trade_at_the_threshold_is_what_is_reported() -> None:
    boxes = random_boxes(2, 40)
    scores, precision, recall = trade(ranked(boxes.truth, boxes.found, range(3)))
    assert (np.diff(scores) < 0).all()
    at = int(np.flatnonzero(scores >= boxes.score_threshold)[-1])
    tally = boxes.tally
    assert precision[at] == pytest.approx(tally.right.sum() / len(tally.answers))
    assert recall[at] == pytest.approx(tally.right.sum() / len(tally.truth))


def test_boxes_of_a_temperature() -> None:
    fitted = cross_fit(random_boxes(3, 300))
    assert fitted is not None
    assert sum(fitted.counts) == len(fitted.scored.right)
    assert cross_fit(random_boxes(3, 3)) is None
