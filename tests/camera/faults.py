"""What befalls cameras: faults of the kernel's virtual webcam, of the processes that read it, and of other programs."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.camera.running import Running, v4l2

DRIVER = Path("/sys/bus/platform/drivers/vivid")
VIDIOC_REQBUFS = 0xC0145608
CAPTURE, MMAP = 1, 1


@dataclass(frozen=True, slots=True)
class Fault:
    """`inject` it, hold it for `hold_s` if it is one that lasts, and `lift` it.

    `silences`: frames stop at all. `notice`: which one it has to lead to within `noticed_s`. `takes_both`: the other
    camera, too.
    """

    name: str
    inject: Callable[[Running], None]
    lift: Callable[[Running], None] | None = None
    hold_s: float = 0.0
    silences: bool = True
    notice: str | None = "source-lost"
    noticed_s: float = 3.0
    takes_both: bool = False


def unplug(running: Running | None = None) -> None:
    """Both cameras are gone, with their device nodes; who is in a read wakes up."""
    (DRIVER / "unbind").write_text("vivid.0")


def plug_in(running: Running | None = None) -> None:
    """They are back, under their old names as long as nobody has kept the old ones open."""
    (DRIVER / "bind").write_text("vivid.0")
    assert Path("/dev/video0").exists() and Path("/dev/video1").exists(), "the cameras came back under other names"


def plug_in_if_missing() -> None:
    """For the end of a test, however it ended."""
    if not (DRIVER / "vivid.0").exists():
        (DRIVER / "bind").write_text("vivid.0")
    v4l2(0, "-c", "percentage_of_dropped_buffers=0")


def _control(setting: str) -> Callable[[Running], None]:
    return lambda running: void(v4l2(0, "-c", setting))


def void(_: object) -> None:
    """What is done for its effect."""


def _at_reopening(setting: str) -> Callable[[Running], None]:
    def inject(running: Running) -> None:
        v4l2(0, "-c", setting)
        _signal_reader(signal.SIGKILL)(running)

    return inject


def _signal_reader(number: signal.Signals) -> Callable[[Running], None]:
    return lambda running: os.kill(running.reader_of(0), number)


def _flap(running: Running) -> None:
    for _ in range(2):
        unplug()
        time.sleep(1.0)  # what a bus takes to find a device
        plug_in()
        time.sleep(0.7)
    unplug()


class OtherProgram:
    """One that takes camera 0 while edge-run has lost it, and keeps it for a while."""

    def __init__(self) -> None:
        self._descriptor = -1

    def take(self, running: Running) -> None:
        """Be there first when edge-run's reader is gone: it waits a little before it opens the camera again."""
        self._descriptor = os.open("/dev/video0", os.O_RDWR | os.O_NONBLOCK)
        os.kill(running.reader_of(0), signal.SIGKILL)
        until_s = time.monotonic() + 2.0
        while time.monotonic() < until_s:
            with suppress(OSError):  # busy: the reader is not gone yet
                fcntl.ioctl(self._descriptor, VIDIOC_REQBUFS, bytearray(struct.pack("<5I", 2, CAPTURE, MMAP, 0, 0)))
                return
        raise AssertionError("edge-run was faster and has the camera again")

    def let_go(self, running: Running) -> None:
        """Close it."""
        os.close(self._descriptor)


def second_opener(running: Running) -> None:
    """Another program tries to stream from the camera that edge-run holds."""
    with suppress(Exception):
        v4l2(0, "--stream-mmap=2", "--stream-count=3")
        raise AssertionError("two programs streamed from one camera")


_NO_FRAMES = _control("percentage_of_dropped_buffers=100")
_ALL_FRAMES = _control("percentage_of_dropped_buffers=0")


def _unplug_silent(running: Running) -> None:
    _NO_FRAMES(running)
    time.sleep(2.0)
    unplug()


def faults() -> list[Fault]:
    """All of them, in an order in which a run meets them."""
    other = OtherProgram()
    return [
        Fault("unplugged, plugged in", unplug, plug_in, 2.0, takes_both=True),
        Fault("disconnected", _control("disconnect=1")),
        Fault("fatal streaming error", _control("inject_fatal_streaming_error=1")),
        Fault("streaming does not start", _at_reopening("inject_vidioc_streamon_error=1")),
        Fault("no frames for 2.5 s", _NO_FRAMES, _ALL_FRAMES, 2.5, notice="source-stalled"),
        Fault("no frames for 6 s", _NO_FRAMES, _ALL_FRAMES, 6.0, noticed_s=6.0),
        Fault("half the frames", _control("percentage_of_dropped_buffers=50"), _ALL_FRAMES, 3.0, silences=False, notice=None),
        Fault("a frame marked bad", _control("inject_v4l2_buf_flag_error=1"), silences=False, notice=None),
        Fault("buffer not queued", _control("inject_vidioc_qbuf_error=1"), silences=False, notice=None),
        Fault("no buffers at reopening", _at_reopening("inject_vidioc_reqbufs_error=1")),
        Fault("reader killed", _signal_reader(signal.SIGKILL)),
        Fault("reader stopped for good", _signal_reader(signal.SIGSTOP), noticed_s=6.0),
        Fault("taken by another program", other.take, other.let_go, 3.0),
        Fault("a second opener", second_opener, silences=False, notice=None),
        Fault("unplugged while silent", _unplug_silent, plug_in, 1.0, takes_both=True),
        Fault("unplugged thrice", _flap, plug_in, 1.0, takes_both=True),
    ]
