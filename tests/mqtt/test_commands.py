"""Who may turn what, with which words."""

from __future__ import annotations

import pytest

from edge.controls import Controls
from edge.mqtt.commands import KNOWN_REFUSALS, Commands
from edge.pace import Pace
from tests.mqtt.board import Board


@pytest.fixture
def controls() -> Controls:
    return Board().controls


@pytest.mark.parametrize(
    ("payload", "paused"), [(b"ON", True), (b"true", True), (b"on", True), (b"OFF", False), (b"False", False)]
)
def test_a_switch(controls: Controls, payload: bytes, paused: bool) -> None:
    controls.pause(not paused, "test")
    assert Commands("set", controls).heard("set/pause", payload, retained=False) == ""
    assert controls.paused is paused


@pytest.mark.parametrize(
    ("topic", "payload", "name", "value"),
    [
        ("set/threshold", b"0.6", "threshold", 0.6),
        ("set/threshold", b"1", "threshold", 1.0),
        ("set/threshold", b"0.30000000000000004", "threshold", 0.1 + 0.2),
        ("set/score_threshold", b"0", "score_threshold", 0.0),
        ("set/gate", b"OFF", "gate", False),
    ],
)
def test_what_can_be_set(controls: Controls, topic: str, payload: bytes, name: str, value: object) -> None:
    assert Commands("set", controls).heard(topic, payload, retained=False) == ""
    assert getattr(controls, name) == value
    assert [notice.about for notice in controls.notices] == ["mqtt"]


@pytest.mark.parametrize(
    ("topic", "payload", "part"),
    [
        ("set/pause", b"maybe", "expected ON or OFF"),
        ("set/pause", b"", "expected ON or OFF"),
        ("set/pause", b"1", "expected ON or OFF"),
        ("set/pause", b"ON\n", "expected ON or OFF"),
        ("set/pause", b"\xff\xfe", "expected ON or OFF"),
        ("set/pause", b"ON" * 100, "longer than 64 bytes"),
        ("set/threshold", b"nan", "expected a number from 0 to 1"),
        ("set/threshold", b"1e-3", "expected a number from 0 to 1"),
        ("set/threshold", b"-0.1", "expected a number from 0 to 1"),
        ("set/threshold", b"1.5", "expected a number from 0 to 1"),
        ("set/threshold", b" 0.5", "expected a number from 0 to 1"),
        ("set/threshold", "٠.٥".encode(), "expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_is_told_and_changes_nothing(controls: Controls, topic: str, payload: bytes, part: str) -> None:
    refusal = Commands("set", controls).heard(topic, payload, retained=False)
    assert refusal.startswith(f"{topic}: ")
    assert part in refusal
    assert refusal.isprintable()
    assert not controls.notices


def test_what_is_not_there_to_set_is_told() -> None:
    commands = Commands("set", Controls(Pace(1)))
    assert "nothing is offloaded" in commands.heard("set/threshold", b"0.5", retained=False)
    assert "no motion gate" in commands.heard("set/gate", b"ON", retained=False)


def test_a_retained_command_is_not_obeyed(controls: Controls) -> None:
    assert "retained" in Commands("set", controls).heard("set/pause", b"ON", retained=True)
    assert not controls.paused


@pytest.mark.parametrize("topic", ["pause", "other/pause", "setting/pause", "/set/pause"])
def test_no_other_topic_is_heard(controls: Controls, topic: str) -> None:
    assert Commands("set", controls).heard(topic, b"ON", retained=False) == ""
    assert not controls.paused


@pytest.mark.parametrize("topic", ["set", "set/", "set/nothing", "set/pause/x", "set/PAUSE", "set//pause"])
@pytest.mark.parametrize("retained", [False, True])
def test_what_is_no_command_is_told_once_with_those_that_are(controls: Controls, topic: str, retained: bool) -> None:
    commands = Commands("set", controls)
    refusal = commands.heard(topic, b"ON", retained=retained)
    assert refusal == f"{topic}: no such command; there are set/pause, set/gate, set/threshold, set/score_threshold"
    assert not commands.heard(topic, b"OFF", retained=retained)
    assert not controls.notices


def test_a_topic_that_somebody_made_up_is_told_in_a_short_line(controls: Controls) -> None:
    refusal = Commands("set", controls).heard(f"set/\0\n{'x' * 60000}", b"ON", retained=False)
    assert len(refusal) < 200
    assert refusal.isprintable()
    assert "there are set/pause" in refusal


def test_the_same_mistake_is_told_once_until_a_right_one(controls: Controls) -> None:
    commands = Commands("set", controls)
    assert commands.heard("set/pause", b"x", retained=False)
    assert not commands.heard("set/pause", b"x", retained=False)
    assert commands.heard("set/pause", b"y", retained=False)
    commands.heard("set/pause", b"OFF", retained=False)
    assert commands.heard("set/pause", b"x", retained=False)


def test_a_flood_of_mistakes_is_not_told_without_end(controls: Controls) -> None:
    commands = Commands("set", controls)
    told = [commands.heard("set/pause", b"x%d" % number, retained=False) for number in range(3 * KNOWN_REFUSALS)]
    assert sum(map(bool, told)) == KNOWN_REFUSALS
