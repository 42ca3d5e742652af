"""A stand-in for the live page's server: the interface of edge.web with scripted data, and nothing behind it.

`python -m tests.web_stand_in [PORT]` serves it, to work on the page without a camera or a model.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import cv2
import msgspec

from edge.sources.demo import DemoSource
from edge.status import (
    Answered,
    BoardStatus,
    ControlsStatus,
    GovernorStatus,
    History,
    ModelStatus,
    OffloadStatus,
    SourceStatus,
    StageTimes,
    Status,
)
from edge.web.security import POLICY

STATIC = Path(__file__).parent.parent / "edge" / "web" / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html; charset=utf-8"}
LOOK_S = 0.02
BODY_AT_MOST = 4096


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any = None


def now_iso(ago_s: float = 0.0) -> str:
    """UTC, as in the status."""
    return datetime.fromtimestamp(time.time() - ago_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answered(caption: str, label: str | None, confidence: float, **others: Any) -> Answered:
    """A result of now."""
    given: dict[str, Any] = {
        "seq": 812,
        "action": "accept",
        "served_by": "local",
        "captured_at": now_iso(),
        "shown_age_ms": 71.4,
    } | others
    return Answered(caption=caption, label=label, confidence=confidence, **given)


def source(number: int = 1, name: str = "camera 0", **others: Any) -> SourceStatus:
    """An open camera."""
    given: dict[str, Any] = {
        "live": True,
        "state": "open",
        "trouble": "",
        "quiet_s": 0.06,
        "fps": 14.8,
        "frames": 12408,
        "dropped": 31,
        "skipped": 0,
        "paced": 0,
        "result": answered("1 cat, 1 chair", "cat", 0.874),
        "cloud": None,
    }
    return SourceStatus(number=number, name=name, **(given | others))


def offload(**others: Any) -> OffloadStatus:
    """An endpoint that answers."""
    given: dict[str, Any] = {
        "endpoint": "triton.example:8000",
        "breaker": "closed",
        "asking": 0,
        "submitted": 214,
        "revised": 209,
        "failed": 0,
        "late": 2,
        "given_up": 0,
        "withheld": 0,
        "declined": 0,
        "spool_waiting": 0,
        "sent_bytes": 8_412_000,
    }
    return OffloadStatus(**(given | others))


def board(**others: Any) -> BoardStatus:
    """A warm one."""
    given: dict[str, Any] = {
        "title": "Raspberry Pi 5",
        "temperature_c": 61.2,
        "limit_c": 80.0,
        "throttled": [],
        "watts": None,
        "battery": None,
        "load": 1.2,
        "memory_bytes": 184_000_000,
        "cpu_share": 1.31,
    }
    return BoardStatus(**(given | others))


def history(seconds: int = 120) -> History:
    """Two minutes with a doubtful stretch that was offloaded."""
    confidence = [round(0.8 + 0.1 * math.sin(i / 7) - 0.4 * math.exp(-(((i - 70) / 8) ** 2)), 3) for i in range(seconds)]
    return History(
        end=839,
        fps=[15 if i % 11 else 13 for i in range(seconds)],
        age_ms=[70 + 9 * math.sin(i / 3) + (60 if i == 40 else 0) for i in range(seconds)],
        infer_ms=[41 + 3 * math.sin(i / 5) for i in range(seconds)],
        confidence=list(confidence),
        offloaded=[3 if value < 0.6 else 0 for value in confidence],
    )


def status(**others: Any) -> Status:
    """A healthy board with one camera and an endpoint."""
    given: dict[str, Any] = {
        "at": now_iso(),
        "seconds": 840.0,
        "model": ModelStatus("household", "int8-arm", "onnx", 4),
        "sources": [source()],
        "fps": 14.8,
        "stages_ms": StageTimes(8.1, 3.2, 41.5, 2.04, 71.4),
        "history": history(),
        "offload": offload(),
        "governor": GovernorStatus(16, 16, ""),
        "board": board(),
        "controls": ControlsStatus(paused=False, threshold=0.6, score_threshold=0.3, gate=True),
        "notices": 3,
        "events_lost": 0,
    }
    return Status(**(given | others))


def moment(number: int, kind: str, text: str, **others: Any) -> dict[str, Any]:
    """Something that has happened."""
    given: dict[str, Any] = {
        "id": number,
        "at": now_iso(),
        "kind": kind,
        "source": 1,
        "seq": 700 + number,
        "text": text,
        "picture": True,
    }
    return given | others


@cache
def photograph(number: int, words: str, size_wh: tuple[int, int] = (640, 480)) -> bytes:
    """A JPEG of the demo with a box in it."""
    demo = DemoSource()
    demo.open()
    image = cv2.resize(demo.picture(number), size_wh)
    width, height = size_wh
    at = width // 4 + number % 40, height // 4
    cv2.rectangle(image, at, (at[0] + width // 3, height * 3 // 4), (120, 220, 120), 2)
    cv2.putText(image, words, (at[0], at[1] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (120, 220, 120), 2, cv2.LINE_AA)
    return bytes(cv2.imencode(".jpg", image)[1])


class StandIn:
    """Serves the page on `url`; a test sets what it tells and how it fails, at any time, and reads what was asked.

    `mute`: connections stay, but nothing is said. `full`: there is no room for another viewer. `picture_size_wh` None:
    there is no picture. `refusal`: the controls answer with it. `token`: what viewers must know, None for nothing.
    """

    def __init__(self, port: int = 0, token: str | None = None) -> None:
        self.status = status()
        self.moments: list[dict[str, Any]] = []
        self.session = {"viewers": 1, "controllable": True, "version": "0.1.0"}
        self.mute = self.full = False
        self.refusal: tuple[int, str] | None = None
        self.picture_size_wh: tuple[int, int] | None = (640, 480)
        self.fps = 5.0
        self.first_sequence = 0
        self.token = token
        self.asked: list[Asked] = []
        self.port = port
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        stand_in = self
        self.stopped = threading.Event()
        self.haste = 1.0  # of its seconds against ours
        self._begun_s = time.monotonic()

        class Bound(_Handler):
            board = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Bound)
        self._server.daemon_threads = False  # the end waits for them
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(LOOK_S,))
        self._thread.start()

    def stop(self) -> None:
        """Be gone: every connection ends, and the next is refused."""
        if self._server is None:
            return
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = None

    def sequence(self) -> int:
        """The newest picture's."""
        return self.first_sequence + int((time.monotonic() - self._begun_s) * self.fps)

    def told(self) -> dict[str, Any]:
        """What /status.json says."""
        seconds = 840 + self.haste * (time.monotonic() - self._begun_s)
        past = msgspec.structs.replace(self.status.history, end=int(seconds) - 1)
        current = msgspec.structs.replace(self.status, at=now_iso(), seconds=round(seconds, 3), history=past)
        return {"status": msgspec.to_builtins(current), "moments": self.moments, "session": self.session}

    def posts(self) -> list[Any]:
        """The bodies that were posted to the controls."""
        return [asked.body for asked in self.asked if asked.method == "POST"]


class _Handler(BaseHTTPRequestHandler):
    board: StandIn

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        self.board.asked.append(Asked("GET", parts.path, query))
        with suppress(BrokenPipeError, ConnectionResetError):
            if parts.path.startswith("/static/"):
                self._file(parts.path.removeprefix("/static/"))
            elif parts.path == "/":
                self._file("index.html" if self._known() else "login.html")
            elif not self._known():
                self._send(401, "application/json", b'{"error": "no token"}')
            elif parts.path == "/status.json":
                self._send(200, "application/json", json.dumps(self.board.told()).encode())
            elif parts.path == "/updates" and self.board.full:
                self._send(503, "text/plain", b"too many viewers")
            elif parts.path == "/updates":
                self._updates()
            elif parts.path == "/stream.mjpg":
                part = b"--edge\r\nContent-Type: image/jpeg\r\n\r\n" + photograph(1, "cat 0.87") + b"\r\n--edge--\r\n"
                self._send(200, "multipart/x-mixed-replace; boundary=edge", part)
            elif parts.path == "/frame.jpg":
                self._frame(int(query["source"][0]), int(query["after"][0]))
            elif parts.path.startswith("/moments/"):
                number = int(parts.path.removeprefix("/moments/").removesuffix(".jpg"))
                self._send(200, "image/jpeg", photograph(number * 37 % 300, "", (160, 120)))
            else:
                self._send(404, "text/plain", b"nothing here")

    def do_POST(self) -> None:
        body = self.rfile.read(min(BODY_AT_MOST, int(self.headers["Content-Length"])))
        if self.path == "/login":
            right = parse_qs(body.decode()).get("token") == [self.board.token]
            if right:
                self._send(303, "text/plain", b"", {"Location": "/", "Set-Cookie": f"edge={self.board.token}; HttpOnly"})
            else:
                self._file("login.html", 401)
            return
        asked = json.loads(body)
        self.board.asked.append(Asked("POST", self.path, {}, asked))
        if self.headers["Content-Type"] != "application/json" or self.path != "/controls":
            self._send(400, "application/json", b'{"error": "not what a page sends"}')
        elif self.board.refusal:
            code, error = self.board.refusal
            self._send(code, "application/json", json.dumps({"error": error}).encode())
        else:
            by = {"paused_by": "web" if asked["paused"] else None} if "paused" in asked else {}
            controls = msgspec.structs.replace(self.board.status.controls, **asked, **by)
            self.board.status = msgspec.structs.replace(self.board.status, controls=controls)
            self._send(200, "application/json", msgspec.json.encode(controls))

    def _known(self) -> bool:
        return self.board.token is None or f"edge={self.board.token}" in self.headers.get("Cookie", "")

    def _file(self, name: str, code: int = 200) -> None:
        path = STATIC / Path(name).name
        self._send(code, TYPES[path.suffix], path.read_bytes(), {"Content-Security-Policy": POLICY})

    def _updates(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        due_s, told, first = time.monotonic(), len(self.board.moments), True
        while not self.board.stopped.wait(LOOK_S):
            if self.board.mute:
                continue
            for new in self.board.moments[told:]:
                self._event("moment", new)
            told = len(self.board.moments)
            if time.monotonic() >= due_s:
                message = self.board.told()
                if not first:
                    message["status"]["history"] = {
                        name: values if name == "end" else values[-5:] for name, values in message["status"]["history"].items()
                    }
                self._event("status", message)
                due_s, first = due_s + 1, False

    def _event(self, name: str, data: Any) -> None:
        self.wfile.write(f"retry: 1000\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def _frame(self, number: int, after: int) -> None:
        end_s = time.monotonic() + 5
        while self.board.mute or self.board.picture_size_wh is None or self.board.sequence() <= after:
            if time.monotonic() > end_s or self.board.stopped.wait(LOOK_S):
                self._send(204, "image/jpeg", b"")
                return
        sequence = self.board.sequence()
        picture = photograph((sequence % 60) + 100 * number, "cat 0.87", self.board.picture_size_wh)
        self._send(200, "image/jpeg", picture, {"X-Edge-Seq": str(sequence), "X-Edge-Age-Ms": "84.2"})

    def _send(self, code: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (
            {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    stand_in = StandIn(int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
    print(stand_in.url)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    stand_in.stop()
