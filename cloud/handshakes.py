"""TLS handshakes with strangers: each takes a connection's place from the first, and is dropped as one.

A server of asyncio's would not tell of a connection before its handshake has succeeded, so it could count none, nor make room.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cloud.connections import CONNECTION_LIMIT, HEAD_S, make_room

PAUSE_S = 1.0
"""Without a file descriptor for a newcomer, it is looked for one again so much later, as asyncio's own servers do."""


class TlsServer:
    """Accepts on a listening socket, and hands what has shaken hands to the protocols that `make` makes."""

    def __init__(
        self, listener: socket.socket, context: ssl.SSLContext, make: Callable[[], Any], connections: set[Any]
    ) -> None:
        self._listener, self._context, self._make, self._connections = listener, context, make, connections
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """As asyncio's servers have it; what it accepted is among the connections."""

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(CONNECTION_LIMIT):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listener)
                self._paused = self._loop.call_later(PAUSE_S, self._resume)
                return
            accepted.setblocking(False)
            self._connections.add(Handshake(self._loop, accepted, self._context, self._make, self._connections))
            make_room(self._connections)


class Handshake:
    """One of the connections, until its protocol takes its place or it has not shaken hands within `HEAD_S`."""

    is_asked = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], Any],
        connections: set[Any],
    ) -> None:
        self.heard_s = time.monotonic()
        self._accepted, self._make, self._connections = accepted, make, connections
        self._task = loop.create_task(self._shake(loop, context))

    def drop(self) -> None:
        """Close at once; the event loop sees it as the peer's end, at whatever point it is."""
        with suppress(OSError):
            self._accepted.shutdown(socket.SHUT_RDWR)

    def shutdown(self) -> None:
        """As uvicorn's protocols have it: the endpoint takes no more."""
        self.drop()

    async def _shake(self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext) -> None:
        try:
            await loop.connect_accepted_socket(self._protocol, self._accepted, ssl=context, ssl_handshake_timeout=HEAD_S)
        except OSError:  # no TLS, a version too old, no certificate, too slow, gone
            self._accepted.close()
        finally:
            self._connections.discard(self)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self._make()
        protocol.handshake = self  # type: ignore[attr-defined]
        return protocol
