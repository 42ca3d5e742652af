"""What a board tells of itself over MQTT, and when: its state, what its sources show, and itself to Home Assistant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from edge.events import encode_event
from edge.monitor import Monitor
from edge.mqtt.commands import Commands
from edge.mqtt.home_assistant import HomeAssistant
from edge.mqtt.topics import EVENT_EXPIRY_S, Message, Topics
from edge.status import Answered, SourceStatus, Status
from edge.types import Event, Notice

STATE_S = 10.0
"""The state is told at least this often,"""
STATE_PAUSE_S = 1.0
"""and when something in it has changed that matters, but not more often than this."""
RESULT_PAUSE_S = 0.5


class ResultRecord(msgspec.Struct, frozen=True):
    """What a source shows: a retained message of its own."""

    caption: str
    label: str | None
    confidence: float
    seq: int
    captured_at: str


class Reports:
    """Makes messages of the monitor's status: all of them when the broker is there again (`greeting`), then what is new."""

    def __init__(
        self,
        topics: Topics,
        monitor: Monitor,
        say: Callable[[str], None],
        *,
        commands: Commands | None = None,
        home: HomeAssistant | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._topics, self._monitor, self._say = topics, monitor, say
        self._commands, self._home = commands, home
        self._clock, self._wall_clock = clock, wall_clock
        self._told_s = float("-inf")
        self._told: object = None
        self._results: dict[int, tuple[float, str | None]] = {}

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What we want to hear."""
        commands = () if self._commands is None else (self._commands.subscription,)
        return commands if self._home is None else (*commands, self._home.birth_topic)

    def greeting(self) -> Iterator[Message]:
        """All that a broker should keep for those who come later."""
        self._told_s = float("-inf")
        self._results.clear()
        if self._home is not None:
            yield self._home.discovery(self._monitor.status())
        yield self._topics.available(there=True)
        yield from self.news()

    def news(self) -> Iterator[Message]:
        """What has changed since it was last told, as often as it may be."""
        now_s, status = self._clock(), self._monitor.status()
        for source in status.sources:
            if source.result is not None and self._changed(source.number, source.result, now_s):
                yield self._result(source, source.result)
        since_s, matters = now_s - self._told_s, _what_matters(status)
        if since_s >= STATE_S or (since_s >= STATE_PAUSE_S and matters != self._told):
            self._told_s, self._told = now_s, matters
            yield Message(self._topics.state, encode_status(status), self._topics.qos["state"], retain=True)

    def heard(self, topic: str, payload: bytes, *, retained: bool) -> Iterable[Message]:
        """Obey a command, or answer Home Assistant's birth; why a command was not obeyed is said and told."""
        if self._home is not None and topic == self._home.birth_topic:
            return [self._home.discovery(self._monitor.status())] if payload == b"online" else []
        refusal = "" if self._commands is None else self._commands.heard(topic, payload, retained=retained)
        if not refusal:
            return list(self.news())
        self._say(f"mqtt: {refusal}")
        return [self.of(Notice("control", "mqtt", refusal, self._wall_clock()))]

    def of(self, event: Event | Notice) -> Message:
        """The message of an event or a notice."""
        kind, topic = ("notices", self._topics.notices) if isinstance(event, Notice) else ("events", self._topics.events)
        payload = encode_event(event).rstrip(b"\n")
        return Message(topic, payload, self._topics.qos[kind], until_s=self._clock() + EVENT_EXPIRY_S, counted=True)

    def _changed(self, number: int, result: Answered, now_s: float) -> bool:
        told_s, label = self._results.get(number, (float("-inf"), ""))
        if label == result.label or now_s - told_s < RESULT_PAUSE_S:
            return False
        self._results[number] = (now_s, result.label)
        return True

    def _result(self, source: SourceStatus, result: Answered) -> Message:
        record = ResultRecord(result.caption, result.label, result.confidence, result.seq, result.captured_at)
        topic = self._topics.result(source.number)
        return Message(topic, msgspec.json.encode(record), self._topics.qos["results"], retain=True)


def encode_status(status: Status) -> bytes:
    """The status as JSON, without its history: whoever wants one keeps these messages."""
    told = {name: getattr(status, name) for name in Status.__struct_fields__ if name != "history"}
    return msgspec.json.encode(told)


def _what_matters(status: Status) -> object:
    """What is worth a message of its own when it changes."""
    sources = [(source.state, source.trouble, source.result and source.result.label) for source in status.sources]
    return sources, status.offload and status.offload.breaker, status.controls
