"""A small real endpoint on loopback that speaks the Open Inference Protocol v2, or misbehaves as a test asks."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from edge.offload import Offloader
from edge.oip import NamedTensor, decode_request, encode_response

METADATA = {
    "name": "tiny",
    "platform": "test",
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}],
    "outputs": [
        {"name": "labels", "datatype": "BYTES", "shape": [-1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1]},
    ],
}

RESET = 0
"""Instead of a status: the connection is reset without an answer."""

Reply = tuple[int, bytes, dict[str, str]]
Answer = Callable[["Endpoint", bytes, dict[str, str]], Reply]


def good(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
    """Two classes, the first named after the mean of the picture that came."""
    request = decode_request(body, headers)
    jpeg = request.inputs["image"].data[0]
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    endpoint.pictures.append(image)
    outputs = [
        NamedTensor.of("labels", [f"mean {round(image.mean())}".encode(), b"other"]),
        NamedTensor.of("scores", np.array([0.875, 0.125], np.float32)),
    ]
    return 200, *encode_response("big", outputs, request_id=request.id, binary=("scores",))


class Endpoint:
    """What the server does: change `answer`, `metadata` and `server` at any time.

    `requests` are the paths that were asked for, but for the server's own metadata, and `headers` those of the inferences.
    """

    def __init__(self, answer: Answer, metadata: Reply | None) -> None:
        self.answer = answer
        self.metadata: Reply = metadata or (200, json.dumps(METADATA).encode(), {"Content-Type": "application/json"})
        self.server: Reply = (200, b'{"name": "test"}', {})
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.pictures: list[Any] = []
        self.released = threading.Event()
        """Set when the server closes: what hangs ends."""
        self.connections = 0
        self.url = ""
        self.port = 0


@contextmanager
def serving(
    answer: Answer = good, metadata: Reply | None = None, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Endpoint]:
    """Serve on loopback until left, over TLS where a context is given."""
    endpoint = Endpoint(answer, metadata)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        failed = False
        """Whether this connection had an error of the server's own; as ASGI servers, it takes nothing more then."""

        def do_GET(self) -> None:
            if self.path.endswith("/v2"):
                self._send(endpoint.server)
                return
            endpoint.requests.append(self.path)
            self._send(endpoint.metadata)

        def do_POST(self) -> None:
            endpoint.requests.append(self.path)
            endpoint.headers.append(dict(self.headers))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(endpoint.answer(endpoint, body, dict(self.headers)))

        def _send(self, reply: Reply) -> None:
            status, body, headers = (RESET, b"", {}) if self.failed else reply
            self.failed = status >= 500 and status != 503
            try:
                if status == RESET:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if headers.get("X-Drip"):
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        if endpoint.released.wait(0.05):
                            return
                else:
                    self.wfile.write(body)
            except OSError:  # the client left, as it should
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    connections: list[socket.socket] = []

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            connections.append(connection)
            endpoint.connections += 1
            return connection, address

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", port), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        endpoint.port = server.server_port
        endpoint.url = f"http{'s' if tls else ''}://127.0.0.1:{endpoint.port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint.released.set()
            server.shutdown()
            thread.join()
            for connection in connections:  # those kept alive end, too, as they do with the process
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def fixed(body: bytes, status: int = 200, **headers: str) -> Answer:
    """Always the same bytes."""
    return lambda endpoint, request, request_headers: (status, body, headers)


def hangs(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
    """No answer until the server is closed."""
    endpoint.released.wait(60)
    return 500, b"", {}


def until(condition: Callable[[], object], patience_s: float = 20.0) -> bool:
    """Wait for something that happens on another thread."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


def flaky(every: int, answer: Answer = good, otherwise: Reply = (RESET, b"", {})) -> Answer:
    """One in `every` requests is answered, the others fail."""
    counted = itertools.count(1)
    return lambda endpoint, body, headers: answer(endpoint, body, headers) if next(counted) % every == 0 else otherwise


@contextmanager
def opening(model: str = "tiny") -> Iterator[Callable[..., tuple[Offloader, list[str]]]]:
    """Makes offloaders, which ask for `model`, and closes them in the end; their threads must end, too."""
    made: list[Offloader] = []

    def make(url: str, model: str = model, **more: Any) -> tuple[Offloader, list[str]]:
        said: list[str] = []
        made.append(Offloader(url, model, say=said.append, **more))
        return made[-1], said

    yield make
    for offloader in made:
        offloader.close()
    assert until(lambda: not any(thread.is_alive() for offloader in made for thread in offloader._threads))
