"""The protocol's codec: what goes in comes out, and whatever else arrives is one ProtocolError of one line."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.oip import (
    DTYPES,
    HEADER_LENGTH,
    NamedTensor,
    ProtocolError,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
PARAMETERS = st.dictionaries(
    st.sampled_from(["content_type", "priority", "note"]), st.booleans() | st.integers(-9, 9) | st.sampled_from(["base64", "x"])
)


def elements(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    return hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False) if dtype.kind == "f" else hnp.from_dtype(dtype)


@st.composite
def tensors(draw: st.DrawFn) -> NamedTensor:
    name, datatype, shape = draw(NAMES), draw(st.sampled_from([*DTYPES, "BYTES"])), draw(SHAPES)
    data: Any
    if datatype == "BYTES":
        count = int(np.prod(shape))
        data = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
    else:
        data = draw(hnp.arrays(DTYPES[datatype], shape, elements=elements(DTYPES[datatype])))
    return NamedTensor(name, datatype, shape, data, draw(PARAMETERS))


BATCHES = st.lists(tensors(), max_size=3, unique_by=lambda tensor: tensor.name)


def only_protocol_errors(decode: Any, body: bytes, headers: dict[str, str]) -> None:
    """Decoding succeeds or raises a ProtocolError of one bounded line; any other exception fails the test."""
    complaint = ""
    try:
        decode(body, headers)
    except ProtocolError as error:
        complaint = str(error)
    assert "\n" not in complaint
    assert len(complaint) < 400


def assert_same(got: NamedTensor, want: NamedTensor) -> None:
    assert (got.name, got.datatype, got.shape) == (want.name, want.datatype, want.shape)
    if isinstance(want.data, list):
        assert got.data == want.data
    else:
        assert isinstance(got.data, np.ndarray)
        assert got.data.dtype == want.data.dtype
        np.testing.assert_array_equal(got.data, want.data)
        assert got.data.shape == want.shape


@given(BATCHES, st.lists(NAMES, max_size=3), NAMES, st.booleans())
def test_a_request_comes_out_as_it_went_in(
    inputs: list[NamedTensor], outputs: list[str], request_id: str, binary: bool
) -> None:
    request = decode_request(*encode_request(inputs, outputs, request_id=request_id, binary=binary))
    assert request.id == request_id
    assert [(output.name, output.binary) for output in request.outputs] == [(name, binary) for name in outputs]
    assert request.binary == (binary and not outputs)
    assert list(request.inputs) == [tensor.name for tensor in inputs]
    for tensor in inputs:
        assert_same(request.inputs[tensor.name], tensor)


@given(BATCHES, st.data())
def test_a_response_comes_out_as_it_went_in(outputs: list[NamedTensor], data: st.DataObject) -> None:
    names = [tensor.name for tensor in outputs]
    binary = data.draw(st.sets(st.sampled_from(names))) if names else set()
    body, headers = encode_response("m", outputs, model_version="7", request_id="q", binary=binary, parameters={"variant": "v"})
    response = decode_response(body, {key.swapcase(): value for key, value in headers.items()})
    assert (response.model_name, response.model_version, response.id) == ("m", "7", "q")
    assert response.parameters == {"variant": "v"}
    assert list(response.outputs) == names
    for tensor in outputs:
        assert_same(response.outputs[tensor.name], tensor)


@given(st.binary(max_size=200), st.none() | st.integers(-5, 300).map(str) | st.text(max_size=5))
def test_arbitrary_bytes_only_ever_give_a_protocol_error(body: bytes, length: str | None) -> None:
    for decode in (decode_request, decode_response):
        only_protocol_errors(decode, body, {} if length is None else {HEADER_LENGTH: length})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    name=st.just("x") | JSON,
    datatype=st.sampled_from([*DTYPES, "BYTES"]) | JSON,
    shape=st.lists(st.integers(-1, 4), max_size=3) | JSON,
    parameters=st.none() | st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | JSON}) | JSON,
    data=st.none() | st.lists(st.integers(-300, 300), max_size=6) | JSON,
    blob=st.binary(max_size=20),
)
def test_almost_right_requests_only_ever_give_a_protocol_error(blob: bytes, **tensor: Any) -> None:
    head = json.dumps({"inputs": [{key: value for key, value in tensor.items() if value is not None}]}).encode()
    only_protocol_errors(decode_request, head + blob, {HEADER_LENGTH: str(len(head))})


@given(BATCHES, st.data())
def test_a_damaged_request_only_ever_gives_a_protocol_error(inputs: list[NamedTensor], data: st.DataObject) -> None:
    body, headers = encode_request(inputs)
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + data.draw(st.binary(max_size=2)) + body[at + data.draw(st.integers(0, 3)) :]
    only_protocol_errors(decode_request, damaged, headers)


def tensor(**changes: Any) -> dict[str, Any]:
    """A good JSON tensor with some fields changed, or left out where they are None."""
    fields = {"name": "x", "datatype": "UINT8", "shape": [2, 2], "data": [1, 2, 3, 4]} | changes
    return {key: value for key, value in fields.items() if value is not None}


def sized(size: Any, **changes: Any) -> dict[str, Any]:
    return tensor(data=None, parameters={"binary_data_size": size}, **changes)


MALFORMED: list[tuple[Any, bytes, str]] = [
    # tensors, binary data, what the message says
    ([tensor(name=3)], b"", "Expected `str`, got `int` - at `$.inputs[0].name`"),
    ([tensor(name=None)], b"", "missing required field `name`"),
    ([tensor(shape=None)], b"", "missing required field `shape`"),
    ([tensor(datatype="UINT7")], b"", "input 'x': unknown datatype 'UINT7'"),
    ([tensor(datatype="BF16")], b"", "unknown datatype 'BF16'"),
    ([tensor(shape=[2, "2"])], b"", "$.inputs[0].shape[1]"),
    ([tensor(shape=[2, True])], b"", "Expected `int`, got `bool`"),
    ([tensor(shape=[-1, 2])], b"", "input 'x': shape [-1, 2] has a negative dimension"),
    ([tensor(shape=[1] * 17)], b"", "17 dimensions"),
    ([tensor(shape=[1 << 40, 1 << 40])], b"", "has more than 2147483648 elements"),
    ([tensor(shape=[0, 1 << 62, 1 << 62], data=[])], b"", "has more than 2147483648 elements"),
    ([tensor(shape=[10**4000])], b"", "has more than 2147483648 elements"),
    ([tensor(shape=[2, 3])], b"", "does not hold the 6 values"),
    ([tensor(shape=[1 << 31])], b"", "does not hold the 2147483648 values"),
    ([tensor(data=[[1, 2, 3], [4]])], b"", "not nested like its shape [2, 2]"),
    ([tensor(data=[[1, 2], 3, 4])], b"", "not nested like its shape"),
    ([tensor(data=[1, [2], 3, 4], shape=[4])], b"", "values that are not UINT8"),
    ([tensor(data={"1": 2, "3": 4, "5": 6, "7": 8})], b"", "not nested"),
    ([tensor(data="1,2,3,4")], b"", "not nested"),
    ([tensor(data=[1, 2, 3, 256])], b"", "beyond the range of UINT8"),
    ([tensor(data=[1, 2, 3, -1])], b"", "beyond the range of UINT8"),
    ([tensor(data=[1, 2, 3, 10**4000])], b"", "beyond the range of UINT8"),
    ([tensor(data=[1, 2, 3, 4.0])], b"", "values that are not UINT8"),
    ([tensor(data=[1, 2, 3, True])], b"", "values that are not UINT8"),
    ([tensor(data=[1, 0, 1, 0], datatype="BOOL")], b"", "values that are not BOOL"),
    ([tensor(data=["1", 2, 3, 4], datatype="FP32")], b"", "values that are not FP32"),
    ([tensor(data=[1e39, 2, 3, 4], datatype="FP32")], b"", "not finite"),
    ([tensor(data=[70000, 2, 3, 4], datatype="FP16")], b"", "not finite"),
    ([tensor(data=[10**400, 2, 3, 4], datatype="FP64")], b"", "beyond the range of FP64"),
    ([tensor(data=[1, 2, 3, 4], datatype="BYTES")], b"", "values that are not strings"),
    ([tensor(data=["a", "b"], datatype="BYTES")], b"", "has 4 values, its data 2"),
    (
        [tensor(data=["a!", "b", "c", "d"], datatype="BYTES", parameters={"content_type": "base64"})],
        b"",
        "not base64, as its content_type says",
    ),
    (
        [tensor(data=["é", "b", "c", "d"], datatype="BYTES", parameters={"content_type": "base64"})],
        b"",
        "not base64, as its content_type says",
    ),
    ([tensor(data=None)], b"", "input 'x' has neither data nor binary_data_size"),
    ([tensor(data=None, parameters={"shared_memory_region": "r"})], b"", "neither data nor binary_data_size"),
    ([tensor(parameters={"binary_data_size": 4})], b"abcd", "has both data and binary_data_size"),
    ([tensor(parameters=[])], b"", "$.inputs[0].parameters"),
    ([tensor(), tensor()], b"", "input 'x' stands twice"),
    ([sized(-1)], b"abcd", "binary_data_size is -1, 4 bytes are left"),
    ([sized(5)], b"abcd", "binary_data_size is 5, 4 bytes are left"),
    ([sized(10**4000)], b"abcd", "4 bytes are left"),
    ([sized("4")], b"abcd", "binary_data_size is '4'"),
    ([sized(True)], b"a", "binary_data_size is True"),
    ([sized(4.0)], b"abcd", "binary_data_size is 4.0"),
    ([sized(None)], b"abcd", "binary_data_size is None"),
    ([sized(3)], b"abcd", "UINT8 [2, 2] takes 4 bytes, 3 are given"),
    ([sized(4)], b"abcde", "1 bytes of binary data belong to no input"),
    ([sized(4), sized(4, name="y")], b"abcdef", "input 'y': binary_data_size is 4, 2 bytes are left"),
    ([sized(4, shape=[1 << 20, 1 << 11])], b"abcd", "takes 2147483648 bytes, 4 are given"),
    ([sized(4, datatype="BOOL")], b"\0\1\2\1", "BOOL bytes are 0 or 1"),
    ([sized(8, datatype="FP32", shape=[2])], b"\0\0\x80\x7f\0\0\0\0", "not finite"),
    ([sized(2, datatype="FP16", shape=[1])], b"\x00\x7e", "not finite"),
    ([sized(4, datatype="BYTES", shape=[1])], b"\1\0\0\0", "element 0 reaches beyond"),
    ([sized(3, datatype="BYTES", shape=[1])], b"\0\0\0", "element 0 reaches beyond"),
    ([sized(5, datatype="BYTES", shape=[1])], b"\xff\xff\xff\xffa", "element 0 reaches beyond"),
    ([sized(5, datatype="BYTES", shape=[2])], b"\1\0\0\0a", "holds 1 elements, its shape 2"),
    ([sized(9, datatype="BYTES", shape=[1])], b"\1\0\0\0a\0\0\0\0", "4 bytes are left after its 1 elements"),
    ([sized(0, datatype="BYTES", shape=[1 << 31])], b"", "holds 0 elements, its shape 2147483648"),
    ([tensor(name="a\nb" * 99, datatype="?\n")], b"", "input 'a\\nb"),
]


@pytest.mark.parametrize(("inputs", "blob", "message"), MALFORMED)
def test_a_malformed_tensor_is_one_line_that_says_what_is_wrong_where(inputs: Any, blob: bytes, message: str) -> None:
    head = json.dumps({"inputs": inputs}).encode()
    with pytest.raises(ProtocolError) as caught:
        decode_request(head + blob, {HEADER_LENGTH: str(len(head))})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("body", "length", "message"),
    [
        (b"", None, "the request: not as the protocol asks: Input data was truncated"),
        (b"[]", None, "Expected `object`, got `array`"),
        (b"{}", None, "missing required field `inputs`"),
        (b"\xef\xbb\xbf{}", None, "JSON is malformed"),
        (b'{"inputs": [{"name": "\xff"', None, "utf-8"),
        (b'{"inputs": []} ', "99", "is 99, the body has 15 bytes"),
        (b'{"inputs": []}x', None, "trailing characters"),
        (b'{"inputs": []}x', "14", "1 bytes of binary data belong to no input"),
        (b'{"inputs": []}', "-1", "expected a number of bytes"),
        (b'{"inputs": []}', "", "expected a number of bytes"),
        (b'{"inputs": []}', "1e1", "expected a number of bytes"),
        (b'{"inputs": []}', "²", "expected a number of bytes"),
        (b'{"inputs": []}', "9" * 5000, "expected a number of bytes"),
        (b'{"inputs": [], "parameters": {"x": ' + b"[" * 100_000, None, "nested too deeply"),
        (b'{"inputs": [{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}', None, "invalid character"),
        (b'{"inputs": [{"name":"x","datatype":"FP32","shape":[1],"data":[1e999]}]}', None, "out of range"),
        (b'{"inputs": [], "parameters": {"binary_data_output": 1}}', None, "binary_data_output is 1, expected true or false"),
        (b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}', None, "output 'y': parameter"),
        (b'{"inputs": [], "outputs": [{}]}', None, "missing required field `name`"),
        (b'{"inputs": [], "id": 3}', None, "$.id"),
    ],
)
def test_a_malformed_body_is_one_line(body: bytes, length: str | None, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_request(body, {} if length is None else {HEADER_LENGTH: length})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_may_be_flat_or_nested() -> None:
    for data in ([1, 2, 3, 4, 5, 6], [[1, 2], [3, 4], [5, 6]]):
        body = json.dumps({"inputs": [tensor(shape=[3, 2], data=data)]}).encode()
        np.testing.assert_array_equal(decode_request(body, {}).inputs["x"].data, [[1, 2], [3, 4], [5, 6]])


def test_bytes_that_are_not_text_travel_in_json_as_base64() -> None:
    body, headers = encode_request([NamedTensor.of("image", [b"\xff\xd8"])], binary=False)
    assert headers == {"Content-Type": "application/json"}
    assert json.loads(body)["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"}, "data": ["/9g="]}
    ]
    assert decode_request(body, headers).inputs["image"].data == [b"\xff\xd8"]


def test_the_binary_request_is_byte_for_byte_what_the_extension_says() -> None:
    pixels = np.array([[1, 2]], ">u2")
    body, headers = encode_request([NamedTensor.of("x", pixels), NamedTensor.of("s", [b"ab", b""])], ["y"], request_id="1")
    head = int(headers["Inference-Header-Content-Length"])
    assert headers["Content-Type"] == "application/octet-stream"
    assert json.loads(body[:head]) == {
        "id": "1",
        "inputs": [
            {"name": "x", "datatype": "UINT16", "shape": [1, 2], "parameters": {"binary_data_size": 4}},
            {"name": "s", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    assert body[head:] == b"\1\0\2\0" + b"\2\0\0\0ab" + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NamedTensor("x", "UINT8", (2,), np.zeros(3, np.uint8)), "uint8 [3] given for UINT8 [2]"),
        (lambda: NamedTensor("x", "UINT8", (3,), np.zeros(3, np.int8)), "int8 [3] given for UINT8 [3]"),
        (lambda: NamedTensor("x", "BYTES", (2,), [b"a"]), "1 BYTES given for BYTES of shape [2]"),
        (lambda: NamedTensor("x", "UINT8", (1,), [b"a"]), "1 BYTES given for UINT8"),
        (lambda: NamedTensor.of("x", np.zeros(2, np.complex64)), "no datatype for arrays of complex64"),
        (lambda: encode_request([NamedTensor.of("x", np.array([np.nan]))], binary=False), "not finite do not fit into JSON"),
    ],
)
def test_a_tensor_that_disagrees_with_itself_is_not_made(make: Any, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        make()
    assert message in str(caught.value)


def test_a_declared_size_takes_no_memory() -> None:
    bodies = [json.dumps({"inputs": [tensor(shape=[1 << 31])]}).encode() for _ in range(2)]
    bodies.append(json.dumps({"inputs": [sized(1 << 31, shape=[1 << 31])]}).encode())
    tracemalloc.start()
    try:
        for body in bodies:
            with pytest.raises(ProtocolError):
                decode_request(body, {})
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
