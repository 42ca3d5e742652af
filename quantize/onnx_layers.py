"""ONNX operators with windows, weights or statistics, as torch: convolution, pooling, normalization, products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from quantize.onnx_module import Constant, Node, Operator, Value, tensor, weight
from quantize.onnx_window import Window, halves

LOWEST = torch.finfo(torch.float32).min


def conv(node: Node, value: Value, kernel: Value, bias: Value = None) -> Tensor:
    x, w = _image(node, value), weight(kernel)
    assert w is not None
    window = _window(node, x, w.shape[2:])
    padding = window.begin
    if padding != window.end:
        x, padding = F.pad(x, (window.begin[1], window.end[1], window.begin[0], window.end[0])), (0, 0)
    return F.conv2d(x, w, weight(bias), window.strides, padding, window.dilations, node.attribute("group", 1))


def conv_transpose(node: Node, value: Value, kernel: Value, bias: Value = None) -> Tensor:
    x, w = _image(node, value), weight(kernel)
    assert w is not None
    strides, dilations = node.attribute("strides", [1, 1]), node.attribute("dilations", [1, 1])
    extra = node.attribute("output_padding", [0, 0])
    full = [(x.shape[2 + i] - 1) * strides[i] + dilations[i] * (w.shape[2 + i] - 1) + 1 + extra[i] for i in (0, 1)]
    wanted = node.attribute("output_shape")
    auto = node.attribute("auto_pad", b"NOTSET").decode()
    if wanted is None and auto.startswith("SAME"):
        wanted = [x.shape[2 + i] * strides[i] for i in (0, 1)]
    if wanted is not None:
        begin, end = halves([max(full[i] - wanted[-2 + i], 0) for i in (0, 1)], at_end=auto == "SAME_UPPER")
        extra = [extra[i] + max(wanted[-2 + i] - full[i], 0) for i in (0, 1)]
    else:
        pads = [0] * 4 if auto == "VALID" else node.attribute("pads", [0] * 4)
        begin, end = (pads[0], pads[1]), (pads[2], pads[3])
    groups = node.attribute("group", 1)
    if begin == end:
        return F.conv_transpose2d(x, w, weight(bias), strides, begin, extra, groups, dilations)
    y = F.conv_transpose2d(x, w, weight(bias), strides, [0, 0], extra, groups, dilations)
    return y[:, :, begin[0] : y.shape[2] - end[0], begin[1] : y.shape[3] - end[1]]


def max_pool(node: Node, value: Value) -> Tensor:
    x = _image(node, value)
    if len(node.step.outputs) > 1 and node.step.outputs[1]:
        raise node.refused("gives the indices of its maxima")
    window = _window(node, x, node.attribute("kernel_shape"))
    ceil = window.torch_ceil()
    if ceil is not None:
        return F.max_pool2d(x, window.kernel, window.strides, window.begin, window.dilations, ceil)
    return F.max_pool2d(F.pad(x, window.reach(), value=LOWEST), window.kernel, window.strides, 0, window.dilations)


def average_pool(node: Node, value: Value) -> Tensor:
    x = _image(node, value)
    window = _window(node, x, node.attribute("kernel_shape"))
    if any(dilation != 1 for dilation in window.dilations):
        raise node.refused("has dilations")
    counts_pads = bool(node.attribute("count_include_pad", 0))
    ceil = window.torch_ceil()
    is_alike = window.begin == window.end and not ceil  # torch counts the same padding
    if ceil is not None and (not counts_pads or is_alike or not any(window.begin + window.end)):
        return F.avg_pool2d(x, window.kernel, window.strides, window.begin, ceil, counts_pads)
    y = F.avg_pool2d(F.pad(x, window.reach()), window.kernel, window.strides)
    share = window.share(counts_pads)
    return y if (share == 1).all() else y * node.buffer("share", lambda: share)


def global_average_pool(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    return F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x.mean(list(range(2, x.dim())), keepdim=True)


def global_max_pool(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    return x.amax(list(range(2, x.dim())), keepdim=True)


def batch_norm(node: Node, value: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Tensor:
    epsilon = node.attribute("epsilon", 1e-5)
    return F.batch_norm(tensor(value), tensor(mean), tensor(variance), weight(scale), weight(bias), False, 0.0, epsilon)


def instance_norm(node: Node, value: Value, scale: Value, bias: Value) -> Tensor:
    return F.instance_norm(tensor(value), weight=weight(scale), bias=weight(bias), eps=node.attribute("epsilon", 1e-5))


def layer_norm(node: Node, value: Value, scale: Value, bias: Value = None) -> Tensor:
    x = tensor(value)
    axis = node.attribute("axis", -1) % x.dim()
    w, b = weight(scale), weight(bias)
    shape = list(x.shape[axis:])
    epsilon = node.attribute("epsilon", 1e-5)
    if w is not None and list(w.shape) == shape and (b is None or list(b.shape) == shape):
        return F.layer_norm(x, shape, w, b, epsilon)
    y = F.layer_norm(x, shape, eps=epsilon)
    y = y if w is None else y * w
    return y if b is None else y + b


def local_response_norm(node: Node, value: Value) -> Tensor:
    size, alpha, beta = node.attribute("size"), node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    if size % 2 == 0:
        raise node.refused("has an even size")
    return F.local_response_norm(tensor(value), size, alpha, beta, node.attribute("bias", 1.0))


def lp_norm(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    size: Tensor = torch.linalg.vector_norm(x, node.attribute("p", 2), node.attribute("axis", -1), keepdim=True)
    return x / size


def linear(node: Node, value: Value, kernel: Value, bias: Value = None) -> Tensor:
    """No operator of ONNX: what quantize.onnx_rewrite makes of Gemm and MatMul with constant weights [out, in]."""
    w = weight(kernel)
    assert w is not None
    return F.linear(tensor(value), w, weight(bias))


def matmul(node: Node, a: Value, b: Value) -> Tensor:
    left, right = weight(a), weight(b)
    assert left is not None
    assert right is not None
    return torch.matmul(left, right)


def gemm(node: Node, a: Value, b: Value, c: Value = None) -> Tensor:
    left = tensor(a).t() if node.attribute("transA", 0) else tensor(a)
    right = tensor(b).t() if node.attribute("transB", 0) else tensor(b)
    y = torch.matmul(left, right) * float(node.attribute("alpha", 1.0))
    return y if c is None else y + node.attribute("beta", 1.0) * tensor(c)


def prelu(node: Node, value: Value, slope: Value) -> Tensor:
    x = tensor(value)
    if isinstance(slope, Constant):
        shape = slope.array.shape
        if slope.array.size == 1 or (len(shape) == x.dim() - 1 and slope.array.size == shape[0] == x.shape[1]):
            return F.prelu(x, slope.weight("slope", lambda array: array.reshape(-1)))
    s = weight(slope)
    assert s is not None
    return torch.relu(x) - s * torch.relu(-x)


def _image(node: Node, value: Value) -> Tensor:
    x = tensor(value)
    if x.dim() != 4:
        raise node.refused(f"works on {x.dim() - 2} spatial axes instead of 2")
    return x


def _window(node: Node, x: Tensor, kernel: Sequence[int]) -> Window:
    return Window.of(
        (int(x.shape[2]), int(x.shape[3])),
        (int(kernel[0]), int(kernel[1])),
        auto_pad=node.attribute("auto_pad", b"NOTSET").decode(),
        **{name: node.attribute(name) for name in ("pads", "strides", "dilations")},
        ceil=bool(node.attribute("ceil_mode", 0)),
    )


LAYERS: dict[str, Operator] = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "InstanceNormalization": instance_norm,
    "Linear": linear,
    "LayerNormalization": layer_norm,
    "LRN": local_response_norm,
    "LpNormalization": lp_norm,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "PRelu": prelu,
}
