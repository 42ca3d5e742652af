"""Which broker, and with what: whatever cannot be is one line, and no password is ever said."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.mqtt.address import PASSWORD_VARIABLE, Broker, broker_of
from tests.mqtt.board import options

CERTIFICATES = Path(__file__).parents[1] / "certificates"
SECRET = "open sesame"


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


def opened(url: str, *more: object) -> Broker:
    return broker_of(options(url, *more), pytest.fail)


def refused(url: str, *more: object) -> str:
    with pytest.raises(UsageError) as caught:
        opened(url, *more)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mqtt://porch", "mqtt://porch:1883"),
        ("mqtts://porch", "mqtts://porch:8883"),
        ("mqtts://porch.example:443/", "mqtts://porch.example:443"),
        ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ("MQTT://127.0.0.1:1", "mqtt://127.0.0.1:1"),
    ],
)
def test_ports_have_defaults(url: str, name: str) -> None:
    assert opened(url).name == name


@pytest.mark.parametrize(
    "url",
    [
        "porch",
        "http://porch",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://porch:0",
        "mqtt://porch:70000",
        "mqtt://porch:x",
        "mqtt://a b",
        "mqtt://porch/topic",
        "mqtt://porch?x=1",
        "mqtt://porch#x",
        "mqtt://[::1",
        "",
        "mqtt://pörch",
        "mqtt://.porch",
        "mqtt://a..b",
        f"mqtt://{'a' * 64}",
    ],
)
def test_a_url_that_cannot_be_says_what_is_expected(url: str) -> None:
    assert refused(url).startswith(f"--mqtt {url}: expected mqtts://HOST[:8883]")


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://board:sesame@porch",
        "mqtt://sesame@porch",
        "mqtt://:sesame@porch",
        "mqtt://board:sesame@[::1",
        "mqtt://board:se/same@porch",
        "mqtt:/board:sesame@porch",
        "board:sesame@porch",
    ],
)
def test_a_login_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    line = refused(url)
    assert "--mqtt-password-file" in line
    assert "same" not in line


def test_the_password_is_read_from_its_file_but_for_the_line_s_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET} \r\n")
    broker = opened("mqtt://localhost", "--mqtt-user", "board", "--mqtt-password-file", file)
    assert broker.password == f"{SECRET} "
    assert SECRET not in repr(broker)
    assert SECRET not in broker.name


def test_the_password_is_taken_from_the_environment_for_a_user_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, SECRET)
    assert opened("mqtt://localhost", "--mqtt-user", "board").password == SECRET
    assert opened("mqtt://localhost").password is None


@pytest.mark.parametrize("text", [b"", b"\n", b"one\ntwo\n", b"\xff\n", b"a\0b", b"x" * 65536])
def test_a_password_that_cannot_be(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(text)
    line = refused("mqtt://localhost", "--mqtt-user", "board", "--mqtt-password-file", file)
    assert line.startswith(f"--mqtt-password-file {file}: ")


def test_a_password_file_that_is_absent(tmp_path: Path) -> None:
    line = refused("mqtt://localhost", "--mqtt-user", "board", "--mqtt-password-file", tmp_path / "none")
    assert "No such file" in line
    assert PASSWORD_VARIABLE in line


@pytest.mark.parametrize(("host", "told"), [("porch", 1), ("192.0.2.7", 1), ("localhost", 0), ("127.0.0.9", 0), ("[::1]", 0)])
def test_a_password_in_the_clear_is_said_where_others_can_read_it(
    monkeypatch: pytest.MonkeyPatch, host: str, told: int
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, SECRET)
    said: list[str] = []
    broker_of(options(f"mqtt://{host}", "--mqtt-user", "board"), said.append)
    assert len(said) == told
    assert all("in the clear" in line and SECRET not in line for line in said)


def test_tls_is_new_and_checks_the_name() -> None:
    context = opened("mqtts://localhost", "--mqtt-ca", CERTIFICATES / "ca.pem").tls
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1


def test_a_socket_whose_handshake_fails_is_closed() -> None:
    context = opened("mqtts://localhost", "--mqtt-ca", CERTIFICATES / "ca.pem").tls
    assert context is not None
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"no TLS here")
        encrypted = context.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False)
        with pytest.raises(ssl.SSLError):
            encrypted.do_handshake()
        assert encrypted.fileno() == -1


def test_a_peer_that_hangs_up_in_the_handshake_is_told_from_one_that_cannot_be_reached() -> None:
    context = opened("mqtts://localhost", "--mqtt-ca", CERTIFICATES / "ca.pem").tls
    assert context is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        encrypted = context.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        theirs.close()
        with pytest.raises(ssl.SSLEOFError):
            encrypted.do_handshake()
        assert encrypted.fileno() == -1


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--mqtt-ca", "/none.pem"), "--mqtt-ca /none.pem: No such file"),
        (("--mqtt-ca", CERTIFICATES / "server.key"), "give a PEM file of certificates"),
        (("--mqtt-cert", CERTIFICATES / "client.pem"), "the key as --mqtt-key"),
        (("--mqtt-cert", CERTIFICATES / "client.pem", "--mqtt-key", CERTIFICATES / "server.key"), "mismatch"),
        (("--mqtt-cert", CERTIFICATES / "client.pem", "--mqtt-key", CERTIFICATES / "locked.key"), "without a passphrase"),
    ],
)
def test_certificates_that_cannot_be_used(more: tuple[object, ...], part: str) -> None:
    assert part in refused("mqtts://localhost", *more)


def test_certificates_do_nothing_without_tls() -> None:
    assert refused("mqtt://localhost", "--mqtt-ca", CERTIFICATES / "ca.pem").startswith("--mqtt-ca does nothing over mqtt")
