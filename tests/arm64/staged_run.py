"""edge-run as it is, with each thread telling the counting plugin (count_stages.c) what it is at: runs under emulation.

    staged_run.py WARM_UP FRAMES [OPTION OF edge-run ...]

`--source webcam` is a 640x480 YUYV camera: OpenCV's conversion and all that comes after, without the kernel's part.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

import edge.commands.run as command
import edge.commands.run_session as session
import edge.intake
import edge.sources.live as live
import edge.workers
from edge.capture.devices import DEVICES, DeviceSpec
from edge.capture.reader import STARTED_KIND, ReaderSpec, read
from edge.engines.onnx import OnnxEngine
from edge.engines.tflite import TfliteEngine
from edge.protocols import Source
from edge.sinks.jsonl import JsonlSink
from edge.sources import open_source
from edge.sources.demo import DemoSource
from edge.sources.live import Limits, LiveSource
from edge.tasks.classify import Classify
from edge.types import UInt8

MARKING = 777
BEGIN, END = 62, 63
FOREIGN, LOOP, ENGINE, CAPTURE, PREPARE, DECODE, HANDOVER, SINK = range(8)
THREADS = {"source": CAPTURE, "reader": CAPTURE, "inference": HANDOVER, "sink": SINK}
SIZE_WH = (640, 480)
SETTLES_S = 0.5
NEVER_S = 3600.0

at = threading.local()
wanted = threading.Semaphore(0)
"""Frames that the webcam may deliver: one at each inference, the golden check among them, so that none is ever dropped."""
one_at_a_time = threading.Lock()
inferences = 0


def mark(stage: int) -> None:
    os.lseek(MARKING, stage, os.SEEK_SET)


def staged(stage: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, counted as `stage`."""

    def counted(*arguments: Any) -> Any:
        before = getattr(at, "stage", LOOP)
        at.stage = stage
        mark(stage)
        try:
            return call(*arguments)
        finally:
            at.stage = before
            mark(before)

    return counted


def stages_by_thread() -> None:
    """Let each thread begin with the stage of its name."""
    run = threading.Thread.run

    def running(self: threading.Thread) -> None:
        at.stage = next((stage for name, stage in THREADS.items() if self.name.startswith(name)), LOOP)
        mark(at.stage)
        run(self)

    threading.Thread.run = running  # type: ignore[method-assign]


def counting(infer: Callable[..., Any], warm_up: int, frames: int) -> Callable[..., Any]:
    """Inferences one at a time; counts begin with number `warm_up` and end with number `warm_up + frames`."""
    counted = staged(ENGINE, infer)

    def inferring(*arguments: Any) -> Any:
        global inferences
        with one_at_a_time:
            if inferences in (warm_up, warm_up + frames):
                time.sleep(SETTLES_S)  # the others finish what they are at
                mark(BEGIN if inferences == warm_up else END)
            inferences += 1
            wanted.release()
            return counted(*arguments)

    return inferring


class Webcam:
    """Pictures of the demo as YUYV, as a camera's driver has them."""

    size_wh = SIZE_WH
    fps = 30.0
    text = "640x480 YUYV"

    def __init__(self, spec: DeviceSpec) -> None:
        demo = DemoSource()
        demo.open()
        self._frames = [yuyv(demo.picture(number)) for number in (0, 20, 40)]
        self._next = 0

    def grab(self) -> float | None:
        wanted.acquire()
        self._next += 1
        return time.monotonic()

    def retrieve(self, into: UInt8) -> bool:
        frame = self._frames[self._next % len(self._frames)]
        cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_YUYV, dst=into)  # what OpenCV does for a V4L2 camera
        return True

    def close(self) -> None:
        pass


def yuyv(picture: UInt8) -> UInt8:
    y, u, v = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV))
    chroma = np.empty_like(u)
    chroma[:, 0::2], chroma[:, 1::2] = u[:, 0::2], v[:, 0::2]
    return np.ascontiguousarray(np.stack((y, chroma), axis=-1))


class ThreadServer:
    """In place of the fork server: readers are threads, so that one counter sees them."""

    def start(self) -> None:
        pass

    def open(self, spec: ReaderSpec, after: int = 0) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.send(bytes([STARTED_KIND]))
        threading.Thread(target=read, args=(spec, theirs), name="reader", daemon=True).start()
        return 1, ours

    def kill(self, number: int) -> None:
        pass


def opened(uri: str, wish: Any = None) -> Source:
    if uri != "webcam":
        return open_source(uri, wish)
    limits = Limits(stalled=NEVER_S, opening=NEVER_S, reading=NEVER_S)
    return LiveSource("camera:0", DeviceSpec("webcam", "0"), limits=limits)


def main(warm_up: int, frames: int, options: list[str]) -> int:
    os.dup2(os.open(__file__, os.O_RDONLY), MARKING)
    mark(LOOP)
    cv2.setNumThreads(1)
    DEVICES["webcam"] = Webcam  # type: ignore[assignment]
    session.open_source = opened  # type: ignore[attr-defined]
    live.FORK_SERVER = ThreadServer()  # type: ignore[attr-defined, assignment]
    # waits that end by themselves cost by the clock, and emulation is 30 times slower
    live.STOP_WITHIN_S = edge.workers.TICK_S = edge.intake.STUCK_S = NEVER_S / 2
    stages_by_thread()
    for engine in (OnnxEngine, TfliteEngine):
        engine.infer = counting(engine.infer, warm_up + 1, frames)  # type: ignore[method-assign]
    Classify.prepare = staged(PREPARE, Classify.prepare)  # type: ignore[method-assign]
    Classify.decode = staged(DECODE, Classify.decode)  # type: ignore[method-assign]
    JsonlSink.emit = staged(SINK, JsonlSink.emit)  # type: ignore[method-assign]
    limit = str(warm_up + frames + 4)  # workers read ahead to the end of what is counted
    return int(command.main([*options, "--max-frames", limit], standalone_mode=False) or 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
