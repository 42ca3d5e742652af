"""Strangers' connections, the end, and failures: none of them is the loop's."""

from __future__ import annotations

import asyncio
import errno
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edge.errors import UsageError
from edge.web import open_web
from tests.web.serving import Page, eventually, serving

CERTIFICATES = Path(__file__).parent.parent / "certificates"


def test_silent_connections_give_up_their_places(page: Page) -> None:
    silent = [page.connect() for _ in range(16)]
    eventually(lambda: page.sink.server.connections == 16)
    assert page.ask("/healthz").status == 503
    assert silent[0].recv(10) == b""  # the one that was silent for longest
    assert page.sink.server.connections <= 16


def test_places_that_are_used_are_kept_and_newcomers_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.app.VIEWERS", 16)
    monkeypatch.setattr("edge.web.app.WAITING", 16)
    streams = [page.stream("/updates") for _ in range(16)]
    for stream in streams:
        stream.until(b"event: status")
    late = page.connect()
    assert late.recv(1000).startswith(b"HTTP/1.1 503 Service Unavailable")
    streams[5].connection.close()
    eventually(lambda: page.sink.server.connections == 15)
    assert page.ask("/status.json").status == 200


def test_handshakes_that_do_not_end_give_up_their_places() -> None:
    client = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    client.check_hostname = False
    with serving(cert=str(CERTIFICATES / "server.pem"), key=str(CERTIFICATES / "server.key"), context=client) as page:
        silent = [page.connect() for _ in range(20)]
        eventually(lambda: page.sink.server.connections == 16)
        assert page.ask("/healthz").status == 503
        assert silent[0].recv(10) == b""
        assert page.said[1:] == []


def test_a_handshake_that_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.server.HEAD_S", 0.1)
    with serving(cert=str(CERTIFICATES / "server.pem"), key=str(CERTIFICATES / "server.key")) as page:
        assert page.connect().recv(10) == b""


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: board.local:8443\r\n\r\n", b"this port speaks https: open https://board.local:8443/\n"),
        (b"POST /controls HTTP/1.1\r\nHOST:[::1]:8443\r\n\r\n{", b"this port speaks https: open https://[::1]:8443/\n"),
        (b"GET / HTTP/1.1\r\nHost: <b>board\r\n\r\n", b"this port speaks https: ask with https://\n"),
        (b"G", b"this port speaks https: ask with https://\n"),
        (b"\x80\x2e\x01", None),
        (b"\x16\x03\x01\x00\x02ab", None),
        (b"\x16", None),
    ],
)
def test_plain_http_where_tls_is_spoken(sent: bytes, said: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.server.HEAD_S", 0.1)
    with serving(cert=str(CERTIFICATES / "server.pem"), key=str(CERTIFICATES / "server.key")) as page:
        connection = page.connect()
        connection.sendall(sent)
        heard = b"".join(iter(lambda: connection.recv(1000), b""))
        if said is None:
            assert not heard.startswith(b"HTTP")
        else:
            head, _, body = heard.partition(b"\r\n\r\n")
            assert (head[:12], body) == (b"HTTP/1.1 400", said)
            assert f"Content-Length: {len(said)}\r\n".encode() in head
        eventually(lambda: page.sink.server.connections == 0)
        assert page.said[1:] == []


def test_headers_that_do_not_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.server.HEAD_S", 0.1)
    with serving() as page:
        assert page.connect().recv(10) == b""
        slow = page.connect()
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert slow.recv(10) == b""
        large = page.connect()
        large.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
        assert large.recv(100).startswith(b"HTTP/1.1 400") or large.recv(10) == b""
        assert page.ask("/", X="x" * 20_000).status == 431
        assert page.ask("/", X="x" * 15_000).status == 200


def test_idle_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.server.KEEP_ALIVE_S", 0.1)
    with serving() as page:
        idle = page.stream("/healthz")
        idle.until(b"no result for a while\n")
        assert idle.ends()


def test_a_body_that_nobody_asked_for_does_not_keep_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.server.HEAD_S", 0.1)
    with serving() as page:
        stream = page.stream("/status.json", Content_Length="100000")
        stream.until(b"signed_in")
        stream.connection.sendall(b"x")
        assert stream.ends()


def test_a_body_with_two_lengths_ends_the_connection(page: Page) -> None:
    stream = page.stream("/healthz", Content_Length="4", Transfer_Encoding="chunked")
    assert stream.until(b"two lengths").startswith(b"HTTP/1.1 400")
    assert stream.ends()


def test_the_end_does_not_wait_for_viewers() -> None:
    with serving() as page:
        streams = [page.stream(path) for path in ("/updates", "/stream.mjpg", "/frame.jpg", "/stream.mjpg")]
        streams[0].until(b"event: status")
        streams[1].until(b"--edge-frame")
        hanging = page.connect()
        hanging.sendall(b"GET / HTTP/1.1\r\n")
        eventually(lambda: page.sink.server.connections == 5)
        page.queued.close()
        assert not page.sink.server._thread.is_alive()
        assert all(stream.ends() for stream in streams)
        with pytest.raises(ConnectionError):
            page.connect()
        assert not page.sink.wants(page.frame())
        assert (page.queued.lost, page.said[1:]) == (0, [])


def test_the_loop_goes_on_when_the_server_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = threading.Event()

    async def accept(self: Any, loop: Any) -> None:
        while not fail.is_set():
            await asyncio.sleep(0.005)
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("edge.web.server.Server._accept", accept)
    with serving() as page:
        fail.set()
        eventually(lambda: not page.sink.server.alive)
        for _ in range(3):
            assert not page.sink.wants(page.frame(action="offload"))
        assert page.said[1:] == ["web: stopped: OSError: [Errno 9] Bad file descriptor; the loop goes on without the page"]
        assert page.queued.lost == 0


def test_without_file_descriptors_or_a_network_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.server.AGAIN_S", 0.01)
    with serving() as page:
        loop = page.sink.server._loop
        assert loop is not None
        accept, failures = loop.sock_accept, [errno.EMFILE, errno.ECONNABORTED, errno.ENETDOWN, errno.EPERM]

        async def failing(listener: Any) -> Any:
            taken = await accept(listener)
            if failures:
                taken[0].close()
                raise OSError(failures.pop(), "not now")
            return taken

        monkeypatch.setattr(loop, "sock_accept", failing)
        for _ in range(6):
            page.connect()
        eventually(lambda: not failures)
        assert page.ask("/").status == 200
        assert page.sink.server.alive


def test_it_leaves_signals_alone(page: Page) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    page.ask("/")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_taken_port_is_one_line(page: Page) -> None:
    with pytest.raises(UsageError, match="something listens there already"):
        open_web(
            address=f"127.0.0.1:{page.port}",
            token_file=None,
            cert=None,
            key=None,
            fps=5,
            monitor=page.monitor,
            say=page.said.append,
        )


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("uvicorn", "--web: starlette and uvicorn are not installed; pip install 'edge-run[web]'"),
        (
            "uvicorn.protocols.http.h11_impl",
            "--web: needs another starlette or uvicorn (import of uvicorn.protocols.http.h11_impl",
        ),
    ],
)
def test_missing_packages_are_one_line(missing: str, says: str) -> None:
    script = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from edge.web import open_web\n"
        "open_web(address='0', token_file=None, cert=None, key=None, fps=5, monitor=None, say=print)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"edge.errors.UsageError: {says}")
    assert last.endswith("'edge-run[web]'")


def test_a_page_that_is_left_leaves_nothing() -> None:
    for _ in range(3):
        with serving() as page:
            page.stream("/updates").until(b"event: status")
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name in ("web", "sink web")])
