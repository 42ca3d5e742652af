"""What the tests of emulated boards share: a root with this tree's wheel, pictures that need no resizing, the baseline."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.bundle import open_bundle
from edge.model import open_model
from edge.packaged import DEFAULT_BUNDLE
from edge.sources.demo import DemoSource
from edge.types import Classes, Frame, UInt8
from quantize.instructions import ROOT_SCRIPT, arm64_root

REPOSITORY = Path(__file__).parents[2]
PHOTOS = REPOSITORY / "edge" / "data" / "photos"
BASELINE = Path(__file__).with_name("baseline.json")
RECORD = "EDGE_RECORD_ARM64"
"""With this variable set, figures are written into baseline.json instead of being compared with it."""
UNRESIZED = 256
"""Of a picture of this side Lite0 takes the middle 224 as it is: resizing is where processors differ by a grey level."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def root(wheel: Path) -> Path:
    """An arm64 root with the wheel, both extras installed from ARM wheels."""
    command = ["bash", str(ROOT_SCRIPT), str(arm64_root()), "-c", str(REPOSITORY / "constraints.txt"), f"{wheel}[onnx,tflite]"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHON": sys.executable})
    return arm64_root()


def views(count: int) -> list[UInt8]:
    """Pictures BGR [256, 256, 3] of the photographs in the package."""
    demo = DemoSource()
    demo.open()
    pictures = [demo.picture(60 * (number % 3) + 7 * number) for number in range(count)]
    top, left = (480 - UNRESIZED) // 2, (640 - UNRESIZED) // 2
    return [picture[top : top + UNRESIZED, left : left + UNRESIZED].copy() for picture in pictures]


@pytest.fixture(scope="session")
def short_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 256x256, compressed without loss."""
    return written(tmp_path_factory.mktemp("video") / "short.avi", "FFV1", views(6))


@pytest.fixture(scope="session")
def mjpeg_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames of 640x480 in MJPEG."""
    demo = DemoSource()
    demo.open()
    return written(tmp_path_factory.mktemp("video") / "demo.avi", "MJPG", [demo.picture(3 * number) for number in range(20)])


def written(path: Path, codec: str, pictures: list[UInt8]) -> Path:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 15, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 256x256 in folders named by what the default bundle takes them for here, the last in a wrong one."""
    folder = tmp_path_factory.mktemp("classes")
    bundle = open_bundle(DEFAULT_BUNDLE)
    model = open_model(bundle, variant="int8-tflite", threads=1)
    ids = {label.name: label.id for label in bundle.card.labels}
    for number, picture in enumerate(views(4)):
        tensor = model.task.prepare(Frame(picture, number, 0.0, "views"))
        result = model.task.decode(model.engine.infer(tensor), tensor)
        assert isinstance(result, Classes)
        named = folder / ids[result.labels[0 if number < 3 else 4]]
        named.mkdir(exist_ok=True)
        cv2.imwrite(str(named / f"{number}.png"), picture)
    return folder


@dataclass
class Baseline:
    """The figures in baseline.json, and those that were measured now."""

    recorded: dict[str, Any]
    measured: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str, value: float, within: float = 0.03) -> None:
        """Hold a figure to the recorded one, or record it. Raises AssertionError."""
        self.measured[name] = round(value, 3)
        if os.environ.get(RECORD):
            return
        assert name in self.recorded, f"baseline.json has no {name!r}; run `{RECORD}=1 make arm64`"
        expected = self.recorded[name]
        assert value == pytest.approx(expected, rel=within), (
            f"{name}: {value:.3f}, recorded {expected:.3f}, {within:.0%} allowed; if that is meant, run `{RECORD}=1 make arm64`"
        )


@pytest.fixture(scope="session")
def baseline() -> Iterator[Baseline]:
    """Written when all is done, if it is to be."""
    figures = Baseline(json.loads(BASELINE.read_text()))
    yield figures
    if os.environ.get(RECORD):
        BASELINE.write_text(json.dumps(figures.recorded | figures.measured, indent=1, sort_keys=True) + "\n")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what the emulation took: ten minutes are what CI has for it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(item.nodeid.startswith("tests/arm64/") for item in terminalreporter.stats.get("passed", ())):
        terminalreporter.write_line(f"arm64: {used.ru_utime + used.ru_stime:.0f} s of CPU time, emulation and all")
