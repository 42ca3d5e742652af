"""Topics and qualities of service that can be, and what is said of the others."""

from __future__ import annotations

import re
import socket

import pytest

from edge.errors import UsageError
from edge.mqtt.topics import LONGEST_BYTES, Message, identity, topics_of


def test_topics_stand_below_the_host_s_name_unless_told_otherwise() -> None:
    topics = topics_of(None, ())
    assert topics.state == f"edge/{socket.gethostname()}/state"
    other = topics_of("garden/porch", ())
    assert [other.availability, other.events, other.notices, other.result(2)] == [
        "garden/porch/availability",
        "garden/porch/events",
        "garden/porch/notices",
        "garden/porch/sources/2/result",
    ]


@pytest.mark.parametrize("topic", ["a/+", "a/#", "#", "", "/a", "a/", "a//b", "$SYS/a", "a\0b", "a\nb", "ä" * 40000])
def test_a_topic_that_cannot_be(topic: str) -> None:
    with pytest.raises(UsageError, match="--mqtt-topic") as caught:
        topics_of(topic, ())
    assert len(str(caught.value)) < 200


def test_the_longest_topic_leaves_room_for_what_stands_below_it() -> None:
    topics = topics_of("a" * (LONGEST_BYTES - 64), ())
    assert len(topics.result(10**9)) <= LONGEST_BYTES


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ((), {}),
        (("2",), {"availability": 2, "state": 2, "events": 2, "notices": 2, "results": 2}),
        (("events=2",), {"events": 2}),
        (("events=0", "0", "state=1"), {"availability": 0, "state": 1, "events": 0, "notices": 0, "results": 0}),
    ],
)
def test_quality_of_service(given: tuple[str, ...], changed: dict[str, int]) -> None:
    default = {"availability": 1, "state": 0, "events": 1, "notices": 1, "results": 1}
    assert topics_of("a", given).qos == default | changed


@pytest.mark.parametrize("text", ["3", "-1", "", "one", "events", "events=", "events=3", "=1", "other=1", "events=1.0"])
def test_a_quality_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match=f"--mqtt-qos {re.escape(text)}: expected 0, 1 or 2"):
        topics_of("a", (text,))


def test_the_will_is_retained_and_the_same_kind_as_the_greeting() -> None:
    topics = topics_of("a", ())
    assert topics.available(there=False) == Message("a/availability", b"offline", 1, retain=True, content_type="text/plain")
    assert topics.available(there=True).payload == b"online"


def test_an_identity_is_its_own_and_fits_every_broker() -> None:
    assert identity("a") == identity("a") != identity("b")
    assert re.fullmatch("[a-zA-Z0-9-]{1,23}", identity("a"))
