"""The offloader by gRPC: TLS, client certificates and the token, which nothing ever says."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("grpc") is None:
    pytest.skip("grpcio is not installed; pip install 'edge-run[grpc]'", allow_module_level=True)

import grpc

from edge.errors import UsageError
from edge.grpc_messages import MESSAGES
from edge.offload import Offloader
from edge.offload.address import parse_address
from edge.offload.credentials import Credentials
from edge.offload.transport import RequestError
from edge.oip import NamedTensor
from tests.endpoint import opening, until
from tests.grpc_endpoint import (
    Endpoint,
    answered,
    asked,
    good,
    opened_transport,
    response,
    serving,
    submit,
)

Opener = Callable[..., tuple[Offloader, list[str]]]
Code = grpc.StatusCode
CERTIFICATES = Path(__file__).parent / "certificates"
CA = str(CERTIFICATES / "ca.pem")
CLIENT = {"certificate": str(CERTIFICATES / "client.pem"), "key": str(CERTIFICATES / "client.key")}
TOKEN = "s3cret-t0ken/+=._~-"


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_OFFLOAD_TOKEN", raising=False)


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opening("local") as make:
        yield make


# TLS


def read(name: str) -> bytes:
    return (CERTIFICATES / name).read_bytes()


def tls(*, wants_client: bool = False) -> grpc.ServerCredentials:
    pair = [(read("server.key"), read("server.pem"))]
    return grpc.ssl_server_credentials(pair, read("ca.pem") if wants_client else None, wants_client)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_endpoint_that_is_trusted(host: str) -> None:
    with serving(tls=tls()) as endpoint:
        assert asked(endpoint.url("grpcs", host), credentials=Credentials(ca=CA)) == (1, [])


@pytest.mark.parametrize("ca", [None, str(CERTIFICATES / "client.pem")])
def test_an_endpoint_that_is_not_trusted_gets_no_request(ca: str | None) -> None:
    with serving(tls=tls()) as endpoint:
        answers, said = asked(endpoint.url("grpcs"), credentials=Credentials(ca=ca))
        assert answers == 0
        assert "its certificate is not trusted; give --offload-ca FILE" in said[0]
        assert endpoint.asked == []


def test_a_host_that_the_certificate_does_not_name() -> None:
    with serving(tls=tls()) as endpoint:
        answers, said = asked(endpoint.url("grpcs", "[::ffff:127.0.0.1]"), credentials=Credentials(ca=CA))
        assert answers == 0
        assert "its certificate is not trusted" in said[0]
        assert endpoint.asked == []


def test_a_client_certificate() -> None:
    with serving(tls=tls(wants_client=True)) as endpoint:
        assert asked(endpoint.url("grpcs"), credentials=Credentials(ca=CA, **CLIENT)) == (1, [])
        assert asked(endpoint.url("grpcs"), credentials=Credentials(ca=CA), deadline_s=1.0)[0] == 0
        assert len(endpoint.requests) == 1


def test_a_server_without_tls() -> None:
    with serving() as endpoint:
        answers, said = asked(endpoint.url("grpcs"), credentials=Credentials(ca=CA))
        assert answers == 0
        assert "TLS failed; if it does not speak TLS, use grpc://" in said[0]


@pytest.mark.parametrize(
    ("url", "given", "part"),
    [
        (
            "grpcs://localhost:1/x",
            {"pin": "sha256:" + "0" * 64},
            "--offload-pin: gRPC looks at no fingerprint; give --offload-ca",
        ),
        ("grpc://localhost:1/x", {"pin": "sha256:" + "0" * 64}, "--offload-pin does nothing over grpc; use grpcs://"),
        ("grpc://localhost:1/x", {"ca": CA}, "--offload-ca does nothing over grpc; use grpcs:// or leave it out"),
        ("grpcs://localhost:1/x", {"ca": "/nowhere.pem"}, "--offload-ca /nowhere.pem: No such file or directory"),
        ("grpcs://localhost:1/x", {"certificate": CLIENT["certificate"]}, "--offload-cert"),
    ],
)
def test_what_cannot_be_is_refused(url: str, given: dict[str, str], part: str) -> None:
    with pytest.raises(UsageError, match=r"\A[^\n]*\Z") as error:
        Offloader(url, "tiny", credentials=Credentials(**given))
    assert part in str(error.value)


# the token


def test_the_token_is_sent_and_renewed(tmp_path: Path, opened: Opener) -> None:
    path = tmp_path / "token"
    path.write_text("old")

    def guarded(endpoint: Endpoint, request: Any, context: Any) -> Any:
        if dict(context.invocation_metadata())["authorization"] != "Bearer new":
            context.abort(Code.UNAUTHENTICATED, "expired")
        return good(endpoint, request, context)

    with serving(guarded) as endpoint:
        offloader, said = opened(endpoint.url(), credentials=Credentials(token_file=str(path)))
        submit(offloader, 1)
        assert answered(offloader) == []
        assert until(lambda: said)
        assert "status UNAUTHENTICATED (expired); give another token" in said[0]
        path.write_text("new")
        assert until(lambda: offloader.available(time.monotonic()))
        submit(offloader, 2)
        assert len(answered(offloader)) == 1


def test_a_token_does_not_cross_a_network_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_OFFLOAD_TOKEN", TOKEN)
    with pytest.raises(UsageError, match="a token would cross the network in the clear; use grpcs://") as error:
        Offloader("grpc://example.org:8001/x", "tiny")
    assert TOKEN not in str(error.value)
    Credentials().check(parse_address("grpc://[::1]:8001/x", "tiny"))


def repeats(code: grpc.StatusCode | None) -> Callable[..., Any]:
    def answer(endpoint: Endpoint, request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("retry-after", TOKEN),))
        if code is not None:
            context.abort(code, f"{'x' * 190} {TOKEN}")
        return response(NamedTensor.of("labels", [TOKEN.encode()]), NamedTensor.of("scores", np.ones(1, np.float32)))

    return answer


@pytest.mark.parametrize("code", [None, Code.UNAUTHENTICATED, Code.NOT_FOUND, Code.INTERNAL, Code.UNAVAILABLE])
def test_a_token_that_the_endpoint_repeats_is_said_nowhere(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode | None
) -> None:
    monkeypatch.setenv("EDGE_OFFLOAD_TOKEN", TOKEN)
    with serving(repeats(code)) as endpoint:
        transport = opened_transport(endpoint)
        with pytest.raises(RequestError) as error:
            transport._call("ModelInfer", MESSAGES["ModelInferRequest"](), time.monotonic() + 5)
        chain: BaseException | None = error.value
        while chain is not None:
            assert TOKEN[:6] not in repr(chain) + str(chain) + str(chain.args)
            chain = chain.__cause__ or chain.__context__
        assert TOKEN not in repr(transport)
        transport.close()
        offloader, said = opened(endpoint.url(), deadline_s=1.0)
        for number in range(3):
            submit(offloader, number)
            assert answered(offloader) == []
        assert until(lambda: said)
        assert TOKEN[:6] not in "".join(said)
