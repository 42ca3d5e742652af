"""The Raspberry Pi's firmware, asked as vcgencmd does (https://github.com/raspberrypi/utils/blob/master/vcgencmd/vcgencmd.c)."""

from __future__ import annotations

import fcntl
import os
import re
import struct

DEVICE = "dev/vcio"
BUFFER = 1024
TAG = 0x00030080
REQUEST = 0xC0000000 | struct.calcsize("P") << 16 | 100 << 8
"""_IOWR(100, 0, char *) of Linux."""

LAYOUT = struct.Struct(f"=6I{BUFFER}sI")
"""Size, state; tag, its buffer's size, the request's, an error; the command and then its answer; the end."""

RAIL = re.compile(r"^\s*(\w+)_([AV])\s+\w+\(\d+\)=(\d+(?:\.\d+)?)[AV]\s*$", re.MULTILINE)


def ask(device: str, command: str) -> str:
    """The firmware's answer; empty where there is none or this user may not ask (the group is `video`)."""
    message = bytearray(LAYOUT.pack(LAYOUT.size, 0, TAG, BUFFER, 0, 0, command.encode(), 0))
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, REQUEST, message)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return ""
    fields = LAYOUT.unpack(message)
    answer: bytes = fields[6]
    return "" if fields[5] else answer.split(b"\0")[0].decode("utf-8", "replace")


def rails_watts(answer: str) -> float | None:
    """Watts of all rails whose current and voltage `pmic_read_adc` tells: the board without what hangs on its 5 V."""
    read: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for name, unit, value in RAIL.findall(answer):
        read[unit][name] = float(value)
    both = read["A"].keys() & read["V"].keys()
    return sum(read["A"][name] * read["V"][name] for name in both) if both else None


def throttled_word(answer: str) -> int | None:
    """The bits of `get_throttled`."""
    found = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})\s*", answer)
    return int(found[1], 16) if found else None
