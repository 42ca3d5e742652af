"""What is published under which name, with which quality of service."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import UsageError

LONGEST_BYTES = 65535
"""Of a topic: MQTT 5.0, section 4.7.3."""
ROOM_BYTES = 64
"""For what stands below a prefix."""
KINDS = ("availability", "state", "events", "notices", "results")
QUALITIES = ("0", "1", "2")
EVENT_EXPIRY_S = 86400
"""Events and notices that no subscriber has fetched within a day are no news: brokers drop them."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something to publish. `until_s`, on the monotonic clock, is when it has become worthless; `counted`: its loss is one."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    content_type: str = "application/json"
    until_s: float | None = None
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics below `prefix`, and the quality of service of each kind."""

    prefix: str
    qos: dict[str, int]

    @property
    def availability(self) -> str:
        """Retained: whether the board is there."""
        return f"{self.prefix}/availability"

    @property
    def state(self) -> str:
        """Retained: how it is."""
        return f"{self.prefix}/state"

    @property
    def notices(self) -> str:
        """What happened to the loop."""
        return f"{self.prefix}/notices"

    @property
    def events(self) -> str:
        """What was seen."""
        return f"{self.prefix}/events"

    def result(self, number: int) -> str:
        """Retained: what source `number`, from 1, shows."""
        return f"{self.prefix}/sources/{number}/result"

    def available(self, there: bool) -> Message:
        """The message that says whether the board is there; what is published by a broker when it is gone, too."""
        payload = b"online" if there else b"offline"
        return Message(self.availability, payload, self.qos["availability"], retain=True, content_type="text/plain")


def topics_of(prefix: str | None, qualities: Sequence[str]) -> Topics:
    """The topics of `--mqtt-topic` and `--mqtt-qos`. Raises UsageError."""
    if prefix is None:
        prefix = f"edge/{socket.gethostname()}"
    check_topic("--mqtt-topic", prefix)
    return Topics(prefix, _qualities(qualities))


def check_topic(flag: str, topic: str) -> None:
    """Refuse a topic that nothing can be published below. Raises UsageError: MQTT 5.0, section 4.7."""
    if wildcards := sorted(set("+#") & set(topic)):
        problem = f"{wildcards[0]!r} is a wildcard"
    elif topic.startswith("$"):
        problem = "topics that begin with $ are the broker's own"
    elif not all(topic.split("/")):
        problem = "a level is empty"
    elif not topic.isprintable():
        problem = "there are characters that cannot be printed"
    elif len(topic.encode()) > LONGEST_BYTES - ROOM_BYTES:
        problem = f"it is longer than {LONGEST_BYTES - ROOM_BYTES} bytes"
    else:
        return
    raise UsageError(f"{flag} {topic[:80]}: {problem}; expected a topic as edge/porch")


def _qualities(given: Sequence[str]) -> dict[str, int]:
    """Of each kind; what is given for one kind counts more than what is given for all."""
    qos = dict.fromkeys(KINDS, 1) | {"state": 0}
    single = {}
    for text in given:
        kind, equals, number = text.rpartition("=")
        if number not in QUALITIES or (equals and kind not in KINDS):
            raise UsageError(f"--mqtt-qos {text}: expected 0, 1 or 2, or TOPIC=N with a TOPIC of {', '.join(KINDS)}")
        if equals:
            single[kind] = int(number)
        else:
            qos = dict.fromkeys(KINDS, int(number))
    return qos | single


def identity(prefix: str) -> str:
    """Who this board is for brokers and for Home Assistant: the same for the same host and prefix, and no other's.

    21 letters and digits and a hyphen; a broker may refuse more than 23 characters (MQTT 5.0, section 3.1.3.1).
    """
    return "edge-" + hashlib.sha256(f"{socket.gethostname()}\0{prefix}".encode()).hexdigest()[:16]
