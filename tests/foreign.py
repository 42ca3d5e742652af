"""Bundles of other people's detectors, written by hand around the files in the shared data."""

from __future__ import annotations

from pathlib import Path

from edge.card import DetectOptions, InputGeometry, Label, TensorInput
from tests.tiny import write_detector

UNIT = (1 / 255,) * 3


def coco_labels(models: Path, gaps: bool = False) -> tuple[Label, ...]:
    """COCO's 80 classes, or with gaps the 90 numbers of which ten have no name."""
    names = (models / "coco_labels.txt").read_text().splitlines()
    return tuple(Label(id=f"coco-{i}", name=name) for i, name in enumerate(names, start=1) if gaps or name != "n/a")


def foreign_bundle(path: Path, models: Path, name: str) -> Path:
    """A bundle of `yolox_nano`, `fastestdet` or `ssd_mobilenet` at `path`."""
    return {"yolox_nano": _yolox, "fastestdet": _fastestdet, "ssd_mobilenet": _ssd}[name](path, models)


def _yolox(path: Path, models: Path) -> Path:
    return write_detector(
        path,
        (models / "yolox_nano_416.onnx").read_bytes(),
        head="yolox",
        labels=coco_labels(models),
        geometry=InputGeometry(width=416, height=416, color="bgr", resize="letterbox", letterbox_anchor="topleft"),
        tensor=TensorInput(name="images", dtype="float32", layout="nchw"),
        outputs={"predictions": "output"},
    )


def _fastestdet(path: Path, models: Path) -> Path:
    return write_detector(
        path,
        (models / "fastestdet_352.onnx").read_bytes(),
        head="fastestdet",
        labels=coco_labels(models),
        geometry=InputGeometry(width=352, height=352, color="bgr", resize="stretch"),
        tensor=TensorInput(name="input.1", dtype="float32", layout="nchw", scale=UNIT),
        outputs={"predictions": "758"},
        options=DetectOptions(iou_threshold=0.45),
    )


def _ssd(path: Path, models: Path) -> Path:
    stem = "TFLite_Detection_PostProcess"
    return write_detector(
        path,
        (models / "ssd_mobilenet_v1_coco_uint8_300.tflite").read_bytes(),
        head="ssd",
        labels=coco_labels(models, gaps=True),
        geometry=InputGeometry(width=300, height=300, resize="stretch"),
        tensor=TensorInput(name="normalized_input_image_tensor"),
        outputs={"boxes": stem, "classes": f"{stem}:1", "scores": f"{stem}:2", "count": f"{stem}:3"},
        engine="tflite",
        precision="int8",
        weight_bits=8,
    )
