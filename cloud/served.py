"""A model as the endpoint serves it: a request's bytes in, an answer's bytes out, on whichever one thread calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloud.answers import ANSWERS, input_specs
from cloud.pictures import PIXEL_LIMIT, decode_bounded
from edge.card import Card
from edge.model import Model
from edge.oip import InferRequest, NamedTensor, ProtocolError, decode_request, encode_response
from edge.types import Frame, Geometry, Tensor

VERSION = "1"
BATCH_LIMIT = 32
REQUEST_PIXEL_LIMIT = 4 * PIXEL_LIMIT
PLATFORMS = {"onnx": "onnxruntime_onnx", "tflite": "tensorflow_tflite"}


class Served:
    """One bundle's model under a name of its own; `answer` is not reentrant, because the engine is not."""

    def __init__(self, model: Model, card: Card, *, name: str | None = None) -> None:
        self.name = name or card.name
        self.variant = model.variant.name
        self.version = VERSION
        self._model = model
        self._inputs = input_specs(card)
        self._answers = ANSWERS[card.task](card)
        self._prepare: dict[str, Callable[[NamedTensor], list[Tensor]]] = {"image": self._pictures, "tensor": self._tensors}

    def metadata(self) -> dict[str, object]:
        """The protocol's model metadata."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORMS[self._model.variant.engine],
            "inputs": [spec.as_json() for spec in self._inputs],
            "outputs": [spec.as_json() for spec in self._answers.specs],
        }

    def answer(self, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        """The body and headers that answer an inference request.

        Raises ProtocolError for a request that is not as the metadata says, DataError for a picture that does not
        decode, and EngineError.
        """
        request = decode_request(body, headers)
        wanted = self._wanted(request)
        answers = []
        for tensor in self._batch(request):
            outputs = self._model.engine.infer(tensor)
            answers.append((outputs, self._model.task.decode(outputs, tensor)))
        tensors = self._answers.tensors(answers)
        return encode_response(
            self.name,
            [tensors[name] for name in wanted],
            model_version=self.version,
            request_id=request.id,
            binary=[name for name, binary in wanted.items() if binary],
            parameters={"variant": self.variant},
        )

    def close(self) -> None:
        """Let go of the engine."""
        self._model.engine.close()

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

    def _batch(self, request: InferRequest) -> list[Tensor]:
        if len(request.inputs) != 1 or not request.inputs.keys() <= self._prepare.keys():
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
        return self._prepare[name](given)

    def _pictures(self, given: NamedTensor) -> list[Tensor]:
        """Decoded and prepared one after another, so that one full-size picture is in memory at a time."""
        prepared = []
        pixels = 0
        for index, raw in enumerate(given.data):
            image = decode_bounded(raw, f"input image, element {index}")
            pixels += image.shape[0] * image.shape[1]
            if pixels > REQUEST_PIXEL_LIMIT:
                raise ProtocolError(f"input image: more than {REQUEST_PIXEL_LIMIT} pixels in one request; send fewer pictures")
            prepared.append(self._model.task.prepare(Frame(image, index, 0.0, "request")))
        return prepared

    def _tensors(self, given: NamedTensor) -> list[Tensor]:
        """Already prepared by the sender."""
        height, width = given.shape[1:3]
        geometry = Geometry((1.0, 1.0), (0.0, 0.0), (width, height))
        return [Tensor(picture[None], geometry) for picture in given.data]  # type: ignore[call-overload]
