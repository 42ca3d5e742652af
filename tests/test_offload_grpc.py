"""The offloader by gRPC against a real server on loopback: whatever it does, the loop is neither blocked nor told off."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

if importlib.util.find_spec("grpc") is None:
    pytest.skip("grpcio is not installed; pip install 'edge-run[grpc]'", allow_module_level=True)

import grpc

from edge.errors import UsageError
from edge.grpc_messages import MESSAGES
from edge.offload import Offloader
from edge.offload.address import parse_address
from edge.offload.transport import ANSWER_LIMIT_BYTES, RequestError
from tests.endpoint import opening, until
from tests.grpc_endpoint import (
    OUTPUTS,
    Endpoint,
    answered,
    asked,
    fixed,
    good,
    metadata,
    opened_transport,
    response,
    says,
    serving,
    submit,
)

Opener = Callable[..., tuple[Offloader, list[str]]]
Code = grpc.StatusCode


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_OFFLOAD_TOKEN", raising=False)


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opening("local") as make:
        yield make


# success


def test_an_answer_comes_with_the_event_it_is_for(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, said = opened(endpoint.url())
        for number in range(3):
            submit(offloader, number)
            [answer] = answered(offloader)
            assert answer.event.frame.sequence == number
            assert (answer.model, answer.result.labels) == ("big", (f"mean {10 * number}", "other"))
            assert answer.result.scores.tolist() == [0.875, 0.125]
        assert said == []
        assert endpoint.asked == ["ModelMetadata", "ServerMetadata", *["ModelInfer"] * 3]
        assert {request.model_name for request in endpoint.requests} == {"tiny"}
        assert len({headers["idempotency-key"] for headers in endpoint.headers}) == 3
        assert "edge-run/" in endpoint.headers[0]["user-agent"]


def typed(**contents: Any) -> Any:
    """The good answer, in typed contents."""
    message = response(*OUTPUTS, raw_output_contents=[])
    message.outputs[0].contents.bytes_contents.extend(contents.get("labels", [b"big", b"other"]))
    message.outputs[1].contents.fp32_contents.extend(contents.get("scores", [0.875, 0.125]))
    return message


def test_typed_contents_are_read_as_raw_ones_are(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, said = opened(endpoint.url())
        for message in (response(*OUTPUTS), typed()):
            endpoint.answer = fixed(message)
            submit(offloader, 1)
            [answer] = answered(offloader)
            assert answer.result.labels == ("big", "other")
            assert answer.result.scores.tolist() == [0.875, 0.125]
        assert said == []


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.INTERNAL, Code.UNKNOWN])
def test_a_server_that_takes_no_raw_contents_is_asked_with_typed_ones(opened: Opener, code: grpc.StatusCode) -> None:
    def takes_typed(endpoint: Endpoint, request: Any, context: Any) -> Any:
        if request.raw_input_contents:
            context.abort(code, "typed contents, please")
        return good(endpoint, request, context)

    with serving(takes_typed) as endpoint:
        offloader, said = opened(endpoint.url())
        for number in (1, 2):
            submit(offloader, number)
            assert len(answered(offloader)) == 1
        assert [bool(request.raw_input_contents) for request in endpoint.requests] == [True, False, False]
        assert said == []


def test_what_edge_cloud_only_is_told(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, _ = opened(endpoint.url())
        submit(offloader, 1)
        answered(offloader)
        assert not endpoint.requests[0].parameters
        endpoint.server = fixed(MESSAGES["ServerMetadataResponse"](name="edge-cloud"))
        other, _ = opened(endpoint.url())
        submit(other, 1)
        answered(other)
        assert set(endpoint.requests[1].parameters) == {"local", "source", "captured_at", "key"}
        assert endpoint.requests[1].parameters["key"].string_param == endpoint.headers[1]["idempotency-key"]
        assert endpoint.requests[1].outputs[0].name == "labels"


# what answers badly

BAD_ANSWERS = {
    "garbage": (b"\xff\xfe\xfd", "no ModelInferResponse in 3 bytes"),
    "nothing": (b"", "makes no sense"),
    "one raw content too few": (response(*OUTPUTS, raw_output_contents=[b""]), "1 raw_output_contents for 2 outputs"),
    "short raw contents": (response(*OUTPUTS, raw_output_contents=[b"", b""]), "makes no sense"),
    "an output twice": (response(OUTPUTS[0], OUTPUTS[0]), "output 'labels' stands twice"),
    "no numbers": (typed(scores=[float("nan"), 1.0]), "not finite"),
    "too few numbers": (typed(scores=[1.0]), "takes 8 bytes, 4 are given"),
    "too few labels": (typed(labels=[b"one"]), "1 BYTES given"),
    "another output": (response(OUTPUTS[1]), "makes no sense: 'labels'"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_answers_that_make_no_sense(opened: Opener, name: str) -> None:
    answer, part = BAD_ANSWERS[name]
    with serving(fixed(answer)) as endpoint:
        offloader, said = opened(endpoint.url())
        for number in range(3):
            submit(offloader, number)
            assert answered(offloader) == []
        assert offloader.failed == 3
        assert len(endpoint.requests) == 3
        assert until(lambda: said)
        assert part in said[0]


BAD_MODELS = {
    "garbage": (fixed(b"\xff\xfe\xfd"), "does not speak the Open Inference Protocol v2"),
    "another protocol": (says(Code.UNIMPLEMENTED), "does not speak the Open Inference Protocol v2 (no); start edge-cloud"),
    "an unknown model": (
        says(Code.NOT_FOUND, "unknown"),
        "no model tiny there (unknown); name the model with --offload grpc://",
    ),
    "no picture": (fixed(metadata("labels", "scores", image="FP32")), "model tiny takes no encoded 'image'"),
    "a detector": (fixed(metadata("boxes", "labels", "scores")), "is a detector, the local one a classifier; name another"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_models_that_cannot_be_asked_are_said_at_once(opened: Opener, name: str) -> None:
    model, part = BAD_MODELS[name]
    with serving() as endpoint:
        endpoint.model = model
        offloader, said = opened(endpoint.url())
        submit(offloader, 1)
        assert answered(offloader) == []
        assert until(lambda: said)
        assert part in said[0]
        assert endpoint.requests == []
        endpoint.model = fixed(metadata("labels", "scores"))
        assert until(lambda: offloader.available(time.monotonic()))
        submit(offloader, 2)
        assert len(answered(offloader)) == 1
        assert "answers again" in said[-1]


def test_a_proxy_that_passes_on_models_only(opened: Opener) -> None:
    with serving() as endpoint:
        endpoint.server = says(Code.UNIMPLEMENTED)
        assert asked(endpoint.url()) == (1, [])


STATUSES: dict[grpc.StatusCode, tuple[int, int, str]] = {
    Code.UNAVAILABLE: (2, 0, "status UNAVAILABLE for ModelInfer: no"),
    Code.RESOURCE_EXHAUSTED: (2, 0, "status RESOURCE_EXHAUSTED"),
    Code.DEADLINE_EXCEEDED: (1, 1, "no answer within"),
    Code.UNAUTHENTICATED: (1, 0, "status UNAUTHENTICATED (no); give --offload-token-file"),
    Code.PERMISSION_DENIED: (1, 0, "status PERMISSION_DENIED (no); give --offload-token-file"),
    Code.FAILED_PRECONDITION: (1, 0, "status FAILED_PRECONDITION"),
    Code.OUT_OF_RANGE: (1, 0, "status OUT_OF_RANGE"),
    Code.ABORTED: (1, 0, "status ABORTED"),
    Code.CANCELLED: (1, 0, "status CANCELLED"),
}
"""Status → the fewest requests of a frame, whether it is late, and what is said in the end."""


@pytest.mark.parametrize("code", STATUSES)
def test_what_a_status_means(opened: Opener, code: grpc.StatusCode) -> None:
    fewest, late, part = STATUSES[code]
    with serving(says(code)) as endpoint:
        offloader, said = opened(endpoint.url(), deadline_s=1.0)
        endpoint.server = fixed(MESSAGES["ServerMetadataResponse"](name="edge-cloud"))
        submit(offloader, 1)
        assert answered(offloader) == []
        assert (len(endpoint.requests) >= fewest, len(endpoint.requests) == 1) == (True, fewest == 1)
        assert (offloader.late, offloader.failed) == (late, 1 - late)
        for number in (2, 3):
            if not said:
                submit(offloader, number)
                answered(offloader)
        assert until(lambda: said)
        assert part in said[0]


@pytest.mark.parametrize("trailing", [("retry-after", "1"), ("grpc-retry-pushback-ms", "900")])
def test_a_busy_endpoint_is_asked_again_when_it_said(opened: Opener, trailing: tuple[str, str]) -> None:
    times: list[float] = []

    def busy_once(endpoint: Endpoint, request: Any, context: Any) -> Any:
        times.append(time.monotonic())
        return (good if len(times) > 1 else says(Code.RESOURCE_EXHAUSTED, "busy", trailing))(endpoint, request, context)

    with serving(busy_once) as endpoint:
        assert asked(endpoint.url()) == (1, [])
        assert times[1] - times[0] >= 0.9
        assert endpoint.headers[0]["idempotency-key"] == endpoint.headers[1]["idempotency-key"]


def test_an_answer_without_end_is_not_used(opened: Opener) -> None:
    with serving(fixed(bytes(ANSWER_LIMIT_BYTES + 1))) as endpoint:
        offloader, said = opened(endpoint.url())
        for number in range(3):
            submit(offloader, number)
            assert answered(offloader) == []
        assert until(lambda: said)
        assert said[0].startswith(
            f"offload: grpc://127.0.0.1:{endpoint.port}: an answer of more than {ANSWER_LIMIT_BYTES} bytes;"
        )
        assert len(endpoint.requests) == 3


def test_a_frame_that_is_too_large_for_the_endpoint_is_refused() -> None:
    with serving() as endpoint:
        transport = opened_transport(endpoint)
        message = MESSAGES["ModelInferRequest"](raw_input_contents=[bytes(5 << 20)])
        with pytest.raises(RequestError, match="larger than max") as error:
            transport._call("ModelInfer", message, time.monotonic() + 10)
        assert (error.value.refused, error.value.again, error.value.status) == (True, False, 413)
        transport.close()


# addresses


@pytest.mark.parametrize(
    ("url", "root", "model"),
    [
        ("grpc://host:8001/big", "grpc://host:8001", "big"),
        ("grpcs://host:8001/big/", "grpcs://host:8001", "big"),
        ("grpc://host:8001", "grpc://host:8001", "local"),
        ("grpc://host:8001/v2/models/big", "grpc://host:8001", "big"),
        ("grpc://[::1]:8001/big", "grpc://[::1]:8001", "big"),
    ],
)
def test_urls_that_can_be(url: str, root: str, model: str) -> None:
    address = parse_address(url, "local")
    assert (address.root, address.model, address.by_grpc) == (root, model, True)
    assert address.encrypted == url.startswith("grpcs")


@pytest.mark.parametrize("url", ["grpc://host/big", "grpc://:8001/big", "grpc://host:8001/a/b", "grpc://host:99999/big"])
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(UsageError, match=f"--offload {url}".replace("[", r"\[")):
        parse_address(url, "local")
