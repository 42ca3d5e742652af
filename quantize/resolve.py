"""MODEL, as it stands on the command line, to a float model: a published name, a run, a factory, an ONNX or a torch file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edge.errors import InputError, UsageError
from quantize.described import Described
from quantize.float_model import FloatModel, float_model
from quantize.onnx_import import import_onnx
from quantize.torch_files import load_torch
from train.models import MODELS, pretrained
from train.run import is_run, load_run
from train.start import FACTORY, arguments_of, from_factory


def from_name(model: str, arguments: Sequence[str] = (), *, trust: bool = False) -> FloatModel:
    """A published model, what a run of edge-train trained, or what a factory makes.

    Raises UsageError, or InputError when weights are not installed or a run is not finished.
    """
    is_folder = Path(model).is_dir()
    if arguments and (is_folder or model in MODELS):
        raise UsageError(f"--arg {arguments[0]}: {model} takes no arguments; they are for package.module:factory")
    if is_folder and not is_run(Path(model)):
        raise UsageError(
            f"{model}: a folder that is no run of edge-train; give the .onnx, .pt2 or .tflite file in it, or "
            "package.module:factory"
        )
    if is_folder:
        return float_model(load_run(Path(model), trust=trust))
    if model in MODELS:
        return float_model(pretrained(model))
    return float_model(from_factory(model, arguments_of(arguments), f"an .onnx, .pt2 or .tflite file or {FACTORY}"))


def from_file(path: Path, said: Described, *, trust: bool = False) -> tuple[FloatModel, list[str]]:
    """The network in an ONNX or torch file, and what was assumed of it, a line each. Raises InputError, UsageError."""
    if path.suffix.lower() == ".onnx":
        imported = import_onnx(path, said.size_wh)
        network, outputs, size_wh = imported.network, imported.outputs, imported.size_wh
    else:
        if said.size_wh is None:
            raise UsageError(f"{path}: a torch file does not say what size its input is; give --size WIDTHxHEIGHT")
        size_wh = said.size_wh
        network, outputs = load_torch(path, torch.zeros(1, 3, size_wh[1], size_wh[0]), trust=trust), ()
    network, notes = _single(network, outputs, size_wh, said, path)
    model = FloatModel(
        name=said.name or bundle_name(path),
        task=said.task,
        head=said.head,
        network=network,
        input=said.geometry(size_wh, str(path)),
        mean=said.mean,
        std=said.std,
        labels=said.labels,
        source=said.source,
        license=said.license,
        detect=said.detect,
    )
    geometry = model.input
    notes.append(
        f"{path.name}: taken as {said.task}, head {said.head}, {geometry.width}x{geometry.height} {geometry.color}, "
        f"{geometry.resize}, (pixel - {_plain(said.mean)}) / {_plain(said.std)}"
    )
    return model, notes


def bundle_name(path: Path) -> str:
    """A bundle's name made of a file's."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in path.stem)
    return kept.lstrip("._-")[:100] or "model"


def _plain(values: tuple[float, float, float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "[" + ", ".join(f"{value:g}" for value in values) + "]"


def _single(
    network: nn.Module, outputs: tuple[str, ...], size_wh: tuple[int, int], said: Described, path: Path
) -> tuple[nn.Module, list[str]]:
    """The network with the one output that its head reads; a classifier's probabilities as logits."""
    with torch.no_grad():
        try:
            given = network(torch.rand(1, 3, size_wh[1], size_wh[0], generator=torch.Generator().manual_seed(0)))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: cannot take float32 [1, 3, {size_wh[1]}, {size_wh[0]}] ({reason}); correct --size"
            ) from None
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    names = outputs or tuple(str(index) for index in range(len(several)))
    index = 0
    if said.output is not None:
        if said.output not in names:
            raise UsageError(f"{path}: no output named {said.output!r:.60}; there are {', '.join(names)}")
        index = names.index(said.output)
    elif len(several) > 1:
        raise UsageError(
            f"{path}: gives {len(several)} outputs, {', '.join(names[:6])}; say which is the head's with --output NAME"
        )
    if not isinstance(several[index], Tensor):
        raise InputError(f"{path}: its output is {type(several[index]).__name__}, expected a tensor")
    if len(several) > 1:
        network = _Chosen(network, index)
    if said.task == "classify" and _is_probability(several[index]):
        return _Logits(network).eval(), [f"{path.name}: it ends in a softmax, of which the logarithm is taken as logits"]
    return network.eval(), []


def _is_probability(values: Tensor) -> bool:
    return bool((values >= 0).all() and torch.isclose(values.sum(), torch.ones(()), atol=1e-3)) and values.numel() > 1


class _Chosen(nn.Module):
    """One of a network's outputs."""

    def __init__(self, network: nn.Module, index: int) -> None:
        super().__init__()
        self.network = network
        self.index = index

    def forward(self, value: Tensor) -> Tensor:
        chosen: Tensor = self.network(value)[self.index]
        return chosen


class _Logits(nn.Module):
    """Probabilities as logits: softmax(log p) = p."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, value: Tensor) -> Tensor:
        return torch.log(torch.clamp(self.network(value), min=1e-7))
