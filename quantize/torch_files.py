"""Files that PyTorch wrote, .pt, .pth and .pt2, as a module that torch.export can capture."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edge.errors import InputError
from quantize.check import blamed
from quantize.quiet import quiet

ATEN = torch.ops.aten
FACTORY = "give package.module:factory, a function that builds the network and loads them"
TOLERANCE = 1e-3
"""Of the largest output, by which a converted TorchScript network may differ from itself."""


def load_torch(path: Path, example: Tensor, *, trust: bool = False) -> nn.Module:
    """The network in a file, float32 and in evaluation mode: an exported program, TorchScript or a pickled module.

    `example` [1, 3, h, w] is what the network will be given. A pickled module runs code from the file, so it is loaded only
    with `trust`. Raises InputError, one line, for anything else, weights without their network among it.
    """
    kind = _kind(path)
    if kind == "program":
        with blamed(f"{path}: the exported program cannot be read", "; export it again with this version of torch"), quiet():
            return Captured(torch.export.load(str(path)).module(check_guards=False)).float().eval()
    if kind == "script":
        return _from_script(path, example)
    return _from_pickle(path, trust)


class Captured(nn.Module):
    """A captured graph, which has no evaluation mode of its own to change, as a module that has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def train(self, mode: bool = True) -> Captured:
        self.training = mode
        return self

    def forward(self, image: Tensor) -> Any:
        return self.network(image)


def _kind(path: Path) -> str:
    """What a file holds, by the names inside it: `program`, `script` or `pickle`."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; give the .pt or .pt2 file in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if start == b"\x80\x02":  # a pickle, which torch.save wrote before 1.6
        return "pickle"
    if start != b"PK":
        raise InputError(f"{path}: {'empty' if not start else 'not a file that torch wrote'}; save it again, or export ONNX")
    try:
        with zipfile.ZipFile(path) as archive:
            names = ["/" + name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile:
        raise InputError(f"{path}: damaged or cut short; save or download it again") from None
    if any(name.startswith("/models/") for name in names):
        return "program"
    if any(name.startswith("/code/") for name in names):
        return "script"
    if "/data.pkl" in names:
        return "pickle"
    raise InputError(f"{path}: a zip archive that torch did not write; give a .pt, .pt2 or .onnx file")


def _from_script(path: Path, example: Tensor) -> nn.Module:
    what = f"{path}: this TorchScript network cannot be captured"
    hint = "; give package.module:factory that builds it in Python, or export ONNX"
    with blamed(what, hint), quiet(), torch.no_grad():
        from torch._export.converter import TS2EPConverter  # the only way from TorchScript to torch.export

        script = torch.jit.load(str(path), map_location="cpu").float().eval()  # type: ignore[no-untyped-call]
        program = TS2EPConverter(script, (example,)).convert()
        network = Captured(_as_exported(program.module(check_guards=False))).eval()
        picture = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
        pairs = list(zip(_tensors(script(picture)), _tensors(network(picture)), strict=True))
    for right, found in pairs:
        if right.shape != found.shape or bool((right - found).abs().max() > TOLERANCE * right.abs().max()):
            raise InputError(f"{what}: captured, it gives another result{hint}")
    return network


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Mapping):
        output = tuple(output.values())
    return [output] if isinstance(output, Tensor) else [tensor for part in output for tensor in _tensors(part)]


def _as_exported(graph: GraphModule) -> GraphModule:
    """What the converter made, as torch.export has it: convolutions as conv2d, what layers learn as parameters."""
    for node in list(graph.graph.nodes):
        if node.target == ATEN.convolution.default:
            x, weight, bias, strides, padding, dilations, is_transposed, _, groups = node.args
            if not is_transposed and len(strides) == 2:
                node.target = ATEN.conv2d.default
                node.args = (x, weight, bias, strides, padding, dilations, groups)
        if node.target in (ATEN.conv2d.default, ATEN.convolution.default, ATEN.linear.default, ATEN.batch_norm.default):
            for learned in node.args[1:3]:
                if learned is not None and learned.op == "get_attr":
                    _make_parameter(graph, learned.target)
    graph.recompile()
    return graph


def _make_parameter(graph: GraphModule, path: str) -> None:
    owner_path, _, name = path.rpartition(".")
    owner = graph.get_submodule(owner_path)
    if name in owner._buffers:
        tensor = owner._buffers.pop(name)
        assert tensor is not None
        owner.register_parameter(name, nn.Parameter(tensor.detach().clone()))


def _from_pickle(path: Path, trust: bool) -> nn.Module:
    try:
        loaded = _load(path, weights_only=True)
    except pickle.UnpicklingError:
        if not trust:
            why = "holds Python objects, and loading them runs code from the file"
            raise InputError(f"{path}: {why}; if you trust where it came from, add --trust") from None
        loaded = _load_trusted(path)
    except (RuntimeError, EOFError, KeyError, ValueError):
        raise InputError(f"{path}: damaged or cut short; save or download it again") from None
    if isinstance(loaded, Mapping):  # Ultralytics and others keep the network beside the optimizer, and its moving average
        found = [loaded[key] for key in ("ema", "model", "network", "net") if isinstance(loaded.get(key), nn.Module)]
        loaded = found[0] if found else loaded
    if isinstance(loaded, nn.Module):
        return loaded.float().eval()
    count = _count(loaded)
    if count:
        raise InputError(f"{path}: {count} weights without their network; {FACTORY}")
    raise InputError(f"{path}: holds {type(loaded).__name__}, no network; {FACTORY.replace('them', 'its weights')}")


def _load(path: Path, weights_only: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=weights_only)


def _load_trusted(path: Path) -> Any:
    try:
        return _load(path, weights_only=False)
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: needs the Python package {error.name!r}; install it, or export ONNX where it is") from None
    except AttributeError as error:
        raise InputError(f"{path}: {error}; load it where its class is defined, or export ONNX there") from None
    except Exception as error:  # the file's own code raises what it likes
        raise InputError(f"{path}: loading it fails: {type(error).__name__}: {error}; save it again, or export ONNX") from None


def _count(loaded: Any) -> int:
    if isinstance(loaded, Tensor):
        return 1
    parts = loaded.values() if isinstance(loaded, Mapping) else loaded if isinstance(loaded, (list, tuple)) else ()
    return sum(_count(part) for part in parts)
