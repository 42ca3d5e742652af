"""Structured pruning: which channels go together, which matter least, and that only what is faster is kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from edge.datasets import Sample, class_folders  # noqa: E402
from edge.errors import GateError, InputError, UsageError  # noqa: E402
from quantize.channels import ROUND, Group, choose, count_macs, cut, find_groups, importance, prunable  # noqa: E402
from quantize.prune import PruneTarget, parse_target, prune  # noqa: E402
from tests.quantize import tiny  # noqa: E402
from train.efficientnet_lite import ConvNorm, InvertedResidual  # noqa: E402
from train.finetune import Recipe, tensors  # noqa: E402
from train.models import Classifier  # noqa: E402
from train.pictures import Batch  # noqa: E402

EXAMPLE = torch.zeros(1, 3, tiny.SIZE, tiny.SIZE)
RECIPE = Recipe(batch=12, rate=3e-3, average=0.5, distill=0.5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing by more, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return class_folders(tiny.pictures(tmp_path_factory.mktemp("coloured") / "set"), tiny.classifier().labels)


class Branches(nn.Module):
    """Channels that are concatenated, added, grouped and flattened, a feature map and logits as outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, stride=4)
        self.left, self.right = ConvNorm(32, 48), ConvNorm(32, 32)
        self.merge = ConvNorm(80, 64)
        self.grouped = ConvNorm(64, 64, groups=4)
        self.last = nn.Conv2d(64, 64, 1)
        self.hidden, self.head = nn.Linear(64 * 64, 48), nn.Linear(48, 3)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        stem = self.stem(image)
        merged = self.merge(torch.cat([self.left(stem), self.right(stem)], 1))
        features = self.last(self.grouped(merged) + merged)
        return {"features": features, "logits": self.head(functional.relu(self.hidden(features.flatten(1))))}


class Functional(nn.Module):
    """A network whose weights belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 5, 5))

    def forward(self, image: Tensor) -> Tensor:
        return functional.conv2d(image, self.weight).mean((2, 3))


def residual() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        ConvNorm(3, 32, kernel=3, stride=2),
        InvertedResidual(32, 32, kernel=3, stride=1, expand=2),
        InvertedResidual(32, 48, kernel=3, stride=2, expand=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, len(tiny.CLASSES)),
    ).eval()


def wide() -> Classifier:
    return replace(tiny.classifier(), network=residual())


def outputs(network: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return tensors(network(image))


@pytest.mark.parametrize(
    ("text", "target"),
    [("macs=0.5", PruneTarget(macs=0.5)), ("speedup=1.5", PruneTarget(speedup=1.5)), (" macs = .25 ", PruneTarget(macs=0.25))],
)
def test_targets_are_read(text: str, target: PruneTarget) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.5",
        "macs",
        "macs=",
        "macs=0",
        "macs=1",
        "macs=-1",
        "macs=nan",
        "speedup=1",
        "speedup=inf",
        "size=0.5",
        "speedup=2x",
    ],
)
def test_other_targets_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="macs=SHARE") as error:
        parse_target(text)
    assert repr(text) in str(error.value)


def test_multiplications_are_counted() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Flatten(), nn.Linear(8 * 256, 5)
    )
    assert count_macs(network, EXAMPLE) == 8 * 27 * 32 * 32 + 8 * 9 * 16 * 16 + 8 * 256 * 5


def test_channels_that_are_added_or_filtered_each_alone_go_together() -> None:
    groups = {group.root: group for group in find_groups(residual(), EXAMPLE)}
    read_by = {root: {name for name, _, _ in group.consumers} for root, group in groups.items()}
    assert {frozenset(readers) for readers in read_by.values()} == {
        frozenset({"1.expand.conv", "2.expand.conv"}),  # the residual's width
        frozenset({"1.project.conv"}),
        frozenset({"2.project.conv"}),
        frozenset({"5"}),
    }
    saved = {frozenset(read_by[root]): group.macs for root, group in groups.items()}
    assert saved[frozenset({"2.project.conv"})] == 32 * 16 * 16 + 9 * 8 * 8 + 48 * 8 * 8


def test_outputs_keep_their_shapes_and_grouped_convolutions_their_channels() -> None:
    network = Branches().eval()
    shapes = [value.shape for value in outputs(network, EXAMPLE)]
    found = find_groups(network, EXAMPLE)
    roots = {group.root for group in prunable(network, found, EXAMPLE)}
    assert roots == {"stem.conv", "left.conv", "right.conv", "hidden"}
    cut(network, {"stem.conv": range(16), "left.conv": [1, 40], "hidden": range(32)}, EXAMPLE)
    assert [value.shape for value in outputs(network, EXAMPLE)] == shapes
    assert (network.left.conv.in_channels, network.merge.conv.in_channels, network.head.in_features) == (16, 78, 16)


def test_channels_that_nobody_listens_to_go_first_and_nothing_changes() -> None:
    network = residual()
    image = torch.randn(4, 3, tiny.SIZE, tiny.SIZE)
    deaf = torch.arange(1, 33, 2)
    with torch.no_grad():
        network[1].project.conv.weight[:, deaf] = 0
    before = outputs(network, image)
    groups = find_groups(network, EXAMPLE)
    scores = importance(network, groups, [Batch(image, torch.zeros(4, dtype=torch.int64))], 0)
    chosen = choose(groups, scores, spare_macs=1)
    [channels] = chosen.values()
    assert sorted(channels) == deaf.tolist()
    cut(network, chosen, EXAMPLE)
    torch.testing.assert_close(outputs(network, image), before)
    assert network[1].depthwise.conv.weight.shape[0] == 64 - ROUND


def test_importance_is_the_change_of_the_outputs_that_a_lost_channel_makes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)).eval()
    images = torch.randn(400, 3, 8, 8) * torch.rand(400, 1, 1, 1)
    batches = [Batch(images, torch.zeros(400, dtype=torch.int64))]
    groups = find_groups(network, images[:1])
    scores = torch.stack([importance(network, groups, batches, seed)["0"] for seed in range(5)]).mean(0)
    with torch.no_grad():
        pooled = network[:4](images)
    changes = (pooled - pooled.mean(0)).unsqueeze(1) * network[4].weight  # [pictures, logits, channels]
    changes = changes - changes.mean(1, keepdim=True)
    torch.testing.assert_close(scores, changes.square().sum(1).mean(0), rtol=0.3, atol=0)


def group(root: str, channels: int, macs: float, cost: float) -> Group:
    return Group(root, channels, (), macs, cost)


def test_what_changes_least_for_what_it_saves_is_chosen_in_units() -> None:
    groups = [group("dear", 64, 1.0, 1.0), group("cheap", 70, 1.0, 4.0)]
    scores = {"dear": torch.full((64,), 1.0), "cheap": torch.arange(70).float() / 35}
    chosen = choose(groups, scores, spare_macs=20)
    assert {root: sorted(channels) for root, channels in chosen.items()} == {"cheap": list(range(22))}  # 70 to 64 to 48
    assert sum(map(len, choose(groups, scores, spare_macs=1).values())) == 6


def test_no_group_loses_more_than_half_at_once_nor_its_last_unit() -> None:
    groups = [group("a", 64, 1.0, 1.0), group("b", 32, 1.0, 1.0), group("c", 16, 1.0, 1.0), group("d", 20, 1.0, 1.0)]
    scores = {one.root: torch.zeros(one.channels) for one in groups}
    chosen = choose(groups, scores, spare_macs=1e9)
    assert {root: len(channels) for root, channels in chosen.items()} == {"a": 32, "b": 16, "d": 4}


@pytest.mark.parametrize("target", [PruneTarget(macs=0.5), PruneTarget(speedup=2.0)])
def test_pruning_reaches_its_target_step_by_step(samples: list[Sample], target: PruneTarget) -> None:
    classifier = wide()
    before = copy.deepcopy(classifier.network.state_dict())
    said: list[str] = []
    pruned = prune(
        classifier,
        samples,
        samples,
        target,
        measure=lambda network: 1e3 + count_macs(network, EXAMPLE),
        epochs=8,
        recipe=RECIPE,
        say=said.append,
    )
    assert pruned.kept
    assert pruned.macs_before == count_macs(classifier.network, EXAMPLE)
    assert pruned.macs_after == count_macs(pruned.network, EXAMPLE) <= 0.52 * pruned.macs_before
    assert pruned.parameters_after == sum(p.numel() for p in pruned.network.parameters()) < pruned.parameters_before
    assert pruned.speedup >= (target.speedup or 1.9)
    assert len(pruned.steps) > 1
    assert [step.macs for step in pruned.steps] == sorted((step.macs for step in pruned.steps), reverse=True)
    assert pruned.steps[-1].metric > pruned.metric_before
    assert outputs(pruned.network, EXAMPLE)[0].shape == (1, 3)
    assert all(torch.equal(before[name], value) for name, value in classifier.network.state_dict().items())
    assert len(said) == 1 + len(pruned.steps)
    for module in pruned.network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.out_channels % ROUND == 0


def test_what_is_not_faster_is_not_kept(samples: list[Sample]) -> None:
    classifier, said = wide(), list[str]()
    classifier.network.requires_grad_(False)  # as a factory may give it
    pruned = prune(
        classifier,
        samples,
        samples,
        PruneTarget(macs=0.6),
        measure=lambda network: 1.0,
        epochs=0,
        step_epochs=0,
        say=said.append,
    )
    assert not pruned.kept
    assert pruned.network is classifier.network
    assert (pruned.macs_after, pruned.parameters_after) == (pruned.macs_before, pruned.parameters_before)
    assert "not kept" in said[-1]


def test_a_speed_out_of_reach_is_refused_with_what_is_in_reach(samples: list[Sample]) -> None:
    def measure(network: nn.Module) -> float:
        return 4e6 + count_macs(network, EXAMPLE)

    with pytest.raises(GateError, match=r"speedup=3 is out of reach: .* 1\.\d\dx as fast; ask for less"):
        prune(wide(), samples, samples, PruneTarget(speedup=3), measure=measure, epochs=0, step_epochs=0)


def test_a_share_out_of_reach_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(GateError, match=r"macs=0.01 is out of reach"):
        prune(wide(), samples, samples, PruneTarget(macs=0.01), measure=lambda network: 1.0, epochs=0, step_epochs=0)


def test_a_network_of_no_layers_is_refused(samples: list[Sample]) -> None:
    classifier = replace(tiny.classifier(), network=Functional().eval())
    with pytest.raises(InputError, match="not an ONNX file; leave --prune out"):
        prune(classifier, samples, samples, PruneTarget(macs=0.5), measure=lambda network: 1.0)


def test_another_metric_and_outputs_that_are_no_logits(samples: list[Sample]) -> None:
    """A detector, say: it learns from the whole network alone."""
    network = nn.Sequential(*list(residual())[:3], nn.Conv2d(48, 6, 1)).eval()
    unlabelled = [Sample(sample.path, -1) for sample in samples]
    pruned = prune(
        replace(tiny.classifier(), network=network),
        unlabelled,
        unlabelled,
        PruneTarget(macs=0.7),
        measure=lambda network: float(count_macs(network, EXAMPLE)),
        epochs=1,
        recipe=replace(RECIPE, distill=1.0),
        metric=lambda network: 0.25,
    )
    assert pruned.kept
    assert pruned.metric_before == pruned.steps[0].metric == 0.25
    assert outputs(pruned.network, EXAMPLE)[0].shape == outputs(network, EXAMPLE)[0].shape
