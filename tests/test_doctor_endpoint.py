"""The way to an endpoint, step by step."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.doctor import endpoint as steps
from edge.doctor.check import Check
from edge.doctor.endpoint import endpoint_checks
from edge.offload.address import parse_address
from edge.offload.credentials import Credentials
from tests.endpoint import serving

CERTIFICATES = Path(__file__).parent / "certificates"
CA = str(CERTIFICATES / "ca.pem")


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_OFFLOAD_TOKEN", raising=False)


@pytest.fixture
def secure() -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    with serving(tls=context) as endpoint:
        yield endpoint.url


def examined(url: str, **credentials: Any) -> dict[str, Check]:
    checks = list(endpoint_checks(parse_address(url, "tiny"), Credentials(**credentials)))
    assert all(check.mend for check in checks if check.status != "ok")
    return {check.name.removeprefix("endpoint "): check for check in checks}


def test_every_step_of_one_that_serves() -> None:
    with serving() as endpoint:
        checks = examined(endpoint.url)
    assert {name: check.status for name, check in checks.items()} == dict.fromkeys(
        ["name", "connection", "ready", "model"], "ok"
    )
    assert "serves tiny" in checks["model"].text


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **more: object) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(steps.socket, "getaddrinfo", unknown)
    checks = examined("http://nowhere.example")
    assert list(checks) == ["name"]
    assert checks["name"].status == "fail"
    assert "nowhere.example: Name or service not known" in checks["name"].text


def test_a_resolver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def waits(*arguments: object, **more: object) -> list[Any]:
        asked.wait(5)
        return []

    monkeypatch.setattr(steps.socket, "getaddrinfo", waits)
    monkeypatch.setattr(steps, "STEP_S", 0.1)
    assert "no answer within 0.1 s" in examined("http://slow.example")["name"].text
    asked.set()


def test_a_port_on_which_nobody_listens(unused_port: int) -> None:
    checks = examined(f"http://127.0.0.1:{unused_port}")
    assert list(checks) == ["name", "connection"]
    assert checks["connection"].text == f"127.0.0.1 port {unused_port}: connection refused"
    assert checks["connection"].mend == f"start it: edge-cloud --port {unused_port}"


def test_a_machine_on_which_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: object) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(steps.socket, "create_connection", refuses)
    mend = "start it there: edge-cloud --host 0.0.0.0 --port 9 --token-file FILE; or open the firewall for port 9"
    assert examined("http://192.0.2.1:9")["connection"].mend == mend


def test_one_that_is_not_ready() -> None:
    with serving(metadata=(503, b'{"error": "loading"}', {})) as endpoint:
        checks = examined(endpoint.url)
    assert checks["ready"].status == "fail"
    assert "loading" in checks["ready"].text


def test_a_server_of_another_kind() -> None:
    with serving(metadata=(404, b"<html>", {})) as endpoint:
        checks = examined(endpoint.url)
    assert "does not speak the Open Inference Protocol" in checks["ready"].text
    assert "model" not in checks


def test_tls(secure: str, unused_port: int) -> None:
    assert examined(secure, ca=CA)["TLS"].status == "ok"
    assert examined(secure, ca=CA)["model"].status == "ok"
    untrusted = examined(secure)
    assert list(untrusted) == ["name", "connection", "TLS"]
    assert "not trusted" in untrusted["TLS"].text
    assert "--offload-ca" in untrusted["TLS"].mend


def test_tls_with_a_server_that_has_none() -> None:
    with serving() as endpoint:
        checks = examined(endpoint.url.replace("http:", "https:"))
    assert checks["TLS"].status == "fail"
    assert "http://" in checks["TLS"].mend


def test_a_certificate_that_ends_soon(secure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SOON_DAYS", 10**6)
    check = examined(secure, ca=CA)["TLS"]
    assert check.status == "warn"
    assert "valid until" in check.text


def test_grpc() -> None:
    pytest.importorskip("grpc")
    from tests.grpc_endpoint import serving as serving_grpc

    with serving_grpc() as endpoint:
        checks = examined(endpoint.url())
    assert checks["model"].status == "ok"
