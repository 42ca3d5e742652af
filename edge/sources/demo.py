"""A camera that needs no camera: slow pans over the photographs in the package, fading from one to the next."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge.pictures import read_picture
from edge.sources.base import BaseSource
from edge.types import Frame, UInt8

PHOTOS = Path(__file__).parent.parent / "data" / "photos"
SIZE_WH = (640, 480)
FPS = 15.0
SHOT_FRAMES, FADE_FRAMES = 60, 20
STOP_WITHIN_S = 0.1


class DemoSource(BaseSource):
    """640x480 at 15 frames/s, for ever; frame n is the same picture on every run."""

    def __init__(self) -> None:
        super().__init__("demo", FPS)
        self._photos: list[UInt8] = []

    def open(self) -> None:
        """Read the photographs."""
        self._photos = [read_picture(path) for path in sorted(PHOTOS.glob("*.jpg"))]

    def frames(self) -> Iterator[Frame]:
        """One frame each 1/15 s; a slow reader makes it wait, none is dropped."""
        due_s = time.monotonic()
        sequence = 0
        while True:
            while not self.stopped and (early_s := due_s - time.monotonic()) > 0:
                time.sleep(min(early_s, STOP_WITHIN_S))
            if self.stopped:
                return
            started_s = time.monotonic()
            image = self.picture(sequence)
            captured_s = time.monotonic()
            yield Frame(image, sequence, captured_s, self.name, (captured_s - started_s) * 1e3)
            sequence += 1
            due_s = max(due_s + 1 / FPS, time.monotonic() - 1.0)

    def picture(self, sequence: int) -> UInt8:
        """Frame number `sequence`, BGR uint8 [480, 640, 3]."""
        shot, step = divmod(sequence, SHOT_FRAMES)
        image = self._view(shot, step)
        fading = step - (SHOT_FRAMES - FADE_FRAMES)
        if fading > 0:
            share = fading / FADE_FRAMES
            image = cv2.addWeighted(image, 1 - share, self._view(shot + 1, step - SHOT_FRAMES), share, 0.0)  # type: ignore[assignment]
        return image

    def _view(self, shot: int, step: int) -> UInt8:
        photo = self._photos[shot % len(self._photos)]
        height, width = photo.shape[:2]
        phase = step / SHOT_FRAMES
        zoom = 0.78 + 0.12 * math.cos(math.pi * phase)  # the share of the photograph that is seen
        scale = max(SIZE_WH[0] / width, SIZE_WH[1] / height) / zoom
        left = (width * scale - SIZE_WH[0]) * (0.5 + 0.4 * math.sin(math.pi * (phase - 0.5) + shot))
        top = (height * scale - SIZE_WH[1]) * 0.5
        matrix = np.array([[scale, 0, -left], [0, scale, -top]], np.float32)
        view: UInt8 = cv2.warpAffine(photo, matrix, SIZE_WH, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        return view
