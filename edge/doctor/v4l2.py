"""Video4Linux devices by their ioctls, with the standard library only.

Structures and numbers: linux/videodev2.h, https://docs.kernel.org/userspace-api/media/v4l/user-func.html.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

QUERYCAP, ENUM_FMT, ENUM_FRAMESIZES = 0x80685600, 0xC0405602, 0xC02C564A
CAPABILITY = struct.Struct("16s32s32sIII12x")
FORMAT = struct.Struct("III32sI16x")
SIZE = struct.Struct("III6I8x")
CAPTURE, CAPTURE_MPLANE = 0x1, 0x1000
MEMORY_TO_MEMORY = 0x8000 | 0x4000
DEVICE_CAPS = 0x80000000
BUFFER_TYPES = {CAPTURE: 1, CAPTURE_MPLANE: 9}
DISCRETE = 1
MOST = 64
"""Formats, and sizes of each, that are asked for at most: a driver that never ends must end."""

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True, slots=True)
class Node:
    """A /dev/video: what it is called, what drives it, whether it captures pictures, and its formats with the largest size.

    `codec` is one that takes pictures as well as giving them. `error` is an errno that kept it from being asked, or 0.
    """

    path: str
    name: str = ""
    driver: str = ""
    captures: bool = False
    codec: bool = False
    formats: tuple[tuple[str, tuple[int, int]], ...] = ()
    error: int = 0


def _ioctl(descriptor: int, request: int, buffer: bytearray) -> object:
    return fcntl.ioctl(descriptor, request, buffer, True)


def nodes(root: Path = Path("/"), ioctl: Ioctl = _ioctl) -> list[Node]:
    """Every /dev/videoN, by number; none raises."""
    try:
        names = os.listdir(root / "dev")
    except OSError:
        return []
    numbers = sorted(int(found[1]) for found in (re.fullmatch(r"video(\d{1,5})", name) for name in names) if found)
    return [look(root / "dev" / f"video{number}", ioctl) for number in numbers]


def look(path: Path, ioctl: Ioctl = _ioctl) -> Node:
    """Ask one device; its picture stream is left alone, so that another program may be using it."""
    shown = f"/dev/{path.name}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        return Node(shown, error=error.errno or -1)
    try:
        return _asked(shown, descriptor, ioctl)
    except OSError as error:
        return Node(shown, error=error.errno or -1)
    finally:
        os.close(descriptor)


def _asked(shown: str, descriptor: int, ioctl: Ioctl) -> Node:
    buffer = bytearray(CAPABILITY.size)
    ioctl(descriptor, QUERYCAP, buffer)
    driver, name, _, _, all_caps, device_caps = CAPABILITY.unpack(buffer)
    caps = device_caps if all_caps & DEVICE_CAPS else all_caps
    kind = next((flag for flag in BUFFER_TYPES if caps & flag), 0)
    codec = bool(caps & MEMORY_TO_MEMORY)
    formats = tuple(_formats(descriptor, BUFFER_TYPES[kind], ioctl)) if kind and not codec else ()
    return Node(shown, _text(name), _text(driver), bool(kind), codec, formats)


def _formats(descriptor: int, kind: int, ioctl: Ioctl) -> Iterator[tuple[str, tuple[int, int]]]:
    for index in range(MOST):
        buffer = bytearray(FORMAT.pack(index, kind, 0, b"", 0))
        try:
            ioctl(descriptor, ENUM_FMT, buffer)
        except OSError:  # EINVAL after the last
            return
        code = FORMAT.unpack(buffer)[4]
        yield _text(code.to_bytes(4, "little")), _largest(descriptor, code, ioctl)


def _largest(descriptor: int, code: int, ioctl: Ioctl) -> tuple[int, int]:
    """The largest picture in a format; (0, 0) where the driver does not tell."""
    largest = (0, 0)
    for index in range(MOST):
        buffer = bytearray(SIZE.pack(index, code, 0, *[0] * 6))
        try:
            ioctl(descriptor, ENUM_FRAMESIZES, buffer)
        except OSError:
            break
        _, _, kind, width, second, _, _, largest_height, _ = SIZE.unpack(buffer)
        size = (width, second) if kind == DISCRETE else (second, largest_height)  # a range: its least and most, by turns
        largest = max(largest, size, key=lambda wh: wh[0] * wh[1])
        if kind != DISCRETE:
            break
    return largest


def _text(raw: bytes) -> str:
    text = raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
    return "".join(letter if letter.isprintable() else "?" for letter in text)
