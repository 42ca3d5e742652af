"""Where the page is served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UsageError
from edge.web.address import Place, listen, on_loopback, parse_address, url_of


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", Place("127.0.0.1", 8080)),
        ("0.0.0.0:80", Place("0.0.0.0", 80)),
        ("localhost:0", Place("localhost", 0)),
        ("[::1]:8080", Place("::1", 8080)),
        ("[fe80::1%eth0]:1", Place("fe80::1%eth0", 1)),
        ("board.lan:65535", Place("board.lan", 65535)),
    ],
)
def test_addresses(text: str, place: Place) -> None:
    assert parse_address(text) == place
    assert parse_address(str(place)) == place


@pytest.mark.parametrize(
    "text",
    ["", ":8080", "8080:", "::1:8080", "[::1]", "[1.2.3.4]:80", "[:::]:80", "65536", "-1", "a b:80", "http://x:80", "٨٠"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"--web .*expected PORT or HOST:PORT"):
        parse_address(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        place = parse_address(text)
    except UsageError:
        return
    assert 0 <= place.port <= 65535
    assert place.host


def test_a_taken_port_is_said() -> None:
    with listen(Place("127.0.0.1", 0)) as first:
        assert on_loopback(first)
        taken = Place("127.0.0.1", first.getsockname()[1])
        with pytest.raises(UsageError, match=rf"--web {taken}: something listens there already; choose another port"):
            listen(taken)


def test_hosts_that_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"is no address of this machine; give one, or 0\.0\.0\.0 for every one"):
        listen(Place("192.0.2.1", 0))
    with pytest.raises(UsageError, match="not a host name"):
        listen(Place("a" * 70, 0))


def test_urls() -> None:
    with listen(Place("localhost", 0)) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener, Place("localhost", 0), "http") == f"http://localhost:{port}/"
        assert url_of(listener, Place("::1", 0), "https") == f"https://[::1]:{port}/"
        assert "0.0.0.0" not in url_of(listener, Place("0.0.0.0", 0), "http")
