"""One process that listens, serves until a signal, finishes what it has accepted, and leaves."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from cloud.app import build_app
from cloud.line import Line
from cloud.served import Served
from edge.errors import EdgeError, UsageError

KEEP_ALIVE_S = 75
"""An idle connection is kept this long: a device that asks now and then should not connect anew each time."""
DRAIN_S = 10
CONNECTION_LIMIT = 512


def serve(served: Served, listener: socket.socket, *, limit_bytes: int, say: Callable[[str], None]) -> None:
    """Serve on a listening socket until SIGINT or SIGTERM, then finish accepted requests for at most ten seconds."""
    line = Line()
    config = uvicorn.Config(
        build_app(served, line, limit_bytes=limit_bytes, say=say),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTION_LIMIT,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    ready = f"ready at {url_of(listener)}, model {served.name}, variant {served.variant}"
    try:
        asyncio.run(_Server(config, lambda: say(ready)).serve(sockets=[listener]))
    finally:
        line.close()
        served.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UsageError for a host that cannot be, EdgeError for a taken port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host}: {getattr(error, 'strerror', None) or 'not a host name'}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(CONNECTION_LIMIT)
    except OSError as error:
        listener.close()
        raise EdgeError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port or --host") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL that reaches a listening socket from where it listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Says when it is ready, and ends with a return: uvicorn would raise the signal again and die of it."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM drain; a second SIGINT leaves at once."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
