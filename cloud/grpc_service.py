"""The protocol's GRPCInferenceService beside the REST routes: the same models, admission, tokens and figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from cloud.admission import check_wait
from cloud.body import READ_S, within
from cloud.connections import CONNECTION_LIMIT, HEAD_S
from cloud.errors import RefusedError
from cloud.served import Served
from cloud.service import INLINE_BYTES, LEFT, Service
from edge import __version__
from edge.errors import EdgeError
from edge.grpc_messages import MESSAGES, METHODS, SERVICE
from edge.oip import to_raw
from edge.oip_grpc import decode_request

if TYPE_CHECKING:
    from cloud.server import Tls

CALLS = 64
"""At once; more are RESOURCE_EXHAUSTED. Each holds a message of the largest size at most before it can be refused."""
CONNECTIONS = {
    "max_allowed_incoming_connections": CONNECTION_LIMIT,
    "server_handshake_timeout_ms": round(1000 * HEAD_S),
    "max_connection_idle_ms": 30_000,
}
"""gRPC's own bounds. It cannot drop an idle connection to make room, so none is idle for long: clients connect anew unasked."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""The status that REST gives → gRPC's; every other is INTERNAL."""


class GrpcServer:
    """Started and stopped on the event loop of the endpoint. `start` raises EdgeError for a taken port."""

    def __init__(self, service: Service, host: str, port: int, *, shared: bool = False, tls: Tls | None = None) -> None:
        self._service, self._address = service, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._shared, self._tls = shared, tls
        self.port = port

    async def start(self) -> None:
        """Listen."""
        limit = self._service.state.limits.request_bytes
        options = {"max_receive_message_length": limit, "so_reuseport": int(self._shared)} | CONNECTIONS
        self._server = grpc.aio.server(
            options=[(f"grpc.{name}", value) for name, value in options.items()], maximum_concurrent_rpcs=CALLS
        )
        methods = Methods(self._service)
        handlers = {name: _handler(name, methods.by_name[name], self._service) for name in METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            if self._tls is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                self.port = self._server.add_secure_port(self._address, _credentials(self._tls))
        except RuntimeError:
            raise EdgeError(f"cannot listen on {self._address} for gRPC; choose another --grpc-port") from None
        await self._server.start()

    async def stop(self, drain_s: float) -> None:
        """Take no more calls, and finish those under way within `drain_s`."""
        await self._server.stop(drain_s)


class Methods:
    """What each method answers; raises EdgeError."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._state = service.state
        self.by_name: dict[str, Callable[[Any, Mapping[str, str]], Awaitable[dict[str, Any]]]] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
        }

    async def _live(self, request: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        return {"live": True}

    async def _ready(self, request: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        return {"ready": self._state.is_ready}

    async def _model_ready(self, request: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        self._model(request.name, request.version)
        return {"ready": not self._state.draining}

    async def _server(self, request: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        return {"name": "edge-cloud", "version": __version__, "extensions": ["model_repository"]}

    async def _metadata(self, request: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        return self._model(request.name, request.version).metadata()

    async def _index(self, request: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        return {"models": [row for row in self._state.repository.index() if row["state"] == "READY" or not request.ready]}

    async def _infer(self, request: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        begun_s, status, known = time.monotonic(), 500, "unknown"
        try:
            served = self._model(request.model_name, request.model_version)
            known = served.name
            answer = await self._answer(request, served, headers)
            status = 200
            return answer
        except asyncio.CancelledError:  # the client has left, or the drain is over
            status = 503 if self._state.draining else LEFT
            raise
        except Exception as error:
            refusal = self._service.refusal(error)
            status = refusal.status
            raise refusal from None
        finally:
            self._service.count(known, status, time.monotonic() - begun_s)

    async def _answer(self, request: Any, served: Served, headers: Mapping[str, str]) -> dict[str, Any]:
        size = request.ByteSize()
        with self._service.budget.share() as share:
            check_wait(served.batcher, self._state.limits.wait_s)
            share.take(size)
            if size <= INLINE_BYTES:
                asked = served.check(decode_request(request))
            else:
                asked = await self._service.parsed(lambda: served.check(decode_request(request)))
            answered = await self._service.answered(served, asked, headers.get("idempotency-key", ""))
        outputs = [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in answered.outputs]
        return {
            "model_name": served.name,
            "model_version": served.version,
            "id": request.id,
            "parameters": {"variant": MESSAGES["InferParameter"](string_param=answered.variant)},
            "outputs": outputs,
            "raw_output_contents": [to_raw(one) for one in answered.outputs],
        }

    def _model(self, name: str, version: str) -> Served:
        return self._state.repository.get(name, version or None)


def _handler(name: str, method: Callable[[Any, Mapping[str, str]], Awaitable[dict[str, Any]]], service: Service) -> Any:
    request_class, response_class = MESSAGES[f"{name}Request"], MESSAGES[f"{name}Response"]

    def parsed(raw: Any) -> Any:
        try:
            return request_class.FromString(raw)
        except (DecodeError, TypeError):  # TypeError: the call ended without a message
            raise RefusedError(400, f"{name}: the call brought no message of its type; send the protocol's") from None

    async def call(requests: Any, context: Any) -> Any:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        try:
            if name not in ("ServerLive", "ServerReady"):
                service.authorize(headers)
            with within(READ_S):
                raw = await context.read()
            return response_class(**await method(parsed(raw), headers))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            refusal = service.refusal(error)
            context.set_trailing_metadata(tuple((key.lower(), value) for key, value in refusal.headers.items()))
            await context.abort(CODES.get(refusal.status, grpc.StatusCode.INTERNAL), str(refusal))

    # a stream of one request is the same on the wire, and is read here, where there is a deadline for it
    return grpc.stream_unary_rpc_method_handler(call, response_serializer=response_class.SerializeToString)


def _credentials(tls: Tls) -> Any:
    def read(path: Path) -> bytes:
        return path.read_bytes()

    ca = None if tls.client_ca is None else read(tls.client_ca)
    return grpc.ssl_server_credentials([(read(tls.key), read(tls.cert))], ca, require_client_auth=ca is not None)
