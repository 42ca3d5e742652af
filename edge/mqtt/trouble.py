"""What goes wrong between us and a broker, in words."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from edge.errors import one_line

REFUSALS = {
    0x84: "it does not speak MQTT 5",
    0x85: "it does not take our client identifier",
    0x86: "check --mqtt-user and its password",
    0x87: "the broker's access list must allow this user and these topics",
    0x8A: "it has banned us",
    0x8C: "it wants another way to log in",
    0x8E: "another client has our name; give each board its own --mqtt-topic",
    0x90: "it does not take our --mqtt-topic",
    0x9A: "it keeps no retained messages, and the last will is one",
    0x9B: "try --mqtt-qos availability=0",
}
"""Reason codes that stay until a person does something, and what that is: MQTT 5.0, section 2.4."""
REFUSALS_OF_CONNECT = REFUSALS | {0x87: "check --mqtt-user, the password and the broker's access list"}
"""Mosquitto says "not authorized" of a wrong password, too."""


NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG"}
"""What OpenSSL makes of bytes that are none of TLS; the second of a CONNACK."""


def hint(code: int, *, of_connect: bool) -> str:
    """What a person is to do about a reason code; nothing where it may well pass."""
    return (REFUSALS_OF_CONNECT if of_connect else REFUSALS).get(code, "")


def speaks_no_tls(error: Exception) -> bool:
    """Whether a peer that took the connection may be one without TLS: it answered in another language, or hung up."""
    return isinstance(error, ssl.SSLEOFError) or (isinstance(error, ssl.SSLError) and error.reason in NO_TLS)


def in_words(error: Exception) -> str:
    """Why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}; check --mqtt-ca and the host's name"
    if isinstance(error, ssl.SSLEOFError):
        return "no TLS connection: the connection was lost"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {(getattr(error, 'reason', None) or 'handshake failed').replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionError):
        return (error.strerror or "the connection was lost").lower()
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return f"{type(error).__name__}: {error}"


class Outages:
    """Says what is wrong: each trouble once an outage, each refusal once a run, and the end of an outage with its loss.

    What is said of one outage is bounded, and so are the refusals of a run: a broker could have us say a lot.
    """

    def __init__(self, name: str, prefix: str, say: Callable[[str], None]) -> None:
        self._name, self._prefix, self._say = name, prefix, say
        self._was_connected = self._full = False
        self._lost_before = 0
        self._troubles: set[str] = set()
        self._refusals: set[str] = set()

    def trouble(self, words: str) -> None:
        """There is no connection."""
        if words not in self._troubles and len(self._troubles) < 5:
            self._troubles.add(words)
            self._tell(f"{words}; the loop goes on, and this is tried again")

    def refusal(self, words: str) -> None:
        """Something cannot be published or heard."""
        if words not in self._refusals and len(self._refusals) < 100:
            self._refusals.add(words)
            self._tell(words)

    def full(self) -> None:
        """The queue is."""
        if not self._full:
            self._full = True
            self._tell("no more events are kept for it, the oldest are lost until it takes them")

    def connected(self, lost: int) -> None:
        """There is a connection, and so many events were lost by now."""
        losses = f"; {lost - self._lost_before} events were lost" if lost > self._lost_before else ""
        if not self._was_connected:
            self._tell(f"connected, topics are below {self._prefix}{losses}")
        elif self._troubles:
            self._tell(f"connected again{losses}")
        self._was_connected, self._full = True, False
        self._troubles.clear()

    def broken(self, lost: int) -> None:
        """A connection has ended; what is lost from now on is this outage's."""
        self._lost_before = lost

    def at_the_end(self, left: int) -> None:
        """So many events will not be delivered any more."""
        if left:
            self._tell(f"{left} events could not be delivered before the end and are lost")

    def _tell(self, text: str) -> None:
        self._say(one_line(f"mqtt: {self._name}: {text}"))
