"""The gRPC service, asked by tritonclient as it is; our messages against its generated ones."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.app import Endpoint
from edge.model import Model
from edge.types import UInt8
from tests.cloud.conftest import InProcess, Process, running
from tests.cloud.test_app import FakeEngine, Held
from tests.cloud.test_command import asked, refused
from tests.cloud.test_network import CERTIFICATES, TOKEN
from tests.cloud.test_triton import expected  # noqa: F401 -- a fixture

if importlib.util.find_spec("grpc") is None or importlib.util.find_spec("tritonclient") is None:
    pytest.skip(
        "grpcio or tritonclient is not installed; pip install 'edge-run[cloud,grpc]' tritonclient", allow_module_level=True
    )

import grpc
import tritonclient.grpc as client
from tritonclient.grpc import service_pb2 as theirs
from tritonclient.utils import InferenceServerException

from cloud.grpc_service import Methods
from edge.grpc_messages import FIELDS, MESSAGES


@pytest.mark.parametrize("name", FIELDS)
def test_a_message_has_the_numbers_and_types_that_triton_has(name: str) -> None:
    ours = MESSAGES[name].DESCRIPTOR
    other = theirs
    for part in name.split("."):
        other = getattr(other, part)
    known = {field.name: field for field in other.DESCRIPTOR.fields}
    for field in ours.fields:
        want = known[field.name]
        assert (field.number, field.type, field.is_repeated) == (want.number, want.type, want.is_repeated)
        assert (field.containing_oneof is None) == (want.containing_oneof is None)


def grpc_address(endpoint: Process) -> str:
    return f"127.0.0.1:{endpoint.ready.rpartition(' ')[2].strip()}"


@pytest.fixture(scope="module")
def process(bundle: Path) -> Iterator[Process]:
    with running("--model", bundle, "--grpc-port", 0) as endpoint:
        yield endpoint


@pytest.fixture
def triton(process: Process) -> Iterator[Any]:
    with client.InferenceServerClient(grpc_address(process)) as opened:
        yield opened


def image(*pictures: bytes) -> Any:
    given = client.InferInput("image", [len(pictures)], "BYTES")
    given.set_data_from_numpy(np.array(pictures, np.object_))
    return given


def test_health_metadata_and_index(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny")
    with pytest.raises(InferenceServerException, match="unknown model 'other'; this endpoint serves tiny"):
        triton.is_model_ready("other")
    assert triton.get_server_metadata().name == "edge-cloud"
    assert [one.name for one in triton.get_model_metadata("tiny").inputs] == ["image", "tensor"]
    assert [one.state for one in triton.get_model_repository_index().models] == ["READY"]


def test_pictures_and_tensors(triton: Any, jpeg: bytes, expected: tuple[UInt8, Any, Any]) -> None:  # noqa: F811
    tensor, logits, result = expected
    given = client.InferInput("tensor", list(tensor.shape), "UINT8")
    given.set_data_from_numpy(tensor)
    for inputs in ([image(jpeg)], [given]):
        answer = triton.infer("tiny", inputs, request_id="7", model_version="1")
        assert answer.get_response().id == "7"
        np.testing.assert_array_equal(answer.as_numpy("logits"), logits)
        np.testing.assert_array_equal(answer.as_numpy("scores"), [result.scores])
        assert [label.decode() for label in answer.as_numpy("labels")[0]] == list(result.labels)
    only = triton.infer("tiny", [image(jpeg, jpeg)], outputs=[client.InferRequestedOutput("scores")])
    assert only.as_numpy("scores").shape == (2, 5)
    assert only.as_numpy("logits") is None


def test_a_call_that_is_given_up_is_no_fault_of_ours(serve: Callable[..., InProcess], model: Model, jpeg: bytes) -> None:
    held = Held()
    held.go.set()
    endpoint = serve(replace(model, engine=FakeEngine(answer=held)))
    held.go.clear()
    tensor = MESSAGES["ModelInferRequest.InferInputTensor"](name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(jpeg)
    request = MESSAGES["ModelInferRequest"](model_name="tiny", inputs=[tensor])

    async def scenario() -> None:
        assert isinstance(endpoint.app, Endpoint)
        call = asyncio.create_task(Methods(endpoint.app.service).by_name["ModelInfer"](request, {}))  # type: ignore[arg-type]
        while not held.inside:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        held.go.set()

    asyncio.run(scenario())
    assert 'requests_total{model="tiny",status="499"} 1' in endpoint.state.metrics.text()


@pytest.mark.parametrize(
    ("model", "picture", "status", "message"),
    [
        ("other", b"x", "NOT_FOUND", "unknown model 'other'"),
        ("tiny", b"x", "INVALID_ARGUMENT", "input image, element 0: neither a JPEG nor a PNG"),
    ],
)
def test_errors(triton: Any, model: str, picture: bytes, status: str, message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        triton.infer(model, [image(picture)])
    assert caught.value.status() == f"StatusCode.{status}"


def test_typed_contents(process: Process, jpeg: bytes) -> None:
    request, tensor = MESSAGES["ModelInferRequest"], MESSAGES["ModelInferRequest.InferInputTensor"]
    contents = MESSAGES["InferTensorContents"]
    with grpc.insecure_channel(grpc_address(process)) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=request.SerializeToString,
            response_deserializer=MESSAGES["ModelInferResponse"].FromString,
        )
        good = [
            tensor(name="image", datatype="BYTES", shape=[1], contents=contents(bytes_contents=[jpeg])),
            tensor(name="tensor", datatype="UINT8", shape=[1, 32, 32, 3], contents=contents(uint_contents=[7] * 3072)),
        ]
        for one in good:
            assert len(call(request(model_name="tiny", inputs=[one])).raw_output_contents) == 3
        bad = [
            [tensor(name="tensor", datatype="UINT8", shape=[1, 32, 32, 3], contents=contents(uint_contents=[256] * 3072))],
            [tensor(name="tensor", datatype="FP32", shape=[1], contents=contents(fp32_contents=[1.0]))],
            [tensor(name="image", datatype="BYTES", shape=[2], contents=contents(bytes_contents=[jpeg]))],
            [good[0], good[0]],
            [],
        ]
        for inputs in bad:
            with pytest.raises(grpc.RpcError) as caught:
                call(request(model_name="tiny", inputs=inputs))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError, match="1 raw_input_contents for 0 inputs"):
            call(request(model_name="tiny", raw_input_contents=[b"x"]))


def test_calls_and_connections_that_say_nothing_end(bundle: Path, jpeg: bytes) -> None:
    run = (
        "import cloud.body; cloud.body.READ_S = 0.5; import cloud.connections; cloud.connections.CONNECTION_LIMIT = 4; "
        "import cloud.grpc_service as service; service.CONNECTIONS['max_connection_idle_ms'] = 1000; "
        "from cloud.cli import main; main()"
    )
    with ExitStack() as stack:
        endpoint = stack.enter_context(running("--model", bundle, "--grpc-port", 0, program=["-c", run]))
        channel = stack.enter_context(grpc.insecure_channel(grpc_address(endpoint)))
        silent = threading.Event()
        stack.callback(silent.set)

        def nothing() -> Iterator[bytes]:
            silent.wait(20)
            yield from ()

        infer = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        held = [infer.future(nothing()) for _ in range(3)]
        for one in held:
            assert one.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert "the request did not arrive within 0.5 s" in one.details()
        for garbage in ((), (b"\xff\xff",)):
            with pytest.raises(grpc.RpcError, match="the call brought no message of its type") as caught:
                infer(iter(garbage))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        host, port = grpc_address(endpoint).split(":")
        idle = [stack.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(8)]
        assert idle[-1].recv(1) == b""
        for sock in idle:
            while sock.recv(100):  # its settings, and that it has been idle
                pass
        with client.InferenceServerClient(grpc_address(endpoint)) as opened:
            assert opened.infer("tiny", [image(jpeg)]).as_numpy("scores").shape == (1, 5)
        assert endpoint.end() == (0, "")


def test_a_token_and_tls(bundle: Path, tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "tokens").write_text(TOKEN)
    tls = ("--tls-cert", CERTIFICATES / "server.pem", "--tls-key", CERTIFICATES / "server.key")
    with running("--model", bundle, "--grpc-port", 0, "--token-file", tmp_path / "tokens", *tls) as endpoint:
        where = grpc_address(endpoint).replace("127.0.0.1", "localhost")
        with client.InferenceServerClient(where, ssl=True, root_certificates=str(CERTIFICATES / "ca.pem")) as opened:
            assert opened.is_server_ready()
            with pytest.raises(InferenceServerException, match="a bearer token is needed"):
                opened.infer("tiny", [image(jpeg)])
            answer = opened.infer("tiny", [image(jpeg)], headers={"authorization": f"Bearer {TOKEN}"})
            assert answer.as_numpy("scores").shape == (1, 5)
        assert endpoint.end() == (0, "")


def test_a_taken_port_and_one_for_several(process: Process, bundle: Path) -> None:
    taken = grpc_address(process).rpartition(":")[2]
    code, said = refused("--model", bundle, "--port", 0, "--grpc-port", taken)
    assert code == 1
    assert said == f"edge-cloud: cannot listen on 127.0.0.1:{taken} for gRPC; choose another --grpc-port\n"
    assert "several --workers share one port" in refused("--grpc-port", 0, "--workers", 2)[1]
    assert asked(process.address, "GET", "/v2/health/ready") == 200
