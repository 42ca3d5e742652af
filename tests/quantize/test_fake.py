"""Fake quantization: rounding where an int8 engine rounds, by as much, and gradients straight through."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from quantize.fake import FakeQuantized, observe, place, round_value, round_weight, scale_and_zero_point  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.graph import layers, weight_and_bias  # noqa: E402
from quantize.quiet import quiet  # noqa: E402
from tests.quantize import tiny  # noqa: E402

EXAMPLE = torch.zeros(1, 3, 12, 12)
LIMIT = 64


class Gated(nn.Module):
    """Convolution, x * sigmoid(x), depthwise convolution, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1, groups=6)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = self.first(value)
        return torch.relu(self.second(value * torch.sigmoid(value)))


class Branched(nn.Module):
    """Two branches that are added and concatenated, pooled, and end in logits with a float tail."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.head, self.logits = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = torch.relu(self.stem(value))
        value = torch.cat([self.left(value) + value, self.right(value)], 1)
        value = functional.max_pool2d(self.head(value), 2)
        return torch.softmax(self.logits(value.mean((2, 3))), -1)


def folded(kind: type[nn.Module]) -> torch.fx.GraphModule:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind()
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0, 0.5)
    with quiet():
        return fold(network, EXAMPLE)


def pictures(count: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 12, 12, generator=generator) * 2 - 1 for _ in range(count)]


def test_places_rounding_behind_fused_activations_and_nowhere_after_the_last_layer() -> None:
    placement = place(folded(Branched))
    assert placement.entering == {"value"}
    assert placement.rounded == {name: name for name in ("relu", "conv2d_1", "add", "conv2d_2", "cat", "conv2d_3", "mean")}
    assert {"conv2d", "max_pool2d", "linear"} <= placement.integer
    assert "softmax" not in placement.integer
    assert placement.last == {"linear"}


def test_float_nodes_stay_float_and_what_reads_them_rounds_for_itself() -> None:
    placement = place(folded(Branched), {"conv2d", "relu"})
    assert placement.entering == {"relu", "cat"}
    assert placement.integer.isdisjoint({"conv2d", "relu", "add", "cat"})
    assert placement.rounded.keys() == {"conv2d_1", "conv2d_2", "conv2d_3", "mean"}


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_is_within_one_step_of_onnx_runtime(level: str) -> None:
    graph = folded(Gated)
    placement = place(graph)
    ranges = observe(graph, placement, pictures())
    fake = FakeQuantized(graph, LIMIT, ranges)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(_int8(graph, ranges).SerializeToString(), options, providers=["CPUExecutionProvider"])
    step, _ = scale_and_zero_point(*ranges["relu"])
    for picture in pictures(seed=7):
        [expected] = session.run(None, {"value": picture.numpy()})
        with torch.no_grad():
            steps = np.abs(fake.run(picture).numpy() - expected) / step
        # its integer kernels may round a tie in the middle otherwise, which the last layer can make two steps of
        assert steps.max() < (1.01 if level == "ORT_DISABLE_ALL" else 2.01)
        assert (steps > 0.5).mean() < 0.02


def _int8(graph: torch.fx.GraphModule, ranges: dict[str, tuple[float, float]]) -> onnx.ModelProto:
    """Gated as an ONNX QDQ model, written by hand."""
    constants: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, value: npt.ArrayLike, kind: type) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def pair(name: str, low: float, high: float) -> str:
        scale, zero_point = scale_and_zero_point(low, high)
        how = [constant(f"{name}_scale", scale, np.float32), constant(f"{name}_zero_point", zero_point, np.uint8)]
        nodes.append(helper.make_node("QuantizeLinear", [name, *how], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *how], [f"{name}_dq"]))
        return f"{name}_dq"

    def conv(index: int, value: str, value_range: tuple[float, float], output: str, **attributes: object) -> None:
        weight, bias = (part.detach().numpy() for part in weight_and_bias(graph, layers(graph)[index]))
        scale = np.abs(weight).reshape(len(weight), -1).max(1) / LIMIT
        sums = scale * scale_and_zero_point(*value_range)[0]
        for role, part, steps, kind in (("w", weight, scale, np.int8), ("b", bias, sums, np.int32)):
            integers = np.round(part / steps.reshape(-1, *[1] * (part.ndim - 1)))
            name = f"{output}_{role}"
            read = [constant(f"{name}_q", integers, kind), constant(f"{name}_scale", steps, np.float32)]
            read.append(constant(f"{name}_zero", np.zeros(len(steps)), kind))
            nodes.append(helper.make_node("DequantizeLinear", read, [name], axis=0))
        nodes.append(helper.make_node("Conv", [value, f"{output}_w", f"{output}_b"], [output], **attributes))

    conv(0, pair("value", *ranges["value"]), ranges["value"], "first", strides=[2, 2], pads=[1] * 4)
    first = pair("first", *ranges["conv2d"])
    nodes.append(helper.make_node("Sigmoid", [first], ["gate"]))
    nodes.append(helper.make_node("Mul", [first, pair("gate", 0.0, 1.0)], ["product"]))
    conv(1, pair("product", *ranges["mul"]), ranges["mul"], "second", pads=[1] * 4, group=6)
    nodes.append(helper.make_node("Relu", ["second"], ["answer"]))
    output = pair("answer", *ranges["relu"])
    value = helper.make_tensor_value_info("value", TensorProto.FLOAT, [1, 3, 12, 12])
    answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "gated", [value], [answer], constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    return model


def test_silu_is_rounded_like_its_parts() -> None:
    class Silu(Gated):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.second(functional.silu(self.first(value))))

    parts, whole = folded(Gated), folded(Silu)
    ranges = observe(parts, place(parts), pictures())
    renamed = {name.replace("mul", "silu"): ends for name, ends in ranges.items()}
    [picture] = pictures(1, seed=3)
    assert torch.equal(FakeQuantized(parts, LIMIT, ranges).run(picture), FakeQuantized(whole, LIMIT, renamed).run(picture))


def test_gradient_passes_within_the_range_alone() -> None:
    value = torch.tensor([-3.0, -0.4, 0.0, 0.9, 3.0], requires_grad=True)
    rounded = round_value(value, -1.0, 1.0)
    rounded.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0, 1, 1, 1, 0]
    assert rounded[2] == 0


def test_weights_on_the_grid_stay() -> None:
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    once = round_weight(weight, LIMIT)
    scale = weight.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1) / LIMIT
    assert torch.allclose(once / scale, torch.round(once / scale), atol=1e-3)
    assert torch.allclose(round_weight(once, LIMIT), once, atol=1e-6)
    assert torch.allclose((once / scale).flatten(1).abs().amax(1), torch.tensor(float(LIMIT)))


def test_learned_ranges_start_where_they_were_given_and_follow_what_they_clip() -> None:
    graph = folded(Gated)
    ranges = observe(graph, place(graph), pictures()) | {"relu": (0.0, 0.1)}
    fixed, learned = FakeQuantized(graph, LIMIT, ranges), FakeQuantized(graph, LIMIT, ranges, learn_ranges=True)
    [picture] = pictures(1, seed=3)
    answer = learned.run(picture)
    assert torch.allclose(answer, fixed.run(picture), atol=1e-5)
    (graph(picture) - answer).square().sum().backward()
    gradient = learned.factors["relu"].grad
    assert gradient is not None
    assert gradient[1] < 0  # the float answer is larger than the range, so the range should grow
    assert learned.ranges()["relu"] == pytest.approx((0.0, 0.1))


def test_the_network_stays_the_same_until_it_is_trained() -> None:
    with quiet():
        graph = fold(tiny.classifier().network, torch.zeros(1, 3, tiny.SIZE, tiny.SIZE))
    picture = torch.rand(1, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0))
    fake = FakeQuantized(graph, 127, observe(graph, place(graph), [picture]))
    with torch.no_grad():
        assert torch.equal(fake.network()(picture), graph(picture))
        assert not torch.equal(fake.run(picture), graph(picture))
        assert torch.allclose(fake.run(picture), graph(picture), atol=0.1 * float(graph(picture).abs().max()))
