"""The classics: our definitions against the published counts and against the keys and shapes of torchvision's files."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edge.errors import InputError, UsageError  # noqa: E402
from train import models  # noqa: E402

PARAMETERS = {
    "mobilenet-v2": 3_504_872,
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "vgg16-bn": 138_365_992,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
}
"""As published, of GoogLeNet without its auxiliary classifiers."""

KEYS = {
    "mobilenet-v2": (
        314,
        {
            "features.0.0.weight": (32, 3, 3, 3),
            "features.1.conv.0.0.weight": (32, 1, 3, 3),
            "features.1.conv.1.weight": (16, 32, 1, 1),
            "features.2.conv.1.0.weight": (96, 1, 3, 3),
            "features.17.conv.3.running_var": (320,),
            "features.18.1.num_batches_tracked": (),
            "classifier.1.weight": (1000, 1280),
        },
    ),
    "alexnet": (
        16,
        {"features.0.weight": (64, 3, 11, 11), "features.10.bias": (256,), "classifier.1.weight": (4096, 9216)},
    ),
    "vgg16": (
        32,
        {"features.28.weight": (512, 512, 3, 3), "classifier.0.weight": (4096, 25088), "classifier.6.bias": (1000,)},
    ),
    "vgg16-bn": (97, {"features.1.running_mean": (64,), "features.40.weight": (512, 512, 3, 3), "features.41.bias": (512,)}),
    "googlenet": (
        344,
        {
            "conv1.conv.weight": (64, 3, 7, 7),
            "inception3a.branch1.conv.weight": (64, 192, 1, 1),
            "inception3a.branch3.1.conv.weight": (32, 16, 3, 3),
            "inception4e.branch4.1.bn.weight": (128,),
            "inception5b.branch2.1.conv.weight": (384, 192, 3, 3),
            "fc.weight": (1000, 1024),
        },
    ),
    "resnet18": (122, {"layer1.1.bn2.weight": (64,), "layer4.0.downsample.0.weight": (512, 256, 1, 1), "fc.bias": (1000,)}),
    "resnet50": (
        320,
        {
            "layer1.0.downsample.1.running_mean": (256,),
            "layer2.0.conv2.weight": (128, 128, 3, 3),
            "layer4.2.conv3.weight": (2048, 512, 1, 1),
            "fc.weight": (1000, 2048),
        },
    ),
    "densenet121": (
        727,
        {
            "features.norm0.weight": (64,),
            "features.denseblock1.denselayer6.norm1.weight": (224,),
            "features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
            "features.transition3.conv.weight": (512, 1024, 1, 1),
            "features.norm5.running_var": (1024,),
            "classifier.weight": (1000, 1024),
        },
    ),
}
"""How many entries torchvision's state dict has, and some of them."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_counts_keys_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        network = models.MODELS[name].make(1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    entries, shapes = KEYS[name]
    state = network.state_dict()
    assert len(state) == entries
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize("name", ["mobilenet-v2", "googlenet", "resnet18", "densenet121"])
def test_the_smallest_input_goes_through_and_gradients_come_back(name: str) -> None:
    torch.manual_seed(0)
    model = models.MODELS[name]
    network = model.make(3).train()
    logits = network(torch.randn(4, 3, model.smallest, model.smallest))
    logits.logsumexp(1).sum().backward()
    assert logits.shape == (4, 3)
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_a_size_that_is_too_small_is_refused_with_the_least() -> None:
    assert models.geometry("alexnet", (63, 80)).height == 80
    with pytest.raises(UsageError, match="--size 62x80: alexnet takes 63 pixels a side at least"):
        models.geometry("alexnet", (62, 80))


def test_a_model_without_published_weights_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"resnet18: .*edge-train --from-scratch.*--weights FILE") as error:
        models.pretrained("resnet18")
    assert "\n" not in str(error.value)


def saved(tmp_path: Path, name: str, classes: int = 5, **more: torch.Tensor) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(1)
    network = models.load(name, pretrained=False, classes=classes)
    path = tmp_path / f"{name}.pth"
    torch.save(dict(network.state_dict()) | more, path)
    return network, path


@pytest.mark.parametrize("classes", [5, 1000])
def test_a_file_of_weights_is_taken_with_its_number_of_classes(tmp_path: Path, classes: int) -> None:
    network, path = saved(tmp_path, "resnet18")
    again = models.load("resnet18", classes=classes, weights=path)
    picture = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(picture), again(picture))


def test_googlenets_auxiliary_classifiers_are_passed_over(tmp_path: Path) -> None:
    network, path = saved(tmp_path, "googlenet", **{"aux1.fc1.weight": torch.zeros(3, 3), "aux2.conv.bn.bias": torch.zeros(3)})
    again = models.load("googlenet", classes=5, weights=path)
    assert torch.equal(network.state_dict()["fc.weight"], again.state_dict()["fc.weight"])


def test_densenets_older_names_and_those_of_several_processes_are_known(tmp_path: Path) -> None:
    network, path = saved(tmp_path, "densenet121")
    older = {}
    for key, value in network.state_dict().items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        older[f"module.{key}"] = value
    assert "module.features.denseblock1.denselayer1.norm.1.weight" in older
    torch.save({"state_dict": older}, path)
    again = models.load("densenet121", classes=5, weights=path).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no weights", "not a file of weights"),
        ([1, 2], "not a state dict"),
        ({"fc.weight": torch.zeros(7, 512)}, "the weights do not fit resnet18"),
        ({"conv1.weight": torch.zeros(1)}, "the weights do not fit resnet18"),
    ],
)
def test_a_file_that_does_not_fit_ends_in_one_line(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=says) as error:
        models.load("resnet18", classes=5, weights=path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a file of weights"):
        models.load("resnet18", weights=tmp_path / "none.pth")
