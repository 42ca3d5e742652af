"""A folded graph as a float ONNX model and as a float LiteRT model, and the uint8 NHWC front that both are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.fx import GraphModule

from quantize.float_model import FloatModel
from quantize.graph import layers, weight_and_bias
from quantize.onnx_graph import OnnxGraph, layer_name
from quantize.quiet import quiet
from train.draft import INPUT

NORMALIZED = "normalized"
OPSET = 17
"""New enough for per-channel weights (13), old enough for the onnxruntime of any board we know."""


@dataclass(frozen=True, slots=True)
class Front:
    """Pixels to network input as an affine quantization: (pixel - zero_point) * scale, exact by construction."""

    scale: float
    zero_point: int


class Normalize(nn.Conv2d):
    """(x - mean) / std for each channel of [n, 3, h, w].

    As a convolution of one weight a channel, which every engine has in integers: the weights keep their exact value and
    the offsets 32 bits. It is not folded into the network's first convolution, because that one's padding stands for
    the mean, which is another pixel value in each channel.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(3, 3, 1, groups=3)
        factor = 1 / torch.tensor(std, dtype=torch.float64)
        with torch.no_grad():
            self.weight.copy_(factor.reshape(3, 1, 1, 1))
            assert self.bias is not None
            self.bias.copy_(-torch.tensor(mean, dtype=torch.float64) * factor)


def with_front(model: FloatModel) -> tuple[nn.Module, Front]:
    """The network and the front that feeds it.

    A mean and std that all channels share, the mean an integer, are the front's zero point and scale, so that they
    cost nothing; any other normalization runs as the network's first step.
    """
    means, stds = set(model.mean), set(model.std)
    mean = model.mean[0]
    if len(means) == len(stds) == 1 and mean == int(mean) and 0 <= mean <= 255:
        return model.network, Front(1 / model.std[0], int(mean))
    return nn.Sequential(Normalize(model.mean, model.std), model.network), Front(1.0, 0)


def to_onnx(graph: GraphModule, example: Tensor, role: str) -> onnx.ModelProto:
    """The graph as ONNX from `normalized` float32 [1, 3, h, w] to one output named `role`, pooling as one operator."""
    graph.training = False  # an exported graph has no eval()
    with quiet():
        program = torch.onnx.export(
            graph, (example,), dynamo=True, opset_version=OPSET, input_names=[NORMALIZED], output_names=[role], verbose=False
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # file names and stack traces of this machine
        node.doc_string = ""
    _pool(model)
    _pad_in_pool(model)
    return model


def _pad_in_pool(model: onnx.ModelProto) -> None:
    """Zeros around what is never negative, as quantize.pools puts them before a maximum, said as that one's own padding.

    ONNX Runtime has no padding in integers; a maximum's own it has.
    """
    graph = OnnxGraph(model)
    for pool in graph.nodes:
        pad = graph.producer(pool.input[0]) if pool.op_type == "MaxPool" else None
        if pad is None or pad.op_type != "Pad" or len(pad.input) != 3 or pad.input[1] not in graph.initializers:
            continue
        sides = graph.array(pad.input[1]).tolist()
        constant = graph.initializers.get(pad.input[2])
        own = graph.attributes(pool)
        if constant is None or numpy_helper.to_array(constant).any() or any(own.get("pads", ())) or own.get("ceil_mode", 0):
            continue
        kept = [attribute for attribute in pool.attribute if attribute.name not in ("pads", "auto_pad")]
        del pool.attribute[:]
        pool.attribute.extend([*kept, helper.make_attribute("pads", [*sides[2:4], *sides[6:8]])])
        pool.input[0] = pad.input[0]
        if graph.users(pad.output[0]) == [pool]:
            model.graph.node.remove(pad)


def _pool(model: onnx.ModelProto) -> None:
    """The mean over both image axes, said as GlobalAveragePool, which ONNX Runtime has in integers."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "ReduceMean":
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        axes = attributes.get("axes") or (
            numpy_helper.to_array(constants[node.input[1]]).tolist() if len(node.input) > 1 else []
        )
        if sorted(axis % 4 for axis in axes) == [2, 3] and attributes.get("keepdims", 1):
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]


def with_weights(model: onnx.ModelProto, graph: GraphModule) -> onnx.ModelProto | None:
    """An exported model with the weights and biases of another version of its graph; None where they don't fit.

    Saves exporting again for each way of rounding.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    parts = OnnxGraph(changed)
    weighted = {layer_name(node): node for node in parts.nodes if parts.is_weighted(node)}
    for layer in layers(graph):
        node = weighted.get(layer.name)
        if node is None or len(node.input) not in (2, 3):
            return None
        weight, bias = (value.detach().numpy() for value in weight_and_bias(graph, layer))
        if tuple(parts.initializers[node.input[1]].dims) != weight.shape:
            return None
        for index, (name, values) in enumerate((("weight", weight), ("bias", bias)), start=1):
            tensor = numpy_helper.from_array(np.ascontiguousarray(values), f"{layer.name}.{name}")
            changed.graph.initializer.append(tensor)
            if index < len(node.input):
                node.input[index] = tensor.name
            else:
                node.input.append(tensor.name)
    return OnnxGraph(changed).rebuilt(list(changed.graph.node), {tensor.name: tensor for tensor in changed.graph.initializer})


def uint8_nhwc(core: onnx.ModelProto, front: Front, size_wh: tuple[int, int]) -> onnx.ModelProto:
    """The model with its input as `image` uint8 [1, h, w, 3]: transposed as bytes, then dequantized."""
    model = onnx.ModelProto()
    model.CopyFrom(core)
    add_front(model, front, size_wh, NORMALIZED)
    return model


def add_front(model: onnx.ModelProto, front: Front, size_wh: tuple[int, int], feeds: str) -> None:
    """Put Transpose and DequantizeLinear before the tensor `feeds`, in place."""
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(front.scale, np.float32), "pixel_scale"),
            numpy_helper.from_array(np.array(front.zero_point, np.uint8), "pixel_zero_point"),
        ]
    )
    nodes = [
        helper.make_node("Transpose", [INPUT], ["pixels"], name="to_nchw", perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["pixels", "pixel_scale", "pixel_zero_point"], [feeds], name="normalize"),
        *model.graph.node,
    ]
    del model.graph.node[:], model.graph.input[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    width, height = size_wh
    model.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, height, width, 3]))


class _ChannelsLast(nn.Module):
    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.network = graph

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.permute(0, 3, 1, 2))
        return logits


def to_tflite(graph: GraphModule, example: Tensor) -> bytes:
    """The graph as a LiteRT model from float32 [1, h, w, 3], already normalized, to logits."""
    import tempfile
    from pathlib import Path

    module = _ChannelsLast(graph)
    graph.training = module.training = False
    with quiet(), tempfile.TemporaryDirectory() as folder:
        import litert_torch

        path = Path(folder) / "float.tflite"
        litert_torch.convert(module, (example.permute(0, 2, 3, 1).contiguous(),)).export(str(path))
        return path.read_bytes()
