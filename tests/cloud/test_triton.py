"""NVIDIA's tritonclient, unmodified, against edge-cloud as a process of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from edge.model import Model
from edge.types import Frame, UInt8
from tests.cloud.conftest import Process

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gevent and geventhttpclient warn while they are imported, not about us
    httpclient = pytest.importorskip("tritonclient.http")
    from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(process: Process) -> Iterator[Any]:
    with httpclient.InferenceServerClient(process.address) as client:
        yield client


@pytest.fixture(scope="module")
def expected(model: Model, jpeg: bytes) -> tuple[UInt8, Any, Any]:
    """The prepared tensor of the JPEG, and what this process makes of it: logits and result."""
    image: Any = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    tensor = model.task.prepare(Frame(image, 0, 0.0, "test"))
    outputs = model.engine.infer(tensor)
    return tensor.data, outputs["logits"], model.task.decode(outputs, tensor)


def bytes_input(*pictures: bytes, shape: list[int] | None = None) -> Any:
    given = httpclient.InferInput("image", shape or [len(pictures)], "BYTES")
    given.set_data_from_numpy(np.array(pictures, np.object_).reshape(shape or [len(pictures)]))
    return given


def tensor_input(tensor: UInt8, binary: bool) -> Any:
    given = httpclient.InferInput("tensor", list(tensor.shape), "UINT8")
    given.set_data_from_numpy(tensor, binary_data=binary)
    return given


def requested(binary: bool, *names: str) -> list[Any]:
    return [httpclient.InferRequestedOutput(name, binary_data=binary) for name in names]


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("tiny", "2")
    assert client.get_server_metadata()["name"] == "edge-cloud"
    metadata = client.get_model_metadata("tiny")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["image", "tensor"]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["logits", "labels", "scores"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_a_tensor_in_binary_and_in_json(
    client: Any, expected: tuple[UInt8, Any, Any], binary_in: bool, binary_out: bool | None
) -> None:
    tensor, logits, result = expected
    outputs = None if binary_out is None else requested(binary_out, "logits", "labels", "scores")
    answer = client.infer("tiny", [tensor_input(tensor, binary_in)], outputs=outputs, request_id="7")
    assert answer.get_response()["id"] == "7"
    np.testing.assert_array_equal(answer.as_numpy("logits"), logits)
    np.testing.assert_array_equal(answer.as_numpy("scores"), [result.scores])
    labels = [label if isinstance(label, str) else label.decode() for label in answer.as_numpy("labels")[0]]
    assert labels == list(result.labels)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_jpegs_as_bytes(
    client: Any, jpeg: bytes, expected: tuple[UInt8, Any, Any], compression: str | None, shape: list[int]
) -> None:
    answer = client.infer(
        "tiny",
        [bytes_input(jpeg, jpeg, jpeg, shape=shape)],
        model_version="1",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    np.testing.assert_array_equal(answer.as_numpy("logits"), np.repeat(expected[1], 3, axis=0))


def test_one_output_in_binary_beside_one_in_json(client: Any, jpeg: bytes) -> None:
    outputs = [*requested(False, "labels"), *requested(True, "scores")]
    answer = client.infer("tiny", [bytes_input(jpeg)], outputs=outputs)
    assert answer.as_numpy("labels").shape == answer.as_numpy("scores").shape == (1, 5)
    assert answer.as_numpy("logits") is None


def test_several_at_once(process: Process, jpeg: bytes, expected: tuple[UInt8, Any, Any]) -> None:
    with httpclient.InferenceServerClient(process.address, concurrency=4) as client:
        waiting = [client.async_infer("tiny", [bytes_input(jpeg)]) for _ in range(12)]
        for request in waiting:
            np.testing.assert_array_equal(request.get_result().as_numpy("logits"), expected[1])


@pytest.mark.parametrize(
    ("model", "picture", "output", "status", "message"),
    [
        ("other", b"x", "logits", "404", "unknown model 'other'; this endpoint serves tiny"),
        (
            "tiny",
            b"x",
            "logits",
            "400",
            "input image, element 0: neither a JPEG nor a PNG, or a damaged one (1 bytes); send a whole one",
        ),
        ("tiny", b"x", "boxes", "400", "unknown output 'boxes'; tiny gives logits, labels, scores"),
    ],
)
def test_errors_arrive_in_our_words(client: Any, model: str, picture: bytes, output: str, status: str, message: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [bytes_input(picture)], outputs=requested(True, output))
    assert caught.value.message() == message
    assert caught.value.status() == status


def test_too_large_is_an_answer_not_a_broken_pipe(client: Any, jpeg: bytes) -> None:
    with pytest.raises(InferenceServerException, match="larger than 16777216 bytes"):
        client.infer("tiny", [bytes_input(bytes(20 << 20))])
    assert client.infer("tiny", [bytes_input(jpeg)]).as_numpy("logits").shape == (1, 10)
