"""Checks of the way to an endpoint, step by step: its name, a connection, TLS, whether it is ready and serves the model.

Importing this brings an HTTP client only when an endpoint is asked.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge.doctor.check import Check, failure
from edge.errors import OffloadError

if TYPE_CHECKING:
    from edge.offload.address import Address
    from edge.offload.credentials import Credentials
    from edge.offload.grpc_transport import GrpcTransport
    from edge.offload.transport import Transport

STEP_S = 4.0
MOST_ADDRESSES = 3
SOON_DAYS = 14
PORTS = {"http": 80, "https": 443}
READY = "/v2/health/ready"


def endpoint_checks(address: Address, credentials: Credentials) -> Iterator[Check]:
    """Each step, up to the first that fails."""
    parts = urlsplit(address.root)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    begun_s = time.monotonic()
    addresses, problem = _resolved(host, port)
    if problem:
        mend = f"check its spelling and this machine's DNS: getent hosts {host}"
        yield Check("endpoint name", "fail", f"{host}: {problem}", mend)
        return
    yield Check("endpoint name", "ok", f"{host} is {addresses[0]}, {_ms(begun_s)}" if host != addresses[0] else host)
    begun_s = time.monotonic()
    connection, problem = _connected(addresses, port)
    if connection is None:
        flag = "--grpc-port" if address.by_grpc else "--port"
        mend = (
            f"start it there: edge-cloud --host 0.0.0.0 {flag} {port} --token-file FILE; or open the firewall for port {port}"
        )
        if all(ip_address(one.partition("%")[0]).is_loopback for one in addresses):
            mend = f"start it: edge-cloud {flag} {port}"
        yield Check("endpoint connection", "fail", f"{host} port {port}: {problem}", mend)
        return
    yield Check("endpoint connection", "ok", f"port {port}, {_ms(begun_s)}")
    with connection:
        tls = _tls(connection, host, credentials) if address.encrypted else None
    if tls is not None:
        yield tls
        if tls.status == "fail":
            return
    yield from _served(address, credentials)


def _resolved(host: str, port: int) -> tuple[list[str], str]:
    """A host's addresses, or why there are none; on a thread of its own, because a resolver takes the time it wants."""
    answers: SimpleQueue[tuple[list[str], str]] = SimpleQueue()

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answers.put(([], getattr(error, "strerror", None) or str(error)))
        else:
            answers.put((list(dict.fromkeys(str(entry[4][0]) for entry in found)), ""))

    threading.Thread(target=resolve, name="resolving", daemon=True).start()
    try:
        return answers.get(timeout=STEP_S)
    except Empty:
        return [], f"the resolver gives no answer within {STEP_S:g} s"


def _connected(addresses: Sequence[str], port: int) -> tuple[socket.socket | None, str]:
    """A connection to the first address that takes one, or why the last did not."""
    problem = ""
    for address in addresses[:MOST_ADDRESSES]:
        try:
            return socket.create_connection((address, port), STEP_S), ""
        except OSError as error:
            late = isinstance(error, TimeoutError)
            problem = f"no answer within {STEP_S:g} s" if late else (error.strerror or str(error)).lower()
    return None, problem


def _tls(connection: socket.socket, host: str, credentials: Credentials) -> Check:
    """A handshake on a connection, and for how long the certificate is valid."""
    try:
        with credentials.context().wrap_socket(connection, server_hostname=host) as secure:
            certificate, version = secure.getpeercert() or {}, secure.version()
    except ssl.SSLCertVerificationError as error:
        mend = "give --offload-ca FILE, or check the host name and this machine's clock: timedatectl"
        return Check("endpoint TLS", "fail", f"its certificate is not trusted: {error.verify_message}", mend)
    except ssl.SSLError as error:
        reason = (error.reason or "no reason given").replace("_", " ").lower()
        return Check(
            "endpoint TLS", "fail", f"the handshake failed: {reason}", "if it does not speak TLS, use http:// or grpc://"
        )
    except OSError as error:
        return Check("endpoint TLS", "fail", f"the handshake broke: {error.strerror or error}", "see the endpoint's log")
    ends = certificate.get("notAfter")
    if not isinstance(ends, str):
        return Check("endpoint TLS", "ok", f"{version}")
    left_days = (ssl.cert_time_to_seconds(ends) - time.time()) / 86400
    day = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), timezone.utc).date()
    text = f"{version}, certificate valid until {day}"
    if left_days < SOON_DAYS:
        return Check("endpoint TLS", "warn", text, "renew the endpoint's certificate")
    return Check("endpoint TLS", "ok", text)


def _served(address: Address, credentials: Credentials) -> Iterator[Check]:
    """Whether it says that it is ready, and has the model."""
    if address.by_grpc:
        try:
            from edge.offload.grpc_transport import GrpcTransport as Grpc
        except ImportError:
            yield Check("endpoint ready", "fail", "gRPC is not installed here", "pip install grpcio protobuf")
            return
        yield _model(address, Grpc(address, credentials, connect_s=STEP_S))
        return
    from edge.offload.transport import RequestError
    from edge.offload.transport import Transport as Http

    transport = Http(address, credentials, connections=1)
    begun_s = time.monotonic()
    try:
        transport.get(READY, begun_s + STEP_S)
    except RequestError as error:
        if error.status == 404:
            text = f"{address.root} has no {READY}: it does not speak the Open Inference Protocol v2"
            yield Check("endpoint ready", "fail", text, "check host, port and path; edge-cloud listens on port 8000")
        else:
            yield _with_mend(failure("endpoint ready", str(error)), "see the endpoint's log; a model may still be loading")
        transport.close()
        return
    yield Check("endpoint ready", "ok", f"{READY} says so, {_ms(begun_s)}")
    yield _model(address, transport)


def _model(address: Address, transport: Transport | GrpcTransport) -> Check:
    begun_s = time.monotonic()
    try:
        transport.served(begun_s + STEP_S)
    except OffloadError as error:
        return _with_mend(failure("endpoint model", str(error)), "see the endpoint's log")
    finally:
        transport.close()
    return Check("endpoint model", "ok", f"serves {address.model}, {_ms(begun_s)}")


def _with_mend(check: Check, mend: str) -> Check:
    return check if check.mend else Check(check.name, check.status, check.text, mend)


def _ms(begun_s: float) -> str:
    return f"{(time.monotonic() - begun_s) * 1e3:.0f} ms"
