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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.types import ASGIApp

from cloud.app import Endpoint
from cloud.metrics import Metrics
from cloud.repository import Repository
from cloud.served import Served
from cloud.service import Limits, State
from edge.bundle import open_bundle
from edge.model import Model, open_model
from edge.protocols import Engine
from edge.types import Outputs, Tensor, UInt8
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
    state: State
    said: list[str] = field(default_factory=list)

    def close(self) -> None:
        """End its threads."""
        self.state.repository.close()
        for served in self.state.repository.models.values():
            served.batcher.join(5)
        if isinstance(self.app, Endpoint):
            self.app.close()

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


def in_process(*served: Served, **changes: Any) -> InProcess:
    """The endpoint over these models; `changes` are fields of its State."""
    said: list[str] = []
    repository = Repository(lambda path: pytest.fail("nothing to load"))
    for one in served:
        repository.add(one)
    state = State(repository, **({"limits": Limits(LIMIT_BYTES, 16 * LIMIT_BYTES), "say": said.append} | changes))
    return InProcess(Endpoint(state), state, said)


class Shared:
    """An engine that outlives the endpoints that it is lent to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.threads, self.lanes, self.batch = engine.name, engine.threads, engine.lanes, engine.batch

    def infer(self, tensor: Tensor) -> Outputs:
        return self._engine.infer(tensor)

    def close(self) -> None:
        pass


@pytest.fixture
def serve(bundle: Path) -> Iterator[Callable[..., InProcess]]:
    """Makes an in-process endpoint over a model."""
    made: list[InProcess] = []

    def make(model: Model, **changes: Any) -> InProcess:
        lent, metrics = replace(model, engine=Shared(model.engine)), Metrics()
        served = Served(lent, open_bundle(bundle).card, metrics=metrics)
        made.append(in_process(served, metrics=metrics, **changes))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def endpoint(serve: Callable[..., InProcess], model: Model) -> InProcess:
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


def command(*arguments: object, program: Sequence[str] = ("-m", "cloud.cli")) -> list[str]:
    return [sys.executable, *program, *map(str, arguments)]


@contextmanager
def running(*arguments: object, program: Sequence[str] = ("-m", "cloud.cli")) -> Iterator[Process]:
    popen = subprocess.Popen(
        command(*arguments, "--port", 0, program=program), stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert popen.stderr is not None
        ready = popen.stderr.readline()
        if "; chmod 600 " in ready:  # a test's token is no secret
            ready = popen.stderr.readline()
        assert "ready at http" in ready, ready
        yield Process(popen, ready, ready.split("://")[1].split(",")[0])
    finally:
        popen.kill()
        popen.communicate()


@pytest.fixture(scope="session")
def process(bundle: Path) -> Iterator[Process]:
    with running("--model", bundle, "--threads", 1) as endpoint:
        yield endpoint
