"""The frames with what was seen written on them, as a video file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge.errors import SourceError, UsageError
from edge.opencv import check_name, open_capture
from edge.sinks.caption import caption
from edge.sinks.queued import without_picture
from edge.types import NOTHING, Detections, Event, Mask, Notice, Result, UInt8

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
FALLBACK_FPS = 15.0
SLACK_FRAMES = 2
"""Some containers tell their frame count by duration, which rounds."""
WHITE, AMBER, GREEN, SHADE = (255, 255, 255), (0, 191, 255), (120, 220, 120), (32, 32, 32)
BOX_COLORS = ((66, 210, 255), (120, 220, 120), (255, 178, 102), (180, 130, 255), (90, 140, 255), (230, 216, 96))
"""Light ones, for dark letters on them; a class keeps its colour."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
VISIBLE = 0.5
"""The least score of a keypoint that is drawn."""
PLATES = 24
"""Objects that are labelled: more cannot be read, and each costs time."""


class VideoSink:
    """Writes one annotated frame a local event; a late answer of the cloud is shown for a second's worth of frames.

    Of several sources `source` is shown, or the one whose frame comes first; the others are not, which is said once.
    Frames that are not in the finished file, because the disk was full, are counted in `lost` and said at the end.
    """

    wants_images = True

    def __init__(
        self, target: str, fps: float | None, say: Callable[[str], None] = lambda line: None, source: str | None = None
    ) -> None:
        self.lost = 0
        self._say = say
        self._written = 0
        self._path = Path(target)
        self._fps = fps or FALLBACK_FPS
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._revision: Event | None = None
        self._source = source
        self._others_said = False
        if self._path.suffix.lower() not in CODECS:
            raise UsageError(f"--video {target}: give a name ending in {', '.join(CODECS)}")
        check_name(target)
        try:
            self._path.open("ab").close()
        except OSError as error:
            raise UsageError(f"--video {target}: {error.strerror}; choose a file that can be written") from None

    def wants(self, event: Event | Notice) -> bool:
        """Whether the event is of the source that is shown: another's picture must not wait in a queue."""
        if isinstance(event, Notice):
            return False
        source = event.frame.source
        if self._source is None:
            self._source = source
        if source != self._source and not self._others_said:
            self._others_said = True
            self._say(f"video: {self._path}: shows {self._source} only, no frames of {source} or other sources")
        return source == self._source

    def emit(self, event: Event | Notice) -> None:
        """Annotate and write a frame; notices have none."""
        if isinstance(event, Notice) or not self.wants(event):
            return
        if event.revises:
            self._revision = without_picture(event)  # it is kept for a while, and a camera needs its memory
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


def annotate(picture: UInt8, event: Event, revision: Event | None = None, words: bool = True) -> UInt8:
    """Draw an event's objects or mask; with `words` its result and decision, and the cloud's newest answer; gives `picture`."""
    scale = max(0.4, picture.shape[1] / 1100)
    lines = _lines(event, revision) if words else []
    step = round(34 * scale)
    bar_h = step * len(lines) + step // 3 if lines else 0
    if isinstance(event.result, Detections):
        _draw_objects(picture, event.result, event.frame.size_wh, scale, bar_h)
    elif isinstance(event.result, Mask):
        _draw_mask(picture, event.result, event.frame.size_wh)
    if lines:
        bar = picture[:bar_h]
        bar[:] = cv2.addWeighted(bar, 0.35, bar, 0.0, SHADE[0] * 0.65)
    for row, (text, color) in enumerate(lines, start=1):
        cv2.putText(picture, text, (step // 3, row * step - step // 6), FONT, scale, color, 1, cv2.LINE_AA)
    return picture


def _lines(event: Event, revision: Event | None) -> list[tuple[str, tuple[int, int, int]]]:
    """What is written above the picture, and in which colour."""
    first = f"{_words(event.result)}   {event.timings.infer:.1f} ms"
    lines = [(f"{first}   asking the cloud", AMBER) if event.decision.action == "offload" else (first, WHITE)]
    if revision is not None:
        lines.append((f"cloud, frame {revision.frame.sequence}: {_words(revision.result)}", GREEN))
    return lines


def _draw_objects(picture: UInt8, objects: Detections, size_wh: tuple[int, int], scale: float, bar_h: int) -> None:
    """A frame around each object, its keypoints, and its label and score on a plate; `bar_h` rows on top are not for plates."""
    height, width = picture.shape[:2]
    thickness = max(1, round(2 * scale))
    ratio = np.array((width, height) * 2) / np.array(size_wh * 2)  # the video may be of another size than the frame
    corners = np.clip(np.rint(objects.boxes_xyxy * ratio), 0, np.array((width - 1, height - 1) * 2)).astype(int)
    for i in reversed(range(len(objects))):  # the best on top
        left, top, right, bottom = corners[i].tolist()
        color = BOX_COLORS[int(objects.class_ids[i]) % len(BOX_COLORS)]
        cv2.rectangle(picture, (left, top), (right, bottom), color, thickness, cv2.LINE_AA)
        for x, y, score in () if objects.keypoints is None else objects.keypoints[i].tolist():
            if score >= VISIBLE:
                cv2.circle(picture, (round(x * ratio[0]), round(y * ratio[1])), 2 * thickness, color, cv2.FILLED, cv2.LINE_AA)
    _draw_plates(picture, objects, corners.tolist(), max(0.35, 0.7 * scale), thickness, bar_h)


def _draw_plates(
    picture: UInt8, objects: Detections, corners: list[list[int]], font_scale: float, margin: int, bar_h: int
) -> None:
    """Labels and scores, none on another; what finds no free place stays without.

    The surest choose first. Tracked objects do so by their numbers instead: plates must not swap places with each frame.
    """
    height, width = picture.shape[:2]
    taken = [(0, 0, width, bar_h)] if bar_h else []
    tracks, scores = [0] * len(objects) if objects.tracks is None else objects.tracks.tolist(), objects.scores.tolist()
    order = sorted(range(len(objects)), key=lambda i: (tracks[i] <= 0, tracks[i], -scores[i]))
    for i in order[:PLATES]:
        text = _ascii((f"#{tracks[i]} " if tracks[i] else "") + f"{objects.labels[i]} {scores[i]:.0%}")
        (text_w, text_h), below = cv2.getTextSize(text, FONT, font_scale, 1)
        plate = _free_place(corners[i], (text_w + 2 * margin, text_h + below + margin), (width, height), taken)
        if plate is None:
            continue
        taken.append(plate)
        x, y, right, bottom = plate
        color = BOX_COLORS[int(objects.class_ids[i]) % len(BOX_COLORS)]
        cv2.rectangle(picture, (x, y), (right - 1, bottom - 1), color, cv2.FILLED)
        cv2.putText(picture, text, (x + margin, y + text_h + margin), FONT, font_scale, SHADE, 1, cv2.LINE_AA)


def _free_place(
    box: list[int], plate_wh: tuple[int, int], size_wh: tuple[int, int], taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """Where a plate stands, xyxy: above its box, inside on top, below, or inside at the bottom; None: all of it is taken."""
    plate_w, plate_h = plate_wh
    x = max(0, min(box[0], size_wh[0] - plate_w))
    for y in (box[1] - plate_h, box[1], box[3], box[3] - plate_h):
        right, end = x + plate_w, y + plate_h
        others = (x < its[2] and right > its[0] and y < its[3] and end > its[1] for its in taken)
        if y >= 0 and end <= size_wh[1] and not any(others):
            return x, y, right, end
    return None


def _draw_mask(picture: UInt8, mask: Mask, size_wh: tuple[int, int]) -> None:
    """Each class's colour, half transparent, over its cells."""
    height, width = picture.shape[:2]
    ratio = np.array((width, height) * 2) / np.array(size_wh * 2)
    left, top, right, bottom = np.rint(np.array(mask.area_xyxy) * ratio).astype(int).tolist()
    left, top = min(left, width - 1), min(top, height - 1)
    part = picture[top : max(bottom, top + 1), left : max(right, left + 1)]
    class_ids = cv2.resize(mask.class_ids, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_NEAREST)
    colors = np.array(BOX_COLORS, np.uint8)[class_ids % len(BOX_COLORS)]
    np.copyto(part, cv2.addWeighted(part, 0.5, colors, 0.5, 0.0), where=(class_ids != NOTHING)[..., np.newaxis])


def _words(result: Result) -> str:
    return _ascii(caption(result))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()  # all that OpenCV's font has
