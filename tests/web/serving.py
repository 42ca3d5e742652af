"""A page over a monitor with invented sources, and ways to ask it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np

from devices import Reading, detect
from edge.controls import Controls
from edge.model import Model
from edge.monitor import Monitor
from edge.pace import Pace
from edge.sinks.queued import QueuedSink
from edge.sources.base import BaseSource
from edge.summary import Tally
from edge.types import Event, Notice, UInt8
from edge.web import open_web
from edge.web.sink import WebSink
from tests.samples import event, frame, picture

TOKEN = "a token that nobody guesses".replace(" ", "-")


class Nothing(BaseSource):
    def frames(self) -> Any:
        return iter(())


class FakeModel:
    """As much of a model as a status tells."""

    name = "tiny"
    variant = type("Variant", (), {"name": "float32"})
    engine = type("Engine", (), {"name": "fake", "threads": 1, "lanes": 1})


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Page:
    """The sink as a session has it, behind its queue, and a client."""

    sink: WebSink
    monitor: Monitor
    said: list[str]
    queued: QueuedSink
    context: ssl.SSLContext | None = None
    _sequence: int = 0
    opened: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.sink.url.rsplit(":", 1)[1].rstrip("/"))

    def see(self, item: Event | Notice) -> None:
        """As the loop does."""
        self.monitor.tally.add(item)
        self.monitor.add(item)
        self.queued.emit(item)

    def frame(self, image: UInt8 | None = None, *, source: str = "a", **more: Any) -> Event:
        self._sequence += 1
        made = picture(seed=self._sequence) if image is None else image
        now_s = time.monotonic()
        one = event(frame(made, self._sequence, now_s - 0.02, source=source), emitted_s=now_s, **more)
        self.see(one)
        return one

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.opened.append(connection)
        return connection

    def ask(self, path: str, method: str = "GET", body: bytes | str | None = None, *, host: str = "", **headers: str) -> Reply:
        """One request on a connection of its own; names of headers with _ for -."""
        client = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=8)
            if self.context is None
            else http.client.HTTPSConnection("127.0.0.1", self.port, timeout=8, context=self.context)
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            client.request(method, path, body, {"Host": host or f"127.0.0.1:{self.port}", "Connection": "close", **named})
            answer = client.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            client.close()

    def turn(self, wish: object, **headers: str) -> Reply:
        return self.ask("/controls", "POST", json.dumps(wish), Content_Type="application/json", **headers)

    def stream(self, path: str, **headers: str) -> Stream:
        return Stream(self.connect(), path, f"127.0.0.1:{self.port}", headers)


class Stream:
    """An answer that does not end."""

    def __init__(self, connection: socket.socket, path: str, host: str, headers: dict[str, str]) -> None:
        self.connection = connection
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{named}\r\n".encode())
        self.heard = b""

    def until(self, wanted: bytes, times: int = 1) -> bytes:
        """All that has come, once `wanted` has."""
        while self.heard.count(wanted) < times:
            more = self.connection.recv(65536)
            assert more, self.heard[-300:]
            self.heard += more
        return self.heard

    def ends(self) -> bool:
        """Whether the server ends it before the timeout."""
        try:
            while self.connection.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


@contextmanager
def serving(
    *,
    names: Sequence[str] = ("a", "b"),
    address: str = "127.0.0.1:0",
    fps: float = 50.0,
    controls: Controls | None = None,
    context: ssl.SSLContext | None = None,
    **options: str | None,
) -> Iterator[Page]:
    """A page that is served, and closed in the end."""
    sources = [Nothing(name) for name in names]
    monitor = Monitor(
        Tally(),
        lambda: cast(Model, FakeModel),
        sources,
        controls or Controls(Pace(len(names))),
        detect(),
        read=lambda: Reading(temperature_c=50.0),
    )
    said: list[str] = []
    given = {"token_file": None, "cert": None, "key": None} | options
    sink = open_web(address=address, fps=fps, monitor=monitor, say=said.append, **given)
    page = Page(sink, monitor, said, QueuedSink(sink, "web", said.append, depth=1, waits=False, lossy=True), context)
    monitor.sinks = [page.queued]
    try:
        yield page
    finally:
        for connection in page.opened:
            connection.close()
        page.queued.close()


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def in_background(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin `work`; what is given waits for its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(10)
        return results[0]

    return result


def decoded(jpeg: bytes) -> UInt8:
    return cast(UInt8, cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
