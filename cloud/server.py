"""One process that listens, serves until a signal, finishes what it has accepted, and leaves."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import uvicorn

from cloud.app import Endpoint
from cloud.connections import CONNECTION_LIMIT, protocol_class
from cloud.handshakes import TlsServer
from edge.errors import EdgeError, UsageError

KEEP_ALIVE_S = 75
"""An idle connection is kept this long: a device that asks now and then should not connect anew each time."""
PUBLISH_S = 1.0


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate and key of the endpoint, and whose certificates its clients must show, if they must."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class Beside(Protocol):
    """Another server on the same event loop."""

    async def start(self) -> None: ...
    async def stop(self, drain_s: float) -> None: ...


def serve(
    endpoint: Endpoint,
    listener: socket.socket,
    *,
    ready: Callable[[], None],
    drain_s: int = 10,
    tls: Tls | None = None,
    beside: Beside | None = None,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Serve on a listening socket until SIGINT or SIGTERM, or `ended`; then finish accepted requests for `drain_s` at most.

    `beside` is started before `ready` is called, and drained with it. Raises EdgeError when it cannot be.
    """
    config = uvicorn.Config(
        endpoint,
        http=protocol_class(),
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
    )
    server = _Server(config, endpoint, ready, ended, beside, None if tls is None else tls_context(tls))
    try:
        server.run(sockets=[listener])
    finally:
        endpoint.close()


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one. `shared` lets other processes of ours listen there, too.

    Raises UsageError for a host that cannot be, EdgeError for a taken port.
    """
    listener, address = _open(host, port)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(CONNECTION_LIMIT)
    except OSError as error:
        listener.close()
        raise _unheard(host, port, error) from None
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """A port for several processes: bound, so that nobody else takes it, and not listened on. Raises as `listen`."""
    with listen(host, port) as alone:  # refused where another endpoint shares the port already
        port = alone.getsockname()[1]
    reserved, address = _open(host, port)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        reserved.close()
        raise _unheard(host, port, error) from None
    return reserved


def _unheard(host: str, port: int, error: OSError) -> EdgeError:
    """Why nobody can listen there."""
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host}: is no address of this machine; give one, or 0.0.0.0 for every one")
    return EdgeError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port or --host")


def resolve(host: str, port: int = 0) -> tuple[Any, ...]:
    """The socket address of a host. Raises UsageError for a host that cannot be."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "not a host name"
        raise UsageError(f"--host {host}: {why}; give an address of this machine, or 0.0.0.0 for every one") from None


def _open(host: str, port: int) -> tuple[socket.socket, Any]:
    family, kind, protocol, _, address = resolve(host, port)
    return socket.socket(family, kind, protocol), address


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """The URL that reaches a listening socket from where it listens."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The server's side of TLS 1.2 and later. Raises UsageError for files that cannot be used."""
    for option, path in (("--tls-cert", tls.cert), ("--tls-key", tls.key), ("--tls-client-ca", tls.client_ca)):
        if path is not None:
            _check_pem(option, path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert, tls.key, password="")  # else OpenSSL would ask at the terminal for one, and wait
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"--tls-cert {tls.cert}, --tls-key {tls.key}: cannot be used: {_reason(error)}; give a certificate chain and the "
            "private key that belongs to it, without a passphrase"
        ) from None
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--tls-client-ca {tls.client_ca}: cannot be used: {_reason(error)}; give the CA's certificates"
            ) from None
    return context


def _check_pem(option: str, path: Path) -> None:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}; give a PEM file") from None
    if b"-----BEGIN " not in raw:
        raise UsageError(f"{option} {path}: is no PEM file, which has a line -----BEGIN ...; convert it by openssl")


def _reason(error: OSError) -> str:
    """OpenSSL's, where it has one that is no line of its source."""
    return getattr(error, "reason", None) or "not of that kind, or locked"


class _Server(uvicorn.Server):
    """Tells of its end before it comes, and ends with a return: uvicorn would raise the signal again and die of it."""

    def __init__(
        self,
        config: uvicorn.Config,
        endpoint: Endpoint,
        ready: Callable[[], None],
        ended: Callable[[], bool],
        beside: Beside | None,
        context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(config)
        self._endpoint, self._state = endpoint, endpoint.state
        self._ready, self._ended, self._beside, self._tls = ready, ended, beside, context
        self._state.connections = lambda: len(self.server_state.connections)

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Listen; then say so."""
        loop = asyncio.get_running_loop()
        self.servers = [await self._open(loop, listener) for listener in sockets or ()]
        if self._beside is not None:
            await self._beside.start()
        self.started = True
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain both servers."""
        drains = [super().shutdown(sockets)]
        if self._beside is not None:
            drains.append(self._beside.stop(float(self.config.timeout_graceful_shutdown or 0)))
        await asyncio.gather(*drains)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: publish figures, and see whether it is time to leave."""
        if counter % round(10 * PUBLISH_S) == 0:
            with suppress(OSError):  # no file descriptor, no space: older figures are better than an end
                self._endpoint.service.tell_gauges()
                self._state.metrics.publish()
            self.should_exit |= self._ended()
        self._state.draining |= self.should_exit
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGINT or SIGTERM: not ready from now on, and no more connections from the next tick."""
        self._state.draining = True
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM drain; a second SIGINT leaves at once."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _open(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> Any:
        if self._tls is not None:
            return TlsServer(listener, self._tls, self._protocol, self.server_state.connections)
        return await loop.create_server(self._protocol, sock=listener, backlog=CONNECTION_LIMIT)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(config=self.config, server_state=self.server_state, app_state={})  # type: ignore[call-arg]
