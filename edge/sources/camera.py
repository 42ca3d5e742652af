"""V4L2 cameras, streams, GStreamer pipelines and Picamera2 as live sources."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from edge.capture.devices import DeviceSpec
from edge.errors import UsageError
from edge.sources.live import Limits, LiveSource

LOCAL = Limits(pause=(0.1, 0.5))
LARGE_WIDTH = 800
"""From this width on, USB has no room for uncompressed pictures at a useful rate."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a camera is asked for; 0 and '' leave it the choice. `patient`: also wait for one that never was there."""

    size_wh: tuple[int, int] = (0, 0)
    fps: float = 0.0
    pixels: str = ""
    timeout_s: float | None = None
    frozen_s: float | None = None
    patient: bool = False

    def limits(self, usual: Limits) -> Limits:
        """The limits with what was wished for."""
        if self.timeout_s is not None:
            usual = replace(usual, reading=self.timeout_s, stalled=min(usual.stalled, self.timeout_s / 2))
        return usual if self.frozen_s is None else replace(usual, frozen=self.frozen_s)


def v4l2_source(path: str, wish: Wish) -> LiveSource:
    """`/dev/videoN`, or a link to one as in `/dev/v4l/by-id`. A large picture is asked for as MJPEG unless otherwise wished."""
    pixels = wish.pixels or ("MJPG" if wish.size_wh[0] >= LARGE_WIDTH else "")

    def missing() -> str | None:
        if not Path(path).exists():
            others = ", ".join(sorted(str(other) for other in Path("/dev").glob("video*"))) or "none"
            return f"{path} does not exist; cameras here: {others}; try --source demo"
        if not os.access(path, os.R_OK | os.W_OK):
            return f"no permission to open {path}; add yourself to the group 'video'"
        return None

    spec = DeviceSpec("v4l2", path, wish.size_wh, wish.fps, pixels)
    name = path.removeprefix("/dev/video").removeprefix("/dev/v4l/")
    return LiveSource(f"camera:{name}", spec, limits=wish.limits(LOCAL), patient=wish.patient, missing=missing)


def stream_source(url: str, wish: Wish) -> LiveSource:
    """rtsp://, http:// and their kin. Its name hides the password; a server that is away is waited for."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 -- it is read only when asked for
    except ValueError as error:
        raise UsageError(f"--source {url.partition(':')[0]}://...: is no URL: {error}") from None
    if not parts.hostname:
        raise UsageError(f"--source {without_password(url)}: names no host; expected {parts.scheme}://HOST/PATH")
    return LiveSource(without_password(url), DeviceSpec("stream", url), limits=wish.limits(Limits()), patient=True)


def gstreamer_source(pipeline: str, wish: Wish) -> LiveSource:
    """A gst-launch pipeline up to its last element before the sink, which is ours."""
    name = _hidden(re.sub(r"(://[^\s:/@]*):[^\s/]*@", r"\1:***@", pipeline))
    return LiveSource(f"gst:{name}", DeviceSpec("gst", pipeline), limits=wish.limits(Limits()), patient=wish.patient)


def picamera_source(index: int, wish: Wish) -> LiveSource:
    """A Raspberry Pi camera through Picamera2."""
    spec = DeviceSpec("picamera", str(index), wish.size_wh, wish.fps)
    return LiveSource(f"picamera:{index}", spec, limits=wish.limits(LOCAL), patient=wish.patient)


def without_password(url: str) -> str:
    """The URL with stars for a password, before the host or among the query's fields."""
    parts = urlsplit(url)
    if parts.password is not None:
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))
    return _hidden(url)


def _hidden(text: str) -> str:
    """The text with stars for what is assigned to a name that sounds secret."""
    return re.sub(r"(?i)\b([\w-]*(?:user-pw|password|passwd|pwd|pass|token|secret|key))=[^\s&]+", r"\1=***", text)
