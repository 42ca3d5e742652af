"""Which layer is to blame: the one whose rounding, alone, disturbs the outputs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from quantize.fold import fold  # noqa: E402
from quantize.graph import layers  # noqa: E402
from quantize.quiet import quiet  # noqa: E402
from quantize.sensitivity import graph_blocks, layer_noise  # noqa: E402

SIZE = 12


class Chain(nn.Module):
    """Five convolutions with ReLU between them, a pool, and logits; one of them may give one channel that is far too loud."""

    def __init__(self, loud: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(3 if index == 0 else 8, 8, 3, padding=1) for index in range(5))
        self.logits = nn.Linear(8, 4)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # later layers see what earlier ones saw
        if loud is not None:
            with torch.no_grad():
                self.convs[loud].bias[3] = 400.0  # its range is that of its output, which drowns the other seven
                following = self.convs[loud + 1] if loud < 4 else self.logits
                following.weight[:, 3] = 0.0

    def forward(self, value: Tensor) -> Tensor:
        for conv in self.convs:
            value = torch.relu(conv(value))
        logits: Tensor = self.logits(value.mean((2, 3)))
        return logits


def pictures(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 3, SIZE, SIZE, generator=generator) for _ in range(count)]


def graph_of(network: nn.Module) -> Any:
    with quiet():
        return fold(network, torch.zeros(1, 3, SIZE, SIZE))


def noises(graph: Any, inputs: list[Tensor], **how: Any) -> dict[str, float]:
    with torch.no_grad():
        wanted = [graph(value).numpy() for value in inputs]

    def noise(outputs: Sequence[Any]) -> float:
        error = sum(float(np.square(got - want).sum()) for got, want in zip(outputs, wanted, strict=True))
        return error / sum(float(np.square(want).sum()) for want in wanted)

    return layer_noise(graph, inputs, 127, noise, **how)


@pytest.mark.parametrize("loud", [0, 2, 4])
def test_a_layer_with_an_outlying_range_is_named_first(loud: int) -> None:
    graph = graph_of(Chain(loud))
    found = noises(graph, pictures())
    order = [layer.name for layer in layers(graph)]
    assert list(found) == order
    assert max(found, key=lambda name: found[name]) in (order[loud], order[loud + 1])  # whose output or input it is
    assert found[order[loud]] > 10 * np.median(list(found.values()))


def test_a_quiet_network_has_no_layer_to_blame() -> None:
    found = noises(graph_of(Chain()), pictures())
    assert max(found.values()) < 1e-2
    assert min(found.values()) > 0


def test_it_ends_when_it_is_told_to() -> None:
    heard = []

    def tick(done: int, of: int) -> bool:
        heard.append((done, of))
        return done < 2

    graph = graph_of(Chain())
    found = noises(graph, pictures(1), tick=tick)
    assert list(found) == [layer.name for layer in layers(graph)][:2]
    assert heard == [(0, 6), (1, 6), (2, 6)]


def test_the_graph_is_as_it_was_afterwards() -> None:
    graph = graph_of(Chain())
    inputs = pictures(2)
    once, again = noises(graph, inputs), noises(graph, inputs)
    assert once == again
    with torch.no_grad():
        before = graph(inputs[0])
    noises(graph, inputs)
    with torch.no_grad():
        assert torch.equal(graph(inputs[0]), before)


def test_blocks_of_a_graph_go_by_its_nodes() -> None:
    graph = graph_of(Chain())
    found = graph_blocks(graph)
    assert [block.layer for block in found] == [layer.name for layer in layers(graph)]
    assert [block.operators for block in found[:2]] == [("conv2d", "relu"), ("conv2d_1", "relu_1")]
