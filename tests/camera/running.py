"""An edge-run under way in the VM: what it writes, read on threads so that no test ever holds up the loop."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

EDGE_RUN = Path(sys.executable).with_name("edge-run")
BUNDLE = os.environ.get("CAMERA_BUNDLE", "")
SLOW_BUNDLE = Path(__file__).parents[2] / "edge/data/efficientnet-lite0.edge"
"""Most of a second a frame in the VM: the engine is what is scarce."""
PATIENCE_S = 60.0
"""For a process to start or to end in the VM: 10 to 20 s is usual."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the events, and when it arrived here; all times are `time.time()`, of one clock."""

    arrived_s: float
    event: dict[str, Any]

    @property
    def at_s(self) -> float:
        """When the frame was captured, or when the notice was made."""
        text = self.event["captured_at"] if self.event["kind"] == "frame" else self.event["at"]
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Running:
    """An edge-run, its events in `lines` and its standard error in `said` as they come."""

    def __init__(self, *arguments: str, model: str | Path = BUNDLE) -> None:
        self.process = subprocess.Popen(
            [EDGE_RUN, "--model", model, "--threads", "1", "--no-spin", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pipesize=4096,  # the smallest there is, so that a reader who pauses is soon felt
        )
        self.lines: list[Line] = []
        self.said: list[str] = []
        self.listening = threading.Event()
        """Cleared, the events are left in the pipe."""
        self.listening.set()
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_events, self._read_said)]
        for thread in self._threads:
            thread.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append(Line(time.time(), json.loads(text)))
            self.listening.wait()

    def _read_said(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def frames(self, source: str, since: int = 0) -> list[Line]:
        """The frames of a source, from line number `since` on."""
        return [line for line in self.lines[since:] if line.event["kind"] == "frame" and line.event["source"] == source]

    def notices(self, source: str, since: int = 0) -> list[Line]:
        """The notices about a source, from line number `since` on."""
        return [line for line in self.lines[since:] if line.event["kind"] == "notice" and line.event["about"] == source]

    def wait(self, what: str, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        """Wait until `condition`, or fail with `what` was waited for and what there was instead."""
        until_s = time.monotonic() + patience_s
        while not condition():
            ended = f", edge-run ended with {self.process.poll()}" if self.process.poll() is not None else ""
            if time.monotonic() > until_s or ended:
                latest = [f"{line.event['about']}: {line.event['text']}" for line in self.lines if "text" in line.event][-4:]
                raise AssertionError(f"{what}: not within {patience_s:g} s{ended}; said {self.said[-4:]}, noticed {latest}")
            time.sleep(0.02)

    def finish(self) -> tuple[int, list[str]]:
        """Wait for the end: the exit code and the lines on standard error."""
        code = self.process.wait(timeout=PATIENCE_S)
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)
        return code, [line.rstrip("\n") for line in self.said]

    def fork_server(self) -> int:
        """The process id of the server that readers are forked from."""
        children = {child: _content(Path(f"/proc/{child}/cmdline")) for child in _children(self.process.pid)}
        [server] = [child for child, command in children.items() if b"edge.capture.forkserver" in command]
        return server

    def reader_of(self, camera: int) -> int:
        """The process id of the reader that holds /dev/videoN."""
        for reader in _children(self.fork_server()):
            if any(_target(link) == f"/dev/video{camera}" for link in _listed(Path(f"/proc/{reader}/fd"))):
                return reader
        raise AssertionError(f"no reader process has /dev/video{camera} open")


@contextmanager
def edge_run(*arguments: str, model: str | Path = BUNDLE) -> Iterator[Running]:
    """Start edge-run, and be sure that it is gone afterwards."""
    running = Running(*arguments, model=model)
    try:
        yield running
    finally:
        running.listening.set()
        running.process.kill()
        running.finish()
        for pipe in (running.process.stdout, running.process.stderr):
            assert pipe is not None
            pipe.close()


def v4l2(camera: int, *arguments: str) -> str:
    """What v4l2-ctl says of /dev/videoN."""
    command = ["v4l2-ctl", f"-d{camera}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def negotiated(camera: int) -> str:
    """Size and pixel format that the driver delivers, as in `640x480 YUYV`."""
    said = v4l2(camera, "--get-fmt-video")
    found = re.search(r"Width/Height\s*: (\d+)/(\d+)\s*Pixel Format\s*: '(\w+)'", said)
    assert found, said
    return f"{found[1]}x{found[2]} {found[3]}"


def errors(said: Iterable[str]) -> list[str]:
    """The lines on standard error that are not what a good run says, too."""
    usual = re.compile(r"edge-run: (.* reading .*; Ctrl-C ends it|\d+ frames in .*|latency p50 .*|camera:\d: \d+x\d+ .*)")
    return [line for line in said if not usual.fullmatch(line)]


def _children(process: int) -> list[int]:
    """Of all its threads: the kernel keeps one list for each."""
    texts = [_content(task / "children") for task in _listed(Path(f"/proc/{process}/task"))]
    return [int(child) for text in texts for child in text.split()]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # its process has ended
        return b""


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
