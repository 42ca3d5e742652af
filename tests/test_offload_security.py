"""TLS, pins, client certificates and the token, which nothing ever says."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from edge.errors import UsageError
from edge.events import encode_event
from edge.offload import Offloader
from edge.offload.address import parse_address
from edge.offload.credentials import Credentials
from edge.offload.transport import RequestError, Transport, seconds_of
from tests.endpoint import Endpoint, Reply, fixed, good, serving, until
from tests.samples import event, frame, plain

CERTIFICATES = Path(__file__).parent / "certificates"
CA = str(CERTIFICATES / "ca.pem")
CLIENT = {"certificate": str(CERTIFICATES / "client.pem"), "key": str(CERTIFICATES / "client.key")}
TOKEN = "s3cret-t0ken/+=._~-"


def fingerprint(name: str) -> str:
    """As `--offload-pin` wants it."""
    pem = (CERTIFICATES / name).read_text()
    return "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN") :])).hexdigest()


PIN = fingerprint("server.pem")


def tls(*, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(CA)
    return context


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_OFFLOAD_TOKEN", raising=False)


def asked(endpoint: Endpoint, **credentials: Any) -> tuple[int, list[str]]:
    """Whether a frame was answered, and what was said."""
    said: list[str] = []
    offloader = Offloader(endpoint.url, "tiny", credentials=Credentials(**credentials), say=said.append)
    try:
        offloader.submit(event(frame(plain(10), 0, time.monotonic()), action="offload"))
        assert until(lambda: offloader.idle)
        return len(offloader.answers()), said
    finally:
        offloader.close()


# TLS


@pytest.mark.parametrize(
    "trust", [{"ca": CA}, {"pin": PIN}, {"ca": CA, "pin": PIN}, {"pin": PIN.upper().replace("SHA", "sha")}]
)
def test_an_endpoint_that_is_trusted(trust: dict[str, str]) -> None:
    with serving(tls=tls()) as endpoint:
        assert asked(endpoint, **trust) == (1, [])


OTHER_PIN = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("trust", "part"),
    [
        ({}, "; give --offload-ca FILE, or check the host name and this machine's clock; "),  # by the system's authorities
        ({"ca": str(CERTIFICATES / "client.pem")}, "its certificate is not trusted"),
        ({"pin": OTHER_PIN}, "its certificate is not the pinned one; if it was renewed, pin the new one; "),
        ({"ca": CA, "pin": OTHER_PIN}, "its certificate is not the pinned one"),
        ({"ca": str(CERTIFICATES / "client.pem"), "pin": PIN}, "its certificate is not trusted"),
    ],
)
def test_an_endpoint_that_is_not_trusted_gets_no_request(trust: dict[str, str], part: str) -> None:
    with serving(tls=tls()) as endpoint:
        answered, said = asked(endpoint, **trust)
        assert answered == 0
        assert len(said) == 1  # at once: another attempt would not mend it
        assert part in said[0]
        assert endpoint.requests == []


def test_a_client_certificate() -> None:
    with serving(tls=tls(wants_client=True)) as endpoint:
        assert asked(endpoint, ca=CA, **CLIENT) == (1, [])
        answered, said = asked(endpoint, ca=CA)
        assert answered == 0
        assert until(lambda: endpoint.requests.count("/v2/models/tiny/infer") == 1)
        assert all("\n" not in line for line in said)


def test_a_host_that_the_certificate_does_not_name() -> None:
    with serving(tls=tls()) as endpoint:
        endpoint.url = endpoint.url.replace("127.0.0.1", "127.1")
        answered, said = asked(endpoint, ca=CA)
        assert answered == 0
        assert "its certificate is not trusted" in said[0]


def test_a_server_that_hangs_up_in_the_middle_of_a_handshake_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        tries = []

        def hang_up() -> None:
            for _ in range(3):
                connection, _ = server.accept()
                connection.recv(1)
                tries.append(connection.close())

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        endpoint = Endpoint(good, None)
        endpoint.url = f"https://127.0.0.1:{server.getsockname()[1]}"
        answered, said = asked(endpoint, ca=CA)
        hanging_up.join(10)
    assert (answered, len(tries)) == (0, 3)
    assert "the connection broke" in said[0]


def test_a_server_without_tls() -> None:
    with serving() as endpoint:
        endpoint.url = endpoint.url.replace("http:", "https:")
        answered, said = asked(endpoint, ca=CA)
        assert answered == 0
        assert "TLS failed" in said[0]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"ca": "/nowhere.pem"}, "--offload-ca /nowhere.pem: No such file or directory; give a PEM file"),
        ({"ca": str(CERTIFICATES / "README.md")}, "--offload-ca"),
        ({"certificate": "/nowhere.pem"}, "--offload-cert /nowhere.pem: No such file"),
        ({"certificate": CLIENT["certificate"], "key": str(CERTIFICATES / "server.key")}, "key values mismatch"),
        ({"certificate": CLIENT["certificate"], "key": str(CERTIFICATES / "locked.key")}, "without a passphrase"),
        ({"certificate": CLIENT["certificate"]}, "--offload-cert"),
        ({"pin": "sha256:12"}, "--offload-pin: expected sha256: and 64 hexadecimal digits"),
        ({"pin": PIN.removeprefix("sha256:")}, "--offload-pin"),
        ({"pin": "sha1:" + "0" * 40}, "--offload-pin"),
    ],
)
def test_files_and_pins_that_cannot_be(given: dict[str, str], part: str) -> None:
    with pytest.raises(UsageError, match=r"\A[^\n]*\Z") as error:
        Offloader("https://localhost:1", "tiny", credentials=Credentials(**given))
    assert part in str(error.value)


@pytest.mark.parametrize("given", [{"ca": CA}, {"pin": PIN}, CLIENT])
def test_what_does_nothing_over_http_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="does nothing over http"):
        Offloader("http://localhost:1", "tiny", credentials=Credentials(**given))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("", 0),
        ("soon", 0),
        ("-3", 0),
        ("1.5", 0),
        ("9" * 30, 999999999),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    assert seconds_of(header) == seconds


def test_retry_after_a_date() -> None:
    assert 8 <= seconds_of(format_datetime(datetime.now(timezone.utc) + timedelta(seconds=10), usegmt=True)) <= 10


# the token


@pytest.fixture(params=["file", "environment"])
def token(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    if request.param == "environment":
        monkeypatch.setenv("EDGE_OFFLOAD_TOKEN", TOKEN)
        yield {}
    else:
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        yield {"token_file": str(tmp_path / "token")}


def test_the_token_is_sent(token: dict[str, str]) -> None:
    with serving() as endpoint:
        assert asked(endpoint, **token) == (1, [])
        assert [headers["Authorization"] for headers in endpoint.headers] == [f"Bearer {TOKEN}"]


def test_the_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_OFFLOAD_TOKEN", "other")
    (tmp_path / "token").write_text(TOKEN)
    assert Credentials(token_file=str(tmp_path / "token")).token() == TOKEN


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "[2001:db8::1]", "127.0.0.1.example.org", "localhost.example.org"])
def test_a_token_does_not_cross_a_network_in_the_clear(token: dict[str, str], host: str) -> None:
    with pytest.raises(UsageError, match="a token would cross the network in the clear; use https://") as error:
        Offloader(f"http://{host}:8000", "tiny", credentials=Credentials(**token))
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_loopback_is_no_network(token: dict[str, str], host: str) -> None:
    Credentials(**token).check(parse_address(f"http://{host}:8000", "tiny"))


@pytest.mark.parametrize("text", ["two words", "käse", "", "a\nb", "a\x00b"])
def test_tokens_that_cannot_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(UsageError, match="expected one bearer token") as error:
        Credentials(token_file=str(tmp_path / "token")).token()
    assert not text or text not in str(error.value)


def test_the_token_is_all_of_its_file_but_the_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"\n  {TOKEN}\n\n")
    assert Credentials(token_file=str(tmp_path / "token")).token() == TOKEN


def test_a_token_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="--offload-token-file /nowhere: No such file"):
        Credentials(token_file="/nowhere").token()


def test_a_token_that_is_renewed_is_found(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    said: list[str] = []

    def guarded(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        return good(endpoint, body, headers) if headers["Authorization"] == "Bearer new" else (401, b'{"error": "expired"}', {})

    with serving(guarded) as endpoint:
        offloader = Offloader(endpoint.url, "tiny", credentials=Credentials(token_file=str(path)), say=said.append)
        offloader.submit(event(frame(plain(10), 0, time.monotonic())))
        assert until(lambda: said)
        assert "status 401 (expired); give another token" in said[0]
        path.write_text("new")
        assert until(lambda: offloader.available(time.monotonic()))
        offloader.submit(event(frame(plain(10), 1, time.monotonic())))
        assert until(offloader.answers)
        assert until(lambda: len(said) == 2)
        assert "answers again" in said[1]
        offloader.close()


def echoing(status: int) -> Any:
    """An endpoint that repeats what it was told, wherever it can."""

    def answer(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        token = headers["Authorization"].removeprefix("Bearer ")
        outputs = [
            {"name": "labels", "datatype": "BYTES", "shape": [1], "data": [token]},
            {"name": "scores", "datatype": "FP32", "shape": [1], "data": [1.0]},
        ]
        said = {"model_name": token, "outputs": outputs, "parameters": {"variant": token}, "error": f"no {token}"}
        return status, json.dumps(said).encode(), {"Retry-After": token}

    return answer


@pytest.mark.parametrize("as_json", [True, False])
def test_of_a_token_longer_than_what_is_said_of_an_error_nothing_is_said(tmp_path: Path, as_json: bool) -> None:
    token = "".join(f"{number:04x}" for number in range(100))
    (tmp_path / "token").write_text(token)
    text = f"no {token} here"
    body = json.dumps({"error": text}) if as_json else text
    with serving(fixed(body.encode(), 401)) as endpoint:
        _, said = asked(endpoint, token_file=str(tmp_path / "token"))
        assert "status 401 (no *** here); give another token" in said[0]


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_a_token_that_the_endpoint_repeats_is_said_nowhere(token: dict[str, str], status: int) -> None:
    with serving(echoing(status)) as endpoint:
        said: list[str] = []
        offloader = Offloader(endpoint.url, "tiny", credentials=Credentials(**token), deadline_s=1.0, say=said.append)
        for number in range(3):
            offloader.submit(event(frame(plain(10), number, time.monotonic())))
            assert until(lambda: offloader.idle)
        lines = [encode_event(answer.event).decode() + answer.model + str(answer.result) for answer in offloader.answers()]
        offloader.close()
        assert said
        assert TOKEN not in "".join(said + lines)


def test_no_repr_and_no_error_has_the_token(token: dict[str, str], unused_tcp: int) -> None:
    credentials = Credentials(**token)
    address = parse_address(f"http://127.0.0.1:{unused_tcp}", "tiny")
    transport = Transport(address, credentials, connections=1)
    offloader = Offloader(address.root, "tiny", credentials=credentials)
    with pytest.raises(RequestError) as error:
        transport.get("/v2", time.monotonic() + 5)
    chain: BaseException | None = error.value
    while chain is not None:
        assert TOKEN not in repr(chain) + str(chain) + str(chain.args)
        chain = chain.__cause__ or chain.__context__
    assert TOKEN not in "".join(map(repr, (credentials, address, transport, offloader, offloader._endpoint)))
    offloader.close()


@pytest.fixture
def unused_tcp() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
