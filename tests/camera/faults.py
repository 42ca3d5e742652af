"""What befalls cameras: faults of the kernel's virtual webcam, of the processes that read it, and of other programs."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
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
    """`inject` it; one that lasts is held for `hold_s` and then `lift`ed.

    `share` of the frames comes while it lasts. `notice` has to be given within `noticed_s`; None: nobody needs to know,
    and nobody is told. `takes_both`: the other camera, too. `back_s`: how soon a fresh frame has to be there.
    """

    name: str
    inject: Callable[[Running], None]
    lift: Callable[[Running], None] | None = None
    hold_s: float = 0.0
    share: float = 0.0
    notice: str | None = "source-lost"
    noticed_s: float = 3.0
    back_s: float = 2.0
    takes_both: bool = False


def unplug(running: Running | None = None) -> None:
    """Both cameras are gone, with their device nodes; who is in a read wakes up."""
    (DRIVER / "unbind").write_text("vivid.0")


def plug_in(running: Running | None = None) -> None:
    """They are back, under their old names as long as nobody has kept the old ones open."""
    (DRIVER / "bind").write_text("vivid.0")
    names = sorted(path.name for path in Path("/dev").glob("video*"))
    assert names == ["video0", "video1"], "the cameras came back under other names"


def plug_in_if_missing() -> None:
    """For the end of a test, however it ended."""
    if not (DRIVER / "vivid.0").exists():
        (DRIVER / "bind").write_text("vivid.0")
    v4l2(0, "-c", "percentage_of_dropped_buffers=0")


def _control(setting: str) -> Callable[[Running], None]:
    def inject(running: Running) -> None:
        v4l2(0, "-c", setting)

    return inject


def _at_reopening(setting: str) -> Callable[[Running], None]:
    def inject(running: Running) -> None:
        v4l2(0, "-c", setting)
        _signal_reader(signal.SIGKILL)(running)

    return inject


def _signal_reader(number: signal.Signals) -> Callable[[Running], None]:
    return lambda running: os.kill(running.reader_of(0), number)


def _kill_fork_server(running: Running) -> None:
    os.kill(running.fork_server(), signal.SIGKILL)


def _lose_every_buffer(running: Running) -> None:
    """OpenCV forgets a buffer that the driver does not take back, and has four."""
    for _ in range(4):
        v4l2(0, "-c", "inject_vidioc_qbuf_error=1")
        time.sleep(0.3)


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
    refused = subprocess.run(["v4l2-ctl", "-d0", "--stream-mmap=2", "--stream-count=3"], capture_output=True, text=True)
    assert "busy" in (refused.stdout + refused.stderr).lower(), f"two programs stream from one camera: {refused}"


_NO_FRAMES = _control("percentage_of_dropped_buffers=100")
_ALL_FRAMES = _control("percentage_of_dropped_buffers=0")


def _unplug_silent(running: Running) -> None:
    _NO_FRAMES(running)
    time.sleep(2.0)
    unplug()


def _unplug_stopped(running: Running) -> None:
    """Its reader does not wake up and close it; while the old node is open, the camera would come back under a new name."""
    _signal_reader(signal.SIGSTOP)(running)
    time.sleep(0.5)
    unplug()


def faults() -> list[Fault]:
    """All of them, in an order in which a run meets them."""
    other = OtherProgram()
    return [
        Fault("unplugged, plugged in", unplug, plug_in, 2.0, takes_both=True),
        Fault("disconnected", _control("disconnect=1")),
        Fault("fatal streaming error", _control("inject_fatal_streaming_error=1")),
        Fault("streaming does not start", _at_reopening("inject_vidioc_streamon_error=1")),
        Fault("no buffers at reopening", _at_reopening("inject_vidioc_reqbufs_error=1")),
        Fault("no frames for 2.5 s", _NO_FRAMES, _ALL_FRAMES, 2.5, notice="source-stalled"),
        Fault("no frames for 6 s", _NO_FRAMES, _ALL_FRAMES, 6.0, noticed_s=5.0),
        Fault("half the frames", _control("percentage_of_dropped_buffers=50"), _ALL_FRAMES, 3.0, share=0.5, notice=None),
        Fault("a frame marked bad", _control("inject_v4l2_buf_flag_error=1"), share=1.0, notice=None),
        Fault("one buffer lost", _control("inject_vidioc_qbuf_error=1"), share=1.0, notice=None),
        Fault("every buffer lost", _lose_every_buffer, noticed_s=6.0),
        Fault("reader killed", _signal_reader(signal.SIGKILL)),
        Fault("reader stopped for good", _signal_reader(signal.SIGSTOP), noticed_s=5.0),
        # what it loads again takes 0.2 s outside the VM
        Fault("fork server killed", _kill_fork_server, back_s=15.0, takes_both=True),
        Fault("taken by another program", other.take, other.let_go, 3.0),
        Fault("a second opener", second_opener, share=1.0, notice=None),
        Fault("unplugged while silent", _unplug_silent, plug_in, 1.0, takes_both=True),
        Fault("unplugged, reader stopped", _unplug_stopped, plug_in, 1.0, takes_both=True),
        Fault("unplugged thrice", _flap, plug_in, 1.0, takes_both=True),
    ]
