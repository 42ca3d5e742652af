"""Sources by kind: where frames come from, chosen by the form of a URI."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.datasets import PICTURES
from edge.errors import SourceError, UsageError
from edge.protocols import Source

if TYPE_CHECKING:
    from edge.sources.camera import Wish

STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "srt")


def _open_camera(uri: str, wish: Wish) -> Source:
    from edge.sources.camera import v4l2_source

    return v4l2_source(f"/dev/video{uri.removeprefix('camera:')}" if uri.startswith("camera:") else uri, wish)


def _refuse_camera(uri: str, wish: Wish) -> Source:
    if uri.startswith("picamera"):
        raise UsageError(f"{uri}: a camera is named by its number; --source picamera:0 is the first")
    raise UsageError(f"{uri}: a camera is named by its number; --camera 0 or --source camera:0 is /dev/video0")


def _open_picamera(uri: str, wish: Wish) -> Source:
    from edge.sources.camera import picamera_source

    return picamera_source(int(uri.removeprefix("picamera:")), wish)


def _open_gstreamer(uri: str, wish: Wish) -> Source:
    from edge.sources.camera import gstreamer_source

    if not uri.removeprefix("gst:").strip():
        raise UsageError("--source gst: names no pipeline; try 'gst:v4l2src ! videoconvert'")
    return gstreamer_source(uri.removeprefix("gst:"), wish)


def _open_stream(uri: str, wish: Wish) -> Source:
    from edge.sources.camera import stream_source

    return stream_source(uri, wish)


def _open_demo(uri: str, wish: Wish) -> Source:
    from edge.sources.demo import DemoSource

    return DemoSource()


def _open_path(uri: str, wish: Wish) -> Source:
    from edge.sources.pictures import PictureSource
    from edge.sources.video import VideoSource

    path = Path(uri.removeprefix("file://"))
    if not os.path.exists(path):
        raise SourceError(f"{path}: no such file or folder; --source takes a video, a picture, a folder of pictures or 'demo'")
    if os.path.isdir(path) or path.suffix.lower() in PICTURES:
        return PictureSource(path)
    return VideoSource(path)


SOURCES: dict[str, Callable[[str, Wish], Source]] = {
    r"camera:\d{1,3}|/dev/video\d{1,3}|/dev/v4l/.+": _open_camera,
    r"picamera:\d": _open_picamera,
    r"(pi)?camera:.*": _refuse_camera,
    r"gst:.*": _open_gstreamer,
    rf"({'|'.join(STREAMS)})://.*": _open_stream,
    r"demo": _open_demo,
    r"(file://)?.+": _open_path,
}
"""Pattern of the whole URI → what opens it; the first that matches."""


def open_source(uri: str, wish: Wish | None = None) -> Source:
    """The source that a URI names, not yet opened: `camera:N`, `/dev/videoN`, a stream's URL, `demo`, or a path.

    Also `/dev/v4l/by-id/...`, `picamera:N` and `gst:PIPELINE`. `wish` is what to ask of a camera. Raises UsageError for a
    scheme that is not known and SourceError for a path that is not there.
    """
    from edge.sources.camera import Wish

    scheme = re.match(r"([a-z][a-z0-9+.-]+)://", uri)
    if scheme and scheme[1] not in ("file", *STREAMS):
        raise UsageError(f"--source {uri}: {scheme[1]}:// is not known; there are {', '.join(STREAMS)}, gst: and file://")
    for pattern, open_kind in SOURCES.items():
        if re.fullmatch(pattern, uri, re.DOTALL):
            return open_kind(uri, wish or Wish())
    raise UsageError("--source is empty; give a video, a folder of pictures, camera:0 or demo")
