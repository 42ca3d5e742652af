"""Who may look and turn: tokens, cookies, other sites, other names."""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.types import Notice
from edge.web.auth import LOCK_S, MAX_AGE_S, WRONG_ONES, Access, read_token, token_of
from edge.web.security import POLICY, is_local, refusal
from edge.web.tls import context_of
from tests.web.serving import TOKEN, Page, Reply, serving

CERTIFICATES = Path(__file__).parent.parent / "certificates"
JSON = {"Content_Type": "application/json"}
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


def cookie_of(reply: Reply) -> str:
    return reply.headers["set-cookie"].split(";")[0]


def test_without_the_token_there_is_only_the_door(locked: Page) -> None:
    door = locked.ask("/")
    assert door.status == 401
    assert b'action="/login"' in door.body
    for path in ("/status.json", "/updates", "/frame.jpg", "/stream.mjpg", "/metrics", "/moments/1.jpg", "/nothing"):
        reply = locked.ask(path)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert locked.turn({"paused": True}).status == 401
    assert locked.ask("/static/style.css").status == 200
    assert locked.ask("/healthz").status == 503
    assert not locked.monitor.controls.paused


@pytest.mark.parametrize("by", ["query", "login"])
def test_the_token_becomes_a_cookie(locked: Page, by: str) -> None:
    paths = {"query": ("/?token=" + TOKEN, "GET", None), "login": ("/login", "POST", f"token={TOKEN}")}
    reply = locked.ask(*paths[by], **(FORM if by == "login" else {}))
    assert (reply.status, reply.headers["location"]) == (303, "/")
    cookie, *attributes = reply.headers["set-cookie"].split("; ")
    assert {one.lower() for one in attributes} == {"httponly", "samesite=strict", "path=/", f"max-age={MAX_AGE_S}"}
    assert TOKEN not in cookie
    assert b'action="/logout"' in locked.ask("/", Cookie=cookie).body
    assert locked.ask("/status.json", Cookie=f"theme=dark; {cookie}").status == 200
    assert locked.turn({"paused": True}, Cookie=cookie).status == 200


def test_who_follows_a_link_from_elsewhere_asks_once_more_with_the_cookie(locked: Page) -> None:
    cookie = cookie_of(locked.ask(f"/?token={TOKEN}"))
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert locked.ask("/", **followed).headers["refresh"] == "0; url=/"  # a strict cookie is not sent
    assert "refresh" not in locked.ask("/", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="navigate").headers
    assert "refresh" not in locked.ask("/?token=wrong", **followed).headers
    assert locked.ask("/", Cookie=cookie, **followed).status == 200


def test_a_token_in_the_query_opens_nothing_else(locked: Page) -> None:
    assert locked.ask(f"/frame.jpg?token={TOKEN}").status == 401
    assert locked.ask(f"/status.json?token={TOKEN}").status == 401


def test_programs_bring_the_token_each_time(locked: Page) -> None:
    assert locked.ask("/status.json", Authorization=f"Bearer {TOKEN}").status == 200
    assert locked.ask("/", Authorization=f"Bearer {TOKEN}").status == 200
    assert locked.ask("/status.json", Authorization="Basic YW55Om5vdC10aGUtdG9rZW4=").status == 401
    basic = b64encode(f"any:{TOKEN}".encode()).decode()
    assert locked.ask("/status.json", Authorization=f"Basic {basic}").status == 200


def test_a_wrong_token_is_answered_late(locked: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.door.WRONG_S", 0.1)
    begun_s = time.monotonic()
    assert locked.ask("/status.json", Authorization="Bearer wrong").status == 401
    assert time.monotonic() - begun_s >= 0.1


def test_behind_a_proxy_with_tls_the_cookie_is_for_https(locked: Page) -> None:
    reply = locked.ask(f"/?token={TOKEN}", X_Forwarded_Proto="https")
    assert "; Secure" in reply.headers["set-cookie"]


def test_signing_out(locked: Page) -> None:
    cookie = cookie_of(locked.ask(f"/?token={TOKEN}"))
    reply = locked.ask("/logout", "POST", "", Cookie=cookie, **FORM)
    assert reply.status == 303
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert cookie_of(reply) != cookie


def test_after_many_wrong_tokens_none_is_looked_at_but_cookies_are(locked: Page) -> None:
    cookie = cookie_of(locked.ask(f"/?token={TOKEN}"))
    for number in range(WRONG_ONES):
        reply = locked.ask("/login", "POST", f"token=wrong{number}", **FORM)
        assert reply.status == 401
        assert b'action="/login"' in reply.body
    reply = locked.ask("/login", "POST", f"token={TOKEN}", **FORM)
    assert reply.status == 429
    assert 1 <= int(reply.headers["retry-after"]) <= LOCK_S + 1
    assert locked.ask("/status.json", Authorization=f"Bearer {TOKEN}").status == 429
    assert locked.ask("/status.json", Cookie=cookie).status == 200


def test_the_token_is_said_nowhere(locked: Page) -> None:
    locked.ask(f"/?token={TOKEN}")
    told = locked.ask("/status.json", Authorization=f"Bearer {TOKEN}").body
    assert TOKEN.encode() not in told
    assert not any(TOKEN in line for line in locked.said)
    assert locked.ask("/nothing" + TOKEN, Authorization=f"Bearer {TOKEN}").body == b"Not Found"


def test_a_cookie_outlives_a_restart_but_not_its_token_nor_its_time() -> None:
    now_s = [1.7e9]
    cookie = Access(TOKEN, wall_clock=lambda: now_s[0]).cookie()
    access = Access(TOKEN, wall_clock=lambda: now_s[0])
    header = f"{access.cookie_name}={cookie}".encode()
    assert access.knows(header)
    now_s[0] += MAX_AGE_S
    assert access.knows(header)
    now_s[0] += 1
    assert not access.knows(header)
    now_s[0] = 0.0  # a board that has not been told the time yet
    assert access.knows(header)
    other = Access(TOKEN + "!", wall_clock=lambda: now_s[0])
    assert other.cookie_name != access.cookie_name
    assert not other.knows(f"{other.cookie_name}={cookie}".encode())


@pytest.mark.parametrize(
    "change", [lambda v: "9" + v, lambda v: v[:-1] + ("0" if v[-1] != "0" else "1"), lambda v: v + "\u0661", lambda v: ""]
)
def test_a_cookie_that_was_changed(change: object) -> None:
    access = Access(TOKEN)
    changed = change(access.cookie())  # type: ignore[operator]
    assert not access.knows(f"{access.cookie_name}={changed}".encode())
    assert not Access(None).knows(f"edge={changed}".encode())


def test_wrong_tokens_that_come_slowly_lock_nothing() -> None:
    now_s = [0.0]
    access = Access(TOKEN, clock=lambda: now_s[0])
    for _ in range(30):
        now_s[0] += LOCK_S / (WRONG_ONES - 2)
        assert not access.right(b"wrong")
        assert access.locked_s == 0
    for _ in range(2):
        access.right(b"wrong")
    assert access.locked_s == LOCK_S
    now_s[0] += LOCK_S
    assert access.locked_s == 0
    assert access.right(TOKEN.encode())


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"Basic dTpwOnE=", b"p:q"),
        (b"Basic !!", b""),
        (b"Digest x", None),
        (b"", None),
    ],
)
def test_what_an_authorization_brings(authorization: bytes, token: bytes | None) -> None:
    assert token_of(authorization) == token


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1", "127.3.2.1:99", "[::1]:8080", "LOCALHOST", "board.lan"]
)
def test_names_of_this_machine(host: str) -> None:
    assert is_local(host, "board.lan")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "local\thost",
        "localhost.",
        "0.0.0.0",
        "127.1",
        "localhost.evil.example",
        "evil@localhost",
        "10.0.0.1",
        "[::1",
        "localhost:x",
        "localhost/x",
        "0",
    ],
)
def test_names_of_others(host: str) -> None:
    assert not is_local(host, "board.lan")


def test_a_page_without_a_token_is_asked_for_by_its_own_name(page: Page) -> None:
    assert page.ask("/", host=f"localhost:{page.port}").status == 200
    for path in ("/", "/status.json", "/healthz", "/static/page.js", f"/?token={TOKEN}"):
        assert page.ask(path, host="rebound.example").status == 403
    assert page.ask("/controls", "POST", '{"paused":true}', host="rebound.example", **JSON).status == 403


def test_one_with_a_token_is_known_by_any_name(locked: Page) -> None:
    assert locked.ask("/", host="board.example", Authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 0),
        ({"origin": "http://board:8080"}, 0),
        ({"origin": "https://board:8080", "sec-fetch-site": "same-origin"}, 0),
        ({"sec-fetch-site": "none"}, 0),
        ({"origin": "null"}, 403),
        ({"origin": "http://board"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "file://board:8080"}, 403),
        ({"origin": "http://[board"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({"content-length": "2", "transfer-encoding": "chunked"}, 400),
        ({"content-type": "application/json; charset=utf-8"}, 0),
    ],
)
def test_what_turns_something_comes_from_our_own_page(headers: dict[str, str], status: int) -> None:
    given = {"host": "board:8080", "content-type": "application/json"} | headers
    refused = refusal("POST", "/controls", given, None)
    assert (0 if refused is None else refused.status) == status


def test_other_sites_may_link_here_and_embed_nothing() -> None:
    other = {"host": "board", "sec-fetch-site": "cross-site"}
    assert refusal("GET", "/", other | {"sec-fetch-mode": "navigate"}, None) is None
    assert refusal("GET", "/", other | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, None) is None
    assert refusal("GET", "/", other | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, None) is not None
    assert refusal("GET", "/frame.jpg", other | {"sec-fetch-mode": "no-cors"}, None) is not None
    assert refusal("GET", "/frame.jpg", {"host": "board", "sec-fetch-site": "same-origin"}, None) is None


def test_the_policy_lets_nothing_in_but_our_own_files() -> None:
    directives = dict(one.strip().split(" ", 1) for one in POLICY.split(";"))
    assert directives.pop("require-trusted-types-for") == "'script'"
    assert directives.pop("default-src") == "'none'"
    assert set(directives.values()) == {"'self'", "'none'"}


def test_a_strangers_page_turns_nothing(page: Page) -> None:
    assert page.turn({"paused": True}, Origin="http://evil.example").status == 403
    assert page.ask("/controls", "POST", '{"paused":true}', **FORM).status == 415
    assert not page.monitor.controls.paused
    assert page.turn({"paused": True}, Origin=f"http://127.0.0.1:{page.port}").status == 200


def test_a_token_is_long_and_in_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert read_token(None, said.append) is None
    monkeypatch.setenv("EDGE_WEB_TOKEN", TOKEN)
    assert read_token(None, said.append) == TOKEN
    for text in ("short", "x" * 15, "two words of a token here", "", "ключ-ключ-ключ-ключ"):
        path = tmp_path / "token"
        path.write_text(text)
        with pytest.raises(UsageError, match=r"at least 16 ASCII characters without spaces; make one with: openssl") as refused:
            read_token(str(path), said.append)
        assert not text or text not in str(refused.value)
    with pytest.raises(UsageError, match="No such file or directory; make one with: openssl rand -hex 32 > token"):
        read_token(str(tmp_path / "none"), said.append)


def test_a_token_that_others_can_read_is_said(token_file: str) -> None:
    said: list[str] = []
    read_token(token_file, said.append)
    assert said == []
    Path(token_file).chmod(0o644)
    assert read_token(token_file, said.append) == TOKEN
    assert said == [f"web: other users of this machine can read {token_file}; chmod 600 ends that"]


def test_https(token_file: str) -> None:
    client = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    client.check_hostname = False
    cert, key = str(CERTIFICATES / "server.pem"), str(CERTIFICATES / "server.key")
    with serving(token_file=token_file, cert=cert, key=key, context=client) as page:
        assert page.said == [f"web: https://127.0.0.1:{page.port}/"]
        reply = page.ask(f"/?token={TOKEN}")
        assert "Secure" in reply.headers["set-cookie"]
        page.see(Notice("control", "web", "paused", 1.7e9))
        assert page.ask("/status.json", Cookie=cookie_of(reply)).json["moments"][0]["text"] == "paused"
        plain = page.connect()
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert plain.recv(1000).startswith(b"HTTP/1.1 400")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            old.wrap_socket(page.connect())
        assert page.ask("/healthz").status == 503


def test_certificates_that_cannot_be_used() -> None:
    for cert, key in (
        ("server.pem", None),
        ("server.pem", "client.key"),
        ("server.pem", "locked.key"),
        ("README.md", None),
        ("none", None),
    ):
        with pytest.raises(UsageError, match="--web-cert") as refused:
            context_of(str(CERTIFICATES / cert), None if key is None else str(CERTIFICATES / key))
        assert "PEM" in str(refused.value)


def test_beyond_loopback_a_token_is_demanded(token_file: str) -> None:
    refused = r"--web 0.0.0.0:0: others could look without a token; make one with: openssl"
    with pytest.raises(UsageError, match=refused), serving(address="0.0.0.0:0"):
        pass
    with serving(address="0.0.0.0:0", token_file=token_file) as page:
        assert "without TLS" in page.said[0]
        assert page.ask("/", host="any.example").status == 401
