"""Small pictures, frames, events and bundles for tests, and ways to damage them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.bundle import pack_golden, sha256
from edge.types import Classes, Decision, Detections, Event, Frame, UInt8


def picture(width: int = 64, height: int = 48, seed: int = 0) -> UInt8:
    """A smooth BGR picture, the same for the same arguments."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: UInt8 | None = None, suffix: str = ".jpg") -> bytes:
    """The bytes of a picture file."""
    done, data = cv2.imencode(suffix, picture() if image is None else image)
    assert done
    return data.tobytes()


def plain(value: int, width: int = 32, height: int = 32) -> UInt8:
    """A picture of one grey."""
    return np.full((height, width, 3), value, np.uint8)


def video(path: Path, frames: int = 12, size_wh: tuple[int, int] = (64, 48), fps: float = 10.0) -> Path:
    """A small video whose frames differ."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, size_wh)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(picture(*size_wh, seed=number))
    writer.release()
    return path


def frame(image: UInt8 | None = None, sequence: int = 0, captured_s: float = 0.0, **more: Any) -> Frame:
    """A Frame from nowhere in particular."""
    return Frame(picture() if image is None else image, sequence, captured_s, more.pop("source", "test"), **more)


def event(of: Frame | None = None, *, action: str = "accept", scores: tuple[float, ...] = (0.75, 0.125), **more: Any) -> Event:
    """An Event whose classes are `class 0`, `class 1`, ..."""
    labels = tuple(f"class {i}" for i in range(len(scores)))
    result = Classes(np.arange(len(scores)), np.array(scores, np.float32), labels)
    of = of or frame()
    defaults = {"model": "tiny", "variant": "float32", "emitted_s": of.captured_s + 0.02, "captured_at_s": 1.7e9}
    confidence = scores[0] if scores else 0.0
    return Event(of, result, Decision(action, "because", confidence), **(defaults | more))  # type: ignore[arg-type]


def detections(*objects: tuple[str, float, tuple[float, float, float, float]], class_ids: tuple[int, ...] = ()) -> Detections:
    """Detections of (label, score, box) each; without class ids the classes are numbered as they come."""
    return Detections(
        np.array([box for _, _, box in objects], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in objects], np.float32),
        np.array(class_ids or range(len(objects)), np.int64),
        tuple(label for label, _, _ in objects),
    )


def squares(*cells: tuple[str, int, int], level: int = 255) -> UInt8:
    """A black BGR picture of 32 x 32 with 8 x 8 squares of (color, column, row), which the tiny detector finds."""
    image = np.zeros((32, 32, 3), np.uint8)
    for color, column, row in cells:
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, "bgr".index(color[0])] = level
    return image


def entries_of(bundle: Path) -> dict[str, bytes]:
    """Every file of a bundle, by name; card.json first."""
    if bundle.is_dir():
        return {path.name: path.read_bytes() for path in sorted(bundle.iterdir())}
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path: Path, entries: Mapping[str, bytes]) -> Path:
    """A folder, or a zip when `path` ends in .edge, of whatever `entries` says, unchecked."""
    if path.suffix == ".edge":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(zipfile.ZipInfo(name), data)
    else:
        path.mkdir(parents=True)
        for name, data in entries.items():
            (path / name).write_bytes(data)
    return path


def with_card(entries: Mapping[str, bytes], change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """The same bundle with its card changed."""
    card = json.loads(entries["card.json"])
    change(card)
    return dict(entries) | {"card.json": json.dumps(card).encode()}


def with_file(entries: Mapping[str, bytes], name: str, data: bytes) -> dict[str, bytes]:
    """The same bundle with one file replaced, and the card's hash and size of it to match."""

    def rehash(card: dict[str, Any]) -> None:
        for part in (card["golden"], *card["variants"]):
            if part.get("file", "golden.npz") == name:
                part["file"], part["sha256"], part["bytes"] = name, sha256(data), len(data)

    return with_card(entries, rehash) | {name: data}


def with_expected(entries: Mapping[str, bytes], expected: Mapping[str, Any], image: UInt8 | None = None) -> dict[str, bytes]:
    """The same bundle whose golden check expects `expected`, variant → logits."""
    if image is None:
        image = golden_arrays(entries)["input"]
    arrays = {name: {"logits": np.asarray(logits, np.float32)} for name, logits in expected.items()}
    return with_file(entries, "golden.npz", pack_golden(image, arrays))


def golden_arrays(entries: Mapping[str, bytes]) -> dict[str, Any]:
    """The arrays of golden.npz."""
    with np.load(io.BytesIO(entries["golden.npz"])) as arrays:
        return {name: arrays[name] for name in arrays.files}
