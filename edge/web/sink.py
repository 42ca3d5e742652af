"""The live page as a sink: it looks at every event, and takes the few whose pictures somebody waits for."""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
from collections.abc import Callable

from edge.monitor import Monitor
from edge.types import Event, Notice
from edge.web.address import Place, url_of
from edge.web.app import App
from edge.web.auth import Access
from edge.web.moments import Moments
from edge.web.preview import Preview
from edge.web.server import Server, step_back


class WebSink:
    """Serves the page on `listener` until it is closed; `url` is where.

    `wants` sees everything, on the loop's thread; `emit` draws and encodes, on the sink's own. A picture that comes too
    late for another one is not a loss: `lost` stays 0, also when the server has failed.
    """

    wants_images = True

    def __init__(
        self,
        listener: socket.socket,
        place: Place,
        access: Access,
        context: ssl.SSLContext | None,
        *,
        fps: float,
        monitor: Monitor,
        say: Callable[[str], None],
    ) -> None:
        self.lost = 0
        self.url = url_of(listener, place, "http" if context is None else "https")
        names = [source.name for source in monitor.sources]
        self._numbers = {name: number for number, name in enumerate(names)}
        self.preview = Preview(len(names), fps)
        # browsers keep thumbnails by their numbers, which must not come again: not after a restart, nor with a clock set back
        self.moments = Moments(names, first_id=secrets.randbits(48))
        self.app = App(monitor, self.preview, self.moments, access, say)
        self.server = Server(self.app, listener, context, say)
        self._thread: threading.Thread | None = None

    def wants(self, event: Event | Notice) -> bool:
        """Whether somebody waits for this event's picture."""
        if not self.server.alive:
            return False
        if isinstance(event, Notice):
            self.moments.notice(event)
            return False
        source = self._numbers.get(event.frame.source)
        if source is None:
            return False
        wanted = self.moments.see(source, event)
        if event.revises:
            self.preview.revised(source, event)
            return wanted
        return wanted or self.preview.due(source)

    def emit(self, event: Event | Notice) -> None:
        """Draw and encode its picture, once for all who wait."""
        if isinstance(event, Notice) or not event.frame.image.size:
            return
        if self._thread is not threading.current_thread():
            self._thread = threading.current_thread()
            step_back()
        source = self._numbers[event.frame.source]
        if self.moments.awaited(source, event):
            self.moments.illustrate(source, event)
        if not event.revises and self.preview.due(source):
            self.preview.show(source, event)

    def close(self) -> None:
        """Let all viewers go, and end the server."""
        self.server.close()
