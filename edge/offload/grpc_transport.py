"""Requests by gRPC over one kept channel, each with a deadline, and what became of them in words.

The channel is opened by the first thread that asks: gRPC's own threads begin there, and have its priority on Linux. One that
failed or was late is left for a new one, so that nothing connects while the endpoint is left in peace, a connection that died
unnoticed is used once, and no back-off but the breaker's counts. Keepalive pings, which servers may take amiss, need not be.

Status codes: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from edge import __version__
from edge.errors import OffloadError, UsageError
from edge.grpc_messages import MESSAGES, SERVICE
from edge.offload.address import Address
from edge.offload.credentials import Credentials
from edge.offload.served import EDGE_CLOUD, Served, TensorSpec
from edge.offload.transport import (
    ANSWER_LIMIT_BYTES,
    HOST_NOT_FOUND,
    MESSAGE_LETTERS,
    NOT_TRUSTED,
    Request,
    RequestError,
    seconds_of,
)
from edge.oip import InferResponse, ProtocolError
from edge.oip_grpc import decode_response, encode_request

OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # as over HTTP, and what is meant for loopback stays there
    ("grpc.enable_retries", 0),  # Endpoint tries again, and knows when
    ("grpc.max_receive_message_length", ANSWER_LIMIT_BYTES),
    ("grpc.primary_user_agent", f"edge-run/{__version__}"),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel takes over the back-off of the one that was left
)
STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""What the endpoint said → what it would have said by HTTP; every other is 500."""
REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
UNAUTHORIZED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""After these another request gets another channel."""
UNTRUSTED = f"TLS failed, its certificate is not trusted; {NOT_TRUSTED}"
UNSAFE = {
    "CERTIFICATE_VERIFY_FAILED": UNTRUSTED,
    "Hostname Verification Check failed": UNTRUSTED,
    "WRONG_VERSION_NUMBER": "TLS failed; if it does not speak TLS, use grpc://",
    "SSL_ERROR_SSL": "TLS failed; check its certificate and --offload-cert",
    "xpected SETTINGS": "does not speak gRPC; name its gRPC port, or use http://",
}
"""What is in the words of gRPC where another attempt will not mend it → ours."""
BROKE = "the connection broke"
UNREACHED = {
    "onnection refused": "connection refused",
    "errors resolving": HOST_NOT_FOUND,
    "DNS resolution failed": HOST_NOT_FOUND,
    "recvmsg": BROKE,
    "ocket closed": BROKE,
    "onnection reset": BROKE,
    "Broken pipe": BROKE,
    "GOAWAY": BROKE,
}
"""What is in the words of gRPC where no answer came, in which case none did → ours."""
TOO_LARGE = "larger than max"


@dataclass(frozen=True, slots=True, eq=False)
class GrpcReply:
    """The bytes of a ModelInferResponse, and how many seconds it took from the beginning of the request."""

    body: bytes
    seconds: float

    def response(self) -> InferResponse:
        """What it says. Raises ProtocolError."""
        return decode_response(_parsed("ModelInferResponse", self.body))


@dataclass(slots=True, eq=False)
class _Line:
    """A channel, and how many calls are under way on it."""

    channel: Any
    calls: int = 0


class GrpcTransport:
    """gRPC to one endpoint; may be used from several threads.

    A connection that is not there after `connect_s` has failed. No message, log or repr of it holds the token: an answer that
    repeats the token is refused.
    """

    def __init__(self, address: Address, credentials: Credentials, *, connect_s: float) -> None:
        self._address, self._credentials = address, credentials
        self._options = (*OPTIONS, ("grpc.min_reconnect_backoff_ms", max(100, round(connect_s * 1000))))
        self._connect_s = connect_s
        self._token: str | None = None
        self._tls = None
        if address.encrypted:
            try:
                key, certificate = credentials.own()
                self._tls = grpc.ssl_channel_credentials(credentials.authorities(), key, certificate)
            except OSError as error:
                raise UsageError(f"--offload {address.root}: {error.filename}: {error.strerror}") from None
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._closed = False
        self.renew_token()

    def renew_token(self) -> None:
        """Read the token anew. Raises RequestError where it cannot be read any more."""
        try:
            self._token = self._credentials.token()
        except UsageError as error:
            raise RequestError(str(error), lasting=True) from None

    def served(self, until_s: float) -> Served:
        """What the model takes and gives, and whether edge-cloud serves it. Raises OffloadError for what says neither."""
        asked = MESSAGES["ModelMetadataRequest"](name=self._address.model)
        try:
            model = _parsed("ModelMetadataResponse", self._call("ModelMetadata", asked, until_s))
            server = self._server_name(until_s)
        except ProtocolError:
            raise OffloadError(f"{self._address.root}: does not speak the Open Inference Protocol v2") from None
        return Served(_specs(model.inputs), _specs(model.outputs), server == EDGE_CLOUD)

    def infer(self, request: Request, until_s: float, *, binary: bool) -> GrpcReply:
        """The answer to a request, whose tensors are sent as raw contents, `binary`, or as typed ones. Raises RequestError."""
        begun_s = time.monotonic()
        message = encode_request(
            self._address.model,
            [request.tensor],
            request.outputs,
            request_id=request.id,
            raw=binary,
            parameters=request.parameters,
        )
        body = self._call("ModelInfer", message, until_s, (("idempotency-key", request.key),))
        return GrpcReply(body, time.monotonic() - begun_s)

    def close(self) -> None:
        """Close the channel; what is under way on it ends at once."""
        with self._lock:
            self._closed, line, self._line = True, self._line, None
        if line is not None:
            line.channel.close()

    def _server_name(self, until_s: float) -> str:
        try:
            body = self._call("ServerMetadata", MESSAGES["ServerMetadataRequest"](), until_s)
        except RequestError as error:
            if error.again or error.late:
                raise
            return ""  # a proxy may pass on its models only
        return str(_parsed("ServerMetadataResponse", body).name)

    def _call(self, method: str, message: Any, until_s: float, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
        """The bytes of the answer: what is parsed by gRPC itself, and cannot be, it logs with a traceback."""
        root, token = self._address.root, self._token
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise RequestError(f"{root}: the deadline passed before it was asked", late=True)
        if token is not None:
            metadata = (*metadata, ("authorization", f"Bearer {token}"))
        failure = None
        try:
            with self._channel() as channel:
                call = channel.unary_unary(f"/{SERVICE}/{method}")
                body: bytes = call(message.SerializeToString(), timeout=left_s, metadata=metadata)
        except grpc.RpcError as error:
            failure = self._failure(error, method, left_s)
        if failure is not None:
            raise failure  # only here, else it would hold gRPC's own error, which may repeat the token
        if token is not None and token.encode() in body:
            raise RequestError(f"{root}: the answer repeats our token and is not used", lasting=True)
        return body

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        """The channel for one call; left for a new one where that shows that its connection may be of no use."""
        with self._lock:
            if self._closed:
                raise RequestError(f"{self._address.root}: is closed")
            line = self._line = self._line or _Line(self._open())
            line.calls += 1
        try:
            yield line.channel
        except grpc.RpcError as error:
            if error.code() in BROKEN:
                with self._lock:
                    self._line = None if self._line is line else self._line
            raise
        finally:
            with self._lock:
                line.calls -= 1
                is_spent = line is not self._line and line.calls == 0
            if is_spent:
                line.channel.close()

    def _open(self) -> Any:
        target = f"dns:///{self._address.target}"
        if self._tls is None:
            return grpc.insecure_channel(target, self._options)
        return grpc.secure_channel(target, self._tls, self._options)

    def _failure(self, error: Any, method: str, left_s: float) -> RequestError:
        """What an error of a call means."""
        root, code, details = self._address.root, error.code(), " ".join((error.details() or "").split())
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RequestError(f"{root}: no answer within {left_s:.3g} s", late=True)
        if code is grpc.StatusCode.UNAVAILABLE:
            words, lasting = self._unreached(details)
            if words:
                return RequestError(f"{root}: {words}", again=not lasting, lasting=lasting)
        too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in details
        if too_large and "CLIENT" in details:
            return RequestError(f"{root}: an answer of more than {ANSWER_LIMIT_BYTES} bytes")
        message = details if self._token is None else details.replace(self._token, "***")  # before a cut could leave a part
        message = message[:MESSAGE_LETTERS] or "no message"
        if code is grpc.StatusCode.NOT_FOUND:
            hint = f"name the model with --offload {self._address.named('NAME')}"
            return RequestError(f"{root}: no model {self._address.model} there ({message}); {hint}", lasting=True)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            hint = "start edge-cloud --grpc-port there"
            return RequestError(f"{root}: does not speak the Open Inference Protocol v2 ({message}); {hint}", lasting=True)
        if code in UNAUTHORIZED:
            hint = "give --offload-token-file" if self._token is None else "give another token"
            return RequestError(f"{root}: status {code.name} ({message}); {hint}", lasting=True)
        busy = not too_large and code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        return RequestError(
            f"{root}: status {code.name} for {method}: {message}",
            again=busy,
            refused=too_large or code in REFUSED,
            rest_s=_rest_s(error) if busy else 0.0,
            status=413 if too_large else STATUS.get(code, 500),
        )

    def _unreached(self, details: str) -> tuple[str, bool]:
        """In a few words why no answer came, or "" where the endpoint said it itself; and whether that will last."""
        for part, words in UNSAFE.items():
            if part in details:
                return words, True
        for part, words in UNREACHED.items():
            if part in details:
                return words, False
        if details.startswith("failed to connect"):
            return f"no answer within {self._connect_s:.3g} s", False
        return "", False


def _parsed(name: str, body: bytes) -> Any:
    """The message in an answer. Raises ProtocolError."""
    try:
        return MESSAGES[name].FromString(body)
    except DecodeError:
        raise ProtocolError(f"no {name} in {len(body)} bytes") from None


def _specs(given: Any) -> list[TensorSpec]:
    return [TensorSpec(one.name, one.datatype, list(one.shape)) for one in given]


def _rest_s(error: Any) -> float:
    """For how long the endpoint wants to be left in peace, by its trailing metadata; 0 where it does not say."""
    told = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    pushback = told.get("grpc-retry-pushback-ms", "")
    return seconds_of(pushback) / 1000 if pushback else seconds_of(told.get("retry-after", ""))
