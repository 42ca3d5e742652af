"""The routes, in process: what the protocol promises, and that nothing a stranger sends is our error."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.auth import Tokens
from cloud.body import DISCARD_BYTES, unpack
from cloud.errors import RefusedError
from cloud.service import Limits
from edge.engines.fake import FakeEngine
from edge.model import Model
from edge.oip import HEADER_LENGTH, NamedTensor, decode_response, encode_request
from edge.types import Frame, UInt8
from tests.cloud.conftest import LIMIT_BYTES, InProcess, Reply

INFER = "/v2/models/tiny/infer"


def ask(endpoint: InProcess, *inputs: NamedTensor, outputs: tuple[str, ...] = (), binary: bool = True) -> Reply:
    body, headers = encode_request(inputs, outputs, request_id="q7", binary=binary)
    return endpoint("POST", INFER, body, headers)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v2", {"name": "edge-cloud", "extensions": ["binary_tensor_data", "model_repository"]}),
        ("/v2/", {"name": "edge-cloud"}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny/versions/1/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny", {"name": "tiny", "versions": ["1"], "platform": "onnxruntime_onnx"}),
        (
            "/v2/models/tiny/versions/1",
            {
                "inputs": [
                    {"name": "image", "datatype": "BYTES", "shape": [-1]},
                    {"name": "tensor", "datatype": "UINT8", "shape": [-1, 32, 32, 3]},
                ],
                "outputs": [
                    {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
                    {"name": "labels", "datatype": "BYTES", "shape": [-1, 5]},
                    {"name": "scores", "datatype": "FP32", "shape": [-1, 5]},
                ],
            },
        ),
    ],
)
def test_what_can_be_asked(endpoint: InProcess, path: str, answer: dict[str, Any]) -> None:
    reply = endpoint("GET", path)
    assert reply.status == 200
    assert reply.json.items() >= answer.items()


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/none", 404, "unknown model 'none'; this endpoint serves tiny"),
        ("GET", "/v2/models/none/ready", 404, "unknown model 'none'"),
        ("POST", "/v2/models/none/infer", 404, "unknown model 'none'"),
        ("GET", "/v2/models/tiny/versions/2", 404, "tiny has no version '2'; it has 1"),
        ("POST", "/v2/models/tiny/versions/2/infer", 404, "tiny has no version '2'"),
        ("GET", "/v2/models/a\nb\u20ac", 404, "unknown model 'a\\nb\\u20ac'"),
        ("GET", "/", 404, "GET '/': Not Found"),
        ("GET", "/v2/models/tiny/", 404, "Not Found"),
        ("GET", "/v2/repository/index", 405, "Method Not Allowed"),
        ("GET", INFER, 405, "Method Not Allowed"),
        ("DELETE", "/v2/models/tiny", 405, "Method Not Allowed"),
    ],
)
def test_what_is_not_there(endpoint: InProcess, method: str, path: str, status: int, message: str) -> None:
    reply = endpoint(method, path)
    assert reply.status == status
    assert message in reply.json["error"]


def test_a_picture_is_answered_as_the_device_would(endpoint: InProcess, model: Model, picture: UInt8, jpeg: bytes) -> None:
    png = cv2.imencode(".png", picture)[1].tobytes()
    reply = ask(endpoint, NamedTensor.of("image", [png, jpeg, png]))
    assert reply.status == 200
    assert HEADER_LENGTH.lower() in reply.headers
    response = decode_response(reply.body, reply.headers)
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "q7")
    assert response.parameters == {"variant": "float32"}

    tensor = model.task.prepare(Frame(picture, 0, 0.0, "test"))
    outputs = model.engine.infer(tensor)
    result = model.task.decode(outputs, tensor)
    assert response.outputs["logits"].shape == (3, 10)
    for row in (0, 2):
        np.testing.assert_array_equal(response.outputs["logits"].data[row], outputs["logits"][0])  # type: ignore[call-overload]
        np.testing.assert_array_equal(response.outputs["scores"].data[row], result.scores)  # type: ignore[call-overload]
        assert response.outputs["labels"].data[5 * row : 5 * row + 5] == [label.encode() for label in result.labels]


def test_a_prepared_tensor_gives_the_same_as_its_picture(endpoint: InProcess, model: Model, picture: UInt8) -> None:
    png = cv2.imencode(".png", picture)[1].tobytes()
    tensor = model.task.prepare(Frame(picture, 0, 0.0, "test")).data
    replies = [
        ask(endpoint, given, outputs=("logits",))
        for given in (NamedTensor.of("image", [png]), NamedTensor.of("tensor", tensor))
    ]
    assert replies[0].body == replies[1].body


@pytest.mark.parametrize("binary", [True, False])
def test_only_the_outputs_asked_for_come_in_their_order(endpoint: InProcess, jpeg: bytes, binary: bool) -> None:
    reply = ask(endpoint, NamedTensor.of("image", [jpeg]), outputs=("scores", "labels"), binary=binary)
    response = decode_response(reply.body, reply.headers)
    assert list(response.outputs) == ["scores", "labels"]
    assert (HEADER_LENGTH.lower() in reply.headers) == binary
    assert all(("binary_data_size" in tensor.parameters) == binary for tensor in response.outputs.values())


def test_a_json_request_carries_pictures_as_base64(endpoint: InProcess, jpeg: bytes) -> None:
    request = {
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [1, 1],
                "data": [base64.b64encode(jpeg).decode()],
                "parameters": {"content_type": "base64"},
            }
        ]
    }
    reply = endpoint("POST", INFER, json.dumps(request).encode())
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert [(output["name"], output["shape"]) for output in reply.json["outputs"]] == [
        ("logits", [1, 10]),
        ("labels", [1, 5]),
        ("scores", [1, 5]),
    ]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)])
def test_a_compressed_request(endpoint: InProcess, jpeg: bytes, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])
    reply = endpoint("POST", INFER, pack(body), headers | {"Content-Encoding": encoding})
    assert reply.status == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(bytes(200_000)), "gzip", 413),
        (gzip.compress(b"x" * 100)[:-4], "gzip", 400),
        (gzip.compress(b"x") + b"more", "gzip", 400),
        (b"x", "gzip", 400),
        (b"", "deflate", 400),
        (b"x", "br", 415),
    ],
)
def test_a_bad_compressed_body(body: bytes, encoding: str, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        unpack(body, encoding, 100_000)
    assert caught.value.status == status


def image(*data: Any, **changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": list(data)} | changes


def pixels(*shape: int, **changes: Any) -> dict[str, Any]:
    return {"name": "tensor", "datatype": "UINT8", "shape": shape, "data": [0] * int(np.prod(shape))} | changes


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"inputs": []}, "expected one input, image or tensor, got nothing"),
        ({"inputs": [image("x"), pixels(1, 32, 32, 3)]}, "expected one input, image or tensor, got 'image', 'tensor'"),
        ({"inputs": [image("x", name="picture\n")]}, "got 'picture\\n'"),
        ({"inputs": [image("x")]}, "input image, element 0: neither a JPEG nor a PNG"),
        ({"inputs": [image(shape=[0])]}, "a batch of 0, from 1 to 32 are accepted"),
        ({"inputs": [image(*"x" * 33)]}, "a batch of 33, from 1 to 32 are accepted"),
        ({"inputs": [image("x", "y", shape=[1, 2])]}, "input image: expected BYTES [-1], got BYTES [1, 2]"),
        ({"inputs": [image("x", shape=[])]}, "input image: expected BYTES [-1], got BYTES []"),
        ({"inputs": [image(1, datatype="UINT8")]}, "input image: expected BYTES [-1], got UINT8 [1]"),
        ({"inputs": [pixels(1, 2, 2, 3)]}, "input tensor: expected UINT8 [-1, 32, 32, 3], got UINT8 [1, 2, 2, 3]"),
        ({"inputs": [pixels(32, 32, 3)]}, "expected UINT8 [-1, 32, 32, 3], got UINT8 [32, 32, 3]"),
        ({"inputs": [pixels(1, 32, 32, 3, datatype="FP32")]}, "got FP32 [1, 32, 32, 3]"),
        ({"inputs": [pixels(0, 32, 32, 3)]}, "a batch of 0"),
        ({"inputs": [image("x")], "outputs": [{"name": "boxes"}]}, "unknown output 'boxes'; tiny gives logits, labels, scores"),
        (
            {"inputs": [image("x")], "outputs": [{"name": "logits", "parameters": {"classification": 3}}]},
            "classification is not supported; ask for labels and scores",
        ),
        ({"inputs": "x"}, "Expected `array`, got `str` - at `$.inputs`"),
    ],
)
def test_a_malformed_request_is_a_400_of_one_line(endpoint: InProcess, request_: Any, message: str) -> None:
    reply = endpoint("POST", INFER, json.dumps(request_).encode())
    assert reply.status == 400
    assert message in reply.json["error"]
    assert "\n" not in reply.json["error"]
    assert not endpoint.said


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    body=st.binary(max_size=300)
    | st.sampled_from([b"{}", b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}']),
    headers=st.dictionaries(
        st.sampled_from([HEADER_LENGTH, "Content-Length", "Content-Encoding", "Content-Type"]),
        st.sampled_from(["0", "1", "60", "-1", "99999999999", "gzip", "deflate", "²"])
        | st.text(st.characters(max_codepoint=255)),
    ),
)
def test_whatever_comes_is_no_fault_of_ours(endpoint: InProcess, body: bytes, headers: Mapping[str, str]) -> None:
    reply = endpoint("POST", INFER, body, headers)
    assert reply.status in (400, 413, 415)
    assert reply.json["error"]
    assert not endpoint.said


def test_the_pixels_of_one_request_are_bounded(endpoint: InProcess, monkeypatch: pytest.MonkeyPatch, jpeg: bytes) -> None:
    monkeypatch.setattr("cloud.served.REQUEST_PIXEL_LIMIT", 2 * 48 * 64)
    assert ask(endpoint, NamedTensor.of("image", [jpeg] * 2)).status == 200
    reply = ask(endpoint, NamedTensor.of("image", [jpeg] * 3))
    assert reply.status == 400
    assert "more than 6144 pixels in one request; send fewer pictures" in reply.json["error"]


def test_a_body_too_large_is_refused_while_it_arrives(endpoint: InProcess) -> None:
    chunk = bytes(LIMIT_BYTES // 4)
    reply = endpoint("POST", INFER, [chunk] * 5)
    assert reply.status == 413
    assert "larger than 1048576 bytes" in reply.json["error"]
    assert endpoint("POST", INFER, chunk, {"Content-Length": str(DISCARD_BYTES + 1)}).status == 413


def test_a_body_that_never_comes_frees_its_place(endpoint: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.body.STALL_S", 0.02)

    async def scenario() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(10)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b"", "root_path": ""}
        await endpoint.app(scope, receive, send)
        return sent

    for _ in range(17):  # one more than there are places
        start, _ = asyncio.run(scenario())
        assert start["status"] == 408


def test_a_client_that_leaves_is_no_fault_of_ours(endpoint: InProcess) -> None:
    with pytest.raises(IndexError):  # nothing was sent: nobody reads it
        endpoint("POST", INFER, [])
    assert 'requests_total{model="tiny",status="499"} 1' in endpoint("GET", "/metrics").body.decode()
    assert not endpoint.said


class Held:
    """An engine's answer that waits until it is let go, and tells how many calls are inside at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0
        self.inside = 0
        self.most = 0

    def __call__(self, data: UInt8) -> Any:
        self.begun += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.go.wait(10)
        self.inside -= 1
        return np.zeros(10, np.float32)


def test_what_would_wait_too_long_is_refused_at_once(serve: Callable[..., InProcess], model: Model, jpeg: bytes) -> None:
    held = Held()
    held.go.set()
    endpoint = serve(replace(model, engine=FakeEngine(answer=held)), limits=Limits(LIMIT_BYTES, 16 * LIMIT_BYTES, wait_s=1.0))
    held.go.clear()
    endpoint.state.repository.get("tiny").batcher._seconds_each = 0.6
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])

    async def scenario() -> tuple[Reply, Reply, list[Reply]]:
        waiting = [asyncio.create_task(endpoint.request("POST", INFER, body, headers)) for _ in range(2)]
        while not (held.inside and endpoint.state.repository.get("tiny").batcher.waiting == 2):
            await asyncio.sleep(0.001)
        full = await endpoint.request("POST", INFER, body, headers)
        alive = await endpoint.request("GET", "/v2/health/live")
        held.go.set()
        return full, alive, await asyncio.gather(*waiting)

    full, alive, served = asyncio.run(scenario())
    assert full.status == 429
    assert full.headers["retry-after"] == "2"
    assert "would wait 1.2 s, at most 1 s are accepted" in full.json["error"]
    assert alive.status == 200
    assert [reply.status for reply in served] == [200] * 2
    assert held.most == 1
    assert endpoint("POST", INFER, body, headers).status == 200


def test_a_body_of_many_tiny_elements_keeps_nobody_waiting(endpoint: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    served = endpoint.state.repository.get("tiny")
    ask_ = served.ask
    monkeypatch.setattr(served, "ask", lambda *of: (threads.append(threading.current_thread().name), ask_(*of))[1])
    for count in (10, 100_000):
        body, headers = encode_request([NamedTensor.of("image", [b""] * count)])
        assert endpoint("POST", INFER, body, headers).status == 400
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("parse")


def test_a_fault_of_ours_is_json_and_said(endpoint: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint.state.metrics, "text", lambda: 1 / 0)

    async def scenario() -> Any:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b"", "root_path": ""}
        with pytest.raises(ZeroDivisionError):
            await endpoint.app(scope, lambda: asyncio.sleep(9, {}), send)
        return sent

    start, message = asyncio.run(scenario())
    assert start["status"] == 500
    assert json.loads(message["body"])["error"].startswith("internal error")
    assert "ZeroDivisionError" in endpoint.said[0]


def test_bytes_in_memory_are_bounded(serve: Callable[..., InProcess], model: Model, jpeg: bytes) -> None:
    endpoint = serve(model, limits=Limits(LIMIT_BYTES, LIMIT_BYTES // 2))
    reply = endpoint("POST", INFER, [bytes(LIMIT_BYTES // 4)] * 3)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert ask(endpoint, NamedTensor.of("image", [jpeg])).status == 200


def test_a_token(serve: Callable[..., InProcess], model: Model) -> None:
    endpoint = serve(model, tokens=Tokens(["first-token-of-two", "second-token-of-two"]))
    for path in ("/v2/models/tiny", "/metrics", INFER):
        for wrong in ({}, {"Authorization": "Bearer first-token"}, {"Authorization": "Basic first-token-of-two"}):
            reply = endpoint("GET", path, headers=wrong)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert endpoint("GET", "/v2/health/ready").status == 200
    for token in ("first-token-of-two", "second-token-of-two"):
        assert endpoint("GET", "/v2/models/tiny", headers={"Authorization": f"bearer {token}"}).status == 200


def test_a_draining_endpoint_is_not_ready_and_still_answers(endpoint: InProcess, jpeg: bytes) -> None:
    endpoint.state.draining = True
    assert endpoint("GET", "/v2/health/ready").status == 503
    assert endpoint("GET", "/v2/models/tiny/ready").status == 503
    assert endpoint("GET", "/v2/health/live").status == 200
    assert ask(endpoint, NamedTensor.of("image", [jpeg])).status == 200


def test_metrics(endpoint: InProcess, jpeg: bytes) -> None:
    ask(endpoint, NamedTensor.of("image", [jpeg] * 3))
    ask(endpoint, NamedTensor.of("image", [b"x"]))
    text = endpoint("GET", "/metrics").body.decode()
    for line in (
        'edge_cloud_requests_total{model="tiny",status="200"} 1',
        'edge_cloud_requests_total{model="tiny",status="400"} 1',
        'edge_cloud_pictures_total{model="tiny"} 3',
        'edge_cloud_batch_pictures_bucket{model="tiny",le="1.0"} 3',
        'edge_cloud_request_seconds_count{model="tiny",status="200"} 1',
        'edge_cloud_queue_pictures{model="tiny"} 0',
        "edge_cloud_held_bytes 0",
    ):
        assert f"\n{line}\n" in text


def test_a_failing_engine_is_a_500_and_a_line_in_our_output(serve: Callable[..., InProcess], model: Model, jpeg: bytes) -> None:
    endpoint = serve(replace(model, engine=FakeEngine(answer=lambda data: np.full(10, np.nan, np.float32))))
    reply = ask(endpoint, NamedTensor.of("image", [jpeg]))
    assert reply.status == 500
    assert "logits that are not finite" in reply.json["error"]
    assert len(endpoint.said) == 1

    def broken(data: UInt8) -> Any:
        if is_loaded:
            raise ZeroDivisionError("a\nb")
        return np.zeros(10, np.float32)

    is_loaded = False
    endpoint = serve(replace(model, engine=FakeEngine(answer=broken)))
    is_loaded = True
    reply = ask(endpoint, NamedTensor.of("image", [jpeg]))
    assert reply.status == 500
    assert "internal error" in reply.json["error"]
    assert "ZeroDivisionError" in endpoint.said[-1]
