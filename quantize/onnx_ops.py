"""The table of ONNX operators as torch; here those that work element by element, and reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from onnx import TensorProto
from torch import Tensor

from quantize.onnx_layers import LAYERS
from quantize.onnx_module import Constant, Node, Operator, Value, tensor
from quantize.onnx_moves import MOVES
from quantize.onnx_resize import resize

DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float32,
    TensorProto.FLOAT16: torch.float32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, value: function(tensor(value))


def _operands(a: Value, b: Value) -> tuple[Tensor, Any]:
    """Both sides; a constant of one element as a Python number, on either side, once the other is a tensor."""
    return _operand(a, b), _operand(b, a)  # type: ignore[return-value]


def _operand(value: Value, other: Value) -> Tensor | float | int:
    if isinstance(value, Constant) and isinstance(other, Tensor) and value.array.size == 1 and value.array.ndim <= other.dim():
        number: float | int = value.array.item()
        return number
    return tensor(value)


def _binary(function: Callable[[Any, Any], Tensor]) -> Operator:
    return lambda node, a, b: function(*_operands(a, b))


def _chain(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An operator of any number of inputs, taken two at a time."""

    def run(node: Node, first: Value, *more: Value) -> Tensor:
        result = tensor(first)
        for value in more:
            result = function(result, tensor(value))
        return result

    return run


def _divide(a: Any, b: Any) -> Tensor:
    is_integer = not any(isinstance(v, float) or (isinstance(v, Tensor) and v.is_floating_point()) for v in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if is_integer else a / b


def _modulo(node: Node, a: Value, b: Value) -> Tensor:
    left, right = _operands(a, b)
    return torch.fmod(left, right) if node.attribute("fmod", 0) else torch.remainder(left, right)


def _bound(node: Node, value: Value, name: str) -> float | None:
    if value is None:
        found: float | None = node.attribute(name)
        return found
    if not isinstance(value, Constant):
        raise node.refused(f"computes its {name} while it runs")
    limit: float = value.array.item()
    return limit


def clip(node: Node, value: Value, low: Value = None, high: Value = None) -> Tensor:
    x = tensor(value)
    low_, high_ = _bound(node, low, "min"), _bound(node, high, "max")
    if x.is_floating_point():  # the type's own limits are how exporters say "none"
        low_ = None if low_ is None or low_ <= torch.finfo(torch.float32).min else float(low_)
        high_ = None if high_ is None or high_ >= torch.finfo(torch.float32).max else float(high_)
    if low_ is None and high_ is None:
        return x
    if low_ == 0 and x.is_floating_point():
        if high_ is None:
            return F.relu(x)
        if high_ == 6:
            return F.relu6(x)
    return torch.clamp(x, low_, high_)


def hard_sigmoid(node: Node, value: Value) -> Tensor:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    x = tensor(value)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def selu(node: Node, value: Value) -> Tensor:
    alpha, gamma = node.attribute("alpha", 1.6732631921768188), node.attribute("gamma", 1.0507010221481323)
    return F.elu(tensor(value), alpha) * float(gamma)


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Operator:
    def run(node: Node, value: Value) -> Tensor:
        x = tensor(value)
        if node.opset >= 13:
            return function(x, node.attribute("axis", -1))
        axis = node.attribute("axis", 1) % x.dim()  # of everything from this axis on (operator sets before 13)
        if all(size == 1 for size in x.shape[axis + 1 :]):
            return function(x, axis)
        return function(x.flatten(axis), axis).reshape(x.shape)

    return run


def _one_hot(x: Tensor, axis: int) -> Tensor:
    return F.one_hot(x.argmax(axis), x.shape[axis]).movedim(-1, axis).to(x.dtype)


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def run(node: Node, value: Value, axes: Value = None) -> Tensor:
        x = tensor(value)
        given = node.integers("axes", axes)
        if not given and node.attribute("noop_with_empty_axes", 0):
            return x
        return function(x, [a % x.dim() for a in given or range(x.dim())], bool(node.attribute("keepdims", 1)))

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(function: Callable[..., Tensor]) -> Operator:
    def run(node: Node, value: Value) -> Tensor:
        if node.attribute("select_last_index", 0):
            raise node.refused("selects the last of equal elements")
        return function(tensor(value), node.attribute("axis", 0), bool(node.attribute("keepdims", 1)))

    return run


def top_k(node: Node, value: Value, count: Value = None) -> Sequence[Tensor]:
    k = [node.attribute("k")] if count is None else node.integers("k", count)
    assert k is not None
    is_largest = bool(node.attribute("largest", 1))
    return tuple(torch.topk(tensor(value), k[0], node.attribute("axis", -1), is_largest, bool(node.attribute("sorted", 1))))


def cast(node: Node, value: Value) -> Tensor:
    kind = node.attribute("to")
    if kind not in DTYPES:
        raise node.refused(f"casts to {TensorProto.DataType.Name(kind)}")
    return tensor(value).to(DTYPES[kind])


def einsum(node: Node, *values: Value) -> Tensor:
    return torch.einsum(node.attribute("equation").decode(), *[tensor(value) for value in values])


def where(node: Node, condition: Value, a: Value, b: Value) -> Tensor:
    return torch.where(tensor(condition), tensor(a), tensor(b))


def cumulative_sum(node: Node, value: Value, axis: Value) -> Tensor:
    given = node.integers("axis", axis)
    assert given is not None
    if node.attribute("exclusive", 0) or node.attribute("reverse", 0):
        raise node.refused("is exclusive or reversed")
    return torch.cumsum(tensor(value), given[0])


OPERATORS: dict[str, Operator] = (
    LAYERS
    | MOVES
    | {
        "Abs": _unary(torch.abs),
        "Add": _binary(lambda a, b: a + b),
        "And": _binary(torch.logical_and),
        "ArgMax": _arg(torch.argmax),
        "ArgMin": _arg(torch.argmin),
        "Atan": _unary(torch.atan),
        "Cast": cast,
        "Ceil": _unary(torch.ceil),
        "Celu": lambda node, value: F.celu(tensor(value), node.attribute("alpha", 1.0)),
        "Clip": clip,
        "Cos": _unary(torch.cos),
        "CumSum": cumulative_sum,
        "Div": _binary(_divide),
        "Einsum": einsum,
        "Elu": lambda node, value: F.elu(tensor(value), node.attribute("alpha", 1.0)),
        "Equal": _binary(lambda a, b: torch.eq(*_tensor_first(a, b))),
        "Erf": _unary(torch.erf),
        "Exp": _unary(torch.exp),
        "Floor": _unary(torch.floor),
        "Gelu": lambda node, value: F.gelu(tensor(value), approximate=node.attribute("approximate", b"none").decode()),
        "Greater": _binary(lambda a, b: a > b),
        "GreaterOrEqual": _binary(lambda a, b: a >= b),
        "HardSigmoid": hard_sigmoid,
        "HardSwish": _unary(F.hardswish),
        "Hardmax": _softmax(_one_hot),
        "LeakyRelu": lambda node, value: F.leaky_relu(tensor(value), node.attribute("alpha", 0.01)),
        "Less": _binary(lambda a, b: a < b),
        "LessOrEqual": _binary(lambda a, b: a <= b),
        "Log": _unary(torch.log),
        "LogSoftmax": _softmax(torch.log_softmax),
        "Max": _chain(torch.maximum),
        "Mean": lambda node, first, *more: _chain(torch.add)(node, first, *more) / (1 + len(more)),
        "Min": _chain(torch.minimum),
        "Mish": _unary(F.mish),
        "Mod": _modulo,
        "Mul": _binary(lambda a, b: a * b),
        "Neg": _unary(torch.neg),
        "Not": _unary(torch.logical_not),
        "Or": _binary(torch.logical_or),
        "Pow": _binary(torch.pow),
        "Reciprocal": _unary(torch.reciprocal),
        "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keep)),
        "ReduceL2": _reduce(lambda x, axes, keep: torch.sqrt((x * x).sum(axes, keep))),
        "ReduceLogSumExp": _reduce(torch.logsumexp),
        "ReduceMax": _reduce(torch.amax),
        "ReduceMean": _reduce(torch.mean),
        "ReduceMin": _reduce(torch.amin),
        "ReduceProd": _reduce(_product),
        "ReduceSum": _reduce(torch.sum),
        "ReduceSumSquare": _reduce(lambda x, axes, keep: (x * x).sum(axes, keep)),
        "Relu": _unary(F.relu),
        "Resize": resize,
        "Round": _unary(torch.round),
        "Selu": selu,
        "Sigmoid": _unary(torch.sigmoid),
        "Sign": _unary(torch.sign),
        "Sin": _unary(torch.sin),
        "Softmax": _softmax(torch.softmax),
        "Softplus": _unary(F.softplus),
        "Softsign": _unary(F.softsign),
        "Sqrt": _unary(torch.sqrt),
        "Sub": _binary(lambda a, b: a - b),
        "Sum": _chain(torch.add),
        "Tanh": _unary(torch.tanh),
        "ThresholdedRelu": lambda node, value: torch.where(
            tensor(value) > node.attribute("alpha", 1.0), tensor(value), torch.zeros_like(tensor(value))
        ),
        "TopK": top_k,
        "Upsample": resize,
        "Where": where,
    }
)


def _tensor_first(a: Any, b: Any) -> tuple[Tensor, Any]:
    return (a, b) if isinstance(a, Tensor) else (b, a)
