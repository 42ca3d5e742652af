"""A broker for one client at a time, as small as can be: MQTT 5 as far as edge.mqtt speaks it, and it can misbehave."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14
WIDTHS = {0x01: 1, 0x02: 4, 0x11: 4, 0x18: 4, 0x21: 2, 0x22: 2, 0x27: 4, 0x17: 1, 0x19: 1}
"""Property → bytes of its number; 0x03, the content type, is a string."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    again: bool
    mid: int
    properties: dict[int, Any]


@dataclass(slots=True)
class Manners:
    """How the broker behaves; numbers of the specification."""

    connack: int | None = 0
    session: bool = False
    properties: bytes = b""
    acknowledges: bool = True
    puback: int = 0
    suback: int = 0
    deaf: bool = False
    ends_after: int | None = None
    end: int = 0


class TinyBroker:
    """Listens on loopback; `messages`, `connects`, `subscribed` (with `options`) and `farewells` are what came.

    `wait` waits for something in them.
    """

    def __init__(self) -> None:
        self.manners = Manners()
        self.messages: list[Received] = []
        self.connects: list[bytes] = []
        self.subscribed: list[str] = []
        self.options: set[int] = set()
        self.farewells: list[bytes] = []
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._peer: socket.socket | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ending = True
        self.break_off()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._listener.close()

    def break_off(self) -> None:
        """As a broker that is killed."""
        if (peer := self._peer) is not None:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._changed.notify_all()

    def wait(self, condition: Any) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), 20), (self.messages, self.connects)

    def of(self, topic: str) -> list[Received]:
        return [message for message in self.messages if message.topic == topic]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send the client a message, QoS 0."""
        self.send(_packet(PUBLISH, _string(topic) + b"\0" + payload, int(retain)))

    def send(self, packets: bytes) -> None:
        """Whatever it is."""
        assert self._peer is not None
        self._peer.sendall(packets)

    def _serve(self) -> None:
        while not self._ending:
            peer, _ = self._listener.accept()
            with peer, peer.makefile("rb") as stream:
                self._peer = peer
                with contextlib.suppress(OSError):
                    self._talk(peer, stream)
                self._peer = None

    def _talk(self, peer: socket.socket, stream: Any) -> None:
        came = 0
        while head := stream.read(1):
            kind, flags = head[0] >> 4, head[0] & 15
            body = stream.read(_number(stream))
            with self._changed:
                if kind == CONNECT:
                    self.connects.append(body)
                    if self.manners.connack is not None:
                        answer = bytes([self.manners.session, self.manners.connack])
                        peer.sendall(_packet(CONNACK, answer + _sized(self.manners.properties)))
                elif kind == PUBLISH:
                    message = _message(body, flags)
                    self.messages.append(message)
                    came += 1
                    if self.manners.ends_after == came:
                        peer.sendall(_packet(DISCONNECT, bytes([self.manners.end]) + b"\0"))
                        peer.shutdown(socket.SHUT_WR)
                        stream.read()  # a reset would overtake what we said
                        return
                    if message.qos and self.manners.acknowledges:
                        peer.sendall(_packet(PUBACK, struct.pack(">HBB", message.mid, self.manners.puback, 0)))
                elif kind == SUBSCRIBE:
                    topics, options = zip(*_topics(body), strict=True)
                    self.subscribed += topics
                    self.options |= set(options)
                    peer.sendall(_packet(SUBACK, body[:2] + b"\0" + bytes([self.manners.suback]) * len(topics)))
                elif kind == PINGREQ:
                    peer.sendall(_packet(PINGREQ + 1, b""))
                elif kind == DISCONNECT:
                    self.farewells.append(body)
                self._changed.notify_all()
                if self.manners.deaf:  # the connection stands, and nobody is there
                    self._changed.wait_for(lambda: not self.manners.deaf or self._ending, 20)


def _packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    return bytes([kind << 4 | flags]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + _varint(high) if high else bytes([low])


def _sized(properties: bytes) -> bytes:
    return _varint(len(properties)) + properties


def _string(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()


def _number(stream: Any) -> int:
    number = shift = 0
    while True:
        byte: int = stream.read(1)[0]
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number


def _message(body: bytes, flags: int) -> Received:
    length = struct.unpack_from(">H", body)[0]
    topic, at, qos, mid = body[2 : 2 + length].decode(), 2 + length, flags >> 1 & 3, 0
    if qos:
        mid, at = struct.unpack_from(">H", body, at)[0], at + 2
    end = at + 1 + body[at]  # ours are short
    assert body[at] < 128
    properties: dict[int, Any] = {}
    at += 1
    while at < end:
        name = body[at]
        if name == 0x03:
            size = struct.unpack_from(">H", body, at + 1)[0]
            properties[name], at = body[at + 3 : at + 3 + size].decode(), at + 3 + size
        else:
            properties[name] = int.from_bytes(body[at + 1 : at + 1 + WIDTHS[name]], "big")
            at += 1 + WIDTHS[name]
    return Received(topic, body[end:], qos, bool(flags & 1), bool(flags & 8), mid, properties)


def _topics(body: bytes) -> Any:
    at = 3 + body[2]
    while at < len(body):
        size = struct.unpack_from(">H", body, at)[0]
        yield body[at + 2 : at + 2 + size].decode(), body[at + 2 + size]
        at += 3 + size
