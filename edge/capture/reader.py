"""The reader process: one device, its newest frames in shared memory, a message for each on a socket.

The socket keeps message boundaries. To the loop go `Opened` with the memory's descriptor, then a FRAME for each frame,
STARVED now and then while every slot is taken, at last perhaps `Failed`; from it come bytes, each the number of a slot
that is free again. Its end ends the reader.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import tempfile
import time
import zlib
from contextlib import suppress

import msgspec
import numpy as np

from edge.capture.devices import DEVICES, Device, DeviceSpec
from edge.errors import EdgeError, one_line
from edge.types import UInt8

FRAME = struct.Struct("<BIdfII")
"""FRAME_KIND, slot, capture time (monotonic s), capture ms, frames dropped for want of a slot, checksum of the picture."""
FRAME_KIND = 1
STARTED_KIND = 3
"""The reader runs: a message of this byte alone, before it opens its device."""
STARVED = struct.Struct("<BI")
"""STARVED_KIND, frames dropped for want of a slot: the device delivers, and nobody gives slots back."""
STARVED_KIND = 2
STARVED_EVERY_S = 0.2
CHECKED_ROWS = 8
"""Each so-maniest row counts for the checksum: noise is in every row, and a clock in the corner is taller."""
LEAK_MB = 256
MEMORY_CHECK_S = 2.0


class ReaderSpec(msgspec.Struct, frozen=True):
    """What a reader reads, into how many slots."""

    device: DeviceSpec
    slots: int


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The device is open: what it delivers, and how that is said in words."""

    size_wh: tuple[int, int]
    fps: float | None
    text: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The reader ends; `at_once` says that another one may try again without a pause."""

    reason: str
    at_once: bool = False


def read(spec: ReaderSpec, link: socket.socket) -> None:
    """Read until the device ends, fails or leaks, or until the loop closes its end of `link`."""
    with suppress(BrokenPipeError, ConnectionResetError):  # the loop has gone, or has given this reader up
        try:
            device = DEVICES[spec.device.kind](spec.device)
            try:
                failed = _deliver(device, spec.slots, link)
            finally:
                device.close()
        except EdgeError as error:
            failed = Failed(str(error))
        except Exception as error:  # cv2.error and whatever a driver's library raises
            failed = Failed(one_line(f"{type(error).__name__}: {error}"))
        link.send(msgspec.json.encode(failed))


def _deliver(device: Device, slots: int, link: socket.socket) -> Failed:
    pictures = _share(device, slots, link)
    free = list(reversed(range(slots)))  # the last one returned is taken first: it is in the cache
    dropped = frames = 0
    starved_s = 0.0
    memory_mb, checked_s = _memory_mb(), time.monotonic()
    while True:
        started_s = time.monotonic()
        captured_s = device.grab()
        if captured_s is None:
            return Failed(f"stopped delivering after {frames} frames")
        free.extend(_freed(link))
        if not free:  # whoever has them all is slow: a newer picture is better than a queue of old ones
            dropped += 1
            if started_s - starved_s > STARVED_EVERY_S:
                starved_s = started_s
                with suppress(BlockingIOError):  # then nobody reads, and who does will find frames
                    link.send(STARVED.pack(STARVED_KIND, dropped), socket.MSG_DONTWAIT)
            continue
        slot = free.pop()
        if not device.retrieve(pictures[slot]):
            return Failed("a frame could not be decoded, or its size changed", at_once=frames > 0)
        frames += 1
        now_s = time.monotonic()
        checksum = zlib.crc32(np.ascontiguousarray(pictures[slot][::CHECKED_ROWS]).data)
        link.send(FRAME.pack(FRAME_KIND, slot, captured_s, (now_s - started_s) * 1e3, dropped, checksum))
        if now_s - checked_s > MEMORY_CHECK_S:
            grown_mb, checked_s = _memory_mb() - memory_mb, now_s
            if grown_mb > LEAK_MB:
                return Failed(f"the reader has grown by {grown_mb:.0f} MB", at_once=True)


def _share(device: Device, slots: int, link: socket.socket) -> list[UInt8]:
    """Make the memory for `slots` pictures and hand it to the loop; pages that are never used cost nothing."""
    width, height = device.size_wh
    size = width * height * 3
    if size <= 0:
        raise ValueError(f"the device says that its pictures are {width}x{height}")
    descriptor = memory_descriptor(size * slots)
    memory = mmap.mmap(descriptor, size * slots)
    message = msgspec.json.encode(Opened(device.size_wh, device.fps, device.text))
    socket.send_fds(link, [message], [descriptor])
    os.close(descriptor)
    return slot_pictures(memory, device.size_wh)


def memory_descriptor(size: int) -> int:
    """A descriptor of `size` bytes of memory that processes can share."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("edge-frames", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def slot_pictures(memory: mmap.mmap, size_wh: tuple[int, int]) -> list[UInt8]:
    """The slots of shared memory as arrays [height, width, 3]."""
    return list(np.frombuffer(memory, np.uint8).reshape(-1, size_wh[1], size_wh[0], 3))


def _freed(link: socket.socket) -> bytes:
    """The slots that came back since the last call. Raises BrokenPipeError when the loop has closed the link."""
    freed = b""
    while True:
        try:
            message = link.recv(256, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return freed
        if not message:
            raise BrokenPipeError
        freed += message


def _memory_mb() -> float:
    """Memory that is this process's alone: what it holds less what it shares, in MB of 2^20 bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            fields = file.read().split()
    except OSError:
        return 0.0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGESIZE") / (1 << 20)
