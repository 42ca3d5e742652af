"""Folding a network into a graph that engines have in integers: pools, batch norms that stand alone, operators in place."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from quantize.export import to_onnx  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.graph import ATEN, layer_names, layers, weight_and_bias  # noqa: E402
from quantize.onnx_graph import OnnxGraph  # noqa: E402
from quantize.quiet import quiet  # noqa: E402


def folded(network: nn.Module, example: Tensor) -> torch.fx.GraphModule:
    """The graph, having given the same as the network."""
    with quiet(), torch.no_grad():
        graph = fold(network, example)
        torch.testing.assert_close(graph(example), network(example), atol=1e-5, rtol=1e-4)
    return graph


def example(side: int = 12) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def kinds(graph: torch.fx.GraphModule) -> list[object]:
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("side", [11, 12, 13])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 1, 1, ceil_mode=True),
        nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True),
    ],
    ids=str,
)
def test_a_maximum_over_what_is_never_negative_pads_with_zeros(pool: nn.Module, side: int) -> None:
    graph = folded(nn.Sequential(nn.ReLU(), pool), example(side))
    [node] = [node for node in graph.graph.nodes if node.target == ATEN.max_pool2d.default]
    assert list(node.args[3]) == [0, 0]
    assert len(node.args) == 4  # no ceil_mode


@pytest.mark.parametrize("before", [nn.Identity(), nn.Hardtanh(-1, 1)], ids=str)
def test_a_maximum_over_what_may_be_negative_keeps_its_padding(before: nn.Module) -> None:
    graph = folded(nn.Sequential(before, nn.MaxPool2d(3, 2, 1)), example() - 3)
    assert ATEN.constant_pad_nd.default not in kinds(graph)


def test_onnx_has_the_padding_in_the_pool() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 4, 1))
    model = OnnxGraph(to_onnx(folded(network, example(13)), example(13), "logits"))
    [pool] = [node for node in model.nodes if node.op_type == "MaxPool"]
    assert [node.op_type for node in model.nodes] == ["Conv", "Relu", "MaxPool", "Conv"]
    assert model.attributes(pool)["pads"] == [0, 0, 0, 0]
    model = OnnxGraph(to_onnx(folded(network, example(12)), example(12), "logits"))
    [pool] = [node for node in model.nodes if node.op_type == "MaxPool"]
    assert model.attributes(pool)["pads"] == [0, 0, 1, 1]


class Headed(nn.Module):
    """An adaptive mean to 6x4 before two linear layers."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.pool, self.view = nn.AdaptiveAvgPool2d((6, 4)), view
        self.rest = nn.Sequential(nn.Dropout(), nn.Linear(3 * 6 * 4, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, value: Tensor) -> Tensor:
        pooled = self.pool(value)
        return self.rest(pooled.view(pooled.shape[0], -1) if self.view else pooled.flatten(1))


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize(
    ("size", "mean", "features"),
    [((6, 4), None, 72), ((12, 8), ATEN.avg_pool2d.default, 72), ((1, 1), None, 3), ((7, 5), None, 105), ((2, 9), None, 54)],
)
def test_an_adaptive_mean_becomes_plain_or_part_of_the_next_weights(
    size: tuple[int, int], mean: object, features: int, view: bool
) -> None:
    graph = folded(Headed(view).eval(), torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    found = kinds(graph)
    assert ATEN.adaptive_avg_pool2d.default not in found
    assert (ATEN.avg_pool2d.default in found) == (mean is not None)
    assert weight_and_bias(graph, layers(graph)[0])[0].shape == (5, features)


def test_an_adaptive_mean_that_others_read_stays() -> None:
    class Read(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            pooled = nn.functional.adaptive_avg_pool2d(value, 5)
            return pooled + pooled.amax()

    assert ATEN.adaptive_avg_pool2d.default in kinds(folded(Read(), example(12)))


def test_a_batch_norm_after_no_convolution_becomes_one() -> None:
    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(7), nn.Conv2d(7, 2, 1)
            nn.init.uniform_(self.norm.weight, 0.5, 2)
            nn.init.uniform_(self.norm.running_mean, -1, 1)
            nn.init.uniform_(self.norm.running_var, 0.5, 2)

        def forward(self, value: Tensor) -> Tensor:
            return self.last(torch.relu(self.norm(torch.cat([value, self.first(value)], 1))))

    graph = folded(Before().eval(), example())
    assert ATEN.batch_norm.default not in kinds(graph)
    assert list(layer_names(graph).values()) == ["first", "last", "norm"]
    assert [tuple(weight_and_bias(graph, layer)[0].shape) for layer in layers(graph)] == [
        (4, 3, 1, 1),
        (7, 1, 1, 1),
        (2, 7, 1, 1),
    ]


def test_what_works_in_place_leaves_what_it_reads() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, value: Tensor) -> Tensor:
            value = self.first(value)
            other = torch.relu_(value)
            value += 1  # which `other` is, too
            return self.last(value * other)

    graph = folded(InPlace().eval(), example())
    assert not [kind for kind in kinds(graph) if str(kind).split(".")[1].endswith("_")]
