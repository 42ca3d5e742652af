"""Other people's detectors on real pictures: the average precision that a wrong decoding would not have."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from edge.boxes_data import labelled_boxes
from edge.bundle import open_bundle
from edge.evaluate import evaluate
from edge.extras import installed
from edge.model import open_model
from edge.types import Detections, Frame
from tests.foreign import coco_labels, foreign_bundle


@pytest.fixture(scope="module")
def coco128(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures with a names file, so that models of 80 and of 90 classes match by name."""
    folder = tmp_path_factory.mktemp("coco128")
    for part in ("images", "labels"):
        (folder / part).symlink_to(shared_data / "coco128" / part)
    (folder / "names").write_text("\n".join(label.name for label in coco_labels(shared_data / "models")))
    return folder


@pytest.mark.parametrize(
    ("name", "engine", "least", "most"),
    [
        ("yolox_nano", "onnx", 0.50, 0.525),  # measured 0.512
        ("fastestdet", "onnx", 0.31, 0.335),  # measured 0.323
        ("ssd_mobilenet", "tflite", 0.30, 0.325),  # measured 0.313, of ten boxes a picture
    ],
)
def test_average_precision(
    shared_data: Path, coco128: Path, tmp_path: Path, name: str, engine: str, least: float, most: float
) -> None:
    pytest.importorskip("faster_coco_eval")
    if not installed(engine):
        pytest.skip(f"the {engine} engine is not installed")
    bundle = open_bundle(foreign_bundle(tmp_path / f"{name}.edge", shared_data / "models", name))
    report = evaluate(open_model(bundle), labelled_boxes(coco128, bundle.card.labels))
    assert (report.images, report.skipped) == (128, 0)
    assert least <= report.ap50 <= most
    assert report.ap < report.ap50


def test_people_in_a_video(shared_data: Path, tmp_path: Path) -> None:
    bundle = open_bundle(foreign_bundle(tmp_path / "yolox_nano.edge", shared_data / "models", "yolox_nano"))
    model = open_model(bundle)
    capture = cv2.VideoCapture(str(shared_data / "videos" / "vtest.avi"))
    done, image = capture.read()
    capture.release()
    assert done
    tensor = model.task.prepare(Frame(image, 0, 0.0, "vtest"))  # type: ignore[arg-type]
    found = model.task.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Detections)
    assert found.labels.count("person") >= 4
    assert (found.boxes_xyxy[:, 2] <= 768).all()
    assert (found.boxes_xyxy[:, 3] <= 576).all()
