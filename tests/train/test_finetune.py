"""The short training loop: its schedule, losses, averages and batch norm, and that it learns."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edge.datasets import Sample, class_folders  # noqa: E402
from edge.errors import DataError, EdgeError, InputError  # noqa: E402
from tests.quantize import tiny  # noqa: E402
from train import loop  # noqa: E402
from train.augment import Augment  # noqa: E402
from train.efficientnet_lite import ConvNorm  # noqa: E402
from train.finetune import Progress, Recipe, accuracy, distance, features, fine_tune, recalibrate, schedule  # noqa: E402
from train.heads import last_linear, replace_head  # noqa: E402
from train.models import Classifier  # noqa: E402
from train.pictures import Pictures  # noqa: E402
from train.transfer import fit_head  # noqa: E402

RECIPE = Recipe(epochs=6, batch=8, rate=1e-2, average=0.5, augment=Augment(balance=0, saturation=0.1))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing by more, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pictures(tmp_path_factory.mktemp("coloured") / "set")


def pictures_of(folder: Path, classifier: Classifier, **changes: object) -> Pictures:
    samples = [replace(sample, **changes) for sample in class_folders(folder, classifier.labels)]
    return Pictures(samples, classifier.input, classifier.mean, classifier.std, pytest.fail)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_it_learns_a_copy_and_leaves_the_original_and_the_random_numbers_alone(folder: Path) -> None:
    classifier = tiny.classifier()
    pictures = pictures_of(folder, classifier)
    before, random_state = weights(classifier.network), torch.random.get_rng_state()
    told: list[Progress] = []
    trained = fine_tune(classifier.network, pictures, RECIPE, progress=told.append)
    assert accuracy(classifier.network, pictures) < 0.9
    assert accuracy(trained, pictures) == 1.0
    assert not trained.training
    assert not differ(before, weights(classifier.network))
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert [progress.step for progress in told] == list(range(1, 19))
    assert told[0].loss > told[-1].loss


def test_the_same_seed_gives_the_same_weights_and_another_one_others(folder: Path) -> None:
    classifier = tiny.classifier()
    pictures = pictures_of(folder, classifier)
    recipe = replace(RECIPE, epochs=1)
    one, same, other = (weights(fine_tune(classifier.network, pictures, replace(recipe, seed=seed))) for seed in (1, 1, 2))
    assert not differ(one, same)
    assert differ(one, other)


def test_a_teacher_needs_no_labels(folder: Path) -> None:
    teacher = fine_tune(tiny.classifier().network, pictures_of(folder, tiny.classifier()), RECIPE)
    unlabelled = pictures_of(folder, tiny.classifier(), class_id=-1)
    student = fine_tune(tiny.classifier().network, unlabelled, replace(RECIPE, distill=1.0), teacher=teacher)
    assert accuracy(student, pictures_of(folder, tiny.classifier())) == 1.0


def test_a_teacher_of_feature_maps(folder: Path) -> None:
    teacher = tiny.classifier().network[:3].eval()
    student = copy.deepcopy(teacher)
    nn.init.normal_(student[2].project.conv.weight)
    [batch] = pictures_of(folder, tiny.classifier()).plain(24)
    student, start = (
        fine_tune(student, pictures_of(folder, tiny.classifier()), replace(RECIPE, distill=1.0, epochs=epochs), teacher=teacher)
        for epochs in (12, 0.3)
    )
    with torch.no_grad():
        far, near = (distance(network(batch.images), teacher(batch.images), 1.0).item() for network in (start, student))
    assert near < 0.7 * far


def test_hints_pull_features_of_equal_shape_towards_the_teachers(folder: Path) -> None:
    pictures = pictures_of(folder, tiny.classifier())
    [batch] = pictures.plain(24)
    teacher = tiny.classifier().network
    student = copy.deepcopy(teacher)
    block = student[2]
    block.expand.conv.weight = nn.Parameter(torch.randn(16, 16, 1, 1))  # half as wide inside, as if pruned
    block.expand.norm, block.depthwise.norm = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
    block.depthwise.conv = ConvNorm(16, 16, 5, groups=16).conv
    block.project.conv.weight = nn.Parameter(torch.randn(16, 16, 1, 1))

    def far(network: nn.Module) -> float:
        with torch.no_grad(), features(network, True) as given, features(teacher, True) as wanted:
            network(batch.images)
            teacher(batch.images)
        assert (
            given.keys()
            == wanted.keys()
            == {"0.conv", "1.expand.conv", "1.project.conv", "2.expand.conv", "2.project.conv", "5"}
        )
        return distance([given["5"]], [wanted["5"]], 1.0).item()

    recipe = replace(RECIPE, epochs=10, distill=1.0, batch_norm="freeze")
    with_hints, without = (fine_tune(student, pictures, replace(recipe, hints=hints), teacher=teacher) for hints in (10.0, 0.0))
    assert far(with_hints) < 0.5 * far(without)


def test_frozen_batch_norm_keeps_its_statistics(folder: Path) -> None:
    network = tiny.classifier().network
    trained = fine_tune(network, pictures_of(folder, tiny.classifier()), replace(RECIPE, epochs=1, batch_norm="freeze"))
    changed = differ(weights(network), weights(trained))
    assert changed
    assert not [name for name in changed if "running" in name or "num_batches" in name]


def test_recalibration_measures_what_the_pictures_give(folder: Path) -> None:
    network = tiny.classifier().network
    [batch] = pictures_of(folder, tiny.classifier()).plain(24)
    norm = network[0].norm
    recalibrate(network, [batch.images])
    convolved = network[0].conv(batch.images)
    torch.testing.assert_close(norm.running_mean, convolved.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, convolved.var((0, 2, 3)))
    assert norm.momentum == 0.01
    assert not any(module.training for module in network.modules())


def test_a_time_budget_shortens_the_schedule_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0, 3)  # every look at the clock is three seconds later
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(seconds)))
    told: list[Progress] = []
    recipe = replace(RECIPE, epochs=1000, minutes=1)
    fine_tune(tiny.classifier().network, pictures_of(folder, tiny.classifier()), recipe, progress=told.append)
    assert 5 < len(told) <= 20  # and some looks for the rows of epochs
    assert 0.85 < told[-1].done < 1


def test_a_loss_that_explodes_ends_in_one_line(folder: Path) -> None:
    recipe = replace(RECIPE, rate=1e30, optimizer="sgd", warmup=0.0)
    with pytest.raises(EdgeError, match="lower the learning rate"):
        fine_tune(tiny.classifier().network, pictures_of(folder, tiny.classifier()), recipe)


def test_no_readable_picture(tmp_path: Path) -> None:
    classifier, named = tiny.classifier(), list[str]()
    (tmp_path / "a.png").write_bytes(b"no picture")
    pictures = Pictures([Sample(tmp_path / "a.png", 0)], classifier.input, classifier.mean, classifier.std, named.append)
    with pytest.raises(DataError, match="readable"):
        fine_tune(classifier.network, pictures, RECIPE)
    with pytest.raises(DataError, match="readable"):
        accuracy(classifier.network, pictures)
    with pytest.raises(DataError, match="readable"):
        fit_head(classifier.network, pictures)
    assert "a.png" in named[0]


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(warmup: float) -> None:
    rates = [schedule(done / 100, warmup) for done in range(101)]
    peak = round(100 * warmup)
    assert rates[peak] == pytest.approx(1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] > 0
    assert rates[-1] == pytest.approx(0)


def test_distance_of_logits_is_the_divergence_of_softened_probabilities() -> None:
    logits, wanted = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    p = 1 / (1 + math.exp(0.5))  # softmax of wanted / 2, first class
    q = 1 / (1 + math.exp(-1))
    by_hand = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert distance(logits, wanted, 2.0).item() == pytest.approx(by_hand, rel=1e-5)
    assert distance(wanted + 3, wanted, 2.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_distance_of_anything_else_is_in_units_of_its_variance(scale: float) -> None:
    wanted = scale * torch.tensor([[[1.0, -1.0], [3.0, -3.0]]])
    zeros = torch.zeros_like(wanted)
    assert distance(zeros, wanted, 1.0).item() == pytest.approx(1)
    assert distance({"a": zeros, "b": [wanted]}, {"a": wanted, "b": [wanted]}, 1.0).item() == pytest.approx(0.5)


def test_the_last_layer_alone_learns_new_classes(folder: Path) -> None:
    classifier = tiny.classifier()
    before = weights(classifier.network)
    replace_head(classifier.network, 3)
    pictures = pictures_of(folder, classifier)
    assert accuracy(classifier.network, pictures) < 0.5
    fit_head(classifier.network, pictures)
    assert accuracy(classifier.network, pictures) == 1.0
    assert set(differ(before, weights(classifier.network))) == {"5.weight", "5.bias"}


def test_a_network_without_a_linear_layer_has_no_head() -> None:
    with pytest.raises(InputError, match="linear layer"):
        last_linear(nn.Sequential(nn.Conv2d(3, 3, 1)))
