"""Connections from strangers: a limited number, none silent for long, none that makes a parser hold more than it should.

Under overload most requests are refused, and what a refusal costs is taken from those that are answered: over httptools it
is written while the head is parsed, without a task, and the body is thrown away as it comes.
"""

from __future__ import annotations

import asyncio
import time
from importlib.util import find_spec
from typing import Any

HEAD_S = 10.0
"""From a request's first byte, or a connection's beginning, to the end of its headers."""
SEND_S = 60.0
"""A client that takes nothing of its answers for this long is dropped; until then a request of its is under way."""
HEAD_BYTES = 64 << 10
PIPELINE_LIMIT = 16
CONNECTION_LIMIT = 512
GONE = "gone"
"""The key in an ASGI scope's `state` of a function to call when the client leaves before its answer."""


class Guard:
    """Mixed into uvicorn's protocols: a deadline for headers, and a place for newcomers when all are taken."""

    transport: Any
    cycle: Any
    loop: asyncio.AbstractEventLoop
    connections: set[Any]
    heard_s = 0.0
    handshake: object = None
    """What has had its place until now, where there was a TLS handshake."""
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A newcomer."""
        super().connection_made(transport)  # type: ignore[misc]
        self.heard_s = time.monotonic()  # finer than the time of uvloop
        self._expect_headers()
        self.connections.discard(self.handshake)
        make_room(self.connections)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        self.heard_s = time.monotonic()
        super().data_received(data)  # type: ignore[misc]
        if self.is_asked or self.is_between:
            self._relax()
        elif self._timer is None:
            self._expect_headers()
        if len(getattr(self, "pipeline", ())) > PIPELINE_LIMIT:
            self.drop()

    def connection_lost(self, error: Exception | None) -> None:
        """The end of it; whoever works for its request is told, by what the application put in the scope's state."""
        self._relax()
        self._taken()
        if self.is_asked and (gone := self.cycle.scope["state"].get(GONE)):
            gone()
        super().connection_lost(error)  # type: ignore[misc]

    def pause_writing(self) -> None:
        """More is buffered than should be: the client does not take what it asked for."""
        super().pause_writing()  # type: ignore[misc]
        self._unread = self.loop.call_later(SEND_S, self.drop)

    def resume_writing(self) -> None:
        """It has taken some."""
        self._taken()
        super().resume_writing()  # type: ignore[misc]

    @property
    def is_asked(self) -> bool:
        """Whether a request is under way: its headers have come, and its answer has not gone."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_between(self) -> bool:
        """Whether the last request has come to its end, and nothing of the next has come."""
        raise NotImplementedError

    def drop(self) -> None:
        """Close at once, without sending what is buffered."""
        self.transport.abort()

    def _expect_headers(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self.drop)

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _relax(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def make_room(connections: set[Any]) -> None:
    """Drop one when there are more than `CONNECTION_LIMIT`: of those without a request under way, the one that has said
    nothing for longest; when all others have one, that is the newcomer.
    """
    if len(connections) > CONNECTION_LIMIT:
        longest = min((one for one in connections if not one.is_asked), key=lambda one: one.heard_s)
        connections.discard(longest)  # at once: of several newcomers in a row, each makes room
        longest.drop()


def protocol_class() -> type[asyncio.Protocol]:
    """The guarded protocol over httptools where it is installed, else over h11, which bounds headers itself."""
    if find_spec("httptools") is None:
        import h11
        from uvicorn.protocols.http.h11_impl import H11Protocol

        class GuardedH11(Guard, H11Protocol):
            @property
            def is_between(self) -> bool:
                return self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

        return GuardedH11
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

    class GuardedHttpTools(Guard, HttpToolsProtocol):
        """Counts the bytes since the parser last got anywhere: it would take in headers and trailers without end."""

        _unparsed = 0
        _between = False

        @property
        def is_between(self) -> bool:
            return self._between

        def data_received(self, data: bytes) -> None:
            self._unparsed += len(data)
            super().data_received(data)
            if self._unparsed > HEAD_BYTES:
                self.drop()
            elif self._between and self.timeout_keep_alive_task is None and not (self.is_asked or self.transport.is_closing()):
                self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

        def on_message_begin(self) -> None:
            self._between = False
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._unparsed = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._unparsed = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._unparsed = 0
            self._between = True
            super().on_message_complete()

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            """Refuse at once, where the connection goes on and the client has read what it was told before."""
            refusal = None
            if cycle.keep_alive and not cycle.waiting_for_100_continue and not self.flow.write_paused:
                refusal = self.config.app.refused_at_once(cycle.scope)  # type: ignore[union-attr]
            if refusal is None:
                super()._start_asgi_task(cycle, app)
                return
            lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *refusal.headers)]
            self.transport.write(b"".join((STATUS_LINE[refusal.status], *lines, b"\r\n", refusal.body)))
            cycle.response_started = cycle.response_complete = True
            cycle.on_response = lambda: None
            self.on_response_complete()

    return GuardedHttpTools
