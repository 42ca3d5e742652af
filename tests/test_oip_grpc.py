"""Tensors to the protocol's gRPC messages and back, and messages that are not what the protocol says."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("grpc") is None:
    pytest.skip("grpcio is not installed; pip install 'edge-run[grpc]'", allow_module_level=True)

from edge.grpc_messages import MESSAGES
from edge.oip import DTYPES, NamedTensor, ProtocolError
from edge.oip_grpc import CONTENTS, decode_request, decode_response, encode_request

Tensor = MESSAGES["ModelInferResponse.InferOutputTensor"]
Contents = MESSAGES["InferTensorContents"]


def extremes(datatype: str) -> NamedTensor:
    """The least, the largest and some value between, [1, 3]."""
    if datatype == "BYTES":
        return NamedTensor("x", "BYTES", (1, 3), [b"", b"\xff\x00", "käse".encode()])
    dtype = DTYPES[datatype]
    info = np.finfo(dtype) if dtype.kind == "f" else None if dtype.kind == "b" else np.iinfo(dtype)
    values = [False, True, True] if info is None else [info.min, info.max, 7]
    return NamedTensor.of("x", np.array([values], dtype))


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_a_tensor_comes_back_as_it_went(datatype: str, raw: bool) -> None:
    given = extremes(datatype)
    if not raw and datatype not in CONTENTS:
        with pytest.raises(ProtocolError, match="FP16 has no typed contents"):
            encode_request("m", [given], raw=False)
        return
    message = encode_request("m", [given], ["y"], request_id="7", raw=raw, parameters={"a": "b", "c": True, "d": 2, "e": 0.5})
    again = MESSAGES["ModelInferRequest"].FromString(message.SerializeToString())
    request = decode_request(again)
    assert again.model_name == "m"
    assert bool(again.raw_input_contents) == raw
    assert (request.id, [output.name for output in request.outputs]) == ("7", ["y"])
    assert request.parameters == {"a": "b", "c": True, "d": 2, "e": 0.5}
    back = request.inputs["x"]
    assert (back.datatype, back.shape) == (datatype, (1, 3))
    if isinstance(given.data, list):
        assert back.data == given.data
    else:
        assert not isinstance(back.data, list)
        assert back.data.dtype == given.data.dtype
        np.testing.assert_array_equal(back.data, given.data)


def test_a_parameter_that_does_not_fit() -> None:
    with pytest.raises(ProtocolError, match="parameter 'a': a list does not fit"):
        encode_request("m", [], parameters={"a": [1]})


def output(datatype: str, shape: list[int], raw: bytes | None = None, **contents: Any) -> Any:
    """A response with one output."""
    tensor = Tensor(name="x", datatype=datatype, shape=shape, contents=Contents(**contents))
    return MESSAGES["ModelInferResponse"](outputs=[tensor], raw_output_contents=[] if raw is None else [raw])


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (output("UINT8", [1], uint_contents=[256]), "beyond the range of UINT8"),
        (output("INT16", [2], int_contents=[-40000, 0]), "beyond the range of INT16"),
        (output("FP32", [2], fp32_contents=[1.0]), "takes 8 bytes, 4 are given"),
        (output("FP32", [1], fp32_contents=[float("inf")]), "not finite"),
        (output("FP32", [1], fp64_contents=[1.0]), "takes 4 bytes, 0 are given"),
        (output("FP16", [1], fp32_contents=[1.0]), "takes 2 bytes, 0 are given"),
        (output("FP8", [1], fp32_contents=[1.0]), "unknown datatype 'FP8'"),
        (output("BYTES", [2], bytes_contents=[b"x"]), "1 BYTES given"),
        (output("BYTES", [1], b"\x05\x00\x00\x00x"), "reaches beyond"),
        (output("FP32", [-1], b""), "negative dimension"),
        (output("FP32", [1 << 40], b""), "more than"),
        (output("FP32", [1 << 40]), "more than"),
        (output("BOOL", [1], b"\x02"), "0 or 1"),
        (MESSAGES["ModelInferResponse"](raw_output_contents=[b"x"]), "1 raw_output_contents for 0 outputs"),
        (MESSAGES["ModelInferResponse"](outputs=[Tensor(name="x", datatype="BOOL", shape=[0])] * 2), "stands twice"),
    ],
)
def test_responses_that_are_refused(message: Any, part: str) -> None:
    with pytest.raises(ProtocolError, match=r"\A[^\n]*\Z") as error:
        decode_response(message)
    assert part in str(error.value)


def test_an_empty_tensor_and_a_parameter_without_a_value() -> None:
    message = output("FP32", [1, 0, 4])
    message.parameters["x"].SetInParent()
    response = decode_response(message)
    assert response.outputs["x"].shape == (1, 0, 4)
    assert response.parameters == {}
