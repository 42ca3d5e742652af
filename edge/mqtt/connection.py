"""The connection to the broker, on a thread of its own: made, kept, lost and made again, for as long as the loop runs.

The outbox owns what waits. paho is handed at most as many messages as may be under way at once (`WINDOW`, or what the
broker says), for two reasons: its own queue keeps the oldest messages rather than the newest, and at a reconnect it sends
all that it holds at once, whatever the broker's receive maximum. What is under way stays with paho, which sends it again
with its packet identifier when the broker still has the session (MQTT 5.0, section 4.4); when it has not, it is taken
back and sent as new. The thread is ours because paho's waits between attempts without chance, and forgets how long as
soon as it is connected: clients that a broker throws out would come back every second.
"""

from __future__ import annotations

import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol, cast

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.mqtt.address import Broker
from edge.mqtt.client import Allowed, allowed, end_of_session, new_client, of_message, subscription
from edge.mqtt.outbox import Outbox
from edge.mqtt.topics import Message
from edge.mqtt.trouble import Outages, hint, in_words, speaks_no_tls

CONNACK_S = 10.0
STEADY_S = 10.0
"""A connection that held for so long was one: after it the pauses begin anew."""
BACKOFF_S = (2.0, 60.0)
TICK_S = 0.5
CLOSE_S = 3.0
PARTING_S = 1.0


class Talk(Protocol):
    """What is said and heard over a connection; called on its thread."""

    @property
    def subscriptions(self) -> Sequence[str]: ...

    def greeting(self) -> Iterable[Message]:
        """What the broker is told first, whenever it is there again."""

    def news(self) -> Iterable[Message]:
        """What has changed since; asked for twice a second."""

    def heard(self, topic: str, payload: bytes, *, retained: bool) -> Iterable[Message]:
        """Take a message of a subscription; what is to be said about it."""


def pause_s(failures: int, slow: bool) -> float:
    """How long to wait after so many failures in a row: 1 s to 60 s, by chance, so that a fleet does not come at once.

    `slow`: only a person can change what is wrong.
    """
    first, longest = BACKOFF_S
    return (longest if slow else min(longest, first * 2 ** min(failures - 1, 10))) * random.uniform(0.5, 1.0)


class Connection:
    """Publishes what is in `outbox`, and what `talk` has to say; `will` is what the broker says when we are gone.

    An outage is said once, with its reason, and so is its end with what was lost. Nothing here ends the loop.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        will: Message,
        outbox: Outbox,
        talk: Talk,
        outages: Outages,
    ) -> None:
        self._outbox, self._talk, self._outages, self._will = outbox, talk, outages, will
        self._client = client = new_client(broker, client_id, will)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_subscribe, client.on_message = self._on_publish, self._on_subscribe, self._on_message
        self._allowed = Allowed()
        self._fresh: dict[str, Message] = {}
        self._under_way: dict[int, Message] = {}
        self._up = self._slow = self._stopping = False
        self._encrypted, self._answered = broker.tls is not None, False
        self._trouble = ""
        self._closing_s: float | None = None
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin; whether the broker is there or not."""
        self._thread.start()

    def put(self, message: Message) -> None:
        """Publish a message when its turn comes."""
        if not self._outbox.put(message):
            self._outages.full()
        if self._up:
            self._wake()

    def close(self) -> None:
        """Publish what waits, for a few seconds at most, say that we leave and disconnect; what is left is lost, and said."""
        self._closing_s = time.monotonic() + CLOSE_S
        self._wake()
        self._thread.join(PARTING_S if self._stopping else CLOSE_S + PARTING_S + 0.5)  # it may hang in a name's look-up
        under_way = sum(message.counted for message in list(self._under_way.values()))
        self._outbox.lose(under_way)
        self._outages.at_the_end(self._outbox.clear() + under_way)
        if not self._thread.is_alive():
            self._waker.close()
            self._woken.close()

    def stop(self) -> None:
        """Make `close` end at once, from any thread."""
        self._stopping = True
        self._wake()

    def _run(self) -> None:
        failures = 0
        while True:
            self._trouble, self._slow, begun_s = "", False, time.monotonic()
            last = self._closing_s is not None
            try:
                self._client.reconnect()
                self._serve()
            except Exception as error:  # whatever it is, the thread lives on
                self._trouble = in_words(error)
                if speaks_no_tls(error) and not self._answered:
                    self._trouble += "; does it want mqtt://?"
                self._hang_up()
            failures = 1 if self._up and time.monotonic() - begun_s > STEADY_S else failures + 1
            if self._up:
                self._outages.broken(self._outbox.lost)
            self._up = False
            self._outbox.broker_is(there=False)
            if self._closing_s is None:
                self._outages.trouble(self._trouble)
                self._wait(pause_s(failures, self._slow))
            if self._closing_s is not None and (last or self._stopping or not (self._outbox or self._under_way)):
                return

    def _wait(self, seconds: float) -> None:
        """Until the time is over or somebody closes."""
        until_s = time.monotonic() + seconds
        while self._closing_s is None and (left_s := until_s - time.monotonic()) > 0:
            self._listen(None, left_s)

    def _serve(self) -> None:
        """Talk to the broker until the connection ends or is to end."""
        connack_s, tick_s, greeted = time.monotonic() + CONNACK_S, 0.0, False
        while (sock := self._socket()) is not None:
            self._listen(sock, TICK_S)
            self._client.loop_misc()
            now_s = time.monotonic()
            if not self._up:
                if self._stopping or now_s > min(connack_s, self._closing_s or connack_s):
                    self._trouble = self._trouble or f"no answer to our connect{self._may_want_tls}"
                    self._hang_up()
                    return
                continue
            if not greeted:  # after what paho sends again by itself, which may be older
                greeted, tick_s = True, now_s + TICK_S
                self._tell(self._talk.greeting())
            elif now_s >= tick_s:
                tick_s = now_s + TICK_S
                self._tell(self._talk.news())
            self._pump()
            if self._closing_s is not None and (self._stopping or now_s > self._closing_s or not self._busy):
                self._part()
                return
        self._trouble = self._trouble or f"the connection was lost{self._may_want_tls}"

    @property
    def _may_want_tls(self) -> str:
        """What to ask where the broker takes our connections and has never answered over one."""
        return "" if self._encrypted or self._answered else "; does it want mqtts://?"

    @property
    def _busy(self) -> bool:
        return bool(self._outbox or self._under_way or self._fresh or self._client.want_write())

    def _listen(self, sock: socket.socket | None, seconds: float) -> None:
        """Wait for the broker, or for whoever wakes us, and read and write what there is."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if sock is not None:
            poll.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
            if isinstance(sock, ssl.SSLSocket) and sock.pending():
                seconds = 0.0
        poll.poll(1000 * seconds)
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        if sock is not None:
            if self._client.want_write():
                self._client.loop_write()
            self._client.loop_read()

    def _socket(self) -> socket.socket | None:
        return cast("socket.socket | None", self._client.socket())

    def _wake(self) -> None:
        with suppress(OSError):  # awake already, or closed
            self._waker.send(b"\0")

    def _tell(self, messages: Iterable[Message]) -> None:
        """Of what is not counted only the newest of each topic is worth telling; the rest waits its turn with the events."""
        for message in messages:
            if message.counted:
                self.put(message)
            else:
                self._fresh[message.topic] = message

    def _pump(self) -> None:
        """Hand over what may be under way now."""
        while self._socket() and len(self._under_way) < self._allowed.window and not self._client.want_write():
            message = self._fresh.pop(next(iter(self._fresh))) if self._fresh else self._outbox.take()
            if message is None:
                return
            self._publish(message)

    def _publish(self, message: Message) -> None:
        allows = self._allowed
        if not allows.takes(message):
            self._outbox.lose(int(message.counted))
            self._outages.refusal(f"messages of more than {allows.packet_bytes} bytes are refused, and are lost")
            return
        qos, more = min(message.qos, allows.qos), of_message(message, time.monotonic())
        info = self._client.publish(message.topic, message.payload, qos, message.retain and allows.retain, more)
        if (
            qos and info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
        ):  # then paho keeps it, also where the connection has just broken
            self._under_way[info.mid] = message
        elif info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._outbox.lose(int(message.counted))

    def _part(self) -> None:
        """Say that we leave, and end the session; what is under way may still be acknowledged meanwhile."""
        self._publish(self._will)
        until_s = time.monotonic() + (0.0 if self._stopping else PARTING_S)
        while self._under_way and time.monotonic() < until_s and (sock := self._socket()):
            self._listen(sock, 0.05)
        self._client.disconnect(properties=end_of_session())
        until_s = time.monotonic() + PARTING_S / 2
        while self._client.want_write() and time.monotonic() < until_s and (sock := self._socket()):
            self._listen(sock, 0.05)
        self._hang_up()

    def _hang_up(self) -> None:
        if (sock := self._socket()) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with suppress(Exception):  # a packet that it failed on, it fails on again
                self._client.loop_read()  # paho notices, and closes it
            sock.close()

    def _on_connect(
        self, client: mqtt.Client, _: object, flags: mqtt.ConnectFlags, reason: ReasonCode, more: Properties | None
    ) -> None:
        self._answered = True
        if reason.is_failure:
            self._refused("refused", reason, of_connect=True)
            return
        self._allowed = allows = allowed(more)
        self._outbox.broker_is(there=True)
        held = list(self._under_way.values())
        if not flags.session_present or len(held) > allows.window or any(message.qos > allows.qos for message in held):
            client.drop_out_messages()
            self._under_way.clear()
            self._outbox.put_back(message for message in held if message.counted)
        if self._talk.subscriptions:
            client.subscribe([(topic, subscription(allows)) for topic in self._talk.subscriptions])
        if not allows.retain:
            self._outages.refusal("it keeps no retained messages; who subscribes later must wait for the next ones")
        self._up = True
        self._outages.connected(self._outbox.lost)

    def _on_disconnect(self, _: mqtt.Client, __: object, flags: mqtt.DisconnectFlags, reason: ReasonCode, ___: object) -> None:
        if flags.is_disconnect_packet_from_server:
            self._refused("the broker ended the connection", reason)

    def _on_publish(self, _: mqtt.Client, __: object, mid: int, reason: ReasonCode, ___: object) -> None:
        message = self._under_way.pop(mid, None)
        if message is not None and reason.is_failure:
            self._outbox.lose(int(message.counted))
            self._outages.refusal(f"publishing to {message.topic} is refused: {str(reason).lower()}; such messages are lost")

    def _on_subscribe(self, _: mqtt.Client, __: object, mid: int, reasons: list[ReasonCode], ___: object) -> None:
        for topic, reason in zip(self._talk.subscriptions, reasons, strict=False):
            if reason.is_failure:
                self._outages.refusal(f"subscribing to {topic} is refused: {str(reason).lower()}")

    def _on_message(self, _: mqtt.Client, __: object, message: mqtt.MQTTMessage) -> None:
        self._tell(self._talk.heard(message.topic, bytes(message.payload), retained=message.retain))

    def _refused(self, what: str, reason: ReasonCode, *, of_connect: bool = False) -> None:
        advice = hint(reason.value, of_connect=of_connect)
        self._slow = bool(advice)
        self._trouble = f"{what}: {str(reason).lower()}" + (f"; {advice}" if advice else "")
