"""Network cameras as they are: a real RTSP server that dies, hangs and comes back, MJPEG over HTTP, and GStreamer.

The pictures of rtsp_server.py tell when they were made, so what is said of a frame's age can be held against its age.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.sources import open_source
from edge.types import Frame, Notice

pytestmark = pytest.mark.integration
EDGE_RUN = Path(sys.executable).with_name("edge-run")
SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"
NEEDED = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')\n"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None)\n"
    "assert all(map(Gst.ElementFactory.find, ['appsrc', 'x264enc', 'rtph264pay']))"
)
APT = (
    "apt install python3-gi gir1.2-gst-rtsp-server-1.0 "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
)
FPS, PERIOD_MS = 25, 40.0
PATIENCE_S = 40.0
HIDDEN_S = 0.25
"""What an age on the client's side cannot know of: encoding, the network at its quickest, decoding of the next picture."""


class RtspServer:
    """rtsp_server.py in a process of its own, which can be killed, halted and started again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self.start()

    def start(self) -> None:
        """Start it; it can be connected to when this returns."""
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, SERVER, str(self.port), "--fps", str(FPS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"listening\n"

    def kill(self) -> None:
        """End it as a loss of power would, but for what the kernel then sends."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def rtsp() -> Iterator[RtspServer]:
    if subprocess.run([SYSTEM_PYTHON, "-c", NEEDED], capture_output=True, check=False).returncode:
        pytest.skip(f"no RTSP server here; {APT}")
    server = RtspServer()
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """An edge-run under way that writes its events into a file."""

    def __init__(self, folder: Path, source: str, *arguments: str) -> None:
        self.events_path, self.summary_path = folder / "events.jsonl", folder / "summary.json"
        self.process = subprocess.Popen(
            [EDGE_RUN, "--source", source, "--events", self.events_path, "--summary", self.summary_path, *arguments],
            stderr=subprocess.PIPE,
        )

    def lines(self) -> list[dict[str, Any]]:
        """Everything in the events file so far."""
        text = self.events_path.read_text() if self.events_path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def frames(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["kind"] == "frame"]

    def notices(self, *kinds: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["kind"] == "notice" and line["notice"] in kinds]

    def wait_for(self, there: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
        """What `there` gives once that is true."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            if found := there():
                return found
            assert self.process.poll() is None, self.ended()
            time.sleep(0.05)
        raise AssertionError(f"no {what} within {within_s} s; the last lines: {self.lines()[-3:]}")

    def ended(self) -> str:
        """How it ended and what it said."""
        _, said = self.process.communicate(timeout=PATIENCE_S)
        return f"exit code {self.process.returncode}: {said.decode()}"

    def finish(self) -> dict[str, Any]:
        """The summary, after SIGTERM if it has not ended by itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.ended().startswith("exit code 0"), self.process.returncode
        return dict(json.loads(self.summary_path.read_bytes()))


@contextmanager
def edge_run(folder: Path, source: str, *arguments: str) -> Iterator[Running]:
    """Start edge-run, and be sure that it is gone afterwards."""
    running = Running(folder, source, *arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def wall_s(iso_8601: str) -> float:
    return datetime.fromisoformat(iso_8601.replace("Z", "+00:00")).timestamp()


def assert_counts_up(frames: list[dict[str, Any]]) -> None:
    sequence = [frame["seq"] for frame in frames if not frame["revises"]]
    assert sequence == sorted(set(sequence)), "a frame came twice or late"


def test_frames_flow_and_are_fresh(rtsp: RtspServer, tmp_path: Path) -> None:
    with edge_run(tmp_path, rtsp.url, "--max-frames", "200") as running:
        assert running.ended().startswith("exit code 0")
        frames, summary = running.frames(), running.finish()
    assert len(frames) == summary["frames"] == 200
    assert_counts_up(frames)
    assert {frame["source"] for frame in frames} == {rtsp.url}
    assert [notice["about"] for notice in running.notices("source-open")] == [rtsp.url]
    steady = frames[FPS:]
    infer_ms = [frame["timings_ms"]["infer"] for frame in steady]
    if np.percentile(infer_ms, 50) > PERIOD_MS:
        pytest.skip(f"the model is slower than the camera here: {np.percentile(infer_ms, 50):.0f} ms")
    age_ms = [frame["age_ms"] for frame in steady]
    assert min(age_ms) > 0
    assert np.percentile(age_ms, 99) < 2 * PERIOD_MS + np.percentile(infer_ms, 99)


def test_a_server_that_dies_is_waited_for(rtsp: RtspServer, tmp_path: Path) -> None:
    with edge_run(tmp_path, rtsp.url) as running:
        running.wait_for(lambda: len(running.frames()) > 30, "frames")
        died_s = time.time()
        rtsp.kill()
        (lost,) = running.wait_for(lambda: running.notices("source-lost"), "source-lost", within_s=5.0)
        assert lost["about"] == rtsp.url
        assert wall_s(lost["at"]) - died_s < 4.0
        time.sleep(max(0.0, died_s + 5.0 - time.time()))
        before = len(running.frames())
        rtsp.start()
        back_s = time.time()
        running.wait_for(lambda: len(running.frames()) > before, "frame of the new server", within_s=10.0)
        first = running.frames()[before]
        assert wall_s(first["captured_at"]) - back_s < 3.0, "the first fresh frame came late"
        running.wait_for(lambda: len(running.frames()) > before + 50, "more frames")
        assert [notice["about"] for notice in running.notices("source-open")] == [rtsp.url] * 2
        frames, summary = running.frames(), running.finish()
    assert len(running.notices("source-lost")) == 1, "one outage, one notice"
    assert_counts_up(frames)
    assert summary["frames"] >= len(frames)
    during = [frame for frame in frames if died_s + 1.0 < wall_s(frame["captured_at"]) < back_s]
    assert during == [], "frames from a server that was not there"


def test_a_server_that_says_nothing_is_noticed(tmp_path: Path) -> None:
    connected_s: list[float] = []
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(listening.accept()[0])
                    connected_s.append(time.time())

        threading.Thread(target=accept, daemon=True).start()
        try:
            with edge_run(tmp_path, f"rtsp://127.0.0.1:{listening.getsockname()[1]}/live") as running:
                told = running.wait_for(lambda: running.notices("source-stalled", "source-lost"), "notice")
                assert wall_s(told[0]["at"]) - connected_s[0] < 2.0
                assert running.finish()["frames"] == 0
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()


class Seen:
    """Each frame of a source, read in this process: when it came, how old it was said to be, and how old it was."""

    def __init__(self) -> None:
        self.arrived_s: list[float] = []
        self.said_s: list[float] = []
        self.true_s: list[float] = []
        self.notices: list[Notice] = []

    def add(self, frame: Frame) -> None:
        now_s = time.monotonic()
        self.arrived_s.append(now_s)
        self.said_s.append(now_s - frame.captured_s)
        self.true_s.append(now_s - made_s(frame.image, now_s))

    def watch(self, url: str, for_s: float, *plan: tuple[float, Callable[[], object]]) -> None:
        """Read for so many seconds; each part of the plan is done so many seconds after the first frame."""
        timers: list[threading.Timer] = []
        with open_source(url) as source:
            for frame in source:
                if not self.arrived_s:
                    timers = [threading.Timer(*step) for step in plan]
                    for timer in timers:
                        timer.start()
                self.add(frame)
                if self.arrived_s[-1] - self.arrived_s[0] > for_s:
                    break
            self.notices = list(source.notices)
        for timer in timers:
            timer.join()

    def assert_honest(self) -> None:
        """No frame is older than was said, but for what nobody on this side can know."""
        said_s, true_s = np.array(self.said_s), np.array(self.true_s)
        worst = int(np.argmax(true_s - said_s))
        assert said_s.min() >= 0
        assert true_s[worst] - said_s[worst] < HIDDEN_S, (
            f"frame {worst} of {len(true_s)} was {true_s[worst]:.3f} s old and said to be {said_s[worst]:.3f} s"
        )


def made_s(image: np.ndarray, now_s: float) -> float:
    """When rtsp_server.py made this picture, on time.monotonic()."""
    height, width = image.shape[:2]
    block = width // 32
    row = image[height // 64 : height // 32, block // 2 :: block].mean(axis=(0, 2))[:32]
    stamp_ms = int("".join("1" if value > 128 else "0" for value in row), 2)
    behind_ms = (int(now_s * 1e3) - stamp_ms) % 2**32
    assert behind_ms < 60_000, "no time can be read in this picture"
    return now_s - behind_ms / 1e3


def test_a_server_that_hangs_is_noticed_and_ages_stay_true(rtsp: RtspServer) -> None:
    halted_s: list[float] = []

    def halt() -> None:
        halted_s.append(time.time())
        rtsp.process.send_signal(signal.SIGSTOP)

    seen = Seen()
    seen.watch(rtsp.url, 14.0, (3.0, halt), (7.0, lambda: rtsp.process.send_signal(signal.SIGCONT)))
    bad = [notice for notice in seen.notices if notice.kind in ("source-stalled", "source-lost")]
    told = [notice for notice in bad if notice.at_s > halted_s[0]]
    assert told, "4 s without a frame, and not a word"
    assert told[0].about == rtsp.url
    assert 1.0 < told[0].at_s - halted_s[0] < 2.3
    gap_s = float(np.diff(seen.arrived_s).max())
    assert 3.5 < gap_s < 7.5, f"frames were back {gap_s - 4.0:.1f} s after the server"
    assert seen.arrived_s[-1] - seen.arrived_s[0] > 14.0
    seen.assert_honest()


def test_the_decoder_keeps_one_picture_back_and_no_more(rtsp: RtspServer) -> None:
    """FFmpeg knows that a picture is whole when the next one begins; each thread of its own would keep back another."""
    seen = Seen()
    seen.watch(rtsp.url, 3.0)
    assert np.median(seen.true_s[FPS:]) < 1.7 * PERIOD_MS / 1e3
    seen.assert_honest()


class Proxy:
    """Passes bytes between clients and a port, or keeps them while it is `held`."""

    def __init__(self, port: int) -> None:
        self.target, self.flowing = port, threading.Event()
        self.flowing.set()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                pair = [self.listening.accept()[0], socket.create_connection(("127.0.0.1", self.target))]
                self.sockets += pair
                for one, other in (pair, pair[::-1]):
                    threading.Thread(target=self.pass_on, args=(one, other), daemon=True).start()

    def pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                self.flowing.wait()
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.flowing.set()
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_frames_that_a_network_held_back_do_not_look_new(rtsp: RtspServer) -> None:
    proxy, seen = Proxy(rtsp.port), Seen()
    try:
        url = f"rtsp://127.0.0.1:{proxy.port}/live"
        seen.watch(url, 8.0, (3.0, proxy.flowing.clear), (4.2, proxy.flowing.set))
    finally:
        proxy.close()
    assert float(np.diff(seen.arrived_s).max()) > 1.0, "nothing was held back"
    seen.assert_honest()
    assert max(seen.said_s) > 0.8, "what had waited for 1.2 s was said to be new"
    assert seen.true_s[-1] < HIDDEN_S, "it never caught up"


def test_a_gstreamer_pipeline_with_padded_rows(tmp_path: Path) -> None:
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("gst-launch-1.0 is not installed; apt install gstreamer1.0-tools gstreamer1.0-plugins-base")
    pipeline = "gst:videotestsrc pattern=ball is-live=true ! video/x-raw,width=322,height=240,framerate=25/1"
    with edge_run(tmp_path, pipeline, "--max-frames", "60") as running:
        assert running.ended().startswith("exit code 0")
        frames = running.frames()
    assert len(frames) == 60
    assert_counts_up(frames)
    (opened,) = running.notices("source-open")
    assert opened["text"].startswith("322x240 BGR 25 frames/s")


class MotionJpeg(BaseHTTPRequestHandler):
    """What cheap network cameras serve: JPEGs one after the other in an answer that never ends."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with suppress(OSError):
            for number in range(10**6):
                image = np.full((240, 320, 3), number % 251, np.uint8)
                data = cv2.imencode(".jpg", image)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(1 / FPS)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def test_motion_jpeg_over_http(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), MotionJpeg) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with edge_run(tmp_path, f"http://127.0.0.1:{server.server_port}/", "--max-frames", "50") as running:
                assert running.ended().startswith("exit code 0")
                frames = running.frames()
        finally:
            server.shutdown()
    assert len(frames) == 50
    assert_counts_up(frames)
    assert max(frame["age_ms"] for frame in frames[FPS:]) < 1000
