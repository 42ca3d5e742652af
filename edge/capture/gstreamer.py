"""A GStreamer pipeline read through gst-launch-1.0: PyPI's OpenCV is built without GStreamer."""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import subprocess
import time
from collections import deque
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from typing import NamedTuple

import numpy as np

from edge.capture.devices import StreamClock
from edge.errors import CaptureError, SourceError, one_line
from edge.types import UInt8

OPEN_WITHIN_S = 10.0
CLOSE_WITHIN_S = 1.0
PIPE_BYTES = 1 << 20
SAID_BYTES = 8192
"""How much of gst-launch's standard error is kept for the line that says why it ended."""

TAIL = "! queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 ! videoconvert ! video/x-raw,format=BGR"
REPORTER = "edge_frames"
"""An `identity` that is not silent: on standard output, gst-launch then tells of each frame in the order of the bytes."""
CAPS = re.compile(rf"GstIdentity:{REPORTER}: last-message = event .*?type: caps .*?width=\(int\)(\d+), height=\(int\)(\d+)(.*)")
"""Told by the element, without backslashes. The pads' own `caps = ` lines are no use: when two threads notify of a property
of one name at once, GObject merges the two (`deep-notify` is G_SIGNAL_NO_RECURSE), and one start in a hundred lacked ours."""
RATE = re.compile(r"framerate=\(fraction\)(\d+)/(\d+)")
CHAIN = re.compile(
    rf"GstIdentity:{REPORTER}: last-message = chain .*?\((\d+) bytes, dts: [^,]+, pts: (?:none|(\d+):(\d+):([\d.]+)),"
)


class _Told(NamedTuple):
    """What gst-launch told of one frame, whose bytes are in the other pipe or on their way there."""

    size_wh: tuple[int, int]
    size_bytes: int
    pts_s: float | None
    arrived_s: float


class GstDevice:
    """The frames at the end of a pipeline, the newest first to go on; a `Device` of the reader process.

    The pipeline is one of gst-launch-1.0's, without a sink; a trailing `! appsink ...`, as OpenCV wants one, is left out.
    It should be live (a camera, rtspsrc, `is-live=true`): from a file it would run as fast as it can and drop most frames.
    Raises SourceError.
    """

    def __init__(self, pipeline: str) -> None:
        arguments = _arguments(pipeline)
        program = shutil.which("gst-launch-1.0")
        if program is None:
            raise SourceError("gst-launch-1.0 is not installed; apt install gstreamer1.0-tools gstreamer1.0-plugins-base")
        self.size_wh = (0, 0)
        self.fps: float | None = None
        self._waiting: deque[_Told] = deque()
        self._grabbed: _Told | None = None
        self._told_wh = (0, 0)
        self._heard = b""
        self._said = b""
        self._clock = StreamClock()
        self._scratch = memoryview(bytearray(1 << 16))
        self._padded: UInt8 | None = None
        self._process, self._frames = _launch(program, arguments)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        for descriptor in (self._frames, self._out, self._err):
            os.set_blocking(descriptor, False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._poll.register(self._err, select.POLLIN)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        deadline_s = time.monotonic() + OPEN_WITHIN_S
        while self.size_wh == (0, 0):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise SourceError(f"no picture within {OPEN_WITHIN_S:.0f} s; try it with gst-launch-1.0 -v")
            if not self._listen(left_s):
                raise SourceError(self._why() or "the pipeline ended without a picture")
        width, height = self.size_wh
        self._row_bytes = (width * 3 + 3) // 4 * 4
        self._frame_bytes = self._row_bytes * height
        rate = f" {self.fps:g} frames/s" if self.fps else ""
        self.text = f"{width}x{height} BGR{rate}"

    def grab(self) -> float | None:
        """Wait for the next frame: its capture time on time.monotonic(), or None when the pipeline has ended.

        A frame that waited in the pipe does not look new: GStreamer's own time stamp tells how long it did. Raises
        CaptureError with gst-launch's line when the pipeline failed.
        """
        if self._grabbed is not None and not self._throw_away():
            return None
        while not self._waiting:
            if not self._listen(None):
                if why := self._why():
                    raise CaptureError(why)
                return None
        self._grabbed = told = self._waiting.popleft()
        return told.arrived_s if told.pts_s is None else self._clock.captured_s(told.pts_s, told.arrived_s)

    def retrieve(self, into: UInt8) -> bool:
        """Read the grabbed frame, BGR, into `into`, uint8 [height, width, 3]; False if its size is another, or at the end."""
        if self._grabbed is None:
            return False
        width, height = self.size_wh
        if self._grabbed[:2] != (self.size_wh, self._frame_bytes) or into.shape != (height, width, 3):
            self._throw_away()
            return False
        self._grabbed = None
        if self._row_bytes == width * 3:
            return self._read(into.data.cast("B"))
        if self._padded is None:
            self._padded = np.empty((height, self._row_bytes), np.uint8)
        if not self._read(self._padded.data.cast("B")):
            return False
        into[:] = self._padded[:, : width * 3].reshape(height, width, 3)
        return True

    def close(self) -> None:
        """End gst-launch, by force if it does not end by itself; may be called twice."""
        if self._frames < 0:
            return
        os.close(self._frames)
        self._frames = -1
        self._process.terminate()
        try:
            self._process.wait(CLOSE_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _throw_away(self) -> bool:
        left, self._grabbed = self._grabbed.size_bytes if self._grabbed else 0, None
        while left:
            part = self._scratch[: min(left, len(self._scratch))]
            if not self._read(part):
                return False
            left -= len(part)
        return True

    def _read(self, into: memoryview) -> bool:
        """Fill `into` from the frames' pipe; meanwhile gst-launch must not get stuck on what it has to say."""
        while into:
            try:
                got = os.readv(self._frames, [into])
            except BlockingIOError:
                self._poll.register(self._frames, select.POLLIN)
                self._listen(None)
                self._poll.unregister(self._frames)
                continue
            if got == 0:
                return False
            into = into[got:]
        return True

    def _listen(self, within_s: float | None) -> bool:
        """Wait for gst-launch to say something and take it in; False once it has said all it ever will."""
        for descriptor, _ in self._poll.poll(None if within_s is None else within_s * 1e3):
            if descriptor == self._frames:
                continue
            data = os.read(descriptor, 1 << 16)
            if not data and descriptor == self._out:
                return False
            if not data:
                self._poll.unregister(descriptor)
            elif descriptor == self._err:
                self._said = (self._said + data)[-SAID_BYTES:]
            else:
                *lines, self._heard = (self._heard + data).split(b"\n")
                for line in lines:
                    self._take(line.decode(errors="replace"))
        return True

    def _take(self, line: str) -> None:
        if chain := CHAIN.search(line):
            size, hours, minutes, seconds = chain.groups()
            pts_s = None if hours is None else int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            self._waiting.append(_Told(self._told_wh, int(size), pts_s, time.monotonic()))
        elif caps := CAPS.search(line.replace("\\", "")):
            self._told_wh = int(caps[1]), int(caps[2])
            if self.size_wh == (0, 0):
                self.size_wh = self._told_wh
                rate = RATE.search(caps[3])
                self.fps = int(rate[1]) / int(rate[2]) if rate and int(rate[1]) and int(rate[2]) else None

    def _why(self) -> str | None:
        """The line of gst-launch's that says what went wrong, after its end; None when nothing did."""
        with suppress(subprocess.TimeoutExpired, BlockingIOError):
            self._process.wait(CLOSE_WITHIN_S)
            self._said += os.read(self._err, SAID_BYTES)
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        for start in (r"ERROR: from element (?:/GstPipeline:\w+/)?", r"(?:WARNING: )?erroneous pipeline: ", r"ERROR:? "):
            for line in lines:
                if found := re.match(start, line):
                    return one_line(line[found.end() :])
        code = self._process.poll()
        if not code:
            return None
        return one_line(lines[-1]) if lines else f"gst-launch-1.0 ended with {code}"


def _arguments(pipeline: str) -> list[str]:
    """The pipeline in words, without its appsink. Raises SourceError for one with another sink at its end."""
    try:
        words = shlex.split(pipeline)
    except ValueError as error:
        raise SourceError(f"the pipeline has {str(error).lower()}") from None
    last = words[::-1].index("!") if "!" in words else len(words)
    element = words[len(words) - last] if last else ""
    if element == "appsink" or (words and last == 0):
        words = words[: -last - 1]
    elif element.endswith("sink"):
        raise SourceError(f"the pipeline ends in {element}; leave that out, the frames are taken from what is before it")
    if not words:
        raise SourceError("the pipeline is empty; try 'gst:videotestsrc is-live=true'")
    return words


def _launch(program: str, arguments: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start gst-launch, which dies with this thread; it and the end of the pipe where its frames come out.

    Without util-linux's setpriv it ends at the first frame that nobody takes.
    """
    frames, into = os.pipe()
    with suppress(OSError):  # it may be more than this user may have; a smaller pipe costs switches between the processes
        fcntl(into, F_SETPIPE_SZ, PIPE_BYTES)
    tail = [*TAIL.split(), "!", "identity", f"name={REPORTER}", "silent=false", "!", "fdsink", f"fd={into}", "sync=false"]
    setpriv = shutil.which("setpriv")  # preexec_fn would ask for the same, but may not be used beside threads
    dying_too = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    try:
        process = subprocess.Popen(
            [*dying_too, program, "-v", *arguments, *tail],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(into,),
            env=os.environ | {"LC_ALL": "C", "GST_DEBUG_NO_COLOR": "1"},  # its words are read
            start_new_session=True,  # Ctrl-C is for edge-run, which then ends this one
        )
    except OSError as error:
        os.close(frames)
        raise SourceError(f"{program} does not start: {error.strerror}") from None
    finally:
        os.close(into)
    return process, frames
