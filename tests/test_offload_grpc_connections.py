"""The offloader by gRPC where nobody answers, or not in time: what connects when, and what it costs the loop."""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("grpc") is None:
    pytest.skip("grpcio is not installed; pip install 'edge-run[grpc]'", allow_module_level=True)


from edge.grpc_messages import MESSAGES
from edge.offload import Offloader
from edge.offload.address import parse_address
from edge.offload.client import NICENESS
from edge.offload.credentials import Credentials
from edge.offload.grpc_transport import GrpcTransport
from edge.offload.spool import Spool
from edge.offload.transport import RequestError
from tests.endpoint import opening, until
from tests.endpoint import serving as serving_http
from tests.grpc_endpoint import (
    answered,
    asked,
    good,
    hangs,
    opened_transport,
    serving,
    submit,
)

Opener = Callable[..., tuple[Offloader, list[str]]]


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_OFFLOAD_TOKEN", raising=False)


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opening("local") as make:
        yield make


def test_refused_then_there(opened: Opener, unused_port: int) -> None:
    offloader, said = opened(f"grpc://127.0.0.1:{unused_port}/tiny")
    submit(offloader, 1)
    assert answered(offloader) == []
    assert until(lambda: said)
    assert said[0].endswith("connection refused; answers stay local, trying again in the background")
    with serving(port=unused_port) as endpoint:
        assert until(lambda: offloader.available(time.monotonic()))
        submit(offloader, 2)
        assert len(answered(offloader)) == 1  # at the first attempt
        assert len(endpoint.requests) == 1
    assert "answers again" in said[1]


def test_an_endpoint_that_restarts_loses_no_frame(opened: Opener, unused_port: int) -> None:
    url = f"grpc://127.0.0.1:{unused_port}/tiny"
    offloader, said = opened(url)
    for number in range(3):
        with serving(port=unused_port):
            submit(offloader, number)
            assert len(answered(offloader)) == 1
    assert said == []


def test_a_connection_that_the_endpoint_closed_costs_no_frame(opened: Opener) -> None:
    with serving(max_connection_idle_ms=200) as endpoint:
        offloader, said = opened(endpoint.url())
        for number in range(3):
            submit(offloader, number)
            assert len(answered(offloader)) == 1
            time.sleep(0.5)
        assert (len(endpoint.requests), said) == (3, [])


def test_nothing_connects_while_the_endpoint_is_left_in_peace(opened: Opener) -> None:
    connections: list[float] = []

    def slam(connection: socket.socket) -> None:
        connections.append(time.monotonic())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with accepting(slam) as port:
        offloader, said = opened(f"grpc://127.0.0.1:{port}/tiny", deadline_s=0.5)
        while not said:
            submit(offloader, 1)
            answered(offloader)
        assert "the connection broke" in said[0]
        time.sleep(0.1)
        tries = len(connections)
        time.sleep(1.5)
        assert len(connections) == tries


@contextmanager
def accepting(deal: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on which each connection is dealt with, and closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    deal(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def garbage(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(bytes(range(100)))
    time.sleep(0.05)


def test_what_is_no_grpc_at_all(opened: Opener) -> None:
    with accepting(garbage) as port:
        assert_no_grpc(f"grpc://127.0.0.1:{port}/tiny")
    with serving_http() as http:
        assert_no_grpc(http.url.replace("http", "grpc"))


def assert_no_grpc(url: str) -> None:
    answers, said = asked(url)
    assert answers == 0
    assert "does not speak gRPC; name its gRPC port, or use http://" in said[0]


def test_a_host_that_is_not_found() -> None:
    transport = GrpcTransport(parse_address("grpc://nowhere.invalid:8001/x", "x"), Credentials(), connect_s=2.0)
    with pytest.raises(RequestError, match="host name not found; check its spelling") as error:
        transport.served(time.monotonic() + 10)
    assert (error.value.again, error.value.lasting) == (True, False)


def test_a_request_that_hangs_is_late_at_its_deadline(opened: Opener) -> None:
    with serving(hangs) as endpoint:
        offloader, said = opened(endpoint.url(), deadline_s=0.5)
        submit(offloader, 1)
        assert answered(offloader) == []
        assert (offloader.late, offloader.failed, said) == (1, 0, [])
        endpoint.answer = good
        submit(offloader, 2)
        assert len(answered(offloader)) == 1


def test_closing_does_not_wait_for_what_hangs(opened: Opener) -> None:
    with serving(hangs) as endpoint:
        offloader, said = opened(endpoint.url(), deadline_s=60.0)
        submit(offloader, 1, 2)
        assert until(lambda: len(endpoint.requests) == 2)
        offloader.close()
        assert until(lambda: not any(thread.is_alive() for thread in offloader._threads), 5.0)
        assert said == []


def test_a_channel_that_was_left_is_closed_with_its_last_call() -> None:
    with serving() as endpoint:
        transport = opened_transport(endpoint)
        outcomes: list[Any] = []

        def call(seconds: float) -> None:
            try:
                outcomes.append(transport._call("ModelInfer", MESSAGES["ModelInferRequest"](), time.monotonic() + seconds))
            except RequestError as error:
                outcomes.append(error)

        endpoint.answer = hangs
        slow = threading.Thread(target=call, args=(60.0,))
        slow.start()
        assert until(lambda: endpoint.requests)
        first = transport._line
        call(0.2)
        assert outcomes.pop().late
        assert first is not None
        assert (transport._line, first.calls) == (None, 1)
        endpoint.released.set()
        slow.join(10)
        assert isinstance(outcomes.pop(), bytes)  # the other call was let be
        with pytest.raises(ValueError, match="closed channel"):
            first.channel.unary_unary("/x/y")(b"")
        transport.close()
        call(1.0)
        assert "is closed" in str(outcomes.pop())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_the_threads_of_grpc_yield_to_the_loop(tmp_path: Path) -> None:
    """In a process of its own, for gRPC keeps its threads."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from edge.offload import Offloader
from tests.samples import event, frame, plain
offloader = Offloader(sys.argv[1], "x")
offloader.submit(event(frame(plain(1), 1, time.monotonic())))
while not offloader.idle: time.sleep(0.01)
assert offloader.answers()
for thread in os.listdir("/proc/self/task"):
    stat = open(f"/proc/self/task/{{thread}}/stat").read().rpartition(")")[2].split()
    print("main" if int(thread) == os.getpid() else "other", stat[16])
offloader.close()
"""
    with serving() as endpoint:
        done = subprocess.run([sys.executable, "-c", code, endpoint.url()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    here = os.getpriority(os.PRIO_PROCESS, 0)
    threads = [line.split() for line in done.stdout.splitlines()]
    assert len([which for which, _ in threads if which == "other"]) > 2  # ours and gRPC's
    lowered = [int(nice) for which, nice in threads if which == "other"]
    assert sum(nice == min(19, here + NICENESS) for nice in lowered) > 2


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port}")
    with serving() as endpoint:
        assert asked(endpoint.url()) == (1, [])


def test_stored_frames_are_sent(opened: Opener, tmp_path: Path, unused_port: int) -> None:
    spool = Spool(tmp_path / "spool", lambda line: None, quota_bytes=1 << 20, days=1)
    offloader, _ = opened(f"grpc://127.0.0.1:{unused_port}/tiny", deadline_s=0.5, spool=spool)
    submit(offloader, 1)
    assert answered(offloader) == []
    assert offloader.spooled == 1
    with serving(port=unused_port) as endpoint:
        assert until(lambda: offloader.spool_sent == 1, 60.0)
        assert len(endpoint.requests) == 1
