"""Requests by HTTP over kept connections, each with a deadline, and what became of them in words."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import urllib3

from edge import __version__
from edge.errors import OffloadError, UsageError
from edge.offload.address import Address
from edge.offload.connections import punctual, punctual_pools
from edge.offload.credentials import Credentials
from edge.offload.served import Served, read_served
from edge.oip import InferResponse, NamedTensor, decode_response, encode_request

ANSWER_LIMIT_BYTES = 4 << 20
BUSY = (429, 503)
MESSAGE_LETTERS = 200
UNAUTHORIZED = (401, 403)
REFUSED = (400, 413, 422)
"""What is about the picture itself, rather than about where or how it was sent."""
CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""TLS that broke off, as a network does, rather than failed."""
HOST_NOT_FOUND = "host name not found; check its spelling and this machine's DNS"
NOT_TRUSTED = "give --offload-ca FILE, or check the host name and this machine's clock"


class RequestError(OffloadError):
    """A request that failed.

    `again`: it never got an answer, or was told to come later, so that it may be sent again. `lasting`: another attempt will
    not mend it. `late`: its deadline passed. `refused`: the endpoint wants no such picture. `rest_s`: for how long the
    endpoint wants to be left in peace. `status`: what it answered, 0 for nothing.
    """

    def __init__(
        self,
        line: str,
        *,
        again: bool = False,
        lasting: bool = False,
        late: bool = False,
        refused: bool = False,
        rest_s: float = 0.0,
        status: int = 0,
    ) -> None:
        super().__init__(line)
        self.status = status
        self.again, self.lasting, self.late, self.refused, self.rest_s = again, lasting, late, refused, rest_s


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One inference: its input, the outputs to ask for, its number, the key that it has at each attempt, and what it tells."""

    tensor: NamedTensor
    outputs: Sequence[str]
    id: str
    key: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """An answer with status 200, and how many seconds it took from the beginning of the request."""

    body: bytes
    headers: Mapping[str, str]
    seconds: float

    def response(self) -> InferResponse:
        """What it says. Raises ProtocolError."""
        return decode_response(self.body, self.headers)


class Transport:
    """HTTP to one endpoint over at most `connections`; may be used from several threads.

    No message, log or repr of it holds the token: an answer that repeats the token is refused.
    """

    def __init__(self, address: Address, credentials: Credentials, *, connections: int) -> None:
        self._address, self._credentials = address, credentials
        self._path = f"/v2/models/{quote(address.model, safe='/')}"
        self._token: str | None = None
        self._headers: dict[str, str] = {}
        security: dict[str, Any] = {"ssl_context": credentials.context()} if address.encrypted else {}
        if credentials.pin is not None:
            security["assert_fingerprint"] = credentials.fingerprint()
        self._http = punctual_pools(connections=connections, **security)
        self.renew_token()

    def renew_token(self) -> None:
        """Read the token anew. Raises RequestError where it cannot be read any more."""
        try:
            self._token = self._credentials.token()
        except UsageError as error:
            raise RequestError(str(error), lasting=True) from None
        authorization = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self._headers = {"User-Agent": f"edge-run/{__version__}"} | authorization

    def served(self, until_s: float) -> Served:
        """What the model takes and gives, and whether edge-cloud serves it. Raises OffloadError for what says neither."""
        model = self.get(self._path, until_s).body
        try:
            server = self.get("/v2", until_s).body
        except RequestError as error:
            if error.again or error.late:
                raise
            server = None  # a proxy may pass on its models only
        return read_served(self._address.root, model, server)

    def infer(self, request: Request, until_s: float, *, binary: bool) -> Reply:
        """The answer to a request, whose tensors are sent as `binary` data or as JSON. Raises RequestError."""
        body, headers = encode_request(
            [request.tensor], request.outputs, request_id=request.id, parameters=request.parameters, binary=binary
        )
        return self.post(f"{self._path}/infer", body, headers | {"Idempotency-Key": request.key}, until_s)

    def get(self, path: str, until_s: float) -> Reply:
        """What is at `path` below the root. Raises RequestError; `until_s` is on the monotonic clock."""
        return self._request("GET", path, None, {}, until_s)

    def post(self, path: str, body: bytes, headers: Mapping[str, str], until_s: float) -> Reply:
        """The answer to a body. Raises RequestError."""
        return self._request("POST", path, body, headers, until_s)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._http.clear()

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], until_s: float) -> Reply:
        begun_s = time.monotonic()
        left_s = until_s - begun_s
        if left_s <= 0:
            raise RequestError(f"{self._address.root}: the deadline passed before it was asked", late=True)
        try:
            response = self._http.request(
                method,
                self._address.root + path,
                body=body,
                headers=self._headers | dict(headers),
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=max(0.1, left_s / 2), total=left_s),
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._broken(error, until_s, left_s, answered=False) from None
        connection = response.connection
        try:
            with punctual(response):
                data = self._read(response, until_s, left_s)
        except urllib3.exceptions.HTTPError as error:
            response.close()
            raise self._broken(error, until_s, left_s, answered=True) from None
        if response.status >= 500 and response.status not in BUSY and connection:
            connection.close()  # servers hang up after an error of their own, often a moment after saying it
        if response.status != 200:
            raise self._status(response.status, response.headers.get("Retry-After", ""), path, data)
        if self._token is not None and self._token.encode() in data:
            raise RequestError(f"{self._address.root}: the answer repeats our token and is not used", lasting=True)
        return Reply(data, dict(response.headers), time.monotonic() - begun_s)

    def _read(self, response: urllib3.BaseHTTPResponse, until_s: float, left_s: float) -> bytes:
        """The body, within a limit and the deadline, at which it may have been cut off."""
        pieces, size = [], 0
        while True:
            piece = response.read1(65536)
            pieces.append(piece)
            size += len(piece)
            late = time.monotonic() >= until_s
            if size > ANSWER_LIMIT_BYTES or late:
                response.close()
                what = f"no answer within {left_s:.3g} s" if late else f"an answer of more than {ANSWER_LIMIT_BYTES} bytes"
                raise RequestError(f"{self._address.root}: {what}", late=late)
            if not piece:
                break
        response.release_conn()
        return b"".join(pieces)

    def _broken(self, error: urllib3.exceptions.HTTPError, until_s: float, left_s: float, *, answered: bool) -> RequestError:
        """What an exception means; `answered` says whether the endpoint had begun to answer."""
        causes = _causes(error)
        connecting = isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
        cut = any(isinstance(cause, CUT_OFF) for cause in causes)
        unsafe = not cut and any(isinstance(cause, ssl.SSLError | urllib3.exceptions.SSLError) for cause in causes)
        timed_out = not connecting and (
            time.monotonic() >= until_s  # it was cut off
            or any(isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError) for cause in causes)
        )
        what = f"no answer within {left_s:.3g} s" if timed_out and not unsafe else in_words(error, left_s, f"; {NOT_TRUSTED}")
        return RequestError(
            f"{self._address.root}: {what}",
            again=not (answered or unsafe or timed_out),
            lasting=unsafe,
            late=timed_out,
        )

    def _status(self, status: int, retry_after: str, path: str, data: bytes) -> RequestError:
        root, message = self._address.root, _server_message(data)
        if self._token is not None:
            message = message.replace(self._token, "***")  # before a cut could leave a part of it
        message = message[:MESSAGE_LETTERS]
        if status == 404:
            hint = f"name the model with --offload {self._address.named('NAME')}"
            line = f"{root}: no model {self._address.model} there ({message}); {hint}"
            return RequestError(line, lasting=True, status=status)
        if status in UNAUTHORIZED:
            hint = "give --offload-token-file" if self._token is None else "give another token"
            return RequestError(f"{root}: status {status} ({message}); {hint}", lasting=True)
        return RequestError(
            f"{root}: status {status} for {path}: {message}",
            again=status in BUSY,
            refused=status in REFUSED,
            rest_s=seconds_of(retry_after) if status in BUSY else 0.0,
            status=status,
        )


def in_words(error: urllib3.exceptions.HTTPError, timeout_s: float, untrusted: str = "") -> str:
    """What kept a request from being answered, in a few words; `timeout_s` is the time that it had.

    `untrusted` is what to do where its certificate is not trusted.
    """
    for cause in _causes(error):
        if isinstance(cause, CUT_OFF):
            return "the connection broke"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS failed, its certificate is not trusted ({cause.verify_message}){untrusted}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'no reason given'}); if it does not speak TLS, use http://"
        if isinstance(cause, urllib3.exceptions.SSLError) and "ingerprint" in str(cause):
            return "TLS failed, its certificate is not the pinned one; if it was renewed, pin the new one"
        if isinstance(cause, socket.gaierror | urllib3.exceptions.NameResolutionError):
            return HOST_NOT_FOUND
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError) and not isinstance(
            cause, urllib3.exceptions.NewConnectionError
        ):
            return f"no answer within {timeout_s:.3g} s"
        if isinstance(cause, ConnectionResetError | BrokenPipeError | urllib3.exceptions.ProtocolError):
            return "the connection broke"
    return str(error).split(": ", 1)[-1]


def seconds_of(retry_after: str) -> float:
    """What a Retry-After header asks for, in seconds from now: RFC 9110, section 10.2.3; 0 for what is none."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    with contextlib.suppress(ValueError, OverflowError):
        then = parsedate_to_datetime(retry_after)
        return max(0.0, (then.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds())
    return 0.0


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what raised it, and so on."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def _server_message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode("utf-8", "replace").strip() or "no message"
