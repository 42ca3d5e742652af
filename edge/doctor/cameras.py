"""Checks of cameras: what each /dev/video is, and whether Picamera2 loads where the board would use it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from devices import Board
from edge.doctor.check import Check, Status
from edge.doctor.v4l2 import Node

SENSORS = ("unicam", "rp1-cfe")
"""Drivers whose nodes give a CSI sensor's raw data, which libcamera makes pictures of."""
PROCESSORS = ("bcm2835-isp", "bcm2835-codec", "pispbe", "rpivid", "rpi-hevc-dec")
"""Drivers of nodes that are steps between a camera and its picture."""
ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
FEW = 4


@dataclass(frozen=True, slots=True)
class PicameraFacts:
    """Whether Picamera2 is installed, how many cameras libcamera finds, and what kept it from saying so."""

    installed: bool
    cameras: int = 0
    error: str = ""


def camera_checks(
    nodes: Sequence[Node], wanted: str | None, *, there: bool = False, raw_elsewhere: bool = False
) -> list[Check]:
    """The cameras, or the one at `wanted`, such as /dev/video0; `raw_elsewhere`: without any, Picamera2 may have one.

    `there` says that something is at `wanted`, even if it is no /dev/video.
    """
    if wanted is not None:
        node = next((node for node in nodes if node.path == wanted), None)
        known = ", ".join(node.path for node in nodes if node.captures and node_check(node) is not None) or "none"
        if node is None and not there:
            text = f"{wanted} is not there; cameras here: {known}"
            return [Check("camera", "fail", text, "plug it in and see ls -l /dev/v4l/by-id")]
        name = f" ({node.name})" if node is not None and node.name else ""
        text = f"{wanted}{name} is no camera; cameras here: {known}"
        none = Check("camera", "fail", text, "give --camera the N of a /dev/videoN that is one, or leave it out")
        return [none if node is None else node_check(node) or none]
    found = [check for check in map(node_check, nodes) if check is not None]
    if found or raw_elsewhere:
        return found
    return [Check("camera", "warn", "none", "plug one in, or read a stream, a video or 'demo' with edge-run --source")]


def node_check(node: Node) -> Check | None:
    """One device; None for metadata, codecs and steps of a camera's pipeline."""
    if node.error in (errno.EACCES, errno.EPERM):
        return Check("camera", "fail", f"{node.path}: permission denied", "sudo usermod -aG video $USER, then log in again")
    if node.error == errno.EBUSY:
        return Check("camera", "warn", f"{node.path} is held by another program", f"sudo fuser -v {node.path}")
    if node.error == errno.ENOTTY:
        return None
    if node.error:
        status: Status = "warn" if node.error in ABSENT else "fail"
        return Check(
            "camera", status, f"{node.path}: {os.strerror(node.error)}", "unplug it and plug it in again; see sudo dmesg"
        )
    if not node.captures or node.codec or node.driver in PROCESSORS:
        return None
    name = f"{node.path}, {node.name or 'without a name'} ({node.driver})"
    if node.driver in SENSORS:
        return Check("camera", "ok", f"{name}: a raw sensor, read with edge-run --source picamera:0")
    if not node.formats:
        return Check(
            "camera", "warn", f"{name} offers no picture format", "plug it into another port; see v4l2-ctl --list-formats-ext"
        )
    formats = [f"{code} to {width}x{height}" if width else code for code, (width, height) in node.formats]
    more = f" and {len(formats) - FEW} more" if len(formats) > FEW else ""
    return Check("camera", "ok", f"{name}: {', '.join(formats[:FEW])}{more}")


def picamera_check(facts: PicameraFacts, board: Board, *, others: bool = False) -> Check:
    """Picamera2, for a board whose own cameras need it; `others`: there is a camera that does not."""
    if not facts.installed and others:
        return Check("picamera2", "ok", f"not installed; only cameras on the {board.title}'s ribbon need it")
    if not facts.installed:
        mend = "sudo apt install python3-picamera2, and python3 -m venv --system-site-packages"
        return Check("picamera2", "warn", f"not installed: cameras on the {board.title}'s ribbon cannot be read", mend)
    if facts.error:
        return Check("picamera2", "fail", facts.error, "sudo apt install --reinstall python3-picamera2 python3-libcamera")
    if not facts.cameras:
        return Check("picamera2", "ok", "loads; no camera on the ribbon, see rpicam-hello --list-cameras")
    return Check("picamera2", "ok", f"loads; {facts.cameras} camera{'s' if facts.cameras > 1 else ''} on the ribbon")
