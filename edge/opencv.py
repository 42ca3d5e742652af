"""How this project opens and decodes with OpenCV: quietly, because what concerns the user is in our one line."""

from __future__ import annotations

import os

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read at the first capture

import cv2

from edge.errors import SourceError

# for the whole process: reads and releases complain, too, later and from other threads, and every failure is a return value
if hasattr(cv2.utils, "logging"):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
else:
    getattr(cv2, "setLogLevel")(0)  # noqa: B009 -- OpenCV 4, which OpenCV 5's type stubs do not know


def open_capture(target: str | int, backend: int, problem: str) -> cv2.VideoCapture:
    """An opened capture. Raises SourceError with the line `problem` when it cannot be opened."""
    if isinstance(target, str):
        check_name(target)
    capture = cv2.VideoCapture(target, backend)
    if not capture.isOpened():
        raise SourceError(problem)
    return capture


def check_name(path: str) -> None:
    """Raise SourceError for a file name that is not UTF-8: OpenCV 5.0 would die of a segmentation fault."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{path!a}: its name is not UTF-8, which OpenCV cannot open; rename it") from None
