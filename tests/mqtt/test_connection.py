"""The connection against a broker that says no, forgets, hangs, and comes back."""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest

from edge.errors import UsageError
from edge.mqtt import open_mqtt
from edge.mqtt.connection import pause_s
from edge.mqtt.sink import MqttSink
from edge.mqtt.trouble import in_words
from edge.types import Change, Event, Notice
from tests.mqtt.board import Board, options
from tests.mqtt.broker import TinyBroker
from tests.samples import event, frame

RECEIVE_MAXIMUM, PACKET_SIZE, MAXIMUM_QOS, RETAIN = b"\x21", b"\x27", b"\x24", b"\x25"
Open = Callable[..., MqttSink]


@pytest.fixture
def broker() -> Iterator[TinyBroker]:
    broker = TinyBroker()
    yield broker
    broker.end()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.mqtt.connection.BACKOFF_S", (0.04, 0.04))
    monkeypatch.setattr("edge.mqtt.connection.TICK_S", 0.02)
    monkeypatch.delenv("EDGE_MQTT_PASSWORD", raising=False)


@pytest.fixture
def opened(broker: TinyBroker, said: list[str]) -> Iterator[Open]:
    sinks: list[MqttSink] = []

    def open_(*more: object, board: Board | None = None, port: int | None = None, scheme: str = "mqtt") -> MqttSink:
        chosen = options(f"{scheme}://127.0.0.1:{port or broker.port}", "--mqtt-topic", "a", *more)
        sinks.append(open_mqtt(chosen, (board or Board()).monitor, said.append))
        return sinks[-1]

    yield open_
    for sink in sinks:
        sink.stop()
        sink.close()


def seen(number: int) -> Event:
    return event(frame(sequence=number), changes=(Change("enter", number, "dog"),))


def wait(condition: Callable[[], object]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def sequences(broker: TinyBroker) -> list[int]:
    return [json.loads(message.payload)["seq"] for message in broker.of("a/events")]


def test_all_that_is_retained_is_published_and_the_end_is_said(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    sink = opened()
    broker.wait(lambda broker: broker.of("a/state"))
    sink.close()
    broker.wait(lambda broker: broker.farewells)
    assert broker.farewells == [b"\0\x05\x11\0\0\0\0"]  # a normal end, and the session's
    assert [(message.topic, message.payload) for message in broker.of("a/availability")] == [
        ("a/availability", b"online"),
        ("a/availability", b"offline"),
    ]
    assert {message.topic: message.retain for message in broker.messages} == {
        "a/availability": True,
        "a/state": True,
        "a/sources/1/result": True,
    }
    assert said == [f"mqtt: mqtt://127.0.0.1:{broker.port}: connected, topics are below a"]
    assert sink.lost == 0


def test_we_say_who_we_are_and_what_we_accept(broker: TinyBroker, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MQTT_PASSWORD", "open sesame")
    opened("--mqtt-user", "porch")
    broker.wait(lambda broker: broker.connects)
    connect = broker.connects[0]
    assert connect.startswith(b"\0\x04MQTT\x05")
    assert connect.endswith(b"\0\x05porch\0\x0bopen sesame")
    assert connect[7] & 0x02
    assert connect[7] & 0x24 == 0x24
    assert b"\x27\0\x01\0\0" in connect
    assert b"\x21\0\x14" in connect
    assert b"\x11\0\0\x01\x2c" in connect  # a session of five minutes
    assert b"a/availability\0\x07offline" in connect
    assert b"\x18\0\0\0\x05" in connect  # a will that waits for five seconds


def test_messages_say_what_they_are(broker: TinyBroker, opened: Open) -> None:
    opened().emit(seen(1))
    broker.wait(lambda broker: broker.of("a/events"))
    (message,) = broker.of("a/events")
    assert (message.qos, message.retain) == (1, False)
    assert message.properties == {0x01: 1, 0x03: "application/json", 0x02: 86400}
    assert broker.of("a/availability")[0].properties == {0x01: 1, 0x03: "text/plain"}


@pytest.mark.parametrize(("on", "expected"), [("changes", [2]), ("all", [1, 2]), ("none", [])])
def test_which_events(broker: TinyBroker, opened: Open, on: str, expected: list[int]) -> None:
    sink = opened("--mqtt-on", on)
    for one in (event(frame(sequence=1)), seen(2), Notice("governor", "x", "y", 1.7e9)):
        sink.emit(one)
    broker.wait(lambda broker: broker.of("a/notices"))
    assert sequences(broker) == expected


def test_events_of_an_outage_arrive_in_order_and_the_oldest_are_lost(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.connack = 0x88  # server unavailable
    sink = opened("--mqtt-queue", 5)
    for number in range(8):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.connects) > 2)
    assert sink.lost == 3
    broker.manners.connack = 0
    broker.wait(lambda broker: len(broker.of("a/events")) == 5)
    assert sequences(broker) == [3, 4, 5, 6, 7]
    name = f"mqtt: mqtt://127.0.0.1:{broker.port}: "
    assert sorted(said) == sorted(
        [
            f"{name}no more events are kept for it, the oldest are lost until it takes them",
            f"{name}refused: server unavailable; the loop goes on, and this is tried again",
            f"{name}connected, topics are below a; 3 events were lost",
        ]
    )


def test_what_was_not_acknowledged_is_sent_again_as_it_was_where_the_session_lives(broker: TinyBroker, opened: Open) -> None:
    broker.manners.acknowledges = False
    sink = opened("--mqtt-qos", "events=1", "--mqtt-qos", "0")
    for number in range(3):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.of("a/events")) == 3)
    broker.manners.session = broker.manners.acknowledges = True
    broker.break_off()
    broker.wait(lambda broker: len(broker.of("a/events")) == 6)
    first, again = broker.of("a/events")[:3], broker.of("a/events")[3:]
    assert sequences(broker) == [0, 1, 2, 0, 1, 2]
    assert [message.mid for message in again] == [message.mid for message in first]
    assert all(message.again for message in again)
    assert not broker.connects[1][7] & 0x02  # no clean start
    sink.close()
    assert sink.lost == 0


def test_it_is_sent_as_new_where_the_session_is_gone(broker: TinyBroker, opened: Open) -> None:
    broker.manners.acknowledges = False
    sink = opened()
    for number in range(40):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.messages) >= 20)
    broker.manners.acknowledges = True
    broker.break_off()
    broker.wait(lambda broker: set(sequences(broker)) == set(range(40)))
    arrived = sequences(broker)
    assert arrived[-40:] == list(range(40))
    assert not any(message.again for message in broker.messages)
    sink.close()
    assert sink.lost == 0


def test_it_is_sent_as_new_where_the_broker_has_come_to_take_less(broker: TinyBroker, opened: Open) -> None:
    broker.manners.acknowledges = False
    sink = opened()
    for number in range(3):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.of("a/events")) == 3)
    broker.manners.session, broker.manners.properties = True, MAXIMUM_QOS + b"\0"
    broker.break_off()
    broker.wait(lambda broker: len(broker.of("a/events")) == 6)
    assert {(message.qos, message.again) for message in broker.of("a/events")[3:]} == {(0, False)}


@pytest.mark.parametrize("session", [False, True])
def test_no_more_is_under_way_than_the_broker_takes(broker: TinyBroker, opened: Open, session: bool) -> None:
    broker.manners.acknowledges = False
    sink = opened("--mqtt-qos", "0", "--mqtt-qos", "events=1")
    for number in range(40):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.of("a/events")) >= 20)
    broker.manners.properties, broker.manners.session = RECEIVE_MAXIMUM + b"\0\x03", session
    before = len(broker.messages)
    broker.break_off()
    broker.wait(lambda broker: any(message.topic == "a/state" for message in broker.messages[before:]))
    broker.wait(lambda broker: sum(message.topic == "a/events" for message in broker.messages[before:]) == 3)
    broker.manners.acknowledges = True
    broker.break_off()
    broker.wait(lambda broker: sequences(broker)[-1] == 39)
    assert sequences(broker)[-40:] == list(range(40))


def test_what_is_too_large_is_lost_and_said_once(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.properties = PACKET_SIZE + b"\0\0\x04\0"
    sink = opened("--mqtt-on", "all")
    for _ in range(3):
        sink.emit(event(scores=(0.1,) * 100))
    sink.emit(Notice("governor", "x", "y", 1.7e9))
    broker.wait(lambda broker: broker.of("a/notices"))
    sink.close()
    assert sink.lost == 3
    assert not broker.of("a/events")
    assert [line for line in said if "1024 bytes" in line] == [
        f"mqtt: mqtt://127.0.0.1:{broker.port}: messages of more than 1024 bytes are refused, and are lost"
    ]


def test_what_the_broker_cannot_is_not_asked_of_it(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.properties = MAXIMUM_QOS + b"\0" + RETAIN + b"\0"
    opened("--mqtt-qos", "2").emit(seen(1))
    broker.wait(lambda broker: broker.of("a/events") and broker.of("a/state"))
    assert {(message.qos, message.retain) for message in broker.messages} == {(0, False)}
    assert any("keeps no retained messages" in line for line in said)


def test_what_may_not_be_published_is_lost_and_said_once(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.puback = 0x87
    sink = opened("--mqtt-qos", "0", "--mqtt-qos", "events=1")
    for number in range(3):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.of("a/events")) == 3)
    wait(lambda: sink.lost == 3)  # before the next event, or the end
    sink.close()
    assert sink.lost == 3
    assert [line for line in said if "refused" in line] == [
        f"mqtt: mqtt://127.0.0.1:{broker.port}: publishing to a/events is refused: not authorized; such messages are lost"
    ]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x86, "bad user name or password; check --mqtt-user"),
        (0x87, "not authorized; check --mqtt-user, the password and the broker's access list; the loop"),
        (0x84, "it does not speak MQTT 5"),
    ],
)
def test_a_refusal_is_said_in_words_once(broker: TinyBroker, opened: Open, said: list[str], code: int, words: str) -> None:
    broker.manners.connack = code
    opened()
    broker.wait(lambda broker: len(broker.connects) > 3)
    assert len(said) == 1
    assert words in said[0]


def test_a_broker_that_throws_us_out_is_understood_and_seen_less_and_less(
    broker: TinyBroker, opened: Open, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[tuple[int, bool]] = []

    def noted_s(failures: int, slow: bool) -> float:
        pauses.append((failures, slow))
        return 0.01

    monkeypatch.setattr("edge.mqtt.connection.pause_s", noted_s)
    broker.manners.ends_after, broker.manners.end = 1, 0x8E
    opened()
    broker.wait(lambda broker: len(broker.connects) > 3)
    assert pauses[:3] == [(1, True), (2, True), (3, True)]
    wait(lambda: any("session taken over; another client has our name" in line for line in said))


def test_what_the_access_list_forbids_later_is_no_matter_of_the_password(
    broker: TinyBroker, opened: Open, said: list[str]
) -> None:
    broker.manners.ends_after, broker.manners.end = 1, 0x87
    opened()
    wait(lambda: len(said) > 1)
    assert "not authorized; the broker's access list must allow" in said[1]


def test_a_broker_that_is_not_there_is_said_once_and_waited_for(opened: Open, said: list[str], unused_port: int) -> None:
    sink = opened(port=unused_port)
    sink.emit(seen(1))
    wait(lambda: said)
    late = socket.create_server(("127.0.0.1", unused_port))
    late.settimeout(20)
    peer, _ = late.accept()
    peer.close()
    late.close()
    sink.stop()
    sink.close()
    assert said[0] == f"mqtt: mqtt://127.0.0.1:{unused_port}: connection refused; the loop goes on, and this is tried again"
    assert said[-1].endswith("1 events could not be delivered before the end and are lost")
    assert sink.lost == 1


def test_a_broker_that_is_there_no_more_though_its_connection_stands_is_left(
    broker: TinyBroker, opened: Open, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paho.mqtt.client.time_func", lambda: 100 * time.monotonic())  # the keep-alive is over sooner
    sink = opened()
    broker.wait(lambda broker: broker.of("a/state"))
    broker.manners.deaf = True
    for number in range(50):
        sink.emit(seen(number))
    wait(lambda: len(said) > 1)
    assert "the connection was lost" in said[1]
    broker.manners.deaf = False
    broker.break_off()
    broker.wait(lambda broker: set(sequences(broker)) == set(range(50)))
    sink.close()
    assert sink.lost == 0


def test_a_broker_that_never_lets_us_in_is_tried_again(
    broker: TinyBroker, opened: Open, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.mqtt.connection.CONNACK_S", 0.05)
    broker.manners.connack = None
    opened()
    broker.wait(lambda broker: len(broker.connects) > 2)
    assert "no answer to our connect; does it want mqtts://?; the loop" in said[0]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        ("mqtt", b"\x15\x03\x03\0\x02\x02\x46", "the connection was lost; does it want mqtts://?"),  # an alert of TLS
        ("mqtt", b"", "the connection was lost; does it want mqtts://?"),
        ("mqtts", b"\xe0\x01\x81\0\0", "no TLS connection: wrong version number; does it want mqtt://?"),  # a DISCONNECT
        ("mqtts", b"\x20\x03\0\x81\0", "no TLS connection: packet length too long; does it want mqtt://?"),  # a CONNACK
        ("mqtts", b"", "no TLS connection: the connection was lost; does it want mqtt://?"),
    ],
)
def test_the_other_scheme_is_asked_about_where_nobody_speaks_ours(
    opened: Open, said: list[str], scheme: str, answer: bytes, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        opened(scheme=scheme, port=port)
        for _ in range(2):
            peer, _ = stranger.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(answer)
    name = f"mqtt: {scheme}://127.0.0.1:{port}"
    wait(lambda: said)
    assert said[0] == f"{name}: {words}; the loop goes on, and this is tried again"
    assert not any(words in line for line in said[1:])


def test_it_is_not_asked_about_where_the_broker_has_answered(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.connack = 0x88
    opened()
    wait(lambda: said)
    broker.break_off()
    broker.manners.connack = 0
    broker.wait(lambda broker: broker.of("a/state"))
    broker.break_off()
    wait(lambda: len(said) == 4)
    assert not any("does it want" in line for line in said)


def test_a_broker_that_does_not_read_fills_no_memory(broker: TinyBroker, opened: Open) -> None:
    sink = opened("--mqtt-on", "all", "--mqtt-qos", "0")
    broker.wait(lambda broker: broker.of("a/state"))
    broker.manners.deaf = True
    large = event(scores=(0.1,) * 1000)
    for _ in range(600):  # more than what the kernel takes
        sink.emit(large)
    time.sleep(0.5)  # to hand over more than what may be
    sink.stop()
    sink.close()
    assert 0 < sink.lost < 600
    broker.manners.deaf = False
    broker.break_off()


def test_without_a_queue_nothing_is_kept_for_a_broker_that_is_away(broker: TinyBroker, opened: Open) -> None:
    sink = opened("--mqtt-queue", 0)
    broker.wait(lambda broker: broker.of("a/state"))
    sink.emit(seen(0))
    broker.wait(lambda broker: sequences(broker) == [0])
    broker.manners.connack = 0x88
    broker.break_off()
    broker.wait(lambda broker: len(broker.connects) > 2)
    sink.emit(seen(1))
    assert sink.lost == 1


def test_what_was_lost_before_an_outage_is_not_the_outage_s(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.puback = 0x87
    opened("--mqtt-qos", "0", "--mqtt-qos", "events=1").emit(seen(1))
    wait(lambda: any("a/events is refused" in line for line in said))
    for lines in (4, 6):  # each outage is said, and its end
        broker.break_off()
        wait(lambda lines=lines: len(said) == lines)  # type: ignore[misc]
    assert [line.rpartition(": ")[2] for line in said[2:]] == 2 * [
        "the connection was lost; the loop goes on, and this is tried again",
        "connected again",
    ]


@pytest.mark.parametrize(
    "packet",
    [b"\x30\x05\x00\x01\xff\x00x", b"\x30\x02\xff\xff", b"\x40\x01\x00", b"\xff" * 6],
    ids=["a topic that is not UTF-8", "a topic that is cut off", "an acknowledgement of nothing", "no packet"],
)
def test_nonsense_ends_the_connection_and_not_the_thread(broker: TinyBroker, opened: Open, packet: bytes) -> None:
    sink = opened()
    broker.wait(lambda broker: broker.of("a/state"))
    broker.send(packet)
    broker.wait(lambda broker: len(broker.connects) == 2)
    sink.emit(seen(1))
    broker.wait(lambda broker: sequences(broker) == [1])


def test_a_failure_of_ours_ends_the_connection_and_not_the_thread(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    board = Board()
    opened("--mqtt-commands", "set", board=board)
    broker.wait(lambda broker: broker.subscribed == ["set/#"] and broker.of("a/state"))
    board.controls.pause = None  # type: ignore[assignment, method-assign]
    broker.publish("set/pause", b"ON")
    broker.wait(lambda broker: len(broker.connects) == 2)
    assert "TypeError" in said[1]


def test_the_end_does_not_wait_for_a_connection_that_hangs(
    broker: TinyBroker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, connects, connect = threading.Event(), threading.Event(), socket.create_connection

    def hanging(*address: Any, **more: Any) -> socket.socket:
        connects.set()
        over.wait(20)
        return connect(*address, **more)

    monkeypatch.setattr("edge.mqtt.connection.PARTING_S", 0.05)
    monkeypatch.setattr("edge.mqtt.connection.CLOSE_S", 60)
    monkeypatch.setattr(socket, "create_connection", hanging)
    sink = opened()
    assert connects.wait(20)
    sink.emit(seen(1))
    sink.stop()
    sink.close()
    assert sink.lost == 1
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "mqtt")  # hanging still
    over.set()
    thread.join(20)
    assert not thread.is_alive()
    assert not broker.of("a/events")


def test_what_waits_is_delivered_before_the_end(broker: TinyBroker, opened: Open) -> None:
    sink = opened()
    for number in range(200):
        sink.emit(seen(number))
    sink.close()
    assert sequences(broker) == list(range(200))
    assert broker.messages[-1].payload == b"offline"
    assert sink.lost == 0


def test_the_end_does_not_wait_when_it_is_told_to(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.acknowledges = False
    sink = opened()
    for number in range(30):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.messages) >= 20)
    sink.stop()
    sink.close()
    assert sink.lost == 30
    assert said[-1].endswith("30 events could not be delivered before the end and are lost")


def test_commands_are_obeyed_from_their_topic_only(broker: TinyBroker, opened: Open) -> None:
    board = Board()
    opened("--mqtt-commands", "set", "--home-assistant", board=board)
    broker.wait(lambda broker: len(broker.subscribed) == 2 and broker.of("a/state"))
    assert broker.options == {0b00_10_1_1_01}  # nothing retained before, retained as published, not our own, QoS 1
    broker.publish("a/pause", b"ON")
    broker.publish("other/pause", b"ON")
    broker.publish("set/nothing", b"ON")
    broker.publish("set/nothing", b"OFF")
    broker.publish("set/pause", b"ON", retain=True)
    broker.wait(lambda broker: len(broker.of("a/notices")) == 2)
    assert "set/nothing: no such command; there are set/pause" in json.loads(broker.of("a/notices")[0].payload)["text"]
    assert not board.controls.paused
    broker.publish("set/pause", b"ON")
    broker.wait(lambda broker: json.loads(broker.of("a/state")[-1].payload)["controls"]["paused"])
    assert board.controls.paused


def test_every_refusal_of_a_command_is_published_though_the_connection_breaks(
    broker: TinyBroker, opened: Open, said: list[str]
) -> None:
    broker.manners.acknowledges = False
    sink = opened("--mqtt-commands", "set")
    for number in range(20):
        sink.emit(seen(number))
    broker.wait(lambda broker: len(broker.messages) >= 20)  # no more may be under way
    for topic in ("set/pause", "set/gate", "set/threshold"):
        broker.publish(topic, b"maybe")
    wait(lambda: sum("expected" in line for line in said) == 3)
    broker.manners.acknowledges = True
    broker.break_off()
    broker.wait(lambda broker: len(broker.of("a/notices")) == 3)


def test_nothing_is_subscribed_to_without_commands(broker: TinyBroker, opened: Open) -> None:
    board = Board()
    opened(board=board)
    broker.wait(lambda broker: broker.of("a/state"))
    broker.publish("set/pause", b"ON")
    broker.publish("a/pause", b"ON")
    opened_again = len(broker.of("a/state"))
    board.show("rose", state="lost")
    broker.wait(lambda broker: len(broker.of("a/state")) > opened_again)
    assert not broker.subscribed
    assert not board.controls.paused


def test_a_subscription_that_is_refused_is_said(broker: TinyBroker, opened: Open, said: list[str]) -> None:
    broker.manners.suback = 0x87
    opened("--mqtt-commands", "set").emit(seen(1))
    broker.wait(lambda broker: broker.of("a/events"))
    wait(lambda: any(line.endswith("subscribing to set/# is refused: not authorized") for line in said))


def test_home_assistant_is_told_at_its_birth(broker: TinyBroker, opened: Open) -> None:
    opened("--home-assistant", "--home-assistant-prefix", "ha")
    broker.wait(lambda broker: broker.subscribed == ["ha/status"] and broker.of("a/state"))
    found = [message.topic for message in broker.messages if message.topic.startswith("ha/device/edge-")]
    broker.publish("ha/status", b"online")
    broker.wait(lambda broker: len(broker.of(found[0])) == 2)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--mqtt-commands", "set/#"), "--mqtt-commands set/#: '#' is a wildcard"),
        (("--home-assistant", "--home-assistant-prefix", "/"), "--home-assistant-prefix /: a level is empty"),
        (("--mqtt-qos", "7"), "--mqtt-qos 7: expected"),
    ],
)
def test_what_cannot_be_is_one_line(opened: Open, more: tuple[str, ...], part: str) -> None:
    with pytest.raises(UsageError, match="expected") as caught:
        opened(*more)
    assert part in str(caught.value)


def test_pauses_grow_by_chance_from_one_second_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    random.seed(1)
    pauses = [[pause_s(failures, False) for _ in range(200)] for failures in range(1, 20)]
    assert all(1 <= pause <= 60 for some in pauses for pause in some)
    assert max(pauses[0]) < 2
    assert min(pauses[-1]) >= 30
    assert len(set(pauses[-1])) > 100
    assert min(pause_s(1, True) for _ in range(200)) >= 30
    limits = [max(some) for some in pauses]
    assert [round(limit) for limit, _ in groupby(limits)][:5] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (TimeoutError("timed out"), "no answer in time"),
        (socket.gaierror(-2, "Name or service not known"), "the host's name is not known"),
        (ssl.SSLEOFError(8, "the connection was lost"), "no TLS connection: the connection was lost"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "no TLS connection: "),
        (OSError(113, "No route to host"), "no route to host"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_troubles_in_words(error: Exception, words: str) -> None:
    assert in_words(error).startswith(words)


def test_no_thread_is_left(opened: Open, broker: TinyBroker) -> None:
    sink = opened()
    broker.wait(lambda broker: broker.of("a/state"))
    sink.close()
    assert "mqtt" not in {thread.name for thread in threading.enumerate()}


def test_a_package_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    monkeypatch.delitem(sys.modules, "edge.mqtt.connection")
    with pytest.raises(UsageError, match=re.escape("--mqtt: paho-mqtt is not installed; pip install 'edge-run[mqtt]'")):
        open_mqtt(options("mqtt://localhost"), Board().monitor, pytest.fail)
