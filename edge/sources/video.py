"""A video file: every frame, in order, as fast as it is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from edge.buffers import Pool
from edge.errors import CaptureError, SourceError
from edge.opencv import open_capture
from edge.sources.base import BaseSource
from edge.types import Frame

FALLBACK_FPS = 25.0
SLACK_FRAMES = 5
"""Containers estimate their frame count; a shortfall beyond this and 2% is a damaged file."""


class VideoSource(BaseSource):
    """Frames of a video file; raises CaptureError at the end if the file promised clearly more than it held."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._capture: cv2.VideoCapture | None = None
        self._reading = False

    def open(self) -> None:
        """Open the file and read its rate. Raises SourceError."""
        if not self._path.is_file():
            raise SourceError(f"{self._path}: not a file")
        capture = open_capture(
            str(self._path),
            cv2.CAP_FFMPEG,
            f"{self._path}: not a video that can be decoded; check it with ffprobe, or copy it again",
        )
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if 0 < rate < 1000 else None
        self._capture = capture

    def close(self) -> None:
        """Release the decoder, unless somebody reads: then he does, for its memory must not go in the middle of it."""
        if self._capture is not None and not self._reading:
            self._capture.release()

    def frames(self) -> Iterator[Frame]:
        """Every frame. Raises CaptureError after the last one that could be decoded, if the file is cut short."""
        assert self._capture is not None, "enter the source before iterating"
        self._reading = True
        try:
            yield from self._decoded(self._capture)
        finally:
            self._reading = False
            self._capture.release()

    def _decoded(self, capture: cv2.VideoCapture) -> Iterator[Frame]:
        pool, shape = Pool(), (1, 1, 3)
        sequence = 0
        while not self.stopped:
            started_s = time.monotonic()
            if not capture.grab():
                self._check_end(sequence)
                return
            there, image = capture.retrieve(pool.take(shape))
            captured_s = time.monotonic()
            if not there:
                self._check_end(sequence)
                return
            shape = image.shape  # what the container says may not be what the decoder gives, nor stay the same
            capture_ms = (captured_s - started_s) * 1e3
            media_s = sequence / (self.fps or FALLBACK_FPS)
            yield Frame(image, sequence, captured_s, self.name, capture_ms, media_s=media_s)  # type: ignore[arg-type]
            del image
            sequence += 1

    def _check_end(self, decoded: int) -> None:
        assert self._capture is not None
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if decoded == 0 or decoded < min(promised - SLACK_FRAMES, promised * 0.98):
            raise CaptureError(
                f"{self._path}: ended after {decoded} of {promised} frames, so it is damaged or cut short; copy it again"
            )
