"""The server, on a thread of its own: a limited number of connections, none silent for long, none that is read too slowly."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from edge.errors import one_line
from edge.web.handshake import begins_handshake
from edge.web.messages import HEAD_BYTES

CONNECTIONS = 16
"""All in all; a page takes two."""
HEAD_S = 5.0
"""From a request's first byte, or a connection's beginning, to the end of its headers; also to a TLS handshake, and for it."""
KEEP_ALIVE_S = 10
SEND_S = 10.0
"""A viewer who takes nothing of an answer for this long is dropped."""
PARTING_S = 0.3
NICENESS = 10
AGAIN_S = 0.5
BROKEN = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
"""Why none can be accepted any more; all else, as a lack of file descriptors or a lost network, may pass (accept(2))."""
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 17\r\nConnection: close\r\n\r\ntoo many viewers\n"
)


class Served(Protocol):
    """The application, which is told when its loop runs and when it must let its viewers go."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
    def open(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def end(self) -> None: ...


class Server:
    """Serves `app` on a listening socket from its making to `close`, which ends whatever viewers do within a second.

    It installs no signal handlers and does nothing while nobody asks. If it should fail, that is said once, and
    `alive` is false; the loop goes on.
    """

    def __init__(
        self, app: Served, listener: socket.socket, context: ssl.SSLContext | None, say: Callable[[str], None]
    ) -> None:
        self.alive = True
        self._app, self._listener, self._context, self._say = app, listener, context, say
        self._state = ServerState()
        self._config = uvicorn.Config(
            app,
            http=Guarded,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        self._arriving: dict[socket.socket, asyncio.Task[None]] = {}
        self._said: set[type[BaseException]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()
        self._begun.wait(5)

    @property
    def connections(self) -> int:
        """How many there are, handshakes included."""
        return len(self._state.connections) + len(self._arriving)

    def close(self, patience_s: float = 1.5) -> None:
        """End all connections and the thread."""
        if self._loop is not None and self._ending is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(patience_s)

    def _run(self) -> None:
        step_back()
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # the loop must not notice
            self._say(f"web: stopped: {one_line(f'{type(error).__name__}: {error}')}; the loop goes on without the page")
        finally:
            self.alive = False
            self._app.end()
            self._listener.close()
            self._begun.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._note)
        self._ending = asyncio.Event()
        self._loop = loop
        self._app.open(loop)
        self._begun.set()
        accepting, ending = loop.create_task(self._accept(loop)), loop.create_task(self._ending.wait())
        try:
            await asyncio.wait({accepting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                await accepting  # it ends by an error only
        finally:
            accepting.cancel()
            ending.cancel()
            await self._part()

    async def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno in BROKEN:
                    raise
                await asyncio.sleep(AGAIN_S)
                continue
            if not self._has_room():
                self._refuse(connection)
                continue
            self._arriving[connection] = loop.create_task(self._take(loop, connection))

    async def _take(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        """Make a protocol of an accepted connection, after a handshake where there is TLS."""
        watch_over(connection)
        handshake_s = None if self._context is None else HEAD_S

        def protocol() -> asyncio.Protocol:
            made = Guarded(config=self._config, server_state=self._state, app_state={})
            made.arrived = lambda: self._arriving.pop(connection, None)
            return made

        try:
            if self._context is not None and not await begins_handshake(loop, connection, HEAD_S):
                return
            await loop.connect_accepted_socket(protocol, connection, ssl=self._context, ssl_handshake_timeout=handshake_s)
        except (OSError, asyncio.TimeoutError):
            pass  # its handshake failed, or it has gone already
        finally:
            self._arriving.pop(connection, None)

    def _has_room(self) -> bool:
        """Whether there is a place; whoever has asked nothing for longest, or not come to it yet, gives up its own."""
        if self.connections < CONNECTIONS:
            return True
        idle = [one for one in self._state.connections if isinstance(one, Guarded) and not one.is_asked]
        if idle:
            longest = min(idle, key=lambda one: one.heard_s)
            self._state.connections.discard(longest)
            longest.drop()
        elif self._arriving:
            first = next(iter(self._arriving))
            del self._arriving[first]
            _hang_up(first)
        else:
            return False
        return True

    def _refuse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if self._context is None:
                connection.setblocking(False)
                connection.send(FULL)
                connection.shutdown(socket.SHUT_WR)

    async def _part(self) -> None:
        """Let answers under way come to their end, for a moment; then drop everybody."""
        self._app.end()
        for one in list(self._state.connections):
            with suppress(h11.ProtocolError):
                one.shutdown()
        for connection in self._arriving:
            _hang_up(connection)
        tasks = {*self._state.tasks, *self._arriving.values()}
        if tasks:
            await asyncio.wait(tasks, timeout=PARTING_S)
        for task in tasks:
            task.cancel()
        for one in list(self._state.connections):
            one.transport.abort()
        await asyncio.sleep(0.02)  # for the loop to close what was dropped

    def _note(self, loop: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
        """Say an unexpected failure in the loop, once for each kind, in a line instead of a traceback."""
        error = about.get("exception")
        if (
            isinstance(error, Exception)
            and not isinstance(error, (OSError, h11.ProtocolError))
            and type(error) not in self._said
        ):
            self._said.add(type(error))
            self._say(f"web: {one_line(f'{type(error).__name__}: {error}')}")


class Guarded(H11Protocol):
    """uvicorn's protocol with a deadline for the headers, and one for taking what was asked for."""

    heard_s = 0.0
    arrived: Callable[[], object] = staticmethod(lambda: None)
    """Called when it is among the connections."""
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A newcomer."""
        super().connection_made(transport)
        self.arrived()
        self.heard_s = time.monotonic()
        self._head = self.loop.call_later(HEAD_S, self.drop)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        self.heard_s = time.monotonic()
        super().data_received(data)
        if self.is_asked or self._is_between:
            self._relax()
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_S, self.drop)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of it."""
        self._relax()
        self._taken()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More is buffered than should be: the viewer does not take what it asked for."""
        super().pause_writing()
        self._unread = self.loop.call_later(SEND_S, self.drop)

    def resume_writing(self) -> None:
        """It has taken some."""
        self._taken()
        super().resume_writing()

    @property
    def is_asked(self) -> bool:
        """Whether a request is under way: its headers have come, and its answer has not gone."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_between(self) -> bool:
        """Whether nothing of a next request has come."""
        return self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

    def send_400_response(self, msg: str) -> None:
        """What makes no sense is answered, unless an answer to something else is under way."""
        if self.is_asked:
            self.drop()
        else:
            super().send_400_response(msg)

    def drop(self) -> None:
        """Close at once, without sending what is buffered."""
        self.transport.abort()

    def _relax(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def _hang_up(connection: socket.socket) -> None:
    """End a connection that belongs to a handshake, which then fails and closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def watch_over(connection: socket.socket) -> None:
    """Find out within a minute that a viewer has gone without a word."""
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def step_back() -> None:
    """Let this thread have what processor time the others leave: viewers must not slow the loop."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
