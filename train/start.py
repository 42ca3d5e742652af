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
from torch import nn

from edge.card import Label
from edge.errors import InputError, UsageError
from train.detect import DETECTORS
from train.detect import build as build_detector
from train.heads import last_linear, replace_head
from train.models import MODELS, Classifier, Detector, geometry, imagenet_labels, load, named
from train.weights import read_state, take

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


def start(
    choice: Choice, labels: Sequence[Label], task: str, *, weighted: bool = True, trust: bool = False
) -> Classifier | Detector:
    """The network with the weights that it starts from and a last layer for `labels`; what is new is random.

    Without `weighted` those of a checkpoint are to follow, and none are looked for. A run that it starts from may name a
    factory, which is called with `trust` only, or where `choice` names it, too. Raises UsageError for what cannot be,
    InputError for weights that are not there or do not fit.
    """
    if choice.model in DETECTORS:
        _check_task(choice.model, "detect", task)
        return _detector(choice, labels, weighted, trust)
    if choice.model in MODELS:
        _check_task(choice.model, "classify", task)
        return _classifier(choice, labels, weighted, trust)
    made = from_factory(choice.model, choice.arguments)
    if isinstance(made, Detector):
        raise UsageError(
            f"{choice.model}: makes a detector, and only our own know how to learn; choose from {', '.join(DETECTORS)}, or "
            "train it with its own tools and give it to edge-quantize"
        )
    _check_task(choice.model, "classify", task)
    path = Path(choice.weights)
    if weighted and path.is_dir():
        made = _of_run(path, choice.model, trust=True)
    elif weighted and choice.weights not in SOURCES:
        take(made.network, read_state(path), f"{path}: the weights do not fit {choice.model}", "give a file of this network")
    if choice.size_wh is not None:
        made = replace(made, input=msgspec.structs.replace(made.input, width=choice.size_wh[0], height=choice.size_wh[1]))
    _fit_classes(made.network, made.labels, labels)
    return replace(made, labels=tuple(labels))


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


def _classifier(choice: Choice, labels: Sequence[Label], weighted: bool, trust: bool) -> Classifier:
    model = named(choice.model)
    size = geometry(choice.model, choice.size_wh)  # refused before weights are looked for
    path = Path(choice.weights)
    former: Sequence[Label] = ()
    license_of = model.license
    if not weighted or choice.weights == "random":
        network = load(choice.model, pretrained=False, classes=len(labels))
        former = labels
    elif choice.weights == "published":
        network, former = load(choice.model), imagenet_labels()
    elif path.is_dir():
        run = _of_run(path, choice.model, trust=trust)
        network, former, license_of = run.network, run.labels, run.license
    else:
        network, license_of = load(choice.model, weights=path), f"that of {path.name}"
    _fit_classes(network, former, labels)
    return Classifier(
        name=choice.model,
        network=network,
        input=size,
        mean=model.mean,
        std=model.std,
        labels=tuple(labels),
        source=f"{choice.model}, {SOURCES.get(choice.weights, f'weights of {path.name}')}",
        license=license_of if choice.weights in SOURCES or path.is_dir() else f"that of {path.name}",
    )


def _detector(choice: Choice, labels: Sequence[Label], weighted: bool, trust: bool) -> Detector:
    path = Path(choice.weights)
    if choice.weights in SOURCES:
        pretrained = weighted and choice.weights == "published"
        made = build_detector(choice.model, labels, size_wh=choice.size_wh, pretrained=pretrained)
        return made if choice.weights == "published" else replace(made, source=f"{choice.model}, random weights")
    made = build_detector(choice.model, labels, size_wh=choice.size_wh, pretrained=False)
    if weighted:
        if not path.is_dir():
            raise UsageError(f"--weights {path}: of a detector, give the folder of a run of edge-train")
        run = _of_run(path, choice.model, trust=trust)
        same = [label.id for label in run.labels] == [label.id for label in labels]
        own = made.network.state_dict()
        given = {name: value for name, value in run.network.state_dict().items() if value.shape == own[name].shape}
        made.network.load_state_dict(own | {name: value for name, value in given.items() if same or ".classify." not in name})
    return replace(made, source=f"{choice.model}, weights of {path.name}")


def _of_run(folder: Path, model: str, *, trust: bool) -> Classifier | Detector:
    """What a finished run of the same model has trained. Raises InputError."""
    from train.run import load_run, read_plan

    trained = read_plan(folder).choice.model
    if trained != model:
        raise InputError(f"--weights {folder}: is a run of {trained}; give one of {model}, or --model {trained}")
    return load_run(folder, trust=trust)


def _fit_classes(network: nn.Module, former: Sequence[Label], labels: Sequence[Label]) -> None:
    """A new last layer, unless the network's classes are the data's, in their order."""
    same = [label.id for label in former] == [label.id for label in labels]
    if not same or last_linear(network).out_features != len(labels):
        replace_head(network, len(labels))
