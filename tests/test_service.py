"""What systemd hears: over a real datagram socket, and never an exception."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edge.service import Service


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket such as systemd listens on, and how NOTIFY_SOCKET names it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.setblocking(False)
        yield listening, name


def heard(listening: socket.socket) -> list[str]:
    """The messages since the last call."""
    messages = []
    while True:
        try:
            messages.append(listening.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_it_says_ready_what_it_does_and_that_it_stops(systemd: tuple[socket.socket, str]) -> None:
    listening, name = systemd
    service = Service({"NOTIFY_SOCKET": name})
    assert service.watchdog_s is None
    service.ready("reading camera:0")
    service.status("12.5 frames/s\nREADY=0")
    service.alive(1.0)
    service.stopping()
    assert heard(listening) == ["READY=1\nSTATUS=reading camera:0", "STATUS=12.5 frames/s READY=0", "STOPPING=1"]


def test_the_watchdog_hears_of_it_each_half_of_its_interval(systemd: tuple[socket.socket, str]) -> None:
    listening, name = systemd
    service = Service({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    assert service.watchdog_s == 3.0
    counts = []
    for now_s in (100.0, 100.1, 101.4, 101.5, 101.6, 103.0):
        service.alive(now_s)
        counts.append(len(heard(listening)))
    assert counts == [1, 0, 0, 1, 0, 1]


def test_a_message_that_was_not_taken_is_sent_again_at_the_next_call(tmp_path: Path) -> None:
    name = str(tmp_path / "later")
    service = Service({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
    service.alive(1.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.setblocking(False)
        service.alive(1.1)
        assert heard(listening) == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "often"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "me"},
    ],
)
def test_without_an_interval_meant_for_this_process_there_is_no_watchdog(watchdog: dict[str, str], tmp_path: Path) -> None:
    assert Service({"NOTIFY_SOCKET": str(tmp_path / "notify"), **watchdog}).watchdog_s is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "/a\0b"},
        {"NOTIFY_SOCKET": "@nobody-listens-there"},
    ],
)
def test_it_never_raises(environ: dict[str, str]) -> None:
    service = Service({**environ, "WATCHDOG_USEC": "3000000"})
    service.ready("reading \udcff")
    service.status("")
    service.alive(1.0)
    service.stopping()


def test_a_systemd_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    name = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                while filler.sendto(b"x", name):
                    pass
        Service({"NOTIFY_SOCKET": name}).status("waits a fifth of a second, not for ever")
