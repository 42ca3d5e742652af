"""What a board tells of itself, and how often."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from edge.mqtt.commands import Commands
from edge.mqtt.home_assistant import HomeAssistant
from edge.mqtt.reports import Reports
from edge.mqtt.topics import EVENT_EXPIRY_S, Message, Topics, topics_of
from edge.types import Change, Notice
from tests.mqtt.board import OFFLOAD, Board
from tests.samples import event


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def board() -> Board:
    return Board(sources=2)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def reports(board: Board, clock: Clock, said: list[str]) -> Reports:
    topics = topics_of("a", ())
    commands = Commands("set", board.controls)
    home = HomeAssistant("homeassistant", "edge-1", topics, "set")
    return Reports(topics, board.monitor, said.append, commands=commands, home=home, clock=clock, wall_clock=lambda: 1.7e9)


def topics(messages: object) -> list[str]:
    return [message.topic for message in messages]  # type: ignore[attr-defined]


def test_the_greeting_has_all_that_is_retained(reports: Reports) -> None:
    messages = list(reports.greeting())
    assert topics(messages) == [
        "homeassistant/device/edge-1/config",
        "a/availability",
        "a/sources/1/result",
        "a/sources/2/result",
        "a/state",
    ]
    assert all(message.retain and not message.counted for message in messages)
    assert [message.qos for message in messages] == [1, 1, 1, 1, 0]
    assert topics(reports.greeting()) == topics(messages)  # all of it again


def test_it_listens_to_commands_and_to_home_assistant_only(reports: Reports, board: Board, said: list[str]) -> None:
    assert reports.subscriptions == ("set/#", "homeassistant/status")
    assert Reports(topics_of("a", ()), board.monitor, said.append).subscriptions == ()


def test_the_state_is_the_status_without_its_history(reports: Reports) -> None:
    state = json.loads(list(reports.greeting())[-1].payload)
    assert "history" not in state
    assert state["sources"][1]["result"]["label"] == "daisy"
    controls = {"paused": False, "threshold": 0.5, "score_threshold": 0.25, "gate": True}
    assert state["controls"].items() >= controls.items()
    assert state["board"]["temperature_c"] == 61.5


def test_what_stays_the_same_is_told_every_ten_seconds(reports: Reports, clock: Clock) -> None:
    list(reports.greeting())
    told = []
    for _ in range(100):
        clock.s += 0.5
        told += topics(reports.news())
    assert told == ["a/state"] * 5


@pytest.mark.parametrize(
    "change",
    [
        lambda board: board.show("daisy", state="lost"),
        lambda board: board.show("daisy", trouble="no such device"),
        lambda board: board.controls.pause(True, "web"),
        lambda board: board.change(offload=msgspec.structs.replace(OFFLOAD, breaker="open")),
    ],
)
def test_a_change_that_matters_is_told_within_a_second(
    reports: Reports, clock: Clock, board: Board, change: Callable[[Board], None]
) -> None:
    list(reports.greeting())
    change(board)
    clock.s += 0.5
    assert topics(reports.news()) == []
    clock.s += 0.5
    assert topics(reports.news()) == ["a/state"]
    clock.s += 1
    assert topics(reports.news()) == []


def test_other_changes_are_not(reports: Reports, clock: Clock, board: Board) -> None:
    list(reports.greeting())
    board.change(fps=3.0)
    clock.s += 5
    assert list(reports.news()) == []


def test_a_result_is_told_when_its_label_changes(reports: Reports, clock: Clock, board: Board) -> None:
    list(reports.greeting())
    clock.s += 0.5
    board.show("rose", number=2)
    (message,) = reports.news()
    assert (message.topic, message.retain) == ("a/sources/2/result", True)
    assert json.loads(message.payload) == {
        "caption": "rose 50%",
        "label": "rose",
        "confidence": 0.5,
        "seq": 7,
        "captured_at": "2026-01-01T00:00:00.000Z",
    }
    board.show(None, number=2)
    assert list(reports.news()) == []  # twice a second at most
    clock.s += 0.5
    found = {message.topic: message for message in reports.news()}
    assert json.loads(found["a/sources/2/result"].payload)["label"] is None


def test_a_label_may_be_anything(reports: Reports, clock: Clock, board: Board) -> None:
    list(reports.greeting())
    clock.s += 0.5
    label = '"}, {{ evil }}\n\0\u2028\N{GRINNING FACE}'
    board.show(label)
    (message,) = reports.news()
    assert json.loads(message.payload)["label"] == label


def test_a_command_is_obeyed_and_seen_in_the_state(reports: Reports, clock: Clock, board: Board, said: list[str]) -> None:
    list(reports.greeting())
    clock.s += 2
    (state,) = reports.heard("set/pause", b"ON", retained=False)
    assert board.controls.paused
    assert json.loads(state.payload)["controls"]["paused"] is True
    assert said == []


def test_a_wrong_command_is_said_and_is_a_notice(reports: Reports, said: list[str]) -> None:
    list(reports.greeting())
    (notice,) = reports.heard("set/threshold", b"2", retained=False)
    assert said == ["mqtt: set/threshold: '2': expected a number from 0 to 1, as 0.6"]
    assert notice.topic == "a/notices"
    assert json.loads(notice.payload) == {
        "kind": "notice",
        "notice": "control",
        "about": "mqtt",
        "at": "2023-11-14T22:13:20.000Z",
        "text": "set/threshold: '2': expected a number from 0 to 1, as 0.6",
    }
    assert not list(reports.heard("set/threshold", b"2", retained=False))


def test_home_assistant_is_told_again_when_it_is_born(reports: Reports) -> None:
    assert topics(reports.heard("homeassistant/status", b"online", retained=False)) == ["homeassistant/device/edge-1/config"]
    assert not list(reports.heard("homeassistant/status", b"offline", retained=False))


def test_events_are_as_in_events(reports: Reports, clock: Clock) -> None:
    message = reports.of(event(changes=(Change("enter", 1, "dog"),)))
    assert json.loads(message.payload)["changes"] == [{"kind": "enter", "track": 1, "label": "dog"}]
    assert message == Message("a/events", message.payload, 1, until_s=clock.s + EVENT_EXPIRY_S, counted=True)
    assert not message.payload.endswith(b"\n")


def test_qualities_are_those_of_the_kind(board: Board, said: list[str]) -> None:
    chosen: Topics = topics_of("a", ("0", "events=2", "notices=1"))
    reports = Reports(chosen, board.monitor, said.append)
    assert reports.of(event()).qos == 2
    assert reports.of(Notice("governor", "x", "y", 1.7e9)).qos == 1
    assert {message.qos for message in reports.greeting()} == {0}
