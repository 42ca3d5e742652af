"""A model as the endpoint serves it: what a request asks of it, and what its answers are in bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cloud.answers import ANSWERS, input_specs
from cloud.batching import Answer, Batcher, Work
from cloud.metrics import Metrics
from cloud.pictures import PIXEL_LIMIT, decode_bounded
from edge.card import Card
from edge.errors import UsageError
from edge.model import Model
from edge.oip import InferRequest, NamedTensor, ProtocolError, decode_request, encode_response
from edge.types import Frame, Geometry, Result, Tensor

VERSION = "1"
BATCH_LIMIT = 32
REQUEST_PIXEL_LIMIT = 4 * PIXEL_LIMIT
PLATFORMS = {"onnx": "onnxruntime_onnx", "tflite": "tensorflow_tflite"}
BATCH_WAIT_S = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request that is as the metadata says: its pictures to prepare, its outputs → whether as binary data."""

    request: InferRequest
    wanted: Mapping[str, bool]
    pictures: Sequence[Callable[[], Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A response's outputs, what the model saw in each picture of the request, and the variant that did."""

    outputs: Sequence[NamedTensor]
    results: Sequence[Result]
    variant: str


class Served:
    """One bundle's model under a name of its own, and the lanes that work for it."""

    def __init__(
        self,
        model: Model,
        card: Card,
        *,
        name: str | None = None,
        metrics: Metrics | None = None,
        batch_wait_s: float = BATCH_WAIT_S,
    ) -> None:
        if card.task not in ANSWERS:
            raise UsageError(
                f"{card.name}: its task is {card.task}, edge-cloud serves {' and '.join(ANSWERS)}; choose another --model"
            )
        self.name = name or card.name
        self.card = card
        self.variant = model.variant.name
        self.version = VERSION
        self._model = model
        self._inputs = input_specs(card)
        self._answers = ANSWERS[card.task](card)
        self._pictures: dict[str, Callable[[NamedTensor], list[Callable[[], Tensor]]]] = {
            "image": self._encoded,
            "tensor": self._prepared,
        }
        size_wh = (card.input.width, card.input.height)
        self.batcher = Batcher(model, self.name, size_wh, metrics or Metrics(), wait_s=batch_wait_s)

    def metadata(self) -> dict[str, object]:
        """The protocol's model metadata."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORMS[self._model.variant.engine],
            "inputs": [spec.as_json() for spec in self._inputs],
            "outputs": [spec.as_json() for spec in self._answers.specs],
        }

    def ask(self, body: bytes, headers: Mapping[str, str]) -> Asked:
        """What a REST request asks. Raises ProtocolError for one that is not as the metadata says."""
        if not body:
            raise ProtocolError("the body is empty; send a request of the protocol, with its inputs")
        return self.check(decode_request(body, headers))

    def check(self, request: InferRequest) -> Asked:
        """What a decoded request asks. Raises ProtocolError for one that is not as the metadata says."""
        return Asked(request, self._wanted(request), self._batch(request))

    def submit(self, asked: Asked, done: Callable[[Answered | Exception], None]) -> Work:
        """Have it answered; `done` runs on another thread. Raises RetiredError.

        The error may be DataError or ProtocolError, for pictures that cannot be decoded, or EngineError.
        """

        def finish(answers: list[Answer] | Exception) -> None:
            try:
                done(answers if isinstance(answers, Exception) else self._answered(asked, answers))
            except Exception as error:
                done(error)

        work = Work(asked.pictures, finish)
        self.batcher.submit(work)
        return work

    def encode(self, asked: Asked, answered: Answered) -> tuple[bytes, dict[str, str]]:
        """The body and headers of a REST answer."""
        return encode_response(
            self.name,
            answered.outputs,
            model_version=self.version,
            request_id=asked.request.id,
            binary=[name for name, binary in asked.wanted.items() if binary],
            parameters={"variant": answered.variant},
        )

    def retire(self) -> None:
        """Take no more requests, answer those accepted, then let go of the engine; returns at once."""
        self.batcher.retire()

    def _answered(self, asked: Asked, answers: list[Answer]) -> Answered:
        tensors = self._answers.tensors(answers)
        return Answered([tensors[name] for name in asked.wanted], [result for _, result in answers], self.variant)

    def _wanted(self, request: InferRequest) -> dict[str, bool]:
        """The outputs to give → whether as binary data."""
        known = [spec.name for spec in self._answers.specs]
        for output in request.outputs:
            if output.name not in known:
                raise ProtocolError(f"unknown output {output.name[:80]!a}; {self.name} gives {', '.join(known)}")
            for parameter in ("classification", "shared_memory_region"):
                if parameter in output.parameters:
                    raise ProtocolError(f"output {output.name}: {parameter} is not supported; ask for labels and scores")
        if not request.outputs:
            return dict.fromkeys(known, request.binary)
        return {output.name: output.binary for output in request.outputs}

    def _batch(self, request: InferRequest) -> list[Callable[[], Tensor]]:
        if len(request.inputs) != 1 or not request.inputs.keys() <= self._pictures.keys():
            names = ", ".join(ascii(name[:80]) for name in list(request.inputs)[:5]) or "nothing"
            raise ProtocolError(f"expected one input, image or tensor, got {names}")
        ((name, given),) = request.inputs.items()
        spec = next(spec for spec in self._inputs if spec.name == name)
        shape = given.shape[:1] if name == "image" and given.shape[1:] == (1,) else given.shape  # [n, 1]: Triton's habit
        if given.datatype != spec.datatype or shape[1:] != spec.shape[1:] or len(shape) != len(spec.shape):
            raise ProtocolError(
                f"input {name}: expected {spec.datatype} {list(spec.shape)}, got {given.datatype} {list(given.shape)}"
            )
        if not 1 <= shape[0] <= BATCH_LIMIT:
            raise ProtocolError(f"input {name}: a batch of {shape[0]}, from 1 to {BATCH_LIMIT} are accepted")
        return self._pictures[name](given)

    def _encoded(self, given: NamedTensor) -> list[Callable[[], Tensor]]:
        """To be decoded and prepared on a lane, so that as many full-size pictures are in memory as there are lanes."""
        pixels = _Pixels()
        return [partial(self._decode, raw, index, pixels) for index, raw in enumerate(given.data)]

    def _decode(self, raw: bytes, index: int, pixels: _Pixels) -> Tensor:
        image = decode_bounded(raw, f"input image, element {index}")
        pixels.add(image.shape[0] * image.shape[1])
        return self._model.task.prepare(Frame(image, index, 0.0, "request"))

    def _prepared(self, given: NamedTensor) -> list[Callable[[], Tensor]]:
        """Already prepared by the sender."""
        height, width = given.shape[1:3]
        geometry = Geometry((1.0, 1.0), (0.0, 0.0), (width, height))
        return [partial(Tensor, picture[None], geometry) for picture in given.data]  # type: ignore[call-overload]


class _Pixels:
    """Those of one request, whichever lane decodes them."""

    def __init__(self) -> None:
        self._seen = 0

    def add(self, count: int) -> None:
        self._seen += count
        if self._seen > REQUEST_PIXEL_LIMIT:
            raise ProtocolError(f"input image: more than {REQUEST_PIXEL_LIMIT} pixels in one request; send fewer pictures")
