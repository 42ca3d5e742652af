"""Equalization and correction: what they change is what rounding spoils, and no more."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.fx import GraphModule  # noqa: E402

from quantize.correct import corrected, repaired  # noqa: E402
from quantize.equalize import equalized, pairs  # noqa: E402
from quantize.fake import FakeQuantized, observe, place  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.quiet import quiet  # noqa: E402

EXAMPLE = torch.zeros(1, 3, 16, 16)
LIMIT = 127


class Uneven(nn.Module):
    """A convolution with some channels a hundred times softer than others, and a depthwise one that evens them out."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor], loudness: tuple[float, ...]) -> None:
        super().__init__()
        count = len(loudness)
        self.first, self.depthwise = nn.Conv2d(3, count, 3, padding=1), nn.Conv2d(count, count, 3, padding=1, groups=count)
        self.last, self.activation = nn.Conv2d(count, 5, 1), activation
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for part in (self.first, self.depthwise, self.last):
                part.weight.normal_(0, part.weight[0].numel() ** -0.5, generator=generator)
                assert part.bias is not None
                part.bias.normal_(0, 0.1, generator=generator)
            scale = torch.tensor(loudness).reshape(-1, 1, 1, 1)
            self.first.weight *= scale
            self.first.bias *= scale.flatten()
            self.depthwise.weight /= scale

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = self.activation(self.first(value))
        return self.last(torch.relu(self.depthwise(value)))


UNEVEN = (100.0, 60.0, 1.0, 0.5, 20.0, 0.3)


def graph_of(activation: Callable[[torch.Tensor], torch.Tensor], loudness: tuple[float, ...] = UNEVEN) -> GraphModule:
    with quiet():
        return fold(Uneven(activation, loudness), EXAMPLE)


def pictures(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(count)]


def noise(
    graph: GraphModule,
    exact: GraphModule,
    ranges: dict[str, tuple[float, float]] | None = None,
    floats: Collection[str] = (),
) -> float:
    """The squared error of the int8 answers on pictures that nothing was fitted to, over the answers' variance."""
    fake = FakeQuantized(graph, LIMIT, ranges or observe(graph, place(graph, floats), pictures(8)), floats)
    with torch.no_grad():
        wanted = torch.cat([exact(picture) for picture in pictures(6, seed=9)])
        given = torch.cat([fake.run(picture) for picture in pictures(6, seed=9)])
    return float((given - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("activation", [torch.relu, lambda value: value], ids=["relu", "nothing"])
def test_equalization_is_exact_without_a_bend_and_quiets_int8(activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph = graph_of(activation)
    louder, units = equalized(graph, pictures(4), observe(graph, place(graph), pictures(4)))
    assert set(units) == {"conv2d"}
    with torch.no_grad():
        for picture in pictures(3, seed=5):
            assert torch.allclose(louder(picture), graph(picture), atol=1e-4)
    assert noise(louder, graph) < noise(graph, graph) / 10


@pytest.mark.parametrize("silu", [nn.functional.silu, lambda value: value * torch.sigmoid(value)], ids=["silu", "parts"])
def test_equalization_through_a_silu_raises_drowned_channels(silu: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph = graph_of(silu)
    louder, units = equalized(graph, pictures(4), observe(graph, place(graph), pictures(4)))
    assert (units["conv2d"].gain > 1).tolist() == [False, False, True, True, False, True]
    assert noise(louder, graph) < noise(graph, graph) / 3


def test_a_float_layer_whose_silu_is_rounded_is_equalized_too() -> None:
    graph = graph_of(nn.functional.silu)
    floats = {"conv2d", "silu"}
    ranges = observe(graph, place(graph, floats), pictures(8))
    assert "conv2d" not in ranges
    louder, units = equalized(graph, pictures(4), ranges)
    assert set(units) == {"conv2d"}
    assert noise(louder, graph, floats=floats) < noise(graph, graph, floats=floats) / 3


def test_nothing_is_equalized_where_nothing_drowns() -> None:
    graph = graph_of(nn.functional.silu, (1.0,) * 6)
    louder, units = equalized(graph, pictures(4), observe(graph, place(graph), pictures(4)))
    assert units == {}
    with torch.no_grad():
        assert torch.equal(louder(EXAMPLE + 0.3), graph(EXAMPLE + 0.3))


@pytest.mark.parametrize("activation", [torch.sigmoid, torch.tanh, nn.functional.relu6])
def test_no_pair_through_an_activation_that_saturates(activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert [pair.layer.name for pair in pairs(graph_of(activation))] == ["conv2d_1"]


def test_correction_takes_up_the_mean_and_then_what_is_linear() -> None:
    graph = graph_of(nn.functional.silu)
    ranges = observe(graph, place(graph), pictures(8))
    # too narrow by half, as ranges from other pictures are: what is clipped shifts the mean
    ranges["silu"] = ranges["silu"][0], ranges["silu"][1] / 2
    shifted = corrected(graph, pictures(16), limit=LIMIT, ranges=ranges, weights=False)
    fitted = corrected(graph, pictures(16), limit=LIMIT, ranges=ranges)
    before = noise(graph, graph, ranges)
    assert noise(shifted, graph, ranges) < before
    assert noise(fitted, graph, ranges) < noise(shifted, graph, ranges)


def test_correction_leaves_float_layers_alone() -> None:
    graph = graph_of(torch.relu)
    everything = {node.name for node in graph.graph.nodes}
    same = corrected(graph, pictures(2), limit=LIMIT, ranges={}, float_nodes=everything)
    with torch.no_grad():
        assert torch.equal(same(EXAMPLE + 0.3), graph(EXAMPLE + 0.3))


def test_repair_beats_either_step_alone() -> None:
    graph = graph_of(nn.functional.silu)
    ranges = observe(graph, place(graph), pictures(16))
    louder, _ = equalized(graph, pictures(16), ranges)
    fitted = corrected(graph, pictures(16), limit=LIMIT, ranges=ranges)
    better = repaired(graph, pictures(16), limit=LIMIT)
    assert noise(better.graph, graph, better.ranges) < min(noise(louder, graph), noise(fitted, graph, ranges))
