"""What a training starts from: a named model or anyone's factory, published, given or random weights, the data's classes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from edge.card import Label
from edge.errors import InputError, UsageError
from train.detect import DETECTORS
from train.detect import build as build_detector
from train.models import MODELS, Classifier, Detector, geometry, load, named
from train.transfer import last_linear, replace_head

SOURCES = {"published": "published ImageNet weights", "random": "random weights"}


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which network: a name of MODELS or DETECTORS, or package.module:factory with its `arguments`; and its weights.

    `weights` is "published", "random", a file of a state dict, or the folder of a finished run. `size_wh` is the input's,
    None for the model's own.
    """

    model: str
    arguments: dict[str, Any] = {}
    size_wh: tuple[int, int] | None = None
    weights: str = "published"


def start(choice: Choice, labels: Sequence[Label], task: str) -> Classifier | Detector:
    """The network with the weights that it starts from and a last layer for `labels`; what is new is random.

    Raises UsageError for what cannot be, InputError for weights that are not there or do not fit.
    """
    if choice.model in DETECTORS:
        _check_task(choice.model, "detect", task)
        return _detector(choice, labels)
    if choice.model in MODELS:
        _check_task(choice.model, "classify", task)
        return _classifier(choice, labels)
    made = from_factory(choice.model, choice.arguments)
    if isinstance(made, Detector):
        raise UsageError(
            f"{choice.model}: makes a detector, and only our own know how to learn; choose from {', '.join(DETECTORS)}, or "
            "train it with its own tools and give it to edge-quantize"
        )
    _check_task(choice.model, "classify", task)
    path = Path(choice.weights)
    if path.is_dir():
        made = replace(made, network=_of_run(path, choice.model))
    elif choice.weights not in SOURCES:
        _load_file(made.network, path)
    if choice.size_wh is not None:
        made = replace(made, input=msgspec.structs.replace(made.input, width=choice.size_wh[0], height=choice.size_wh[1]))
    _fit_classes(made.network, len(labels))
    return replace(made, labels=tuple(labels))


def untrained(choice: Choice, labels: Sequence[Label], task: str) -> Classifier | Detector:
    """The same network without the weights that it started from, for those of a checkpoint."""
    return start(msgspec.structs.replace(choice, weights="random"), labels, task)


FACTORY = "package.module:factory"


def from_factory(model: str, arguments: dict[str, Any], instead: str = FACTORY) -> Classifier | Detector:
    """What package.module:factory makes; `instead` is what else could have been given. Raises UsageError."""
    module_name, colon, attribute = model.partition(":")
    if not colon or not attribute:
        raise UsageError(f"no model named {model!r}; there are {', '.join([*MODELS, *DETECTORS])}, or give {instead}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a factory beside the person who runs us, as `python -m` would find it
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        made = factory(**arguments)
    except (Exception, SystemExit) as error:  # it is the user's code: anything can come out of it
        raise UsageError(f"{model}: {type(error).__name__}: {error}; check that the factory runs in python") from None
    if not isinstance(made, (Classifier, Detector)):
        raise UsageError(f"{model}: returned {type(made).__name__}, expected train.models.Classifier or Detector")
    if not isinstance(made.name, str):
        raise UsageError(f"{model}: the model's name is {type(made.name).__name__}, expected str")
    return made


def arguments_of(given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE, the value as JSON where it is JSON and as text where it is not. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--arg {text!r:.80}: give NAME=VALUE, a keyword argument of the factory")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _check_task(model: str, can: str, task: str) -> None:
    if can != task:
        is_what = {"classify": "a classifier, and the data has boxes", "detect": "a detector, and the data has no boxes"}[can]
        others = ", ".join(DETECTORS if task == "detect" else MODELS)
        raise UsageError(f"--model {model}: is {is_what}; choose from {others}")


def _classifier(choice: Choice, labels: Sequence[Label]) -> Classifier:
    model = named(choice.model)
    size = geometry(choice.model, choice.size_wh)  # refused before weights are looked for
    path = Path(choice.weights)
    if choice.weights == "random":
        network = load(choice.model, pretrained=False, classes=len(labels))
    elif choice.weights == "published":
        network = load(choice.model)
    elif path.is_dir():
        network = _of_run(path, choice.model)
    else:
        network = load(choice.model, weights=path)
    _fit_classes(network, len(labels))
    source = SOURCES.get(choice.weights, f"weights of {path.name}")
    return Classifier(
        name=choice.model,
        network=network,
        input=size,
        mean=model.mean,
        std=model.std,
        labels=tuple(labels),
        source=f"{choice.model}, {source}",
        license=model.license,
    )


def _detector(choice: Choice, labels: Sequence[Label]) -> Detector:
    path = Path(choice.weights)
    if choice.weights in SOURCES:
        return build_detector(choice.model, labels, size_wh=choice.size_wh, pretrained=choice.weights == "published")
    made = build_detector(choice.model, labels, size_wh=choice.size_wh, pretrained=False)
    if not path.is_dir():
        raise UsageError(f"--weights {path}: of a detector, give the folder of a run of edge-train")
    _take(made.network, _of_run(path, choice.model).state_dict())
    return made


def _of_run(folder: Path, model: str) -> nn.Module:
    """The network of a finished run of the same model. Raises InputError."""
    from train.run import load_run, read_plan

    trained = read_plan(folder).choice.model
    if trained != model:
        raise InputError(f"--weights {folder}: is a run of {trained}; give one of {model}, or --model {trained}")
    return load_run(folder).network


def _load_file(network: nn.Module, path: Path) -> None:
    """Give a factory's network the state dict in a file. Raises InputError."""
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises classes of its own for each way in which a file can be wrong
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--weights {path}: not a state dict of this network ({reason}); give another file") from None


def _take(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Take all weights whose shapes are as here: another number of classes has others in the last layers."""
    own = network.state_dict()
    network.load_state_dict(
        own | {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    )


def _fit_classes(network: nn.Module, classes: int) -> None:
    if last_linear(network).out_features != classes:
        replace_head(network, classes)
