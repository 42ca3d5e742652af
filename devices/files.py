"""Small files of the kernel, read so that none can raise."""

from __future__ import annotations

import os
from pathlib import Path

PAGE = 2048
"""The kernel hands its longer files out by the page, filled with whole lines."""


def read(path: Path | str, limit: int = 65536) -> str:
    """The text of a file up to `limit` bytes, without the ends' white space and zeros; empty where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not make it wait
        try:
            data = os.read(descriptor, limit)
            while PAGE <= len(data) < limit and (more := os.read(descriptor, limit - len(data))):
                data += more
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return ""
    return data.decode("utf-8", "replace").strip("\0\t\r\n ")


def number(path: Path | str, base: int = 10) -> int | None:
    """The whole number in a file; None where there is none."""
    try:
        return int(read(path, 32), base)
    except ValueError:
        return None


def scan(folder: Path, prefix: str = "", suffix: str = "") -> list[Path]:
    """What lies in a folder under such names, in order; nothing where it cannot be listed."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return []
    return sorted(folder / name for name in names if name.startswith(prefix) and name.endswith(suffix))
