"""A small real gRPC endpoint on loopback that speaks the protocol, or misbehaves as a test asks; and what asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import cv2
import grpc
import numpy as np

from edge.grpc_messages import MESSAGES, SERVICE
from edge.offload import Answer as Answered
from edge.offload import Offloader
from edge.offload.address import parse_address
from edge.offload.credentials import Credentials
from edge.offload.grpc_transport import GrpcTransport
from edge.oip import NamedTensor, to_raw
from edge.oip_grpc import decode_request
from tests.endpoint import until
from tests.samples import event, frame, plain

Answer = Callable[["Endpoint", Any, Any], Any]
"""Of the endpoint, a ModelInferRequest and the call's context: a ModelInferResponse, or bytes."""
OUTPUTS = [
    NamedTensor.of("labels", [b"big", b"other"]),
    NamedTensor.of("scores", np.array([0.875, 0.125], np.float32)),
]


def response(*outputs: NamedTensor, **more: Any) -> Any:
    """The message with these outputs as raw contents."""
    described = [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in outputs]
    fields = {"model_name": "big", "outputs": described, "raw_output_contents": [to_raw(one) for one in outputs]}
    return MESSAGES["ModelInferResponse"](**(fields | more))


def metadata(*outputs: str, image: str = "BYTES") -> Any:
    """The message for a model that takes `image` and gives these outputs."""
    return MESSAGES["ModelMetadataResponse"](
        name="tiny",
        inputs=[{"name": "image", "datatype": image, "shape": [-1]}],
        outputs=[{"name": name, "datatype": "FP32", "shape": [-1]} for name in outputs],
    )


def good(endpoint: Endpoint, request: Any, context: Any) -> Any:
    """Two classes, the first named after the mean of the picture that came."""
    jpeg = decode_request(request).inputs["image"].data[0]
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    labels = NamedTensor.of("labels", [f"mean {round(image.mean())}".encode(), b"other"])
    return response(labels, OUTPUTS[1])


def hangs(endpoint: Endpoint, request: Any, context: Any) -> Any:
    """No answer until the server is closed."""
    endpoint.released.wait(60)
    return response(*OUTPUTS)


def fixed(answer: Any) -> Answer:
    """Always the same."""
    return lambda endpoint, request, context: answer


def says(code: grpc.StatusCode, details: str = "no", *trailing: tuple[str, str]) -> Answer:
    """Always this error."""

    def answer(endpoint: Endpoint, request: Any, context: Any) -> Any:
        context.set_trailing_metadata(trailing)
        context.abort(code, details)

    return answer


class Endpoint:
    """What the server does: change `answer`, `model` and `server` at any time."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.model: Answer = fixed(metadata("labels", "scores"))
        self.server: Answer = fixed(MESSAGES["ServerMetadataResponse"](name="test"))
        self.requests: list[Any] = []
        self.headers: list[dict[str, Any]] = []
        self.asked: list[str] = []
        """The methods that were called."""
        self.released = threading.Event()
        self.port = 0

    def url(self, scheme: str = "grpc", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}/tiny"


@contextmanager
def serving(
    answer: Answer = good, port: int = 0, tls: grpc.ServerCredentials | None = None, **options: int
) -> Iterator[Endpoint]:
    """Serve on loopback until left, over TLS where credentials are given; `options` are gRPC's."""
    endpoint = Endpoint(answer)

    def call(method: str, body: bytes, context: Any) -> bytes:
        endpoint.asked.append(method)
        request = MESSAGES[f"{method}Request"].FromString(body)
        answers = {"ModelInfer": endpoint.answer, "ModelMetadata": endpoint.model, "ServerMetadata": endpoint.server}
        if method == "ModelInfer":
            endpoint.requests.append(request)
            endpoint.headers.append(dict(context.invocation_metadata()))
        given = answers[method](endpoint, request, context)
        return given if isinstance(given, bytes) else bytes(given.SerializeToString())

    handlers = {
        method: grpc.unary_unary_rpc_method_handler(lambda body, context, method=method: call(method, body, context))
        for method in ("ModelInfer", "ModelMetadata", "ServerMetadata")
    }
    server = grpc.server(
        futures.ThreadPoolExecutor(8),
        options=[(f"grpc.{name}", value) for name, value in ({"so_reuseport": 0} | options).items()],
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    where = f"127.0.0.1:{port}"
    endpoint.port = server.add_insecure_port(where) if tls is None else server.add_secure_port(where, tls)
    server.start()
    try:
        yield endpoint
    finally:
        endpoint.released.set()
        server.stop(0).wait()


def submit(offloader: Offloader, *sequences: int) -> None:
    """A frame of one grey for each."""
    for sequence in sequences:
        offloader.submit(event(frame(plain(10 * sequence), sequence, time.monotonic()), action="offload"))


def answered(offloader: Offloader) -> list[Answered]:
    """What was answered once every frame submitted is answered or counted."""
    assert until(lambda: offloader.idle)
    return offloader.answers()


def asked(url: str, **more: Any) -> tuple[int, list[str]]:
    """Whether a frame was answered, and what was said."""
    said: list[str] = []
    offloader = Offloader(url, "local", say=said.append, **more)
    try:
        submit(offloader, 1)
        return len(answered(offloader)), said
    finally:
        offloader.close()


def opened_transport(endpoint: Endpoint) -> GrpcTransport:
    """What asks it, without the offloader."""
    return GrpcTransport(parse_address(endpoint.url(), "x"), Credentials(), connect_s=2.0)
