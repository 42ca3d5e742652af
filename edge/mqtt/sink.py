"""Events and notices as MQTT messages."""

from __future__ import annotations

from typing import Literal

from edge.mqtt.connection import Connection
from edge.mqtt.outbox import Outbox
from edge.mqtt.reports import Reports
from edge.types import Event, Notice


class MqttSink:
    """Queues what is to be published; a connection's thread does the rest.

    `on` is which events: those with changes, all or none; notices always are.
    """

    wants_images = False

    def __init__(self, connection: Connection, outbox: Outbox, reports: Reports, on: Literal["changes", "all", "none"]) -> None:
        self._connection, self._outbox, self._reports, self._on = connection, outbox, reports, on
        connection.start()

    @property
    def lost(self) -> int:
        """Also what the connection's thread has lost since the last event."""
        return self._outbox.lost

    def wants(self, event: Event | Notice) -> bool:
        """Whether the event is one to be published."""
        return isinstance(event, Notice) or self._on == "all" or (self._on == "changes" and bool(event.changes))

    def emit(self, event: Event | Notice) -> None:
        """Queue a message; never waits."""
        if self.wants(event):
            self._connection.put(self._reports.of(event))

    def stop(self) -> None:
        """Make `close` end at once, from any thread."""
        self._connection.stop()

    def close(self) -> None:
        """Publish what is left, for some seconds at most, and say that the board is gone."""
        self._connection.close()
