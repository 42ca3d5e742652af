"""What a reader process reads from: cameras and streams by kind, each opened by its constructor."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import cv2
import msgspec

from edge.errors import SourceError
from edge.opencv import open_capture
from edge.types import UInt8

LOW_LATENCY = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|fpsprobesize;0"
"""For FFmpeg: whole pictures rather than torn ones (TCP), none kept back to smooth the rate or to learn it."""
CLOCKED = ("rtsp", "rtsps", "rtmp", "srt")
"""Schemes whose streams carry the camera's own clock."""
OPEN_MS, READ_MS = 10_000, 600_000
"""FFmpeg's own deadlines, behind the supervisor's, which kills sooner."""


class DeviceSpec(msgspec.Struct, frozen=True):
    """What to open: a kind of `DEVICES`, its address, and what to ask for; 0 leaves a choice to the device."""

    kind: str
    address: str
    size_wh: tuple[int, int] = (0, 0)
    fps: float = 0.0
    pixels: str = ""


class Device(Protocol):
    """An open camera or stream, used by one thread of a reader process. Its constructor raises SourceError.

    `text` says what was negotiated, in words.
    """

    size_wh: tuple[int, int]
    fps: float | None
    text: str

    def grab(self) -> float | None:
        """Wait for the next frame: its capture time on the monotonic clock, or None when it has ended or failed."""

    def retrieve(self, into: UInt8) -> bool:
        """Put the grabbed frame, BGR, into `into` [height, width, 3]; False when it cannot be, as when its size changed."""

    def close(self) -> None:
        """Let go of it."""


class V4l2Device:
    """`/dev/videoN` through OpenCV: format, size and rate are asked for, and what the driver agreed to is told."""

    def __init__(self, spec: DeviceSpec) -> None:
        path = os.path.realpath(spec.address)  # of a link as udev makes it, which may point elsewhere after a replug
        number = re.fullmatch(r"/dev/video(\d+)", path)
        if number is None:
            raise SourceError(f"{spec.address} is no V4L2 camera, which would be a /dev/video of some number")
        self._capture = open_capture(
            int(number[1]),
            cv2.CAP_V4L2,
            f"{path} cannot be opened: it is no camera, or another program holds it (fuser {path})",
        )
        if spec.pixels:
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*spec.pixels))
        if spec.size_wh != (0, 0):
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, spec.size_wh[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, spec.size_wh[1])
        if spec.fps:
            self._capture.set(cv2.CAP_PROP_FPS, spec.fps)
        self.size_wh, self.fps, self.text = _negotiated(self._capture)

    def grab(self) -> float | None:
        """The driver's own time of the frame, where it is on the monotonic clock as most are."""
        if not self._capture.grab():
            return None
        now_s = time.monotonic()
        driver_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        return driver_s if 0 <= now_s - driver_s < 60 else now_s

    def retrieve(self, into: UInt8) -> bool:
        """Convert or decode it straight into `into`."""
        return _retrieve(self._capture, into)

    def close(self) -> None:
        """Release it."""
        self._capture.release()


class StreamDevice:
    """RTSP, HTTP and whatever else FFmpeg opens by a URL; live, over TCP, without buffers that add delay."""

    def __init__(self, spec: DeviceSpec) -> None:
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = LOW_LATENCY
        settings = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
        settings += [cv2.CAP_PROP_N_THREADS, 1]  # each thread of a decoder keeps a picture back
        self._capture = cv2.VideoCapture(spec.address, cv2.CAP_FFMPEG, settings)
        if not self._capture.isOpened():
            raise SourceError("cannot be opened: nothing answers there, or not with a video; try it with ffprobe")
        self.size_wh, self.fps, self.text = _negotiated(self._capture)
        # over HTTP there is often no clock: FFmpeg then counts frames at a rate that it has made up
        self._clock = StreamClock() if urlsplit(spec.address).scheme in CLOCKED else None

    def grab(self) -> float | None:
        """The time at which it would have arrived without delay (see StreamClock); over HTTP, that of its arrival."""
        if not self._capture.grab():
            return None
        now_s = time.monotonic()
        return now_s if self._clock is None else self._clock.captured_s(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, now_s)

    def retrieve(self, into: UInt8) -> bool:
        """Convert it straight into `into`."""
        return _retrieve(self._capture, into)

    def close(self) -> None:
        """Close the connection."""
        self._capture.release()


class StreamClock:
    """When frames of a stream were captured, which carry only times of the stream's own.

    The shortest delay between the two clocks over the last `window_s` or so is taken to be the network's; a frame that
    comes later than that has waited in some buffer, and that wait is part of its age. The window lets the clocks drift.
    """

    def __init__(self, window_s: float = 30.0) -> None:
        self._window_s = window_s
        self._begun_s = 0.0
        self._before = self._now = float("inf")
        self._last_s = float("-inf")

    def captured_s(self, stream_s: float, arrived_s: float) -> float:
        """The capture time on the clock of `arrived_s`, never after it."""
        offset_s = arrived_s - stream_s
        if stream_s <= self._last_s:  # no time, or another one: the stream began anew
            self._before = self._now = float("inf")
        self._last_s = stream_s
        if arrived_s - self._begun_s > self._window_s / 2:
            self._begun_s, self._before, self._now = arrived_s, self._now, float("inf")
        self._now = min(self._now, offset_s)
        return stream_s + min(self._before, self._now)


def _negotiated(capture: cv2.VideoCapture) -> tuple[tuple[int, int], float | None, str]:
    """Size, rate (where it is told) and, in words with the format, both of them, of an open capture."""
    size_wh = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    rate = capture.get(cv2.CAP_PROP_FPS)
    fps = rate if 0 < rate < 1000 else None
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    pixels = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24)).strip("\0 ")
    parts = [f"{size_wh[0]}x{size_wh[1]}", pixels if pixels.isprintable() else "", f"{fps:g} frames/s" if fps else ""]
    return size_wh, fps, " ".join(filter(None, parts))


def _retrieve(capture: cv2.VideoCapture, into: UInt8) -> bool:
    there, image = capture.retrieve(into)
    return there and image is into  # another array: of another size


def _open_gstreamer(spec: DeviceSpec) -> Device:
    from edge.capture.gstreamer import GstDevice

    return GstDevice(spec.address)


def _open_picamera(spec: DeviceSpec) -> Device:
    from edge.capture.picamera import Picamera2Device

    size_wh = spec.size_wh if spec.size_wh != (0, 0) else (640, 480)
    return Picamera2Device(int(spec.address), size_wh, spec.fps or None)


def _open_fault(spec: DeviceSpec) -> Device:
    from edge.capture.faulty import FaultyDevice

    return FaultyDevice(spec)


DEVICES: dict[str, Callable[[DeviceSpec], Device]] = {
    "v4l2": V4l2Device,
    "stream": StreamDevice,
    "gst": _open_gstreamer,
    "picamera": _open_picamera,
    "faulty": _open_fault,
}
"""Kind → what opens it, in the reader process."""
