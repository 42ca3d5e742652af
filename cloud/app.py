"""The endpoint as an ASGI application: who may ask, what is let in, and the routes of the Open Inference Protocol v2."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloud.admission import Share, check_wait
from cloud.body import LeftError, Receive, declared_bytes, discard, read_body, unpack
from cloud.errors import BusyError, RefusedError
from cloud.served import Asked, Served
from cloud.service import INLINE_BYTES, LEFT, Service, State
from edge import __version__
from edge.errors import EdgeError
from edge.oip import HEADER_LENGTH

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
"""What a load balancer asks, without a token."""
INLINE_JSON_BYTES = 64 << 10
"""As service.INLINE_BYTES, of the JSON in a body, which takes longer."""


class Endpoint:
    """The ASGI application. Inference requests are answered here, without a framework between; the rest is Starlette's."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.service = Service(state)
        self._routes = _routes(self.service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        headers = _decoded(scope["headers"])
        path = scope["path"]
        try:
            if path not in OPEN:
                self.service.authorize(headers)
            match = INFER.fullmatch(path)
            if match is not None and scope["method"] != "POST":
                raise RefusedError(405, f"{scope['method']} {path[:200]!a}: Method Not Allowed", {"Allow": "POST"})
        except RefusedError as error:
            await self._refuse(scope, receive, send, headers, error)
            return
        if match is None:
            await self._routes(scope, receive, send)
        else:
            await self._infer(scope, receive, send, headers, match[1], match[2])

    def refused_at_once(self, scope: Scope) -> Written | None:
        """The refusal of an inference request that would wait too long, by its head alone; None for any other request.

        Whoever calls this need not make a task, nor keep the body.
        """
        match = INFER.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        served = self.state.repository.models.get(match[1]) if match is not None else None
        if match is None or served is None or match[2] not in (None, served.version):
            return None
        wait_s, limits = served.batcher.expected_wait_s, self.state.limits
        if wait_s <= limits.wait_s:
            return None
        headers = _decoded(scope["headers"])
        if declared_bytes(headers) > limits.request_bytes or not self.service.admits(headers):
            return None
        self.service.count(served.name, 429, 0.0)
        return _too_late(round(wait_s, 1), limits.wait_s)

    def close(self) -> None:
        """End the parsing thread."""
        self.service.close()

    async def _infer(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str], name: str, version: str | None
    ) -> None:
        begun_s = time.monotonic()
        status, known = 500, "unknown"
        try:
            served = self.state.repository.get(name, version)
            known = served.name
            with self.service.budget.share() as share:
                body, more = await self._answer(scope, receive, headers, served, share)
            status = 200
            await _send(send, Written.of(200, body, more))
        except LeftError:
            status = LEFT
        except asyncio.CancelledError:  # the drain is over
            status = 503
            raise
        except Exception as error:
            refusal = self.service.refusal(error)
            status = refusal.status
            await self._refuse(scope, receive, send, headers, refusal)
        finally:
            self.service.count(known, status, time.monotonic() - begun_s)

    async def _answer(
        self, scope: Scope, receive: Receive, headers: dict[str, str], served: Served, share: Share
    ) -> tuple[bytes, dict[str, str]]:
        limits = self.state.limits
        check_wait(served.batcher, limits.wait_s)
        body = await read_body(receive, headers, limits.request_bytes, share)
        self.state.metrics.add("edge_cloud_received_bytes_total", len(body), model=served.name)
        asked = await self._parsed(served, body, headers, share)
        check_wait(served.batcher, limits.wait_s)
        answered = await self.service.answered(served, asked, headers.get("idempotency-key", ""), scope.get("state"))
        return served.encode(asked, answered)

    async def _parsed(self, served: Served, body: bytes, headers: Mapping[str, str], share: Share) -> Asked:
        """What the body asks; large and compressed bodies are taken apart on a thread, one at a time."""
        encoding = headers.get("content-encoding", "").strip().lower()
        json_bytes = headers.get(HEADER_LENGTH.lower(), "")
        size = int(json_bytes) if json_bytes.isdecimal() and len(json_bytes) < 9 else len(body)
        if encoding in ("", "identity"):
            if size <= INLINE_JSON_BYTES and len(body) <= INLINE_BYTES:
                return served.ask(body, headers)
            return await self.service.parsed(lambda: served.ask(body, headers))

        def unpacked() -> tuple[Asked, int]:
            plain = unpack(body, encoding, self.state.limits.request_bytes)
            return served.ask(plain, headers), len(plain)

        asked, more = await self.service.parsed(unpacked)
        share.take(more)
        return asked

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str], refusal: RefusedError) -> None:
        """Answer; a client that goes on sending until its connection closes is read first, or it would miss the answer."""
        closes = headers.get("connection", "").lower() == "close" or scope.get("http_version") == "1.0"
        if declared_bytes(headers) > self.state.limits.request_bytes or closes:
            await discard(receive, headers)
        if "expect" in headers:
            refusal.headers["Connection"] = "close"  # what comes next on it may be the body or another request
        await _send(send, _written(refusal))


def _routes(service: Service) -> Starlette:
    state = service.state

    def model(request: Request) -> Served:
        return state.repository.get(request.path_params["model"], request.path_params.get("version"))

    async def server(request: Request) -> Response:
        extensions = ["binary_tensor_data", "model_repository"]
        return JSONResponse({"name": "edge-cloud", "version": __version__, "extensions": extensions})

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": state.is_ready}, 200 if state.is_ready else 503)

    async def metadata(request: Request) -> Response:
        return JSONResponse(model(request).metadata())

    async def model_ready(request: Request) -> Response:
        return JSONResponse({"name": model(request).name, "ready": not state.draining}, 503 if state.draining else 200)

    async def index(request: Request) -> Response:
        with service.budget.share() as share:
            body = await read_body(request.receive, request.headers, INLINE_JSON_BYTES, share)
        try:
            asked = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            raise RefusedError(400, "the body is not JSON") from None
        only_ready = isinstance(asked, dict) and asked.get("ready") is True
        return JSONResponse([row for row in state.repository.index() if row["state"] == "READY" or not only_ready])

    async def metrics(request: Request) -> Response:
        service.tell_gauges()
        return Response(await asyncio.to_thread(state.metrics.text), media_type="text/plain; version=0.0.4")

    async def failed(request: Request, error: Exception) -> Response:
        return _as_response(_written(service.refusal(error)))

    routes = [Route(path, server) for path in ("/v2", "/v2/")]
    routes += [Route("/v2/health/live", live), Route("/v2/health/ready", ready)]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [Route(prefix, metadata), Route(prefix + "/ready", model_ready)]
    routes += [Route("/v2/repository/index", index, methods=["POST"]), Route("/metrics", metrics)]
    handlers = {HTTPException: _http_error, RefusedError: _refused, LeftError: _left, Exception: failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # a redirect would be the one answer that is not JSON
    return app


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in headers}


@dataclass(frozen=True, slots=True)
class Written:
    """A response as it goes out; the names of `headers` are lower case, the length of the body among them."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]]

    @classmethod
    def of(cls, status: int, body: bytes, headers: Mapping[str, str]) -> Written:
        raw = [(key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()]
        return cls(status, body, [*raw, (b"content-length", b"%d" % len(body))])


def _written(error: RefusedError) -> Written:
    body = msgspec.json.encode({"error": str(error)})
    return Written.of(error.status, body, {"Content-Type": "application/json"} | error.headers)


@lru_cache(64)
def _too_late(wait_s: float, limit_s: float) -> Written:
    """Made once for each tenth of a second: under overload there are thousands a second."""
    return _written(BusyError.wait(wait_s, limit_s))


async def _send(send: Send, written: Written) -> None:
    await send({"type": "http.response.start", "status": written.status, "headers": written.headers})
    await send({"type": "http.response.body", "body": written.body})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _as_response(_written(error))


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=LEFT)  # nobody reads it


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path[:200]!a}: {error.detail}"
    return _as_response(_written(RefusedError(error.status_code, EdgeError(detail).args[0], error.headers)))


def _as_response(written: Written) -> Response:
    return Response(written.body, written.status, _decoded(written.headers))
