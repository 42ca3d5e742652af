"""The headline command on a real V4L2 device: `edge-run --camera 0` as a user starts it.

The device is the kernel's virtual webcam, in the VM that vm.sh boots (`make camera`). Python is some 15 times slower in
there, so each test starts as few processes as its story needs, and the bounds on time are wide.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.camera,
    pytest.mark.skipif(os.environ.get("CAMERA_VM") != "1", reason="needs a virtual webcam; make camera has one"),
]

EDGE_RUN = Path(sys.executable).with_name("edge-run")
BUNDLE = os.environ.get("CAMERA_BUNDLE", "")
PATIENCE_S = 60.0
"""For a process to start or to end in the VM: 10 s is usual."""


class Running:
    """An edge-run under way, its events read as they are asked for."""

    def __init__(self, *arguments: str) -> None:
        # the smallest pipe there is, so that a reader who pauses soon holds up the loop
        self.process = subprocess.Popen(
            [EDGE_RUN, "--model", BUNDLE, "--threads", "1", "--no-spin", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pipesize=4096,
        )

    def events(self, count: int) -> list[dict[str, Any]]:
        """The next `count` events, or those there are until the end."""
        assert self.process.stdout is not None
        lines = (self.process.stdout.readline() for _ in range(count))
        return [json.loads(line) for line in lines if line]

    def finish(self) -> tuple[int, list[dict[str, Any]], list[str]]:
        """Wait for the end: the exit code, the events not read so far and the lines on standard error."""
        out, said = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], said.decode().splitlines()


@contextmanager
def edge_run(*arguments: str) -> Iterator[Running]:
    """Start edge-run, and be sure that it is gone afterwards."""
    running = Running(*arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def v4l2(*arguments: str) -> str:
    return subprocess.run(["v4l2-ctl", "-d0", *arguments], check=True, capture_output=True, text=True).stdout


def gaps(events: Sequence[dict[str, Any]]) -> int:
    """How many frames are missing between the first and the last of these events."""
    return int(events[-1]["seq"]) - int(events[0]["seq"]) + 1 - len(events)


def avi_size_wh(path: Path) -> tuple[int, int]:
    """Width and height in an AVI file's main header."""
    data = path.read_bytes()[:72]
    assert data[:4] == b"RIFF", "--video wrote no AVI file"
    assert data[24:28] == b"avih", "--video wrote no AVI file"
    width, height = struct.unpack_from("<II", data, 64)
    return width, height


def test_frames_arrive_fresh_and_every_dropped_one_is_counted(tmp_path: Path) -> None:
    summary_path, video = tmp_path / "summary.json", tmp_path / "seen.avi"
    with edge_run(
        "--camera", "0", "--max-frames", "60", "--summary", str(summary_path), "--video", str(video)
    ) as running:  # fmt: skip
        events = running.events(10)
        negotiated = v4l2("--get-fmt-video")
        time.sleep(3.0)  # nobody reads: the pipe fills, the loop waits, the camera goes on
        code, rest, said = running.finish()
    events += rest
    assert code == 0, said
    assert len(events) == 60
    assert re.search(r"Width/Height\s*: 640/480", negotiated), negotiated
    assert avi_size_wh(video) == (640, 480)
    sequence = [event["seq"] for event in events]
    assert sequence == sorted(set(sequence)), "a frame came twice or late"
    assert {event["source"] for event in events} == {"camera:0"}
    assert {event["served_by"] for event in events} == {"local"}
    ages_ms = sorted(event["age_ms"] for event in events)
    assert ages_ms[0] > 0
    assert ages_ms[-1] < 2000, "a frame waited while the loop did: that one should have been dropped for a newer"
    summary = json.loads(summary_path.read_bytes())
    assert summary["frames"] == 60
    assert gaps(events) > 10, "3 s without a reader cost no frames"
    assert summary["dropped"] >= events[-1]["seq"] + 1 - 60, "frames are missing that the summary does not own up to"
    assert summary["dropped"] <= events[-1]["seq"] + 1 - 60 + 50, "more drops than frames"


def test_a_busy_device_is_refused_in_one_line_and_a_signal_ends_the_loop_cleanly(tmp_path: Path) -> None:
    summary_path = tmp_path / "summary.json"
    with edge_run("--camera", "0", "--summary", str(summary_path)) as holder, edge_run("--camera", "9") as absent:
        assert len(holder.events(1)) == 1
        with edge_run("--camera", "0") as second:
            deadline_s = time.monotonic() + PATIENCE_S
            while second.process.poll() is None and time.monotonic() < deadline_s:
                holder.events(1)
            refused = second.finish()
        seen = holder.events(5)
        assert len(seen) == 5, "the first holder of the device did not survive the second"
        holder.process.send_signal(signal.SIGTERM)
        code, rest, said = holder.finish()
        missing = absent.finish()
    assert (refused[0], refused[1]) == (2, []), refused
    assert errors(refused[2]) == [refused[2][-1]]
    assert "/dev/video0 cannot be opened" in refused[2][-1]
    assert (missing[0], missing[1]) == (2, []), missing
    assert errors(missing[2]) == [missing[2][-1]]
    assert "/dev/video9 does not exist" in missing[2][-1]
    assert "/dev/video0" in missing[2][-1], "the line should name the cameras there are"
    assert code == 0, said
    assert errors(said) == [], said
    assert any("SIGTERM" in line for line in said), said
    summary = json.loads(summary_path.read_bytes())
    assert "SIGTERM" in summary["ended"]
    assert gaps([*seen, *rest]) <= summary["dropped"]


def test_a_camera_that_goes_ends_the_loop_with_one_line_and_can_be_opened_again() -> None:
    driver = Path("/sys/bus/platform/drivers/vivid")

    def disconnect() -> None:  # the device stays in its place and answers nothing more
        v4l2("-c", "disconnect=1")

    def unplug() -> None:  # the device is gone
        (driver / "unbind").write_text("vivid.0")

    try:
        for fault in (disconnect, unplug):  # the second start shows that the first fault is over
            with edge_run("--camera", "0") as running:
                assert len(running.events(3)) == 3
                fault()
                gone_s = time.monotonic()
                code, rest, said = running.finish()
                took_s = time.monotonic() - gone_s
            assert code == 1, said
            assert took_s < 10, f"{fault.__name__}: ended after {took_s:.1f} s"
            assert "camera 0: stopped delivering" in said[-1]
            assert errors(said) == [said[-1]]
            assert len(rest) < 100, "frames were made up after the camera had gone"
        assert not Path("/dev/video0").exists()
    finally:
        if not (driver / "vivid.0").exists():
            (driver / "bind").write_text("vivid.0")


def test_a_camera_that_falls_silent_ends_the_loop_and_does_not_hold_up_a_signal() -> None:
    try:
        with edge_run("--camera", "0") as running:
            assert len(running.events(3)) == 3
            v4l2("-c", "percentage_of_dropped_buffers=100")
            silent_s = time.monotonic()
            code, _, said = running.finish()
            took_s = time.monotonic() - silent_s
        assert code == 1, said
        assert took_s < 30, f"noticed after {took_s:.1f} s"
        assert errors(said) == [said[-1]]
        assert "camera 0: " in said[-1]
        v4l2("-c", "percentage_of_dropped_buffers=0")
        with edge_run("--camera", "0") as running:
            assert len(running.events(3)) == 3
            v4l2("-c", "percentage_of_dropped_buffers=100")
            time.sleep(2.0)
            running.process.send_signal(signal.SIGTERM)
            signalled_s = time.monotonic()
            code, _, said = running.finish()
            took_s = time.monotonic() - signalled_s
        assert (code, errors(said)) == (0, []), said
        assert took_s < 8, f"ended {took_s:.1f} s after SIGTERM"
    finally:
        v4l2("-c", "percentage_of_dropped_buffers=0")


def errors(said: Sequence[str]) -> list[str]:
    """The lines on standard error that are not what a good run says, too."""
    usual = re.compile(r"edge-run: (.* reading .*; Ctrl-C ends it|\d+ frames in .*|latency p50 .*)")
    return [line for line in said if not usual.fullmatch(line)]
