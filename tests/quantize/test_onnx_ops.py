"""Every ONNX operator that is imported, against ONNX Runtime, in the forms that exporters write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from onnx import TensorProto  # noqa: E402

from edge.errors import InputError  # noqa: E402
from quantize.onnx_import import Imported, import_onnx  # noqa: E402
from quantize.onnx_ops import OPERATORS  # noqa: E402
from tests.quantize.onnx_graphs import floats, ints, node, write  # noqa: E402

INT64, BOOL = TensorProto.INT64, TensorProto.BOOL


def checked(path: Path, shape: Sequence[int] = (1, 3, 8, 10), names: Sequence[str] | None = None) -> Imported:
    """The import of a file, after its module was compared with ONNX Runtime on a picture that import_onnx did not use."""
    imported = import_onnx(path)
    picture = floats(*shape, seed=7) * 2
    expected = ort.InferenceSession(path).run(names, {"x": picture})
    with torch.no_grad():
        made = imported.network(torch.from_numpy(picture))
    for right, found in zip(expected, made if isinstance(made, tuple) else (made,), strict=True):
        np.testing.assert_allclose(found.numpy(), right, rtol=1e-4, atol=1e-4)
        assert right.shape == tuple(found.shape)
    assert imported.output_shapes == tuple(right.shape for right in expected)
    return imported


UNARY: dict[str, list[dict[str, Any]]] = {
    "Abs": [{}],
    "Atan": [{}],
    "Ceil": [{}],
    "Celu": [{}, {"alpha": 0.5}],
    "Cos": [{}],
    "Elu": [{}, {"alpha": 0.3}],
    "Erf": [{}],
    "Exp": [{}],
    "Floor": [{}],
    "HardSigmoid": [{}, {"alpha": 1 / 6, "beta": 0.5}, {"alpha": 0.3, "beta": 0.4}],
    "HardSwish": [{}],
    "Identity": [{}],
    "LeakyRelu": [{}, {"alpha": 0.1}],
    "Neg": [{}],
    "Relu": [{}],
    "Round": [{}],
    "Selu": [{}, {"alpha": 1.2, "gamma": 0.9}],
    "Sigmoid": [{}],
    "Sign": [{}],
    "Sin": [{}],
    "Softplus": [{}],
    "Softsign": [{}],
    "Tanh": [{}],
    "ThresholdedRelu": [{}, {"alpha": 0.2}],
    "GlobalAveragePool": [{}],
    "GlobalMaxPool": [{}],
    "LpNormalization": [{"axis": 1, "p": 2}, {"axis": -1, "p": 1}],
    "LRN": [{"size": 3}, {"size": 5, "alpha": 0.01, "beta": 0.5, "bias": 2.0}],
    "DepthToSpace": [],
    "Flatten": [{}, {"axis": 0}, {"axis": 2}, {"axis": -1}, {"axis": 4}],
    "Transpose": [{}, {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 2, 1]}],
    "Softmax": [{}, {"axis": 1}, {"axis": -2}],
    "LogSoftmax": [{}, {"axis": 1}],
    "Hardmax": [{}, {"axis": 1}],
    "SpaceToDepth": [{"blocksize": 2}],
    "ReduceMean": [{}, {"axes": [2, 3]}, {"axes": [-1, -2], "keepdims": 0}, {"axes": [1]}],
    "ReduceMax": [{}, {"axes": [2, 3]}, {"axes": [1], "keepdims": 0}],
    "ReduceMin": [{"axes": [2, 3]}],
    "ReduceProd": [{"axes": [1, 3]}, {"axes": [1, 2], "keepdims": 0}],
    "ReduceL1": [{"axes": [1]}],
    "ReduceL2": [{"axes": [1]}, {"axes": [2, 3], "keepdims": 0}],
    "ReduceLogSumExp": [{"axes": [1]}],
    "ReduceSumSquare": [{"axes": [1]}],
}


@pytest.mark.parametrize(("op", "attributes"), [(op, case) for op, cases in UNARY.items() for case in cases])
def test_unary(op: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    checked(write(tmp_path / "m.onnx", [node(op, "x", "y", **attributes)]))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [None, 1, 2, 3, -1])
@pytest.mark.parametrize("opset", [9, 11, 12])
def test_softmax_before_13_is_of_everything_from_its_axis_on(op: str, axis: int | None, opset: int, tmp_path: Path) -> None:
    attributes = {} if axis is None else {"axis": axis}
    checked(write(tmp_path / "m.onnx", [node(op, "x", "y", **attributes)], opset=opset))


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Reciprocal"])
def test_unary_of_positive(op: str, tmp_path: Path) -> None:
    checked(
        write(tmp_path / "m.onnx", [node("Abs", "x", "a"), node("Add", "a c", "b"), node(op, "b", "y")], {"c": np.float32(0.5)})
    )


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str, tmp_path: Path) -> None:
    checked(write(tmp_path / "m.onnx", [node("Gelu", "x", "y", approximate=approximate)], opset=20))


def test_mish(tmp_path: Path) -> None:
    checked(write(tmp_path / "m.onnx", [node("Mish", "x", "y")], opset=18))


BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"]
OPERANDS = {
    "scalar": np.float32(1.7),
    "one": np.array([1.7], np.float32),
    "one of rank 4": np.full((1, 1, 1, 1), 1.7, np.float32),
    "channels": np.array([1.1, -2.2, 0.3], np.float32).reshape(3, 1, 1),
    "row": np.linspace(0.5, 2, 10, dtype=np.float32),
    "all": np.linspace(0.5, 2, 240, dtype=np.float32).reshape(1, 3, 8, 10),
}


@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("order", ["e c", "c e"])
def test_binary_with_a_constant(operand: str, order: str, tmp_path: Path) -> None:
    nodes = [node("Exp", "x", "e"), *(node(op, order, f"{op}_y") for op in BINARY)]
    outputs = [f"{op}_y" for op in BINARY]
    checked(write(tmp_path / "m.onnx", nodes, {"c": OPERANDS[operand]}, outputs=outputs))


@pytest.mark.parametrize("op", [*BINARY, "Pow"])
def test_binary_of_two_values(op: str, tmp_path: Path) -> None:
    nodes = [node("Sigmoid", "x", "a"), node("Tanh", "x", "t"), node(op, "a t", "y")]
    checked(write(tmp_path / "m.onnx", nodes))


@pytest.mark.parametrize("exponent", [2.0, 0.5, 3.0, -1.0])
def test_power_of_a_constant(exponent: float, tmp_path: Path) -> None:
    nodes = [node("Sigmoid", "x", "a"), node("Pow", "a c", "y"), node("Pow", "k x", "z")]
    constants = {"c": np.float32(exponent), "k": np.array([abs(exponent)], np.float32)}
    checked(write(tmp_path / "m.onnx", nodes, constants, outputs=("y", "z")))


@pytest.mark.parametrize("fmod", [0, 1])
def test_modulo(fmod: int, tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "i", to=INT64), node("Mod", "i c", "y", fmod=fmod)]
    checked(write(tmp_path / "m.onnx", nodes, {"c": ints(3)}, output_types=[INT64]))


def test_integer_division_truncates(tmp_path: Path) -> None:
    nodes = [node("Mul", "x k", "s"), node("Cast", "s", "i", to=INT64), node("Div", "i c", "y")]
    checked(write(tmp_path / "m.onnx", nodes, {"c": np.int64(3), "k": np.float32(9)}, output_types=[INT64]))


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("order", ["r c", "c r"])
def test_comparisons(op: str, order: str, tmp_path: Path) -> None:
    nodes = [node("Round", "x", "r"), node(op, order, "y")]
    checked(write(tmp_path / "m.onnx", nodes, {"c": np.float32(1)}, output_types=[BOOL]))


@pytest.mark.parametrize("op", ["And", "Or"])
def test_logic_and_where(op: str, tmp_path: Path) -> None:
    nodes = [
        node("Greater", "x c", "a"),
        node("Less", "x d", "b"),
        node(op, "a b", "o"),
        node("Not", "o", "n"),
        node("Where", "n x w", "y"),
    ]
    checked(write(tmp_path / "m.onnx", nodes, {"c": np.float32(0.2), "d": np.float32(0.7), "w": np.float32(-1)}))


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (0.0, None), (None, 1.0), (-0.5, 0.5), (None, None), (0.0, 1.0)])
@pytest.mark.parametrize("opset", [9, 11, 17])
def test_clip(low: float | None, high: float | None, opset: int, tmp_path: Path) -> None:
    bounds = {name: np.float32(bound) for name, bound in (("min", low), ("max", high)) if bound is not None}
    if opset < 11:
        clip = node("Clip", "x", "y", **{name: float(bound) for name, bound in bounds.items()})
        checked(write(tmp_path / "m.onnx", [clip], opset=opset))
    else:
        inputs = " ".join(["x", *(name if name in bounds else "-" for name in ("min", "max"))])
        checked(write(tmp_path / "m.onnx", [node("Clip", inputs, "y")], bounds, opset=opset))


@pytest.mark.parametrize("shape", [(1,), (3, 1, 1), (1, 1, 10), (1, 3, 1, 1)])
def test_prelu(shape: tuple[int, ...], tmp_path: Path) -> None:
    checked(write(tmp_path / "m.onnx", [node("PRelu", "x s", "y")], {"s": np.abs(floats(*shape))}))


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("axes", [None, (2, 3), (-1,), (1, 2)])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions_with_axes_as_an_input(op: str, axes: tuple[int, ...] | None, keepdims: int, tmp_path: Path) -> None:
    inputs, constants = ("x", {}) if axes is None else ("x axes", {"axes": ints(*axes)})
    checked(write(tmp_path / "m.onnx", [node(op, inputs, "y", keepdims=keepdims)], constants, opset=18))


def test_reduction_of_nothing(tmp_path: Path) -> None:
    checked(write(tmp_path / "m.onnx", [node("ReduceSum", "x axes", "y", noop_with_empty_axes=1)], {"axes": ints()}, opset=18))


CONVS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((4, 3, 3, 3), {}),
    "padded": ((4, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "uneven sides": ((4, 3, 3, 3), {"pads": [0, 1, 1, 2]}),
    "uneven axes": ((4, 3, 1, 3), {"pads": [0, 1, 0, 1], "strides": [1, 2]}),
    "dilated": ((4, 3, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "depthwise": ((6, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "same upper": ((4, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((4, 3, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "same even": ((4, 3, 2, 4), {"auto_pad": "SAME_UPPER"}),
    "valid": ((4, 3, 3, 3), {"auto_pad": "VALID", "strides": [3, 3]}),
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("has_bias", [True, False])
def test_conv(name: str, has_bias: bool, tmp_path: Path) -> None:
    shape, attributes = CONVS[name]
    constants = {"head.conv.weight": floats(*shape)} | ({"head.conv.bias": floats(shape[0], seed=1)} if has_bias else {})
    imported = checked(write(tmp_path / "m.onnx", [node("Conv", f"x {' '.join(constants)}", "y", **attributes)], constants))
    assert [name for name, _ in imported.network.named_parameters()] == list(constants)
    assert not list(imported.network.buffers())


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"strides": [2, 2], "output_shape": [16, 20]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID", "dilations": [2, 1]},
    ],
    ids=str,
)
def test_conv_transpose(attributes: dict[str, Any], tmp_path: Path) -> None:
    constants = {"w": floats(3, 4, 3, 3), "b": floats(4)}
    checked(write(tmp_path / "m.onnx", [node("ConvTranspose", "x w b", "y", kernel_shape=[3, 3], **attributes)], constants))


def test_grouped_conv_transpose(tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", "x w", "y", group=3, strides=[2, 2])]
    checked(write(tmp_path / "m.onnx", nodes, {"w": floats(3, 2, 4, 4)}))


POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [3, 3], "ceil_mode": 1, "pads": [1, 0, 1, 0]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [4, 4], "auto_pad": "VALID"},
    {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
    {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "strides": [2, 2]},
]


@pytest.mark.parametrize("attributes", POOLS, ids=str)
def test_pools(attributes: dict[str, Any], tmp_path: Path) -> None:
    checked(write(tmp_path / "max.onnx", [node("MaxPool", "x", "y", **attributes)]))
    checked(write(tmp_path / "mean.onnx", [node("AveragePool", "x", "y", **attributes)]))
    checked(write(tmp_path / "all.onnx", [node("AveragePool", "x", "y", count_include_pad=1, **attributes)]))


def test_dilated_max_pool(tmp_path: Path) -> None:
    checked(write(tmp_path / "m.onnx", [node("MaxPool", "x", "y", kernel_shape=[2, 3], dilations=[2, 2], pads=[1, 1, 0, 1])]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    op=st.sampled_from(["Conv", "MaxPool", "AveragePool"]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    ceil=st.booleans(),
)
def test_any_window(
    op: str, kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...], ceil: bool, tmp_path: Path
) -> None:
    if op != "Conv":  # a window of padding alone has no maximum and no mean
        pads = tuple(min(amount, kernel[i % 2] - 1) for i, amount in enumerate(pads))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if op == "Conv":
        nodes, constants = [node(op, "x w", "y", **attributes)], {"w": floats(2, 3, *kernel)}
    else:
        nodes, constants = [node(op, "x", "y", ceil_mode=int(ceil), **attributes)], {}
    checked(write(tmp_path / "m.onnx", nodes, constants, shape=(1, 3, 7, 6)), (1, 3, 7, 6))


def test_norms(tmp_path: Path) -> None:
    channels = {"s": floats(3), "b": floats(3, seed=1), "m": floats(3, seed=2), "v": np.abs(floats(3, seed=3)) + 0.1}
    nodes = [
        node("BatchNormalization", "x s b m v", "n", epsilon=1e-3),
        node("InstanceNormalization", "n s b", "y"),
        node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
        node("LayerNormalization", "t s b", "z", epsilon=1e-6),
        node("LayerNormalization", "x big", "q", axis=2),
    ]
    checked(write(tmp_path / "m.onnx", nodes, channels | {"big": floats(8, 10)}, outputs=("y", "z", "q")))


@pytest.mark.parametrize("opset", [18, 21])
def test_group_norm(opset: int, tmp_path: Path) -> None:
    width = 2 if opset == 18 else 4
    nodes = [node("Conv", "x w", "c"), node("GroupNormalization", "c s b", "y", num_groups=2)]
    constants = {"w": floats(4, 3, 1, 1), "s": floats(width), "b": floats(width, seed=1)}
    checked(write(tmp_path / "m.onnx", nodes, constants, opset=opset))


GEMMS: list[tuple[dict[str, Any], tuple[int, ...], tuple[int, ...] | None]] = [
    ({"transB": 1}, (5, 24), (5,)),
    ({}, (24, 5), (5,)),
    ({"transB": 1}, (5, 24), None),
    ({"alpha": 0.5, "beta": 2.0}, (24, 5), (1, 5)),
    ({"alpha": 0.5, "transB": 1}, (5, 24), (1,)),
    ({}, (24, 5), (10, 1)),
    ({"transA": 1}, (10, 5), (5,)),
]


@pytest.mark.parametrize(("attributes", "kernel", "bias"), GEMMS)
def test_gemm(attributes: dict[str, Any], kernel: tuple[int, ...], bias: tuple[int, ...] | None, tmp_path: Path) -> None:
    constants = {"shape": ints(10, 24), "w": floats(*kernel)} | ({} if bias is None else {"b": floats(*bias)})
    nodes = [node("Reshape", "x shape", "r"), node("Gemm", "r w" + (" b" if bias else ""), "y", **attributes)]
    checked(write(tmp_path / "m.onnx", nodes, constants))


def test_matmul_with_a_bias_is_one_linear(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x dense.weight", "m"), node("Add", "m dense.bias", "y")]
    constants = {"dense.weight": floats(10, 4), "dense.bias": floats(4)}
    imported = checked(write(tmp_path / "m.onnx", nodes, constants))
    graph = torch.export.export(imported.network, (torch.zeros(1, 3, 8, 10),)).graph
    assert [str(step.target) for step in graph.nodes if step.op == "call_function"] == ["aten.linear.default"]


def test_matmul_of_values_and_of_stacks(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 1, 3, 2]),
        node("MatMul", "x t", "a"),
        node("MatMul", "a stack", "b"),
        node("MatMul", "left b", "y"),
        node("Einsum", "x t", "z", equation="bchw,bcwk->bchk"),
    ]
    checked(write(tmp_path / "m.onnx", nodes, {"stack": floats(3, 8, 2), "left": floats(4, 8)}, outputs=("y", "z")))


PADS: list[tuple[str, list[int]]] = [
    ("constant", [0, 0, 1, 2, 0, 0, 3, 4]),
    ("constant", [0, 1, 0, 0, 0, 2, 0, 0]),
    ("constant", [0, 0, -1, 0, 0, 0, 0, -2]),
    ("constant", [0] * 8),
    ("reflect", [0, 0, 1, 2, 0, 0, 3, 4]),
    ("edge", [0, 0, 1, 2, 0, 0, 3, 4]),
    ("edge", [0, 0, 0, 2, 0, 0, 0, 4]),
]


@pytest.mark.parametrize(("mode", "pads"), PADS)
@pytest.mark.parametrize("opset", [9, 11, 17])
def test_pad(mode: str, pads: list[int], opset: int, tmp_path: Path) -> None:
    if opset < 11:
        checked(write(tmp_path / "m.onnx", [node("Pad", "x", "y", mode=mode, pads=pads, value=1.5)], opset=opset))
    else:
        constants = {"p": ints(*pads), "v": np.float32(1.5)}
        checked(write(tmp_path / "m.onnx", [node("Pad", "x p v", "y", mode=mode)], constants, opset=opset))


def test_pad_of_chosen_axes(tmp_path: Path) -> None:
    constants = {"p": ints(1, 2, 3, 4), "axes": ints(-1, 2)}
    checked(write(tmp_path / "m.onnx", [node("Pad", "x p - axes", "y")], constants, opset=18))


RESIZES = [
    (mode, how, rounding)
    for how in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
    for mode, rounding in (
        ("nearest", "floor"),
        ("nearest", "ceil"),
        ("nearest", "round_prefer_floor"),
        ("nearest", "round_prefer_ceil"),
        ("linear", "floor"),
        ("cubic", "floor"),
    )
]


@pytest.mark.parametrize(("mode", "how", "rounding"), RESIZES)
@pytest.mark.parametrize("scales", [(2.0, 3.0), (1.5, 1.3), (0.7, 0.5)])
def test_resize_by_scales(mode: str, how: str, rounding: str, scales: tuple[float, float], tmp_path: Path) -> None:
    resize = node(
        "Resize", "x - s", "y", mode=mode, coordinate_transformation_mode=how, nearest_mode=rounding, cubic_coeff_a=-0.75
    )
    checked(write(tmp_path / "m.onnx", [resize], {"s": np.array([1, 1, *scales], np.float32)}, opset=13))


@pytest.mark.parametrize(("mode", "how", "rounding"), RESIZES)
@pytest.mark.parametrize("size", [(16, 20), (13, 7)])
def test_resize_to_sizes(mode: str, how: str, rounding: str, size: tuple[int, int], tmp_path: Path) -> None:
    resize = node("Resize", "x - - s", "y", mode=mode, coordinate_transformation_mode=how, nearest_mode=rounding)
    checked(write(tmp_path / "m.onnx", [resize], {"s": ints(1, 3, *size)}, opset=13))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [8, 9, 10])
def test_upsample_of_old(mode: str, opset: int, tmp_path: Path) -> None:
    scales = [1.0, 1.0, 2.0, 3.0]
    op = "Resize" if opset == 10 else "Upsample"
    if opset == 8:
        checked(write(tmp_path / "m.onnx", [node(op, "x", "y", mode=mode, scales=scales)], opset=opset))
    else:
        checked(write(tmp_path / "m.onnx", [node(op, "x s", "y", mode=mode)], {"s": np.float32(scales)}, opset=opset))


MOVES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "concat": ("x x", {"axis": 1}, {}, 17),
    "concat a constant": ("x c", {"axis": 3}, {"c": floats(1, 3, 8, 2)}, 17),
    "slice": ("x s e a", {}, {"s": ints(1, 2), "e": ints(7, 2**40), "a": ints(2, 3)}, 17),
    "slice by steps": ("x s e a t", {}, {"s": ints(1), "e": ints(-1), "a": ints(-1), "t": ints(2)}, 17),
    "slice backwards": ("x s e a t", {}, {"s": ints(-1), "e": ints(-(2**40)), "a": ints(3), "t": ints(-1)}, 17),
    "slice two backwards": ("x s e a t", {}, {"s": ints(-2), "e": ints(0), "a": ints(3), "t": ints(-2)}, 17),
    "slice of old": ("x", {"starts": [1], "ends": [3], "axes": [2]}, {}, 9),
    "slice without axes": ("x s e", {}, {"s": ints(0, 1), "e": ints(1, 3)}, 17),
    "gather": ("x i", {"axis": 3}, {"i": ints(3, 1, 1, -1)}, 17),
    "gather one": ("x i", {"axis": 1}, {"i": np.int64(-1)}, 17),
    "gather every other": ("x i", {"axis": 3}, {"i": ints(1, 3, 5)}, 17),
    "gather a table": ("x i", {"axis": 2}, {"i": np.array([[0, 1], [5, 2]])}, 17),
    "gatherelements": ("x i", {"axis": 3}, {"i": np.random.default_rng(0).integers(-10, 10, (1, 3, 8, 4))}, 17),
    "gathernd": ("x i", {}, {"i": np.array([[0, 1], [0, 2]])}, 17),
    "scatternd": ("x i u", {}, {"i": np.array([[0, 1], [0, 2]]), "u": floats(2, 8, 10)}, 17),
    "reshape": ("x s", {}, {"s": ints(0, -1, 10)}, 17),
    "reshape to a vector": ("x s", {}, {"s": ints(-1)}, 17),
    "flatten": ("x", {"axis": 1}, {}, 17),
    "squeeze": ("x a", {}, {"a": ints(0)}, 17),
    "squeeze all": ("x", {}, {}, 17),
    "squeeze of old": ("x", {"axes": [0]}, {}, 11),
    "unsqueeze": ("x a", {}, {"a": ints(-1, 1)}, 17),
    "unsqueeze of old": ("x", {"axes": [0, 5]}, {}, 11),
    "expand": ("x s", {}, {"s": ints(2, 1, 3, 1, 1)}, 17),
    "tile": ("x r", {}, {"r": ints(1, 2, 1, 3)}, 17),
    "cumsum": ("x a", {}, {"a": np.int64(2)}, 17),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str, tmp_path: Path) -> None:
    inputs, attributes, constants, opset = MOVES[name]
    ops = {"gatherelements": "GatherElements", "gathernd": "GatherND", "scatternd": "ScatterND", "cumsum": "CumSum"}
    op = ops.get(name, name.split()[0].capitalize())
    checked(write(tmp_path / "m.onnx", [node(op, inputs, "y", **attributes)], constants, opset=opset))


@pytest.mark.parametrize(("sizes", "opset"), [((2, 5, 1), 17), ((2, 5, 1), 11), (None, 17), (None, 11), ((), 18)])
def test_split(sizes: tuple[int, ...] | None, opset: int, tmp_path: Path) -> None:
    names = ("a", "b", "c") if sizes else ("a", "b")
    if sizes and opset >= 13:
        split, constants = node("Split", "x s", " ".join(names), axis=2), {"s": ints(*sizes)}
    else:
        more: dict[str, Any] = {"split": sizes} if sizes else {"num_outputs": 2} if opset == 18 else {}
        split, constants = node("Split", "x", " ".join(names), axis=2, **more), {}
    checked(write(tmp_path / "m.onnx", [split], constants, outputs=names, opset=opset))


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attributes", [{}, {"axis": 1}, {"axis": -1, "keepdims": 0}])
def test_arg(op: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    checked(write(tmp_path / "m.onnx", [node(op, "x", "y", **attributes)], output_types=[INT64]))


@pytest.mark.parametrize("attributes", [{}, {"axis": 2, "largest": 0}])
def test_top_k(attributes: dict[str, Any], tmp_path: Path) -> None:
    top = node("TopK", "x k", "y i", **attributes)
    checked(write(tmp_path / "m.onnx", [top], {"k": ints(4)}, outputs=("y", "i"), output_types=[TensorProto.FLOAT, INT64]))


def test_gather_by_what_is_computed(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMax", "x", "m", axes=[1], keepdims=0),
        node("ArgMax", "m", "i", axis=2),
        node("Gather", "table i", "y"),
    ]
    checked(write(tmp_path / "m.onnx", nodes, {"table": floats(10, 4)}))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str, tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("DepthToSpace", "c", "y", blocksize=2, mode=mode)]
    checked(write(tmp_path / "m.onnx", nodes, {"w": floats(12, 3, 1, 1)}))


@pytest.mark.parametrize("to", [TensorProto.FLOAT, TensorProto.INT32, INT64, BOOL])
def test_cast(to: int, tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "c", to=to), node("Cast", "c", "y", to=TensorProto.FLOAT)]
    checked(write(tmp_path / "m.onnx", nodes))


def test_dropout_is_gone_and_constants_are_folded(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "batch"),
        node("Unsqueeze", "batch zeros", "batches"),
        node("Concat", "batches rest", "target", axis=0),
        node("Dropout", "x", "d"),
        node("Reshape", "d target", "r"),
        node("ConstantOfShape", "one", "ones"),
        node("Add", "r ones", "y"),
    ]
    constants = {"zero": np.int64(0), "zeros": ints(0), "rest": ints(-1), "one": ints(240)}
    imported = checked(write(tmp_path / "m.onnx", nodes, constants, shape=("batch", 3, 8, 10)))
    assert imported.any_batch


def test_every_operator_is_tested() -> None:
    """A new operator comes with a case here."""
    text = Path(__file__).read_text()
    missing = [op for op in OPERATORS if op != "Linear" and f'"{op}"' not in text and f'"{op.lower()}' not in text]
    assert missing == []


@pytest.mark.parametrize(
    ("nodes", "constants", "why"),
    [
        ([node("MaxPool", "x", "y i", kernel_shape=[2, 2])], {}, "indices of its maxima"),
        ([node("CumSum", "x a", "y", reverse=1)], {"a": np.int64(0)}, "reversed"),
        ([node("Pad", "x p", "y", mode="reflect")], {"p": ints(0, 1, 0, 0, 0, 1, 0, 0)}, "pads axis 1"),
        ([node("Resize", "x - s", "y", mode="linear")], {"s": np.float32([1, 2, 1, 1])}, "resizes channels"),
        ([node("ReduceMax", "x", "m", keepdims=0), node("Clip", "x - m", "y")], {}, "computes its max"),
    ],
)  # fmt: skip
def test_what_an_operator_cannot_is_said(nodes: list[Any], constants: dict[str, Any], why: str, tmp_path: Path) -> None:
    outputs = [name for made in nodes for name in made.output if name not in {i for other in nodes for i in other.input}]
    types = [INT64 if name == "i" else TensorProto.FLOAT for name in outputs]
    path = write(tmp_path / "m.onnx", nodes, constants, outputs=outputs, output_types=types)
    with pytest.raises(InputError, match=f"{why}.*which cannot be imported"):
        import_onnx(path)
