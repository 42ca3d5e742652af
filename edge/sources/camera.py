"""A V4L2 camera, read on its own thread so that the loop always gets the newest frame."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from edge.errors import CaptureError, SourceError
from edge.opencv import open_capture
from edge.sources.base import BaseSource
from edge.types import Frame, UInt8

DEADLINE_S = 10.0
"""V4L2's own select in OpenCV gives up after 10 s; a camera that is silent for longer than this is gone."""
STOP_WITHIN_S = 0.1


class CameraSource(BaseSource):
    """`/dev/videoN`: frames that come while the loop is busy replace each other and are counted in `dropped`."""

    live = True

    def __init__(self, index: int, deadline_s: float = DEADLINE_S) -> None:
        super().__init__(f"camera:{index}")
        self._index = index
        self._deadline_s = deadline_s
        self._fresh = threading.Condition()
        self._newest: Frame | None = None
        self._failure: str | None = None
        self._reader: threading.Thread | None = None

    def open(self) -> None:
        """Open the device and start reading. Raises SourceError."""
        device = Path(f"/dev/video{self._index}")
        if not device.exists():
            others = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
            raise SourceError(f"camera {self._index}: {device} does not exist; cameras here: {others}; try --source demo")
        if not os.access(device, os.R_OK | os.W_OK):
            raise SourceError(f"camera {self._index}: no permission to open {device}; add yourself to the group 'video'")
        capture = open_capture(
            self._index,
            cv2.CAP_V4L2,
            f"camera {self._index}: {device} cannot be opened: it is no camera, or another program holds it (fuser {device})",
        )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if 0 < rate < 1000 else None
        self._reader = threading.Thread(target=self._read, args=(capture,), name=self.name, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Stop reading and release the device; a read that never returns is left to its daemon thread."""
        if self._reader is not None:
            self._reader.join(timeout=1.0)

    def frames(self) -> Iterator[Frame]:
        """The newest frame, each at most once. Raises CaptureError when the camera fails or is silent for too long."""
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        deadline_s = time.monotonic() + self._deadline_s
        with self._fresh:
            while self._newest is None:
                if self.stopped:
                    return None
                if self._failure is not None:
                    raise CaptureError(self._failure)
                if time.monotonic() > deadline_s:
                    raise CaptureError(
                        f"camera {self._index}: no frame for {self._deadline_s:.0f} s; check its cable and power"
                    )
                self._fresh.wait(STOP_WITHIN_S)
            frame, self._newest = self._newest, None
        return None if self.stopped else frame

    def _read(self, capture: cv2.VideoCapture) -> None:
        sequence = 0
        try:
            while not self.stopped:
                started_s = time.monotonic()
                there, image = capture.read()
                captured_s = time.monotonic()
                if not there:
                    self._fail(
                        f"camera {self._index}: stopped delivering after {sequence} frames; check its cable, then start again"
                    )
                    return
                picture: UInt8 = image  # type: ignore[assignment]
                self._publish(Frame(picture, sequence, captured_s, self.name, (captured_s - started_s) * 1e3))
                sequence += 1
        except cv2.error as error:
            self._fail(f"camera {self._index}: {error.err}")
        finally:
            capture.release()

    def _publish(self, frame: Frame) -> None:
        with self._fresh:
            if self._newest is not None:
                self.dropped += 1
            self._newest = frame
            self._fresh.notify()

    def _fail(self, line: str) -> None:
        with self._fresh:
            self._failure = line
            self._fresh.notify()
