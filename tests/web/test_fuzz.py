"""Whatever is sent: an answer that is no failure, and a page that goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.serving import TOKEN, Page, serving

PATHS = st.sampled_from(
    [
        "/",
        "/status.json",
        "/frame.jpg",
        "/moments/1.jpg",
        "/metrics",
        "/healthz",
        "/controls",
        "/login",
        "/logout",
        "/static/page.js",
    ]
) | st.text(st.characters(codec="latin-1"), max_size=30).map(lambda text: "/" + text)
TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60)
NAMES = st.sampled_from(
    [
        "Authorization",
        "Cookie",
        "Origin",
        "Content-Type",
        "Accept",
        "If-None-Match",
        "Sec-Fetch-Site",
        "X-Forwarded-Proto",
        "Range",
    ]
)
QUERY = st.dictionaries(st.sampled_from(["source", "after", "token"]), TEXT | st.integers().map(str), max_size=3)
TYPES = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain"])


@pytest.fixture(scope="module", params=["open", "locked"])
def fuzzed(request: pytest.FixtureRequest) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.web.app.PATIENCE_S", 0.01)
        patch.setattr("edge.web.door.WRONG_S", 0.0)
        patch.setattr("edge.web.messages.BODY_S", 0.05)
        if request.param == "open":
            patch.delenv("EDGE_WEB_TOKEN", raising=False)
        else:
            patch.setenv("EDGE_WEB_TOKEN", TOKEN)
        with serving() as page:
            yield page


@pytest.fixture
def no_token() -> None:
    """The page has been opened already."""


def exchange(page: Page, request: bytes, *, ended: bool = False) -> bytes:
    """What comes back until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=5) as connection:
        answer = b""
        try:
            connection.sendall(request)
            if ended:
                connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
        except ConnectionError:
            pass
        return answer


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE"]),
    path=PATHS,
    query=QUERY,
    headers=st.dictionaries(NAMES, TEXT, max_size=4),
    kind=TYPES,
    body=st.binary(max_size=200) | st.sampled_from([b'{"paused":false}', b"[" * 3000, b'{"threshold":1e999}', b"token=%ff%fe"]),
)
def test_requests(
    fuzzed: Page, method: str, path: str, query: dict[str, str], headers: dict[str, str], kind: str, body: bytes
) -> None:
    target = quote(path, safe="/%") + "?" + urlencode(query)
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: 127.0.0.1:{fuzzed.port}",
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"Content-Type: {kind}"] if "Content-Type" not in headers else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    answer = exchange(fuzzed, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
    status = answer[9:12]
    assert answer.startswith(b"HTTP/1.1 ")
    assert status < b"500" or status == b"503", answer[:300]  # not healthy
    assert fuzzed.said[1:] == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300) | st.binary(max_size=200).map(lambda rest: b"GET /status.json HTTP/1.1\r\n" + rest + b"\r\n\r\n")
)
def test_bytes_that_are_no_request(fuzzed: Page, junk: bytes) -> None:
    answer = exchange(fuzzed, junk, ended=True)
    assert answer[9:12] < b"500"
    assert fuzzed.said[1:] == []


def test_it_still_answers(fuzzed: Page) -> None:
    assert fuzzed.ask("/static/icon.svg").status == 200
    assert fuzzed.sink.server.alive
