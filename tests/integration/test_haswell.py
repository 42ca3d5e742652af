"""x86 without VNNI, emulated: 7-bit weights give the bits of any other machine, 8-bit weights need the engine's guard."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import open_bundle
from edge.card import TensorInput, Variant
from edge.engines import EngineOptions, open_engine
from edge.packaged import DEFAULT_BUNDLE
from edge.types import Geometry, Tensor
from quantize.instructions import Counter, open_counter, why_not

pytestmark = pytest.mark.integration
SIZE, CHANNELS = 8, 32
WHITE = np.full((1, SIZE, SIZE, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def counter() -> Counter:
    counter = open_counter(["haswell"])
    if counter is None:
        pytest.skip(why_not("haswell"))
    return counter


def test_seven_bit_weights_give_the_same_bits_without_vnni(counter: Counter) -> None:
    bundle = open_bundle(DEFAULT_BUNDLE)
    variant = bundle.card.variant("int8-x86")
    assert (variant.scheme, variant.weight_bits) == ("u8s8", 7)
    data, (picture, golden) = bundle.model_bytes(variant), bundle.golden(variant)
    counted = [counter.infer(data, variant, picture, "haswell") for _ in range(2)]
    assert np.array_equal(counted[0].outputs["logits"], here(data, variant, picture))
    assert np.array_equal(counted[0].outputs["logits"], golden["logits"])
    assert counted[0].millions == pytest.approx(counted[1].millions, rel=0.003)


def test_eight_bit_weights_saturate_without_vnni_unless_guarded(counter: Counter) -> None:
    data, guarded = eight_bits()
    unguarded = msgspec.structs.replace(guarded, weight_bits=7)  # a lie, by which the engine computes without its guard
    exact = float(CHANNELS * 255 * 127)
    for cpu_guarded in (here(data, guarded, WHITE), counter.infer(data, guarded, WHITE, "haswell").outputs["logits"]):
        assert cpu_guarded.ravel() == pytest.approx([exact], rel=0.01)
    saturated = counter.infer(data, unguarded, WHITE, "haswell").outputs["logits"]
    assert saturated.ravel() == pytest.approx([CHANNELS / 2 * (2**15 - 1)], rel=0.01)


def here(data: bytes, variant: Variant, picture: np.ndarray) -> np.ndarray:
    """The logits that this machine gives."""
    engine = open_engine(data, variant, EngineOptions())
    return engine.infer(Tensor(picture, Geometry((1.0, 1.0), (0.0, 0.0), picture.shape[2:0:-1])))["logits"]


def eight_bits() -> tuple[bytes, Variant]:
    """The largest red spread over CHANNELS channels, then their sum with weights of 127: every product is 255 * 127.

    Quantized as the engine fuses it, activations unsigned with a scale of 1 and weights signed 8-bit with a scale of 1.
    """
    one, zero = numpy_helper.from_array(np.array(1, np.float32), "one"), numpy_helper.from_array(np.array(0, np.uint8), "zero")
    total = numpy_helper.from_array(np.array(CHANNELS * 127, np.float32), "total")
    weights = numpy_helper.from_array(np.full((CHANNELS, 1), 127, np.int8), "weights")
    signed = numpy_helper.from_array(np.array(0, np.int8), "signed")
    places = numpy_helper.from_array(np.zeros(CHANNELS, np.int64), "places")
    flat = numpy_helper.from_array(np.array([1, SIZE * SIZE * 3], np.int64), "flat")
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["pixels"]),
        helper.make_node("Gather", ["pixels", "places"], ["reds"], axis=1),
        helper.make_node("DequantizeLinear", ["reds", "one", "zero"], ["values"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "signed"], ["factors"]),
        helper.make_node("MatMul", ["values", "factors"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "total", "zero"], ["stored"]),
        helper.make_node("DequantizeLinear", ["stored", "total", "zero"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1])],
        [one, zero, total, weights, signed, places, flat],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    variant = Variant(
        name="int8-x86",
        file="saturating.onnx",
        engine="onnx",
        precision="int8",
        scheme="u8s8",
        weight_bits=8,
        sha256="0" * 64,
        bytes=1,
        input=TensorInput(name="image"),
        outputs={"logits": "logits"},
        tolerance=0.0,
    )
    return model.SerializeToString(), variant
