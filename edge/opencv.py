"""How this project opens and decodes with OpenCV: quietly, because what concerns the user is in our one line."""

from __future__ import annotations

import os

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read at the first capture

import cv2
import numpy as np

from edge.errors import SourceError
from edge.types import UInt8

# for the whole process: reads and releases complain, too, later and from other threads, and every failure is a return value
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_capture(target: str | int, backend: int, problem: str) -> cv2.VideoCapture:
    """An opened capture. Raises SourceError with the line `problem` when it cannot be opened."""
    capture = cv2.VideoCapture(target, backend)
    if not capture.isOpened():
        raise SourceError(problem)
    return capture


def decode(raw: bytes) -> UInt8 | None:
    """Picture bytes as BGR uint8 [h, w, 3], EXIF orientation applied; None when they are no picture."""
    try:
        return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)  # type: ignore[return-value]
    except cv2.error:  # no bytes, or absurd dimensions
        return None
