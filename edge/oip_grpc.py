"""The Open Inference Protocol v2 over gRPC, as pure functions: tensors to messages and back.

A tensor's values stand in the message's raw contents, as REST's binary data has them, or in its own typed contents. What
arrives is never trusted, as in `edge.oip`; whatever is wrong is a ProtocolError of one line.

Protocol: https://github.com/kserve/open-inference-protocol (specification/protocol/open_inference_grpc.proto).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge.grpc_messages import CHOICE, MESSAGES
from edge.oip import DTYPES, InferRequest, InferResponse, NamedTensor, ProtocolError, RequestedOutput, from_raw, to_raw

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype → the typed contents that carry it; FP16 has raw contents only."""


def encode_request(
    model_name: str,
    inputs: Sequence[NamedTensor],
    outputs: Sequence[str] = (),
    *,
    request_id: str = "",
    raw: bool = True,
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """The ModelInferRequest for `outputs`, or for all where none is named; not `raw`: with typed contents."""
    tensor, output = MESSAGES["ModelInferRequest.InferInputTensor"], MESSAGES["ModelInferRequest.InferRequestedOutputTensor"]
    described = [
        tensor(name=one.name, datatype=one.datatype, shape=one.shape, parameters=_to_parameters(one.parameters))
        for one in inputs
    ]
    if not raw:
        for given, one in zip(inputs, described, strict=True):
            getattr(one.contents, _contents(given)).extend(given.data if isinstance(given.data, list) else given.data.flat)
    return MESSAGES["ModelInferRequest"](
        model_name=model_name,
        id=request_id,
        parameters=_to_parameters(parameters or {}),
        inputs=described,
        outputs=[output(name=name) for name in outputs],
        raw_input_contents=[to_raw(one) for one in inputs] if raw else (),
    )


def decode_request(message: Any) -> InferRequest:
    """What a ModelInferRequest says, as REST would have it. Raises ProtocolError."""
    inputs = _decode_tensors(message.inputs, message.raw_input_contents, "input")
    outputs = tuple(RequestedOutput(one.name, True, _parameters(one.parameters)) for one in message.outputs)
    return InferRequest(message.id, inputs, outputs, True, _parameters(message.parameters))


def decode_response(message: Any) -> InferResponse:
    """What a ModelInferResponse says, as REST would have it. Raises ProtocolError."""
    outputs = _decode_tensors(message.outputs, message.raw_output_contents, "output")
    return InferResponse(message.model_name, message.model_version, message.id, outputs, _parameters(message.parameters))


def _decode_tensors(tensors: Sequence[Any], raw: Sequence[bytes], kind: str) -> dict[str, NamedTensor]:
    if raw and len(raw) != len(tensors):
        raise ProtocolError(f"{len(raw)} raw_{kind}_contents for {len(tensors)} {kind}s")
    decoded: dict[str, NamedTensor] = {}
    for index, given in enumerate(tensors):
        if given.name in decoded:
            raise ProtocolError(f"{kind} {given.name[:80]!a} stands twice")
        parameters = _parameters(given.parameters)
        if raw:
            decoded[given.name] = from_raw(given.name, given.datatype, given.shape, raw[index], parameters)
        else:
            decoded[given.name] = _typed(given, kind, parameters)
    return decoded


def _typed(given: Any, kind: str, parameters: Mapping[str, Any]) -> NamedTensor:
    """A tensor from its typed contents."""
    shape = tuple(given.shape)
    if given.datatype not in CONTENTS:
        return from_raw(given.name, given.datatype, shape, b"", parameters)  # which says what is wrong
    values = getattr(given.contents, CONTENTS[given.datatype])
    if given.datatype == "BYTES":
        return NamedTensor(given.name, "BYTES", shape, list(values), parameters)
    dtype = DTYPES[given.datatype]
    wide = np.array(values, _wide(dtype))
    if dtype.kind in "iu" and len(wide) and not np.iinfo(dtype).min <= wide.min() <= wide.max() <= np.iinfo(dtype).max:
        raise ProtocolError(f"{kind} {given.name[:80]!a}: its contents hold values beyond the range of {given.datatype}")
    return from_raw(given.name, given.datatype, shape, wide.astype(dtype).tobytes(), parameters)


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What the typed contents hold: integers of up to 32 bits share a field."""
    return np.dtype(f"<{dtype.kind}4") if dtype.kind in "iu" and dtype.itemsize < 4 else dtype


def _contents(tensor: NamedTensor) -> str:
    if tensor.datatype not in CONTENTS:
        raise ProtocolError(f"tensor {tensor.name[:80]!a}: {tensor.datatype} has no typed contents")
    return CONTENTS[tensor.datatype]


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {key: (value, value.WhichOneof(CHOICE)) for key, value in given.items()}
    return {key: getattr(value, choice) for key, (value, choice) in chosen.items() if choice is not None}


def _to_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ProtocolError for a value that the protocol has no parameter for."""
    return {key: _to_parameter(key, value) for key, value in given.items()}


def _to_parameter(key: str, value: Any) -> Any:
    for kind, field in ((bool, "bool_param"), (int, "int64_param"), (float, "double_param"), (str, "string_param")):
        if isinstance(value, kind):
            return MESSAGES["InferParameter"](**{field: value})
    raise ProtocolError(f"parameter {key[:80]!a}: a {type(value).__name__} does not fit into a message")
