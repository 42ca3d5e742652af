"""Sources by kind: where frames come from, chosen by the form of a URI."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge.datasets import PICTURES
from edge.errors import SourceError, UsageError
from edge.protocols import Source


def _open_camera(uri: str) -> Source:
    from edge.sources.camera import CameraSource

    return CameraSource(int(uri.removeprefix("camera:").removeprefix("/dev/video")))


def _refuse_camera(uri: str) -> Source:
    raise UsageError(f"{uri}: a camera is named by its number; --camera 0 or --source camera:0 is /dev/video0")


def _open_demo(uri: str) -> Source:
    from edge.sources.demo import DemoSource

    return DemoSource()


def _open_path(uri: str) -> Source:
    from edge.sources.pictures import PictureSource
    from edge.sources.video import VideoSource

    path = Path(uri.removeprefix("file://"))
    if not os.path.exists(path):
        raise SourceError(f"{path}: no such file or folder; --source takes a video, a picture, a folder of pictures or 'demo'")
    if os.path.isdir(path) or path.suffix.lower() in PICTURES:
        return PictureSource(path)
    return VideoSource(path)


SOURCES = {
    r"camera:\d{1,3}|/dev/video\d{1,3}": _open_camera,
    r"camera:.*": _refuse_camera,
    r"demo": _open_demo,
    r"(file://)?.+": _open_path,
}
"""Pattern of the whole URI → what opens it; the first that matches."""


def open_source(uri: str) -> Source:
    """The source that a URI names, not yet opened: `camera:N`, `/dev/videoN`, `demo`, or a path.

    Raises UsageError for a scheme that is not known and SourceError for a path that is not there.
    """
    scheme = re.match(r"([a-z][a-z0-9+.-]+)://", uri)
    if scheme and scheme[1] != "file":
        raise UsageError(f"--source {uri}: this version reads cameras, files, folders and 'demo', not {scheme[1]}:// yet")
    for pattern, open_kind in SOURCES.items():
        if re.fullmatch(pattern, uri, re.DOTALL):
            return open_kind(uri)
    raise UsageError("--source is empty; give a video, a folder of pictures, camera:0 or demo")
