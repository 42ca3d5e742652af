"""The protocol's GRPCInferenceService beside the REST routes: the same models, admission, tokens and figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from cloud.admission import check_wait
from cloud.grpc_messages import CHOICE, MESSAGES, METHODS, SERVICE
from cloud.served import Served
from cloud.service import INLINE_BYTES, LEFT, Service
from edge import __version__
from edge.errors import EdgeError
from edge.oip import InferRequest, NamedTensor, ProtocolError, RequestedOutput, from_raw, to_raw

if TYPE_CHECKING:
    from cloud.server import Tls

CALLS = 64
"""At once; more are RESOURCE_EXHAUSTED. Each holds a message of the largest size at most before it can be refused."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
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
        options = [("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", int(self._shared))]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS)
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
                asked = served.check(_decoded(request))
            else:
                asked = await self._service.parsed(lambda: served.check(_decoded(request)))
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

    async def call(request: Any, context: Any) -> Any:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        try:
            if name not in ("ServerLive", "ServerReady"):
                service.authorize(headers)
            return response_class(**await method(request, headers))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            refusal = service.refusal(error)
            context.set_trailing_metadata(tuple((key.lower(), value) for key, value in refusal.headers.items()))
            await context.abort(CODES.get(refusal.status, grpc.StatusCode.INTERNAL), str(refusal))

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=request_class.FromString, response_serializer=response_class.SerializeToString
    )


def _decoded(request: Any) -> InferRequest:
    """The request as REST would have it. Raises ProtocolError."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise ProtocolError(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs")
    inputs = {}
    for index, given in enumerate(request.inputs):
        if given.name in inputs:
            raise ProtocolError(f"input {given.name[:80]!a} stands twice")
        parameters = _parameters(given.parameters)
        inputs[given.name] = (
            from_raw(given.name, given.datatype, given.shape, raw[index], parameters) if raw else _typed(given, parameters)
        )
    outputs = tuple(RequestedOutput(one.name, True, _parameters(one.parameters)) for one in request.outputs)
    return InferRequest(request.id, inputs, outputs, True, _parameters(request.parameters))


def _typed(given: Any, parameters: Mapping[str, Any]) -> NamedTensor:
    """A tensor of the two datatypes that models take, from its typed contents."""
    shape = tuple(given.shape)
    if given.datatype == "BYTES":
        return NamedTensor(given.name, "BYTES", shape, list(given.contents.bytes_contents), parameters)
    values = np.array(given.contents.uint_contents, np.uint32)
    if given.datatype != "UINT8" or values.max(initial=0) > 255:
        raise ProtocolError(f"input {given.name[:80]!a}: send BYTES or UINT8, in raw_input_contents or their own contents")
    return from_raw(given.name, "UINT8", shape, values.astype(np.uint8).tobytes(), parameters)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {key: (value, value.WhichOneof(CHOICE)) for key, value in given.items()}
    return {key: getattr(value, choice) for key, (value, choice) in chosen.items() if choice is not None}


def _credentials(tls: Tls) -> Any:
    def read(path: Path) -> bytes:
        return path.read_bytes()

    ca = None if tls.client_ca is None else read(tls.client_ca)
    return grpc.ssl_server_credentials([(read(tls.key), read(tls.cert))], ca, require_client_auth=ca is not None)
