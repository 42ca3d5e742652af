"""Events posted to a server that is slow, refuses, or is not there."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edge.errors import UsageError
from edge.sinks.queued import QueuedSink
from edge.sinks.webhook import WebhookSink, _seconds
from edge.types import Change, Event, Notice
from tests.samples import event, frame

NOTICE = Notice("engine-reopened", "int8", "opened again", 1.7e9)


class Server(ThreadingHTTPServer):
    """Answers with what is on `answers`, (status, headers) each, else with 200, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.requests: list[tuple[str, dict[str, str], bytes, float]] = []
        self.body = b"thanks"
        self.delay_s = 0.0
        super().__init__(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/SECRET"

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.requests.append((self.path, dict(self.headers), body, time.monotonic()))
        time.sleep(server.delay_s)
        status, headers = server.answers.pop(0) if server.answers else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        self.wfile.write(server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("edge.sinks.webhook.BACKOFF_S", (0.002, 0.05))
    monkeypatch.delenv("EDGE_WEBHOOK_TOKEN", raising=False)
    one = Server()
    yield one
    one.end()


Opened = Callable[..., tuple[WebhookSink, list[str]]]


@pytest.fixture
def opened() -> Iterator[Opened]:
    sinks: list[WebhookSink] = []

    def open_sink(url: str, changes_only: bool = False, timeout_s: float = 1.0) -> tuple[WebhookSink, list[str]]:
        said: list[str] = []
        sinks.append(WebhookSink(url, said.append, changes_only=changes_only, timeout_s=timeout_s))
        return sinks[-1], said

    yield open_sink
    for sink in sinks:
        sink.close()


def numbered(count: int, first: int = 0) -> list[Event]:
    return [event(frame(sequence=number)) for number in range(first, first + count)]


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_what_is_posted(server: Server, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_WEBHOOK_TOKEN", "abc.DEF-1\n")
    sink, said = opened(server.url + "?sig=1")
    for one in (*numbered(2), NOTICE, event(revises=True)):
        sink.emit(one)
    assert [json.loads(body)["kind"] for _, _, body, _ in server.requests] == ["frame", "frame", "notice", "frame"]
    path, headers, body, _ = server.requests[0]
    assert path == "/hook/SECRET?sig=1"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Bearer abc.DEF-1"
    assert headers["User-Agent"].startswith("edge-run/")
    assert not body.endswith(b"\n")
    keys = [headers["Idempotency-Key"] for _, headers, _, _ in server.requests]
    assert len(set(keys)) == 4
    assert (sink.lost, said) == (0, [])


def test_without_a_token_none_is_sent(server: Server, opened: Opened) -> None:
    sink, _ = opened(server.url)
    sink.emit(event())
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_it_is_tried_again_under_the_same_key(server: Server, opened: Opened, status: int) -> None:
    server.answers = [(status, {})] * 3
    sink, said = opened(server.url)
    sink.emit(event())
    assert len(server.requests) == 4
    assert len({(headers["Idempotency-Key"], body) for _, headers, body, _ in server.requests}) == 1
    assert (sink.lost, said) == (0, [])


def test_after_five_attempts_the_event_is_lost(server: Server, opened: Opened) -> None:
    server.answers = [(503, {})] * 10
    sink, said = opened(server.url)
    for one in numbered(3):
        sink.emit(one)
    assert len(server.requests) == 11
    assert sink.lost == 2
    where = server.url.removesuffix("/hook/SECRET")
    assert said == [
        f"webhook: {where}: status 503; the loop goes on, events are lost until it answers",
        f"webhook: {where}: answers again; 2 events were lost",
    ]


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
def test_a_refusal_is_not_tried_again_and_said_once(server: Server, opened: Opened, status: int) -> None:
    server.answers = [(status, {"Location": server.url + "/elsewhere"})] * 3
    sink, said = opened(server.url)
    for one in numbered(4):
        sink.emit(one)
    assert [json.loads(body)["seq"] for _, _, body, _ in server.requests] == [0, 1, 2, 3]
    assert {path for path, _, _, _ in server.requests} == {"/hook/SECRET"}  # no redirects
    assert sink.lost == 3
    assert len(said) == 1
    assert f"status {status}" in said[0]
    assert "SECRET" not in said[0]


@pytest.mark.parametrize(
    ("wish", "least_s", "most_s"), [("1", 0.2, 1.0), ("86400", 0.2, 1.0), ("0", 0.0, 0.2), ("soon", 0.0, 0.2)]
)
def test_retry_after(
    server: Server, opened: Opened, monkeypatch: pytest.MonkeyPatch, wish: str, least_s: float, most_s: float
) -> None:
    monkeypatch.setattr("edge.sinks.webhook.BACKOFF_S", (0.002, 0.2))  # nobody is waited for longer than that
    server.answers = [(429, {"Retry-After": wish})]
    sink, _ = opened(server.url)
    sink.emit(event())
    (*_, first_s), (*_, second_s) = server.requests
    assert least_s <= second_s - first_s < most_s
    assert sink.lost == 0


def test_retry_after_as_a_date() -> None:
    now = datetime.now(timezone.utc)
    assert 8 < _seconds(format_datetime(now + timedelta(seconds=10), usegmt=True)) <= 10
    assert _seconds(format_datetime(now - timedelta(days=1), usegmt=True)) < 0
    assert _seconds("") == 0
    assert _seconds("9" * 5000) == 30


def test_a_server_that_is_down_and_comes_back(server: Server, opened: Opened) -> None:
    port = closed_port()
    sink, said = opened(f"http://127.0.0.1:{port}/")
    for one in numbered(2):
        sink.emit(one)
    assert sink.lost == 2
    assert said == [f"webhook: http://127.0.0.1:{port}: connection refused; the loop goes on, events are lost until it answers"]
    back = Server(port)
    try:
        sink.emit(event())
    finally:
        back.end()
    assert len(back.requests) == 1
    assert sink.lost == 2
    assert said[1:] == [f"webhook: http://127.0.0.1:{port}: answers again; 2 events were lost"]


def test_a_server_that_does_not_answer_in_time(server: Server, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.webhook.ATTEMPTS", 2)
    server.delay_s = 0.3
    sink, said = opened(server.url, timeout_s=0.05)
    begun_s = time.monotonic()
    sink.emit(event())
    assert time.monotonic() - begun_s < 0.3
    assert sink.lost == 1
    assert "no answer within 0.05 s" in said[0]


def test_a_server_that_hangs_up(opened: Opened, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(5):
                connection, _ = listener.accept()
                connection.recv(65536)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        sink, said = opened(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        sink.emit(event())
        thread.join()
    assert sink.lost == 1
    assert "the connection broke" in said[0]


def test_a_long_answer_is_no_reason_to_lose_the_event(server: Server, opened: Opened) -> None:
    server.body = b"x" * 1_000_000
    sink, said = opened(server.url)
    for one in numbered(2):
        sink.emit(one)
    assert len(server.requests) == 2
    assert (sink.lost, said) == (0, [])


def test_changes_only(server: Server, opened: Opened) -> None:
    sink, _ = opened(server.url, changes_only=True)
    entered = event(frame(sequence=1), changes=(Change("enter", 7, "person"),))
    for one in (event(), entered, NOTICE, event(frame(sequence=2))):
        sink.emit(one)
    assert [json.loads(body).get("seq") for _, _, body, _ in server.requests] == [1, None]
    assert [sink.wants(one) for one in (event(), entered, NOTICE)] == [False, True, True]
    assert sink.lost == 0


def test_the_pauses_grow_to_their_limit_and_on_from_event_to_event(monkeypatch: pytest.MonkeyPatch, opened: Opened) -> None:
    sink, _ = opened(f"http://127.0.0.1:{closed_port()}/")
    pauses: list[float] = []
    now = [0.0]
    monkeypatch.setattr("edge.sinks.webhook.time.monotonic", lambda: now[0])

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        now[0] += seconds
        return False

    monkeypatch.setattr(sink._stopping, "wait", wait)
    monkeypatch.setattr(sink, "_post", lambda body, headers: (None, 0.0, "connection refused"))
    for one in numbered(2):
        sink.emit(one)
    assert pauses[0] == 0
    for pause, middle in zip(pauses[1:], (0.5, 1, 2, 4, 8, 16, 30, 30, 30), strict=True):
        assert 0.75 * middle <= pause <= 1.25 * middle
    assert sink.lost == 2


def test_the_end_does_not_wait_for_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.queued.DRAIN_S", 0.1)
    said: list[str] = []
    inner = WebhookSink(f"http://127.0.0.1:{closed_port()}/", said.append, changes_only=False)
    sink = QueuedSink(inner, "webhook", said.append, waits=False)
    for one in numbered(3):
        sink.emit(one)
    begun_s = time.monotonic()
    sink.close()
    assert time.monotonic() - begun_s < 0.5
    assert sink.lost == 3
    assert said == ["webhook: 2 events could not be written before the end and are lost"]


@pytest.mark.parametrize(
    "url",
    ["", "example", "ftp://example/", "http://", "http://:80/", "http://h:0/", "http://h:99999/", "http://h h/", "http://h/a b",
     "http://h/\n", "http://[::1/", "http://u:p@h/", "http://u@h/", "https://h/#x"],
)  # fmt: skip
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(UsageError, match="--webhook") as error:
        WebhookSink(url, print, changes_only=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("token", ["x y", "ü", "a\r\nX: y", "a\x7f"])
def test_tokens_that_cannot_be(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_WEBHOOK_TOKEN", token)
    with pytest.raises(UsageError, match="EDGE_WEBHOOK_TOKEN") as error:
        WebhookSink("http://127.0.0.1/", print, changes_only=False)
    assert token not in str(error.value)
