"""A tiny bundle, the endpoint over it in this process, and the endpoint as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.types import ASGIApp

from cloud.app import build_app
from cloud.line import Line
from cloud.served import Served
from edge.bundle import open_bundle
from edge.model import Model, open_model
from edge.types import UInt8
from tests.tiny import tiny_bundle

LIMIT_BYTES = 1 << 20


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edge")


@pytest.fixture(scope="session")
def model(bundle: Path) -> Model:
    return open_model(open_bundle(bundle), threads=1)


@pytest.fixture(scope="session")
def picture() -> UInt8:
    """A picture with some structure, BGR [48, 64, 3]."""
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return np.stack([np.tile(ramp, (48, 1)), np.full((48, 64), 200, np.uint8), np.tile(ramp[::-1], (48, 1))], axis=-1)


@pytest.fixture(scope="session")
def jpeg(picture: UInt8) -> bytes:
    return cv2.imencode(".jpg", picture)[1].tobytes()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class InProcess:
    """The ASGI application without a network; one event loop a call, several requests at once if asked."""

    app: ASGIApp
    line: Line
    said: list[str] = field(default_factory=list)

    def __call__(
        self, method: str, path: str, body: bytes | Sequence[bytes] = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        return asyncio.run(self.request(method, path, body, headers))

    async def request(
        self, method: str, path: str, body: bytes | Sequence[bytes] = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        chunks = [body] if isinstance(body, bytes) else list(body)
        sent: list[Any] = []
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "server": ("test", 80),
            "headers": [(key.lower().encode(), value.encode("latin-1")) for key, value in (headers or {}).items()],
        }

        async def receive() -> dict[str, Any]:
            if not chunks:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, rest = sent[0], sent[1:]
        return Reply(
            start["status"],
            {key.decode(): value.decode() for key, value in start["headers"]},
            b"".join(message.get("body", b"") for message in rest),
        )


@pytest.fixture
def serve(bundle: Path) -> Iterator[Callable[[Model], InProcess]]:
    """Makes an in-process endpoint over a model."""
    lines: list[Line] = []

    def make(model: Model, places: int = 16) -> InProcess:
        lines.append(Line(places))
        said: list[str] = []
        served = Served(model, open_bundle(bundle).card)
        return InProcess(build_app(served, lines[-1], limit_bytes=LIMIT_BYTES, say=said.append), lines[-1], said)

    yield make
    for line in lines:
        line.close()


@pytest.fixture
def endpoint(serve: Callable[[Model], InProcess], model: Model) -> InProcess:
    return serve(model)


@dataclass
class Process:
    """A running edge-cloud: its process, its ready line and its address."""

    popen: subprocess.Popen[str]
    ready: str
    address: str

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Signal it; its exit code and what else it said."""
        self.popen.send_signal(number)
        _, said = self.popen.communicate(timeout=20)
        return self.popen.returncode, said


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cloud.cli", *map(str, arguments)]


@contextmanager
def running(*arguments: object) -> Iterator[Process]:
    popen = subprocess.Popen(command(*arguments, "--port", 0), stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert popen.stderr is not None
        ready = popen.stderr.readline()
        assert "ready at http://" in ready, ready
        yield Process(popen, ready, ready.split("http://")[1].split(",")[0])
    finally:
        popen.kill()
        popen.communicate()


@pytest.fixture(scope="session")
def process(bundle: Path) -> Iterator[Process]:
    with running("--model", bundle, "--threads", 1) as endpoint:
        yield endpoint
