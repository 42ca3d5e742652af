"""Generated pictures that differ as photographs do, ways to copy them nearly, and data sets of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge.types import UInt8


def scene(seed: int, width: int = 96, height: int = 64) -> UInt8:
    """A picture of its own: coarse random colours, blurred, with a little grain."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(image: UInt8, quality: int = 92) -> bytes:
    """The picture as a JPEG's bytes."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def put(path: Path, content: bytes | str) -> Path:
    """Write a file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def class_set(folder: Path, each: int = 12, parts: tuple[str, ...] = ("train", "val"), names: str = "ab") -> Path:
    """Class folders of `each` pictures of every class in each part, all of them different."""
    for p, part in enumerate(parts or ("",)):
        for c, name in enumerate(names):
            for i in range(each):
                put(folder / part / name / f"{i}.jpg", jpeg(scene(10000 * p + 1000 * c + i)))
    return folder
