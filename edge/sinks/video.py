"""The frames with what was seen written on them, as a video file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2

from edge.errors import SourceError, UsageError
from edge.opencv import check_name, open_capture
from edge.types import Event, UInt8

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
FALLBACK_FPS = 15.0
SLACK_FRAMES = 2
"""Some containers tell their frame count by duration, which rounds."""
WHITE, AMBER, GREEN, SHADE = (255, 255, 255), (0, 191, 255), (120, 220, 120), (32, 32, 32)


class VideoSink:
    """Writes one annotated frame a local event; a late answer of the cloud is shown for a second's worth of frames.

    Frames that are not in the finished file, because the disk was full, are counted in `lost` and said at the end.
    """

    def __init__(self, target: str, fps: float | None, say: Callable[[str], None] = lambda line: None) -> None:
        self.lost = 0
        self._say = say
        self._written = 0
        self._path = Path(target)
        self._fps = fps or FALLBACK_FPS
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._revision: Event | None = None
        if self._path.suffix.lower() not in CODECS:
            raise UsageError(f"--video {target}: give a name ending in {', '.join(CODECS)}")
        check_name(target)
        try:
            self._path.open("ab").close()
        except OSError as error:
            raise UsageError(f"--video {target}: {error.strerror}; choose a file that can be written") from None

    def emit(self, event: Event) -> None:
        """Annotate and write a frame."""
        if event.revises:
            self._revision = event
            return
        if self._writer is None:
            self._size_wh = event.frame.size_wh
            codec = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, codec, self._fps, self._size_wh)
        self._written += 1
        if not self._writer.isOpened():
            return
        if self._revision is not None and event.frame.sequence - self._revision.frame.sequence > self._fps:
            self._revision = None
        picture = event.frame.image
        picture = picture.copy() if event.frame.size_wh == self._size_wh else cv2.resize(picture, self._size_wh)  # type: ignore[assignment]
        self._writer.write(annotate(picture, event, self._revision))

    def close(self) -> None:
        """Finish the file and read back how many frames it holds: OpenCV says nothing when it cannot write."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        missing = self._written - self._frames_in_file()
        if missing > SLACK_FRAMES:
            self.lost = missing
            self._say(f"video: {self._path}: {missing} of {self._written} frames are not in it; is the disk full?")

    def _frames_in_file(self) -> int:
        try:
            capture = open_capture(str(self._path), cv2.CAP_FFMPEG, "unreadable")
        except SourceError:
            return 0
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return count


def annotate(picture: UInt8, event: Event, revision: Event | None = None) -> UInt8:
    """Write an event's best class and decision, and the newest answer of the cloud, into `picture` and return it."""
    lines = [(f"{_best(event)}   {event.timings.infer:.1f} ms", WHITE)]
    if event.decision.action == "offload":
        lines[0] = (lines[0][0] + "   asking the cloud", AMBER)
    if revision is not None:
        lines.append((f"cloud, frame {revision.frame.sequence}: {_best(revision)}", GREEN))
    scale = max(0.4, picture.shape[1] / 1100)
    step = round(34 * scale)
    bar = picture[: step * len(lines) + step // 3]
    bar[:] = cv2.addWeighted(bar, 0.35, bar, 0.0, SHADE[0] * 0.65)
    for row, (text, color) in enumerate(lines, start=1):
        cv2.putText(picture, text, (step // 3, row * step - step // 6), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
    return picture


def _best(event: Event) -> str:
    label = event.result.labels[0] if len(event.result) else "nothing"
    return f"{label} {event.result.confidence:.0%}".encode("ascii", "replace").decode()  # all that OpenCV's font has
