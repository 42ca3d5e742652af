"""The Open Inference Protocol v2 over REST, as pure functions: tensors to bodies and back.

A body is JSON, or JSON followed by the tensors' bytes in order, where the Inference-Header-Content-Length header says
how long the JSON is. What arrives is never trusted: every declared size is checked against the bytes that came before
anything of that size is made, and whatever is wrong is a ProtocolError of one line.

Protocol: https://github.com/kserve/open-inference-protocol (rest); binary tensors: Triton's `extension_binary_data.md`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge.errors import EdgeError

HEADER_LENGTH = "Inference-Header-Content-Length"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""Datatype → its little-endian elements; BYTES, the one other datatype, has elements of any length."""
DATATYPES = {(dtype.kind, dtype.itemsize): name for name, dtype in DTYPES.items()}
JSON_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
RANK_LIMIT = 16
ELEMENT_LIMIT = 1 << 31


class ProtocolError(EdgeError):
    """A body, header or tensor that is not what the protocol says; the message tells what is wrong where."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedTensor:
    """One input or output: `data` is an array of `shape`, or for BYTES a flat list with shape-product elements.

    Decoded arrays are read-only views of the body. Raises ProtocolError when datatype, shape and data disagree.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: npt.NDArray[Any] | list[bytes]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"tensor {_shown(self.name)}"
        count = _count(self.shape, self.datatype, where)
        if isinstance(self.data, list):
            if self.datatype != "BYTES" or len(self.data) != count:
                raise ProtocolError(f"{where}: {len(self.data)} BYTES given for {self.datatype} of shape {list(self.shape)}")
        elif self.data.shape != self.shape or DATATYPES.get((self.data.dtype.kind, self.data.dtype.itemsize)) != self.datatype:
            raise ProtocolError(
                f"{where}: an array {self.data.dtype} {list(self.data.shape)} given for {self.datatype} {list(self.shape)}"
            )

    @classmethod
    def of(cls, name: str, data: npt.NDArray[Any] | list[bytes]) -> NamedTensor:
        """The tensor of an array, or BYTES [n] of a list. Raises ProtocolError for an array the protocol cannot carry."""
        if isinstance(data, list):
            return cls(name, "BYTES", (len(data),), data)
        datatype = DATATYPES.get((data.dtype.kind, data.dtype.itemsize))
        if datatype is None:
            raise ProtocolError(f"tensor {_shown(name)}: no datatype for arrays of {data.dtype}")
        return cls(name, datatype, data.shape, data)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that a request asks for, and whether it wants it as binary data."""

    name: str
    binary: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A decoded request: inputs by name, and the outputs it names; `binary` is for all of them when it names none."""

    id: str
    inputs: dict[str, NamedTensor]
    outputs: tuple[RequestedOutput, ...]
    binary: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """A decoded response: outputs by name, and who answered."""

    model_name: str
    model_version: str
    id: str
    outputs: dict[str, NamedTensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)


class _Tensor(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Wanted(msgspec.Struct, omit_defaults=True):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct, omit_defaults=True):
    inputs: list[_Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Wanted] = []


class _Response(msgspec.Struct, omit_defaults=True):
    model_name: str
    outputs: list[_Tensor]
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_RESPONSE = msgspec.json.Decoder(_Response)
_ANY = msgspec.json.Decoder(Any)


def encode_request(
    inputs: Sequence[NamedTensor],
    outputs: Sequence[str] = (),
    *,
    request_id: str = "",
    binary: bool = True,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """The body and headers that ask for `outputs`, or for all where none is named; `binary` holds both ways."""
    tensors, blobs = _encode_tensors(inputs, {tensor.name for tensor in inputs} if binary else ())
    wanted = [_Wanted(name, {"binary_data": True} if binary else {}) for name in outputs]
    general = dict(parameters or {}) | ({"binary_data_output": True} if binary and not outputs else {})
    return _body(_Request(tensors, request_id, general, wanted), blobs)


def encode_response(
    model_name: str,
    outputs: Sequence[NamedTensor],
    *,
    model_version: str = "",
    request_id: str = "",
    binary: Collection[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """The body and headers of an answer; `binary` names the outputs that go as binary data."""
    tensors, blobs = _encode_tensors(outputs, binary)
    return _body(
        _Response(model_name, tensors, model_version or None, request_id or None, dict(parameters or {}) or None), blobs
    )


def decode_request(body: bytes, headers: Mapping[str, str]) -> InferRequest:
    """What a request says. Raises ProtocolError."""
    head, blob = _split(body, headers)
    request: _Request = _parse(_REQUEST, head, "the request")
    binary = _flag(request.parameters, "binary_data_output", False, "the request")
    outputs = []
    for output in request.outputs:
        wants_binary = _flag(output.parameters, "binary_data", binary, f"output {_shown(output.name)}")
        outputs.append(RequestedOutput(output.name, wants_binary, output.parameters))
    inputs = _decode_tensors(request.inputs, blob, "input")
    return InferRequest(request.id, inputs, tuple(outputs), binary, request.parameters)


def decode_response(body: bytes, headers: Mapping[str, str]) -> InferResponse:
    """What a response says. Raises ProtocolError."""
    head, blob = _split(body, headers)
    response: _Response = _parse(_RESPONSE, head, "the response")
    outputs = _decode_tensors(response.outputs, blob, "output")
    version, said = response.model_version or "", response.parameters or {}
    return InferResponse(response.model_name, version, response.id or "", outputs, said)


def from_raw(
    name: str, datatype: str, shape: Sequence[int], raw: bytes, parameters: Mapping[str, Any] | None = None
) -> NamedTensor:
    """The tensor whose binary data, as gRPC's raw contents carry it, is `raw`. Raises ProtocolError."""
    where = f"tensor {_shown(name)}"
    described = _Tensor(name, datatype, list(shape), dict(parameters or {}))
    data = _from_binary(memoryview(raw), described, _count(shape, datatype, where), where)
    return NamedTensor(name, datatype, tuple(shape), data, described.parameters)


def to_raw(tensor: NamedTensor) -> bytes:
    """The binary data of a tensor, as gRPC's raw contents carry it."""
    return _to_binary(tensor)


def _encode_tensors(tensors: Sequence[NamedTensor], binary: Collection[str]) -> tuple[list[_Tensor], list[bytes]]:
    encoded, blobs = [], []
    for tensor in tensors:
        parameters = {key: value for key, value in tensor.parameters.items() if key != "binary_data_size"}
        data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
        if tensor.name in binary:
            blob = _to_binary(tensor)
            blobs.append(blob)
            parameters["binary_data_size"] = len(blob)
        else:
            data = _to_json(tensor, parameters)
        encoded.append(_Tensor(tensor.name, tensor.datatype, list(tensor.shape), parameters, data))
    return encoded, blobs


def _to_binary(tensor: NamedTensor) -> bytes:
    if isinstance(tensor.data, list):
        return b"".join(chain.from_iterable((len(item).to_bytes(4, "little"), item) for item in tensor.data))
    return tensor.data.astype(DTYPES[tensor.datatype], copy=False).tobytes()


def _to_json(tensor: NamedTensor, parameters: dict[str, Any]) -> msgspec.Raw:
    """The flat `data`; BYTES that are not UTF-8 go as base64, which `parameters` then say."""
    values: list[Any]
    if not isinstance(tensor.data, list):
        if tensor.data.dtype.kind == "f" and not np.isfinite(tensor.data).all():
            raise ProtocolError(f"tensor {_shown(tensor.name)}: values that are not finite do not fit into JSON")
        values = tensor.data.ravel().tolist()
    else:
        try:
            if parameters.get("content_type") == "base64":
                raise UnicodeError
            values = [item.decode() for item in tensor.data]
        except UnicodeError:
            parameters["content_type"] = "base64"
            values = [base64.b64encode(item).decode() for item in tensor.data]
    return msgspec.Raw(msgspec.json.encode(values))


def _body(message: _Request | _Response, blobs: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    head = msgspec.json.encode(message)
    if not blobs:
        return head, {"Content-Type": "application/json"}
    return b"".join((head, *blobs)), {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def _split(body: bytes, headers: Mapping[str, str]) -> tuple[memoryview, memoryview]:
    """The JSON and the binary data of a body."""
    view = memoryview(body)
    text = next((value for key, value in headers.items() if key.lower() == HEADER_LENGTH.lower()), None)
    if text is None:
        return view, view[:0]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ProtocolError(f"header {HEADER_LENGTH} is {_shown(text)}, expected a number of bytes")
    length = int(text)
    if length > len(view):
        raise ProtocolError(f"header {HEADER_LENGTH} is {length}, the body has {len(view)} bytes")
    return view[:length], view[length:]


def _parse(decoder: msgspec.json.Decoder[Any], raw: memoryview | msgspec.Raw, where: str) -> Any:
    """JSON of the decoder's type. Raises ProtocolError for what is not UTF-8, not JSON, or nested absurdly."""
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProtocolError(f"{where}: not as the protocol asks: {reason}") from None


def _flag(parameters: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ProtocolError(f"{where}: parameter {name} is {_shown(value)}, expected true or false")
    return value


def _shown(value: object) -> str:
    """A name or value of unknown origin, quoted on one line of bounded length."""
    text = ascii(value[:80] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _count(shape: Sequence[int], datatype: str, where: str) -> int:
    """How many elements a shape has. Raises ProtocolError for unknown datatypes, negative dimensions, absurd shapes."""
    if datatype not in DTYPES and datatype != "BYTES":
        raise ProtocolError(f"{where}: unknown datatype {_shown(datatype)}; there are {', '.join(DTYPES)}, BYTES")
    if len(shape) > RANK_LIMIT:
        raise ProtocolError(f"{where}: {len(shape)} dimensions, at most {RANK_LIMIT} are possible")
    if min(shape, default=0) < 0:
        raise ProtocolError(f"{where}: shape {_shown(list(shape))} has a negative dimension")
    if math.prod(max(size, 1) for size in shape) > ELEMENT_LIMIT:
        raise ProtocolError(f"{where}: shape {_shown(list(shape))} has more than {ELEMENT_LIMIT} elements")
    return math.prod(shape)


def _decode_tensors(tensors: Sequence[_Tensor], blob: memoryview, kind: str) -> dict[str, NamedTensor]:
    decoded: dict[str, NamedTensor] = {}
    at = 0
    for tensor in tensors:
        where = f"{kind} {_shown(tensor.name)}"
        if tensor.name in decoded:
            raise ProtocolError(f"{where} stands twice")
        count = _count(tensor.shape, tensor.datatype, where)
        data: npt.NDArray[Any] | list[bytes]
        if "binary_data_size" in tensor.parameters:
            if tensor.data is not msgspec.UNSET:
                raise ProtocolError(f"{where} has both data and binary_data_size")
            size = tensor.parameters["binary_data_size"]
            if type(size) is not int or not 0 <= size <= len(blob) - at:
                raise ProtocolError(f"{where}: binary_data_size is {_shown(size)}, {len(blob) - at} bytes are left in the body")
            data = _from_binary(blob[at : at + size], tensor, count, where)
            at += size
        elif tensor.data is msgspec.UNSET:
            raise ProtocolError(f"{where} has neither data nor binary_data_size")
        else:
            data = _from_json(tensor.data, tensor, count, where)
        decoded[tensor.name] = NamedTensor(tensor.name, tensor.datatype, tuple(tensor.shape), data, tensor.parameters)
    if at != len(blob):
        raise ProtocolError(f"{len(blob) - at} bytes of binary data belong to no {kind}")
    return decoded


def _from_binary(blob: memoryview, tensor: _Tensor, count: int, where: str) -> npt.NDArray[Any] | list[bytes]:
    if tensor.datatype == "BYTES":
        return _bytes_elements(blob, count, where)
    dtype = DTYPES[tensor.datatype]
    if len(blob) != count * dtype.itemsize:
        raise ProtocolError(
            f"{where}: {tensor.datatype} {_shown(tensor.shape)} takes {count * dtype.itemsize} bytes, {len(blob)} are given"
        )
    if tensor.datatype == "BOOL" and np.frombuffer(blob, np.uint8).max(initial=0) > 1:
        raise ProtocolError(f"{where}: BOOL bytes are 0 or 1")
    array = np.frombuffer(blob, dtype) if count else np.empty(0, dtype)
    return _finite(np.require(array, requirements="A"), where).reshape(tensor.shape)


def _bytes_elements(blob: memoryview, count: int, where: str) -> list[bytes]:
    """`count` elements, each a little-endian 4-byte length and as many bytes."""
    elements: list[bytes] = []
    at = 0
    while at < len(blob):
        if len(elements) == count:
            raise ProtocolError(f"{where}: {len(blob) - at} bytes are left after its {count} elements")
        start = at + 4
        end = start + int.from_bytes(blob[at:start], "little")
        if start > len(blob) or end > len(blob):
            raise ProtocolError(f"{where}: element {len(elements)} reaches beyond its binary data")
        elements.append(bytes(blob[start:end]))
        at = end
    if len(elements) != count:
        raise ProtocolError(f"{where}: its binary data holds {len(elements)} elements, its shape {count}")
    return elements


def _from_json(raw: msgspec.Raw, tensor: _Tensor, count: int, where: str) -> npt.NDArray[Any] | list[bytes]:
    # every value but the last is followed by a comma, wherever the brackets stand: a lie about the size ends here
    if memoryview(raw).nbytes < count or (tensor.datatype != "BYTES" and count and bytes(raw).count(b",") != count - 1):
        raise ProtocolError(f"{where}: its data does not hold the {count} values of its shape")
    values = _flat(_parse(_ANY, raw, f"{where}: data"), tensor.shape, count, where)
    if tensor.datatype == "BYTES":
        return _strings(values, tensor.parameters.get("content_type") == "base64", where)
    dtype = DTYPES[tensor.datatype]
    if not set(map(type, values)) <= JSON_TYPES[dtype.kind]:
        raise ProtocolError(f"{where}: its data holds values that are not {tensor.datatype}")
    if dtype.kind in "iu" and values and not np.iinfo(dtype).min <= min(values) <= max(values) <= np.iinfo(dtype).max:
        raise ProtocolError(f"{where}: its data holds values beyond the range of {tensor.datatype}")
    try:
        wide = np.array(values, np.float64 if dtype.kind == "f" else dtype)
    except OverflowError:
        raise ProtocolError(f"{where}: its data holds values beyond the range of {tensor.datatype}") from None
    with np.errstate(over="ignore"):
        return _finite(wide.astype(dtype, copy=False), where).reshape(tensor.shape)


def _flat(values: Any, shape: Sequence[int], count: int, where: str) -> list[Any]:
    """`data` as a flat list, whether it came flat or nested like `shape`."""
    if isinstance(values, list) and not (values and isinstance(values[0], list)):
        if len(values) != count:
            raise ProtocolError(f"{where}: shape {_shown(list(shape))} has {count} values, its data {len(values)}")
    else:
        values = [values]
        for size in shape:
            if not all(isinstance(part, list) and len(part) == size for part in values):
                raise ProtocolError(f"{where}: its data is not nested like its shape {_shown(list(shape))}")
            values = list(chain.from_iterable(values))
    return values  # type: ignore[no-any-return]


def _strings(values: list[Any], encoded: bool, where: str) -> list[bytes]:
    if not all(isinstance(value, str) for value in values):
        raise ProtocolError(f"{where}: its data holds values that are not strings")
    if not encoded:
        return [value.encode() for value in values]
    try:
        return [base64.b64decode(value, validate=True) for value in values]
    except (binascii.Error, ValueError):
        raise ProtocolError(f"{where}: its data is not base64, as its content_type says") from None


def _finite(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ProtocolError(f"{where}: holds values that are not finite")
    return array
