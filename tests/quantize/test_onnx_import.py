"""ONNX files as their exporters write them, real ones among them, and what is said of those that cannot be imported."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edge.errors import InputError  # noqa: E402
from quantize import onnx_import  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.graph import layers  # noqa: E402
from quantize.onnx_import import Imported, import_onnx  # noqa: E402
from quantize.onnx_ops import OPERATORS  # noqa: E402
from quantize.quiet import quiet  # noqa: E402
from tests.quantize.onnx_graphs import floats, ints, node, write  # noqa: E402

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
CONV = [node("Conv", "x w b", "y", pads=[1, 1, 1, 1])]
WEIGHTS = {"w": floats(4, 3, 3, 3), "b": floats(4)}


def compared(path: Path, imported: Imported, picture: Any) -> None:
    """The module against ONNX Runtime on the file, for a picture as the file takes it."""
    expected = ort.InferenceSession(path).run(list(imported.outputs), {imported.input_name: picture})
    planes = picture.transpose(0, 3, 1, 2) if imported.channels_last else picture
    with torch.no_grad():
        made = imported.network(torch.from_numpy(np.ascontiguousarray(planes, np.float32)))
    for right, found in zip(expected, made if isinstance(made, tuple) else (made,), strict=True):
        np.testing.assert_allclose(found.numpy(), right, rtol=1e-4, atol=1e-4)


def operators(network: nn.Module, *shape: int) -> Counter[str]:
    """How often each aten operator is in the captured graph."""
    with quiet():
        program = torch.export.export(network, (torch.zeros(shape),))
    return Counter(str(step.target).split(".")[1] for step in program.graph.nodes if step.op == "call_function")


class Shuffled(nn.Module):
    """One unit of ShuffleNet, with batch norm and a channel shuffle by reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(4, 4, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.norm(self.stem(image)))
        kept, changed = x.chunk(2, 1)
        x = torch.cat([kept, torch.sigmoid(self.branch(changed))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return x, nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)


def trained(network: nn.Module) -> nn.Module:
    """The network with statistics that are not those of a new one, in evaluation mode."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


@pytest.mark.parametrize("opset", [17, 18])
def test_torch_exporter(opset: int, tmp_path: Path) -> None:
    with quiet():
        program = torch.onnx.export(
            trained(Shuffled()), (torch.zeros(1, 3, 16, 16),), dynamo=True, opset_version=opset, verbose=False
        )
        assert program is not None
        program.save(tmp_path / "m.onnx")
    imported = import_onnx(tmp_path / "m.onnx")
    compared(tmp_path / "m.onnx", imported, floats(1, 3, 16, 16))
    assert imported.output_shapes == ((1, 8, 8, 8), (1, 8))
    assert imported.any_batch
    assert imported.producer == "pytorch"
    assert {name for name, _ in imported.network.named_parameters()} == {
        "stem.weight", "stem.weight_bias", "branch.weight", "branch.bias"
    }  # fmt: skip
    with quiet():
        assert len(layers(fold(imported.network, torch.zeros(1, 3, 16, 16)))) == 2


class Tokens(nn.Module):
    """A small vision transformer: patches, attention, layer norm, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.position
        scores: Tensor = self.head(self.block(tokens).mean(1)).softmax(-1)
        return scores


def test_a_vision_transformer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(Tokens().eval(), (torch.zeros(1, 3, 16, 16),), dynamo=True, opset_version=17, verbose=False)
        assert program is not None
        program.save(tmp_path / "m.onnx")
    imported = import_onnx(tmp_path / "m.onnx")
    compared(tmp_path / "m.onnx", imported, floats(1, 3, 16, 16))
    found = operators(imported.network, 1, 3, 16, 16)
    assert (found["linear"], found["layer_norm"], found["softmax"]) == (5, 2, 2)


def test_older_torch_exporter_with_a_free_size(tmp_path: Path) -> None:
    """Sizes computed by Shape, Gather, Concat, names made of numbers, opset 11."""
    nodes = [
        node("Conv", "x onnx::Conv_12 onnx::Conv_13", "c", pads=[1, 1, 1, 1]),
        node("Shape", "c", "s"),
        node("Constant", "", "i", value=numpy_helper.from_array(np.int64(0))),
        node("Gather", "s i", "n"),
        node("Unsqueeze", "n", "n1", axes=[0]),
        node("Constant", "", "rest", value=numpy_helper.from_array(ints(4, -1))),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "c target", "r"),
        node("Transpose", "r", "y", perm=[0, 2, 1]),
    ]
    weights = {"onnx::Conv_12": floats(4, 3, 3, 3), "onnx::Conv_13": floats(4)}
    path = write(tmp_path / "m.onnx", nodes, weights, shape=("batch", 3, "height", "width"), opset=11)
    imported = import_onnx(path, (10, 8))
    assert imported.size_wh == (10, 8)
    assert imported.output_shapes == ((1, 80, 4),)
    assert imported.any_batch
    assert [name for name, _ in imported.network.named_parameters()] == ["Conv_c.weight", "Conv_c.bias"]
    compared(path, imported, floats(1, 3, 8, 10))
    assert imported.network(torch.zeros(5, 3, 8, 10)).shape == (5, 80, 4)


def test_keras_by_tf2onnx(tmp_path: Path) -> None:
    """Channels last, bytes scaled in the graph, SAME padding that is uneven, names with slashes and colons, a dense head."""
    nodes = [
        node("Mul", "x scale:0", "scaled"),
        node("Sub", "scaled one", "centred"),
        node("Transpose", "centred", "planes", perm=[0, 3, 1, 2]),
        node(
            "Conv", "planes model/conv/Conv2D/ReadVariableOp:0", "c", auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]
        ),
        node("BatchNormalization", "c gamma beta mean variance", "n", epsilon=1e-3),
        node("Clip", "n zero six", "r"),
        node("MaxPool", "r", "p", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Transpose", "p", "last", perm=[0, 2, 3, 1]),
        node("ReduceMean", "last", "pooled", axes=[1, 2], keepdims=0),
        node("MatMul", "pooled model/dense/MatMul/ReadVariableOp:0", "m"),
        node("Add", "m model/dense/BiasAdd/ReadVariableOp:0", "logits"),
        node("Softmax", "logits", "y"),
    ]
    constants = {
        "scale:0": np.float32(1 / 127.5),
        "one": np.float32(1),
        "model/conv/Conv2D/ReadVariableOp:0": floats(4, 3, 3, 3),
        "gamma": floats(4, seed=1),
        "beta": floats(4, seed=2),
        "mean": floats(4, seed=3),
        "variance": np.abs(floats(4, seed=4)) + 0.5,
        "zero": np.float32(0),
        "six": np.float32(6),
        "model/dense/MatMul/ReadVariableOp:0": floats(4, 5),
        "model/dense/BiasAdd/ReadVariableOp:0": floats(5),
    }
    path = write(tmp_path / "m.onnx", nodes, constants, shape=("unk__1", 8, 10, 3), opset=13, producer="tf2onnx")
    imported = import_onnx(path)
    assert imported.channels_last
    assert imported.size_wh == (10, 8)
    compared(path, imported, np.random.default_rng(0).uniform(0, 255, (1, 8, 10, 3)).astype(np.float32))
    found = operators(imported.network, 1, 3, 8, 10)
    assert "permute" not in found
    assert found["linear"] == 1
    assert {name for name, _ in imported.network.named_parameters()} == {
        "model.conv.Conv2D.weight",
        "model.conv.Conv2D.bias",
        "model.dense.MatMul.ReadVariableOp_0",
        "model.dense.BiasAdd.ReadVariableOp_0",
    }


def test_paddle2onnx(tmp_path: Path) -> None:
    """A batch of -1, opset 9 with attributes where inputs are now, hard swish and upsampling of old."""
    nodes = [
        node("Conv", "x conv2d_0.w_0", "c", pads=[1, 1, 1, 1], kernel_shape=[3, 3], strides=[2, 2]),
        node("BatchNormalization", "c bn.w_0 bn.b_0 bn.w_1 bn.w_2", "n"),
        node("HardSigmoid", "n", "h", alpha=1 / 6, beta=0.5),
        node("Mul", "n h", "s"),
        node("Upsample", "s scales", "u", mode="nearest"),
        node("Clip", "u", "k", min=0.0, max=6.0),
        node("Slice", "k", "half", axes=[1], starts=[0], ends=[2]),
        node("Flatten", "half", "f"),
        node("Softmax", "f", "y", axis=1),
    ]
    constants = {
        "conv2d_0.w_0": floats(4, 3, 3, 3),
        "bn.w_0": floats(4, seed=1),
        "bn.b_0": floats(4, seed=2),
        "bn.w_1": floats(4, seed=3),
        "bn.w_2": np.abs(floats(4, seed=4)) + 0.5,
        "scales": np.float32([1, 1, 2, 2]),
    }
    path = write(tmp_path / "m.onnx", nodes, constants, shape=(-1, 3, 8, 10), opset=9, producer="PaddlePaddle")
    imported = import_onnx(path)
    assert imported.any_batch
    assert "conv2d_0.weight" in dict(imported.network.named_parameters())
    compared(path, imported, floats(1, 3, 8, 10))


@pytest.mark.parametrize("shape", [(1, 8, 10, 3), (1, 3, 8, 10)])
def test_bytes_in(shape: tuple[int, ...], tmp_path: Path) -> None:
    turn = [node("Transpose", "x", "t", perm=[0, 3, 1, 2])] if shape[3] == 3 else [node("Identity", "x", "t")]
    nodes = [*turn, node("Cast", "t", "f", to=FLOAT), node("Conv", "f w b", "y")]
    path = write(tmp_path / "m.onnx", nodes, WEIGHTS, shape=shape, dtype=UINT8)
    imported = import_onnx(path)
    assert imported.input_dtype == "uint8"
    compared(path, imported, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    assert operators(imported.network, 1, 3, 8, 10) == {"conv2d": 1}


def test_our_own_float_variant(tmp_path: Path) -> None:
    """Bytes dequantized at the door only, as quantize.export writes them."""
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("DequantizeLinear", "t s z", "f"), node("Conv", "f w b", "y")]
    constants = WEIGHTS | {"s": np.float32(1 / 128), "z": np.uint8(127)}
    path = write(tmp_path / "m.onnx", nodes, constants, shape=(1, 8, 10, 3), dtype=UINT8)
    compared(path, import_onnx(path), np.random.default_rng(0).integers(0, 256, (1, 8, 10, 3), np.uint8))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: Any, tmp_path: Path) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [node("Cast", "x", "d", to=kind), node("Conv", "d w b", "c"), node("Cast", "c", "y", to=FLOAT)]
    constants = {name: array.astype(dtype) for name, array in WEIGHTS.items()}
    imported = import_onnx(write(tmp_path / "m.onnx", nodes, constants))
    assert {parameter.dtype for parameter in imported.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision_throughout(kind: int, tmp_path: Path) -> None:
    constants = {name: helper.make_tensor(name, kind, array.shape, array.reshape(-1)) for name, array in WEIGHTS.items()}
    imported = import_onnx(write(tmp_path / "m.onnx", CONV, constants, dtype=kind, output_types=[kind]))
    assert imported.input_dtype == "float32"
    expected = nn.functional.conv2d(torch.ones(1, 3, 8, 10), *(torch.from_numpy(WEIGHTS[name]) for name in "wb"), padding=1)
    torch.testing.assert_close(imported.network(torch.ones(1, 3, 8, 10)), expected, rtol=2e-2, atol=2e-2)


def test_a_constant_condition_is_decided(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph([node(op, "x", name)], name, [], [helper.make_tensor_value_info(name, FLOAT, None)])
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    path = write(tmp_path / "m.onnx", [node("If", "condition", "y", **branches)], {"condition": np.array(False)})
    imported = import_onnx(path)
    assert operators(imported.network, 1, 3, 8, 10) == {"neg": 1}


def test_local_functions_and_names_that_two_nodes_share(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"], name="same"), helper.make_node("Neg", ["b"], ["c"], name="same")]
    function = helper.make_function("local", "ReluNeg", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    path = write(tmp_path / "m.onnx", [helper.make_node("ReluNeg", ["x"], ["y"], domain="local")], domains=["local"])
    model = onnx.load(path)
    model.functions.append(function)
    onnx.save(model, path)
    assert operators(import_onnx(path).network, 1, 3, 8, 10) == {"relu": 1, "neg": 1}


def test_an_opset_of_long_ago_is_raised(tmp_path: Path) -> None:
    imported = import_onnx(write(tmp_path / "m.onnx", [*CONV, node("Relu", "y", "z")], WEIGHTS, opset=6, outputs=("z",)))
    assert operators(imported.network, 1, 3, 8, 10) == {"conv2d": 1, "relu": 1}


def test_weights_in_another_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", CONV, {"w": floats(400, 3, 3, 3), "b": floats(400)})
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert import_onnx(path).output_shapes == ((1, 400, 8, 10),)
    (tmp_path / "m.data").write_bytes(b"short")
    with pytest.raises(InputError, match="its external weights cannot be read"):
        import_onnx(path)
    (tmp_path / "m.data").unlink()
    with pytest.raises(InputError, match=r"its weights are in the file 'm\.data', which is not beside it"):
        import_onnx(path)


def test_focus_is_one_strided_convolution(tmp_path: Path) -> None:
    """YOLO's first layer: four slices, joined in YOLOX's order, before a convolution."""
    nodes, parts = [], []
    for column in (0, 1):
        for row in (0, 1):
            nodes.append(node("Slice", f"x s{row} big a2 two", f"r{row}{column}"))
            nodes.append(node("Slice", f"r{row}{column} s{column} big a3 two", f"p{row}{column}"))
            parts.append(f"p{row}{column}")
    nodes += [node("Concat", " ".join(parts), "c", axis=1), node("Conv", "c w b", "y", pads=[1, 1, 1, 1])]
    constants = {"s0": ints(0), "s1": ints(1), "big": ints(2**31), "a2": ints(2), "a3": ints(3), "two": ints(2)}
    path = write(tmp_path / "m.onnx", nodes, constants | {"w": floats(5, 12, 3, 3), "b": floats(5)}, opset=11)
    imported = import_onnx(path)
    assert operators(imported.network, 1, 3, 8, 10) == {"conv2d": 1}
    assert dict(imported.network.named_parameters())["w.weight"].shape == (5, 3, 6, 6)
    compared(path, imported, floats(1, 3, 8, 10))


@pytest.mark.parametrize("groups", [1, 4])
def test_a_permutation_goes_into_the_weights(groups: int, tmp_path: Path) -> None:
    """Behind a convolution and what works element by element, and in front of one."""
    order = np.random.default_rng(0).permutation(4)
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c", "r")]
    nodes += [node("Conv", "r d", "k", group=4), node("Tanh", "k", "t")] if groups == 4 else [node("Tanh", "r", "t")]
    nodes += [node("Gather", "t order", "g", axis=1), node("MaxPool", "g", "y", kernel_shape=[2, 2])]
    nodes += [node("Add", "y y", "yy"), node("Gather", "yy order", "h", axis=1), node("Conv", "h v", "z")]
    constants = WEIGHTS | {"order": order, "d": floats(4, 1, 1, 1), "v": floats(2, 4, 1, 1)}
    path = write(tmp_path / "m.onnx", nodes, constants, outputs=("y", "z"))
    imported = import_onnx(path)
    assert "index_select" not in operators(imported.network, 1, 3, 8, 10)
    compared(path, imported, floats(1, 3, 8, 10))


def test_a_permutation_that_others_read_stays(tmp_path: Path) -> None:
    nodes = [*CONV, node("Gather", "y order", "g", axis=1), node("Conv", "g v", "z")]
    constants = WEIGHTS | {"order": ints(2, 0, 3, 1), "v": floats(2, 4, 1, 1)}
    path = write(tmp_path / "m.onnx", nodes, constants, outputs=("y", "g", "z"))
    imported = import_onnx(path)
    assert operators(imported.network, 1, 3, 8, 10)["index_select"] == 1
    compared(path, imported, floats(1, 3, 8, 10))


def test_shared_weights_are_one_parameter(tmp_path: Path) -> None:
    nodes = [node("Conv", "x head.w", "y"), node("Relu", "x", "r"), node("Conv", "r head.w", "z")]
    imported = import_onnx(write(tmp_path / "m.onnx", nodes, {"head.w": floats(4, 3, 1, 1)}, outputs=("y", "z")))
    assert [name for name, _ in imported.network.named_parameters()] == ["head.w"]


def test_names_that_contain_each_other(tmp_path: Path) -> None:
    nodes = [node("Conv", "x head", "y"), node("Conv", "y head.w", "z"), node("Conv", "z forward", "f")]
    weights = {"head": floats(4, 3, 1, 1), "head.w": floats(4, 4, 1, 1), "forward": floats(2, 4, 1, 1)}
    path = write(tmp_path / "m.onnx", nodes, weights, outputs=("f",))
    imported = import_onnx(path)
    assert len(list(imported.network.parameters())) == 3
    compared(path, imported, floats(1, 3, 8, 10))


def test_the_module_is_copied_and_trained(tmp_path: Path) -> None:
    import copy

    network = copy.deepcopy(import_onnx(write(tmp_path / "m.onnx", CONV, WEIGHTS)).network)
    before = network(torch.ones(1, 3, 8, 10)).detach()
    network(torch.ones(2, 3, 8, 10)).sum().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    assert not torch.equal(network(torch.ones(1, 3, 8, 10)), before)
    saved = io.BytesIO()
    torch.save(network.state_dict(), saved)


def test_a_module_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", [node("Relu", "x", "first"), node("Sigmoid", "x", "second")], outputs=("first", "second"))
    import_onnx(path)
    for wrong, how in (
        (lambda _, value: torch.sigmoid(value) + 0.01, "by 0.01"),
        (lambda _, value: value[..., :4], r"is \[1, 3, 8, 4\] instead of \[1, 3, 8, 10\]"),
        (lambda _, value: torch.sigmoid(value) / 0, "is not finite in other places"),
    ):
        monkeypatch.setattr(onnx_import, "OPERATORS", OPERATORS | {"Sigmoid": wrong})
        with pytest.raises(InputError, match=f"differs from ONNX Runtime, output 'second' {how}.*please report"):
            import_onnx(path)


def _saved(change: Callable[[onnx.ModelProto], Any]) -> Callable[[Path], Any]:
    """A writer of the convolution's model with a change."""

    def save(path: Path) -> None:
        model = onnx.load(write(path, CONV, WEIGHTS))
        change(model)
        path.write_bytes(model.SerializeToString())

    return save


def _noise(path: Path) -> None:
    path.write_bytes(b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(1000)))


def _with(nodes: list[Any], constants: dict[str, Any] | None = None, **more: Any) -> Callable[[Path], Any]:
    return lambda path: write(path, nodes, WEIGHTS | (constants or {}), **more)


LOOP_BODY = helper.make_graph(
    [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Relu", ["before"], ["after"])],
    "body",
    [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("before", FLOAT, None),
    ],
    [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("after", FLOAT, None)],
)
RELU = helper.make_graph(
    [helper.make_node("Relu", ["x"], ["t"])], "then", [], [helper.make_tensor_value_info("t", FLOAT, None)]
)
NEG = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "else", [], [helper.make_tensor_value_info("e", FLOAT, None)])
DECIDE = [
    node("ReduceMean", "x", "m", keepdims=0),
    node("Greater", "m half", "bright"),
    node("If", "bright", "y", then_branch=RELU, else_branch=NEG),
]
OTHER = helper.make_tensor_value_info("size", FLOAT, [1, 2])

REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "cannot be read: No such file"),
    "folder": (Path.mkdir, r"a folder; give the \.onnx file in it"),
    "empty": (Path.touch, "empty; export or download it again"),
    "text": (lambda path: path.write_text("not a model " * 50), "not an ONNX file; give one that"),
    "page": (lambda path: path.write_text("<html>404</html>"), "a web page"),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04..."), r"a zip archive.*\.pt"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n..."), "an HDF5 file.*tf2onnx"),
    "tflite": (lambda path: path.write_bytes(b"\x1c\0\0\0TFL3..."), r"TensorFlow Lite.*\.tflite"),
    "noise": (_noise, "not an ONNX file, or encrypted"),
    "cut": (_saved(lambda model: None), "a damaged ONNX file, cut short at 300 bytes"),
    "opset too new": (_saved(lambda model: setattr(model.opset_import[0], "version", 99)), "opset 99, known are 1 to"),
    "no opset": (_saved(lambda model: model.ClearField("opset_import")), "opset 0, known are"),
    "wrong wiring": (_saved(lambda model: setattr(model.graph.node[0], "op_type", "Relu")), "ONNX Runtime cannot read it: "),
    "not finite": (_with(CONV, {"w": WEIGHTS["w"] * np.float32("nan")}), "the weights 'w' hold 108 that are not finite"),
    "two inputs": (_with(CONV, more_inputs=[OTHER]), r"2 inputs \(x, size\), expected one image"),
    "one channel": (
        _with([node("Relu", "x", "y")], shape=(1, 1, 8, 8)),
        r"its input 'x' is \[1, 1, 8, 8\], expected one RGB or BGR",
    ),
    "a vector": (_with([node("Relu", "x", "y")], shape=(1, 3)), r"its input 'x' is \[1, 3\], expected one RGB or BGR image"),
    "a batch": (_with(CONV, shape=(8, 3, 8, 8)), "a batch of 8; export it with a batch of 1"),
    "free size": (
        _with(CONV, shape=("n", 3, "h", "w")),
        r"\[n, 3, h, w\], whose height and width are free; fix them with --size",
    ),
    "integers": (
        _with([node("Cast", "x", "y", to=FLOAT)], dtype=TensorProto.INT32),
        "its input 'x' is int32, expected float32 or uint8",
    ),
    "bytes": (
        _with([node("Add", "x x", "y")], dtype=UINT8, output_types=[UINT8]),
        "its uint8 input goes into Add .* as integers",
    ),
    "quantized": (
        _with(
            [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")],
            {"s": np.float32(1), "z": np.uint8(0)},
        ),
        r"already quantized \(QuantizeLinear, node 'QuantizeLinear_q'\); give the float model",
    ),
    "dynamically quantized": (
        _with([node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z", "y")]),
        "already quantized",
    ),
    "training": (_with([node("Dropout", "x - t", "y")], {"t": np.array(True)}), "a graph for training"),
    "batch norm in training": (
        _with(
            [node("BatchNormalization", "x m m m v", "y rm rv", training_mode=1)], {"m": floats(3), "v": np.ones(3, np.float32)}
        ),
        r"a graph for training; export it for inference, after network\.eval\(\)",
    ),
    "a branch": (
        _with(DECIDE, {"half": np.float32(0.5)}),
        "operator If .node 'If_y', 1 such in all. cannot be imported.*branches that depend",
    ),
    "a loop": (
        _with([node("Loop", "times - x", "y", body=LOOP_BODY)], {"times": np.int64(3)}),
        "operator Loop .node 'Loop_y'.*cannot be imported",
    ),
    "unknown operators": (
        _with(
            [node("NonZero", "x", "n"), node("Cast", "n", "f", to=FLOAT), node("Det", "x", "d")],
            shape=(1, 3, 8, 8),
            outputs=("f", "d"),
        ),
        "operator NonZero .node 'NonZero_n', 2 such in all. cannot be imported, nor Det; export the network without its post-",
    ),
    "another domain": (
        lambda path: write(path, [helper.make_node("Swirl", ["x"], ["y"], domain="acme")], domains=["acme"]),
        "operator Swirl of domain 'acme' .node 'y', 1 such in all. cannot be imported",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_line(name: str, tmp_path: Path) -> None:
    write_it, why = REFUSED[name]
    path = tmp_path / "m.onnx"
    write_it(path)
    if name == "cut":
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=why) as refused:
        import_onnx(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_fixed_size_cannot_be_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", CONV, WEIGHTS)
    assert import_onnx(path, (10, 8)).size_wh == (10, 8)
    with pytest.raises(InputError, match=r"\[1, 3, 8, 10\], which --size 416x416 cannot change; leave --size out"):
        import_onnx(path, (416, 416))


def test_every_cut_of_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.onnx", CONV, WEIGHTS).read_bytes()
    for length in range(1, len(whole), 17):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(InputError):
            import_onnx(tmp_path / "cut.onnx")


REAL = {"yolox_nano_416.onnx": (255.0, 2e-3), "fastestdet_352.onnx": (1.0, 2e-3)}


@pytest.mark.parametrize("name", REAL)
def test_real_detectors(name: str, shared_data: Path) -> None:
    largest, tolerance = REAL[name]
    path = shared_data / "models" / name
    imported = import_onnx(path)
    width, height = imported.size_wh
    picture = np.random.default_rng(1).uniform(0, largest, (1, 3, height, width)).astype(np.float32)
    [expected] = ort.InferenceSession(path).run(None, {imported.input_name: picture})
    with torch.no_grad():
        found = imported.network(torch.from_numpy(picture)).numpy()
    assert np.abs(found - expected).max() < tolerance
    assert imported.output_shapes == (expected.shape,)
    assert imported.any_batch
    assert not list(imported.network.buffers())


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_detectors_are_exported_again(name: str, shared_data: Path, tmp_path: Path) -> None:
    """torch.export, ONNX and LiteRT: all compute what the file computes."""
    from ai_edge_litert.interpreter import Interpreter

    from quantize.quiet import quiet

    largest, tolerance = REAL[name]
    path = shared_data / "models" / name
    imported = import_onnx(path)
    width, height = imported.size_wh
    picture = np.random.default_rng(1).uniform(0, largest, (1, 3, height, width)).astype(np.float32)
    example = torch.from_numpy(picture)
    [expected] = ort.InferenceSession(path).run(None, {imported.input_name: picture})

    with quiet():
        graph = fold(imported.network, example)
        program = torch.onnx.export(graph, (example,), dynamo=True, opset_version=17, input_names=["image"], verbose=False)
    with torch.no_grad():
        assert np.abs(graph(example).numpy() - expected).max() < tolerance
    assert program is not None
    [again] = ort.InferenceSession(program.model_proto.SerializeToString()).run(None, {"image": picture})
    assert np.abs(again - expected).max() < tolerance
    program.save(tmp_path / "again.onnx")
    [third] = ort.InferenceSession(tmp_path / "again.onnx").run(None, {"image": picture})
    second = import_onnx(tmp_path / "again.onnx")
    with torch.no_grad():
        assert np.abs(second.network(example).numpy() - third).max() < tolerance

    with quiet():
        import litert_torch

        graph.training = False
        litert_torch.convert(graph, (example,)).export(str(tmp_path / "m.tflite"))
        interpreter = Interpreter(str(tmp_path / "m.tflite"))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
        interpreter.invoke()
    lite = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.abs(lite - expected).max() < tolerance
