"""Where pairs are put, what ONNX Runtime fuses of it, and that the answers stay the float model's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from quantize import onnx_int8
from quantize.calibrate import Observer, Ranges
from quantize.onnx_graph import OnnxGraph
from quantize.onnx_int8 import S8S8, U8S8
from quantize.qdq import Scheme, affine, grid, insert
from quantize.readback import read_back, slowest_operators
from tests.quantize.onnx_graphs import floats, ints, node, write

SHAPE = (1, 3, 8, 10)
WEIGHTS = {
    "w": floats(4, 3, 3, 3) * 0.3,
    "b": floats(4, seed=1) * 0.1,
    "v": floats(4, 4, 1, 1, seed=2) * 0.5,
    "u": floats(4, 4, 3, 3, seed=3) * 0.2,
    "wide": floats(4, 8, 1, 1, seed=4) * 0.3,
    "shape": ints(1, 4, -1),
    "back": ints(1, 4, 8, 10),
    "offset": np.array([[[[0.5]], [[-0.25]], [[1.0]], [[0.1]]]], np.float32),
    "twice": np.array(2.0, np.float32),
    "table": floats(4, 5, seed=5) * 0.4,
    "flat": ints(0, -1),
}
STEM = node("Conv", "x w b", "a", pads=[1, 1, 1, 1])
LAST = node("Conv", "t v", "y")
POOLED = [node("GlobalAveragePool", "t", "g"), node("Reshape", "g flat", "f")]
GEMM = node("Gemm", "f table", "y")


@dataclass(frozen=True)
class Case:
    """A graph, which of its operators ONNX Runtime runs in integers, and what else it runs that is not free."""

    nodes: Sequence[onnx.NodeProto]
    integer: dict[str, int]
    floats: dict[str, int] = field(default_factory=dict)


QUANTIZE, DEQUANTIZE = {"QuantizeLinear": 1}, {"DequantizeLinear": 1}
CASES = {
    "convolutions alone": Case([STEM, node("Conv", "a v", "y")], {"QLinearConv": 2}, DEQUANTIZE),
    "relu behind a convolution": Case([STEM, node("Relu", "a", "t"), LAST], {"QLinearConv": 2}, DEQUANTIZE),
    "silu": Case(
        [STEM, node("Sigmoid", "a", "s"), node("Mul", "a s", "t"), LAST],
        {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1},
        DEQUANTIZE,
    ),
    "residual": Case(
        [STEM, node("Conv", "a v", "c"), node("Add", "a c", "t"), LAST], {"QLinearConv": 3, "QLinearAdd": 1}, DEQUANTIZE
    ),
    "relu behind an addition": Case(
        [STEM, node("Conv", "a v", "c"), node("Add", "a c", "s"), node("Relu", "s", "t"), LAST],
        {"QLinearConv": 3, "QLinearAdd": 1},
        DEQUANTIZE,
    ),
    "concatenation": Case(
        [
            STEM,
            node("Conv", "a v", "c"),
            node("Conv", "a u", "d", pads=[1] * 4),
            node("Concat", "c d", "t", axis=1),
            node("Conv", "t wide", "y"),
        ],
        {"QLinearConv": 4, "QLinearConcat": 1},
        DEQUANTIZE,
    ),
    "pooling by the maximum": Case(
        [STEM, node("MaxPool", "a", "t", kernel_shape=[2, 2], strides=[2, 2]), LAST],
        {"QLinearConv": 2, "NhwcMaxPool": 1},
        DEQUANTIZE,
    ),
    "moved about": Case(
        [STEM, node("Reshape", "a shape", "r"), node("Reshape", "r back", "t"), LAST], {"QLinearConv": 2}, DEQUANTIZE
    ),
    "constants": Case(
        [STEM, node("Mul", "a twice", "m"), node("Add", "m offset", "t"), LAST],
        {"QLinearConv": 2, "QLinearMul": 1, "QLinearAdd": 1},
        DEQUANTIZE,
    ),
    "classifier": Case(
        [STEM, node("Relu", "a", "t"), *POOLED, GEMM], {"QLinearConv": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}
    ),
    "tail in float": Case(
        [STEM, node("Conv", "a v", "c"), node("Sigmoid", "c", "s"), node("Mul", "s offset", "y")],
        {"QLinearConv": 2},
        DEQUANTIZE | {"Sigmoid": 1, "Mul": 1},
    ),
    "begins in float": Case(
        [node("Tanh", "x", "e"), node("Conv", "e w b", "t", pads=[1] * 4), LAST], {"QLinearConv": 2}, DEQUANTIZE | {"Tanh": 1}
    ),
}


def model(tmp_path: Path, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    read = {name for one in nodes for name in one.input}
    return onnx.load(write(tmp_path / "float.onnx", nodes, {k: v for k, v in WEIGHTS.items() if k in read}, shape=SHAPE))


def pictures(count: int, seed: int = 0) -> list[Any]:
    return [np.clip(floats(*SHAPE, seed=seed + index), -3.9, 3.9) for index in range(count)]


def run(data: bytes, picture: Any, outputs: Sequence[str] | None = None, *, exact: bool = True) -> list[Any]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdqisint8allowed", "1" if exact else "0")
    return list(ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(outputs, {"x": picture}))


def ranges_of(given: onnx.ModelProto) -> Ranges:
    watched = onnx.ModelProto()
    watched.CopyFrom(given)
    names = [name for one in given.graph.node for name in one.output]
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    observer = Observer()
    for picture in pictures(8):
        observer.see(dict(zip(names, run(watched.SerializeToString(), picture, names), strict=True)))
    return observer.ranges("minmax")


def quantized(given: onnx.ModelProto, scheme: Scheme = U8S8, **how: Any) -> onnx.ModelProto:
    return insert(given, ranges_of(given), scheme, pixels=("x", affine(-4.0, 4.0, scheme.signed_activations)), **how)


def kernels(made: onnx.ModelProto, tmp_path: Path) -> Counter[str]:
    """The operators of the optimized graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(one.op_type for one in onnx.load(tmp_path / "optimized.onnx").graph.node)


@pytest.mark.parametrize("scheme", [U8S8, S8S8], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_fuses_what_is_meant_to_run_in_integers(tmp_path: Path, name: str, scheme: Scheme) -> None:
    case = CASES[name]
    made = quantized(model(tmp_path, case.nodes), scheme)
    found = kernels(made, tmp_path)
    assert {kind: found[kind] for kind in case.integer} == case.integer
    readback = read_back(made.SerializeToString(), "onnx")
    assert readback.integer == sum(case.integer.values())
    assert readback.floats == QUANTIZE | case.floats  # the pixels are quantized here, where there is no uint8 input


@pytest.mark.parametrize("scheme", [U8S8, S8S8], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("name", CASES)
def test_the_answers_stay_within_quantization_noise(tmp_path: Path, name: str, scheme: Scheme) -> None:
    given = model(tmp_path, CASES[name].nodes)
    made = quantized(given, scheme).SerializeToString()
    signal = noise = 0.0
    for picture in pictures(4, seed=100):
        [want], [got] = run(given.SerializeToString(), picture), run(made, picture)
        assert got.shape == want.shape
        signal, noise = signal + float(np.square(want).sum()), noise + float(np.square(got - want).sum())
    assert noise < signal * 10**-2.5


def affines(made: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Tensor → the scale and zero point of the pair behind it."""
    graph = OnnxGraph(made)
    pairs = [one for one in graph.nodes if one.op_type == "QuantizeLinear"]
    return {one.input[0]: (float(graph.array(one.input[1])), int(graph.array(one.input[2]))) for one in pairs}


@pytest.mark.parametrize("name", ["pooling by the maximum", "moved about"])
def test_what_only_moves_values_keeps_their_scale(tmp_path: Path, name: str) -> None:
    found = affines(quantized(model(tmp_path, CASES[name].nodes)))
    assert found["t"] == found["a"]


def test_parts_that_nobody_else_reads_have_the_scale_of_the_whole(tmp_path: Path) -> None:
    alone = affines(quantized(model(tmp_path, CASES["concatenation"].nodes)))
    assert alone["c"] == alone["d"] == alone["t"]
    nodes = [STEM, node("Conv", "a v", "c"), node("Concat", "c a", "t", axis=1), node("Conv", "t wide", "y")]
    shared = affines(quantized(model(tmp_path, nodes)))
    assert shared["c"] == shared["t"] != shared["a"]  # others read it, too


def test_a_clip_needs_no_pair_of_its_own_before_it(tmp_path: Path) -> None:
    found = affines(quantized(model(tmp_path, CASES["relu behind a convolution"].nodes)))
    assert found.keys() == {"x", "t", "y_sums"}
    assert found["t"][1] == 0


def test_a_convolution_that_two_read_keeps_its_pair_before_the_clip(tmp_path: Path) -> None:
    nodes = [STEM, node("Relu", "a", "r"), node("Add", "a r", "t"), LAST]
    made = quantized(model(tmp_path, nodes))
    assert "a" in affines(made)


LEFT_IN_FLOAT = [STEM, node("Conv", "a v", "c"), node("Relu", "c", "t"), LAST]


def test_float_nodes_stay_as_they_are(tmp_path: Path) -> None:
    given = model(tmp_path, LEFT_IN_FLOAT)
    made = quantized(given, float_nodes={"Conv_c", "Relu_t"})
    by_name = {one.name: one for one in made.graph.node}
    assert list(by_name["Conv_c"].input) == ["a_dequantized", "v"]
    assert by_name["Relu_t"] == given.graph.node[2]
    assert affines(made).keys() == {"x", "a", "t", "y_sums"}
    kept = {tensor.name: tensor for tensor in made.graph.initializer}
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(kept["v"]), WEIGHTS["v"])
    everything = quantized(given, float_nodes={one.name for one in given.graph.node})
    assert list(everything.graph.node) == list(given.graph.node)


def test_the_engine_leaves_float_nodes_in_float(tmp_path: Path) -> None:
    made = quantized(model(tmp_path, LEFT_IN_FLOAT), float_nodes={"Conv_c", "Relu_t"})
    assert read_back(made.SerializeToString(), "onnx").integer == 2


def test_silu_as_one_float_operator(tmp_path: Path) -> None:
    given = model(tmp_path, CASES["silu"].nodes)
    made = quantized(given, float_silu=True)
    assert Counter(one.op_type for one in made.graph.node)["QuickGelu"] == 1
    assert not any(one.op_type in ("Sigmoid", "Mul") for one in made.graph.node)
    found = kernels(made, tmp_path)
    assert (found["QLinearConv"], found["QuickGelu"], found["QLinearSigmoid"]) == (2, 1, 0)
    [picture] = pictures(1)
    [want], [got] = run(given.SerializeToString(), picture), run(made.SerializeToString(), picture)
    np.testing.assert_allclose(got, want, atol=0.03 * float(np.abs(want).max()))


def test_constants_of_arithmetic_become_integers(tmp_path: Path) -> None:
    made = quantized(model(tmp_path, CASES["constants"].nodes))
    kept = {tensor.name: tensor for tensor in made.graph.initializer}
    assert "offset" not in kept
    assert "twice" not in kept
    for name in ("offset", "twice"):
        integers = onnx.numpy_helper.to_array(kept[f"{name}_quantized"]).astype(np.float32)
        assert kept[f"{name}_quantized"].data_type == onnx.TensorProto.UINT8
        scale, zero = (onnx.numpy_helper.to_array(kept[f"{name}_{what}"]) for what in ("scale", "zero_point"))
        np.testing.assert_allclose((integers - zero) * scale, WEIGHTS[name], atol=scale)


@pytest.mark.parametrize("scheme", [U8S8, S8S8], ids=lambda scheme: scheme.name)
def test_weights_reach_the_limit_in_every_channel(tmp_path: Path, scheme: Scheme) -> None:
    made = quantized(model(tmp_path, CASES["residual"].nodes), scheme)
    weights = [onnx.numpy_helper.to_array(t) for t in made.graph.initializer if t.name.endswith("_weight_quantized")]
    assert len(weights) == 3
    for weight in weights:
        assert weight.dtype == np.int8
        assert np.abs(weight.astype(int)).reshape(len(weight), -1).max(1).tolist() == [scheme.weight_limit] * len(weight)


def test_weights_that_lie_on_the_grid_are_not_moved() -> None:
    integers = np.random.default_rng(0).integers(-64, 65, (5, 2, 3, 3))
    integers[:, 0, 0, 0] = 64
    scale = np.linspace(0.01, 0.2, 5, dtype=np.float32)
    found, found_scale = grid((integers * scale.reshape(-1, 1, 1, 1)).astype(np.float32), 0, 64)
    np.testing.assert_array_equal(found, integers)
    np.testing.assert_allclose(found_scale, scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "signed", "zero_point"),
    [(0.0, 2.55, False, 0), (0.0, 2.55, True, -128), (-1.0, 1.0, False, 128), (-2.55, 0.0, False, 255), (1.0, 2.0, False, 0)],
)
def test_affine_covers_the_interval_and_zero(low: float, high: float, signed: bool, zero_point: int) -> None:
    found = affine(low, high, signed)
    assert found.zero_point == zero_point
    first = -128 if signed else 0
    assert (first - found.zero_point) * found.scale <= min(low, 0.0) + found.scale / 2
    assert (first + 255 - found.zero_point) * found.scale >= high - found.scale / 2


def test_what_is_read_through_a_sigmoid_or_silu_alone_is_known() -> None:
    nodes = [
        STEM,
        node("Sigmoid", "a", "s"),
        node("Mul", "a s", "m"),
        node("Conv", "m v", "c"),
        node("Sigmoid", "c", "p"),
        node("Conv", "m v", "d"),
        node("Sigmoid", "d", "q"),
        node("Add", "q d", "y"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    graph.initializer.extend(onnx.numpy_helper.from_array(WEIGHTS[name], name) for name in ("w", "b", "v"))
    found = onnx_int8.functions(OnnxGraph(onnx.helper.make_model(graph)))
    assert {name: function.__name__ for name, function in found.items()} == {"a": "silu", "c": "sigmoid"}


def test_the_slowest_operators_share_the_time(tmp_path: Path) -> None:
    data = quantized(model(tmp_path, CASES["tail in float"].nodes)).SerializeToString()
    [picture] = pictures(1)
    found = slowest_operators(data, picture, "x", runs=2)
    assert {"QLinearConv", "Sigmoid"} <= {kind for kind, _ in found}
    assert sum(share for _, share in found) == pytest.approx(1.0)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
