"""Quantization-aware training: nearer to the float network's answers on pictures it has not seen, and never further."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.fx import GraphModule  # noqa: E402

from quantize.fake import observe, place  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.qat import Likeness, Tuned, augment, finetune  # noqa: E402
from quantize.quiet import quiet  # noqa: E402

EXAMPLE = torch.zeros(1, 3, 16, 16)
LIMIT = 7
"""Four bits, so that there is something to win."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than tiny networks have work for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Detector(nn.Module):
    """A tiny detector's answers: boxes, and a sigmoid for each of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.SiLU())
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = self.body(value)
        return torch.cat([self.boxes(value), torch.sigmoid(self.scores(value))], 1)


def detector() -> GraphModule:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Detector()
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0, 2 * part.weight[0].numel() ** -0.5)
    with quiet():
        return fold(network, EXAMPLE)


def pictures(count: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(count)]


def tune(seed: int = 0, **options: object) -> Tuned:
    graph = detector()
    ranges = observe(graph, place(graph), pictures())
    return finetune(graph, pictures(), limit=LIMIT, ranges=ranges, seed=seed, minutes=5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("learn_ranges", [False, True])
def test_training_lowers_the_held_out_loss(learn_ranges: bool) -> None:
    shares: list[float] = []
    tuned = tune(steps=40, rate=2e-3, learn_ranges=learn_ranges, progress=shares.append)
    assert tuned.after < 0.9 * tuned.before
    assert tuned.steps == 40
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_same_seed_gives_the_same_network() -> None:
    first, again, other = (tune(steps=4, rate=1e-3, augmented=True, seed=seed) for seed in (0, 0, 1))
    with torch.no_grad():
        answers = [tuned.graph(pictures()[0]) for tuned in (first, again, other)]
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_what_training_makes_worse_is_not_returned() -> None:
    lines: list[str] = []
    tuned = tune(steps=400, rate=10.0, say=lines.append)
    assert tuned.steps < 400
    assert "ends here" in lines[-1]
    assert tuned.after == tuned.before
    with torch.no_grad():
        assert torch.equal(tuned.graph(pictures()[0]), detector()(pictures()[0]))


def test_likeness_is_zero_for_equal_answers_and_grows_with_the_difference() -> None:
    graph = detector()
    names = place(graph).last
    likeness = Likeness(graph, names)
    generator = torch.Generator().manual_seed(0)
    wanted = {
        node.name: torch.randn(node.meta["val"].shape, generator=generator) for node in graph.graph.nodes if node.name in names
    }
    assert len(wanted) == 2
    assert float(likeness(wanted, wanted)) == pytest.approx(0, abs=1e-6)
    for changed in wanted:
        near, far = ({**wanted, changed: wanted[changed] + by} for by in (0.1, 1.0))
        assert 0 < float(likeness(near, wanted)) < float(likeness(far, wanted))


def test_boxes_count_where_the_teacher_sees_something() -> None:
    graph = detector()
    boxes, scores = sorted(place(graph).last)
    seen = torch.full((1, 3, 8, 8), -8.0)
    seen[:, 0, 2, 2] = 8.0
    wanted = {boxes: torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), scores: seen}
    losses = []
    for position in (2, 5):
        moved = wanted[boxes].clone()
        moved[:, :, position, position] += 1
        losses.append(float(Likeness(graph, [boxes, scores])({**wanted, boxes: moved}, wanted)))
    assert losses[0] > 10 * losses[1] > 0


def test_augmented_pictures_keep_their_size_and_range() -> None:
    [picture] = pictures(1)
    generator = random.Random(0)
    made = [augment(picture, generator) for _ in range(20)]
    assert all(one.shape == picture.shape for one in made)
    assert all(picture.amin() <= one.amin() and one.amax() <= picture.amax() for one in made)
    assert any(not torch.equal(one, picture) for one in made)
