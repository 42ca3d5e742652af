"""Files that PyTorch wrote: which are taken, and what is said of the others."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from edge.errors import InputError  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.graph import layers  # noqa: E402
from quantize.quiet import quiet  # noqa: E402
from quantize.torch_files import load_torch  # noqa: E402

EXAMPLE = torch.zeros(1, 3, 16, 16)


class Net(nn.Module):
    """A module of this file, so that pickling it needs the file."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(torch.relu(self.norm(self.conv(image))).mean((2, 3)))
        return result


class Fails:
    """A pickle that raises when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def _script(module: nn.Module, path: Path, how: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(module, EXAMPLE) if how == "trace" else torch.jit.script(module)
        torch.jit.save(made, path)


WRITERS: dict[str, tuple[Callable[[nn.Module, Path], Any], bool]] = {
    "pt2": (lambda net, path: torch.export.save(torch.export.export(net, (EXAMPLE,)), path.with_suffix(".pt2")), False),
    "traced": (lambda net, path: _script(net, path, "trace"), False),
    "scripted": (lambda net, path: _script(net, path, "script"), False),
    "whole": (torch.save, True),
    "whole of old": (lambda net, path: torch.save(net, path, _use_new_zipfile_serialization=False), True),
    "ultralytics": (lambda net, path: torch.save({"epoch": 3, "ema": None, "model": net}, path), True),
    "moving average": (lambda net, path: torch.save({"ema": net, "model": nn.Identity()}, path), True),
    "half": (lambda net, path: torch.save(net.half(), path), True),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_network_is_loaded_and_captured(writer: str, tmp_path: Path) -> None:
    write, trust = WRITERS[writer]
    path = tmp_path / "net.pt"
    write(Net().eval(), path)
    network = load_torch(next(tmp_path.iterdir()), EXAMPLE, trust=trust)
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    picture = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected, found = Net().eval()(picture), network(picture)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2 if writer == "half" else 1e-5)
    with quiet():
        graph = fold(network, EXAMPLE)
    assert [str(layer.target) for layer in layers(graph)] == ["aten.conv2d.default", "aten.linear.default"]
    with torch.no_grad():
        torch.testing.assert_close(graph(picture), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("writer", ["whole", "whole of old", "ultralytics"])
def test_code_runs_only_when_trusted(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    WRITERS[writer][0](Net(), path)
    with pytest.raises(InputError, match=r"net\.pt: .*runs code from the file.*--trust$"):
        load_torch(path, EXAMPLE)


@pytest.mark.parametrize("holds", ["state dict", "checkpoint", "tensor"])
def test_weights_alone_are_refused(holds: str, tmp_path: Path) -> None:
    state = Net().state_dict()
    torch.save(
        {"state dict": state, "checkpoint": {"epoch": 1, "model": state}, "tensor": state["conv.weight"]}[holds],
        tmp_path / "w.pth",
    )
    for trust in (False, True):
        with pytest.raises(InputError, match=r"weights without their network; give package\.module:factory"):
            load_torch(tmp_path / "w.pth", EXAMPLE, trust=trust)


def _bytes(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"")


def _cut(path: Path) -> None:
    torch.save(Net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (Path.mkdir, "a folder"),
        (_bytes(b""), "empty"),
        (_bytes(b"\x08\x07"), "not a file that torch wrote"),
        (_bytes(b"PK\x03\x04 cut"), "damaged or cut short"),
        (_cut, "damaged or cut short"),
        (_bytes(b"\x80\x02cut"), "damaged or cut short|runs code|loading it fails"),
        (_zip, "a zip archive that torch did not write"),
        (lambda path: torch.save({"epoch": 3}, path), "holds dict, no network"),
        (lambda path: torch.save(Fails(), path), "loading it fails: ValueError"),
    ],
)  # fmt: skip
def test_what_is_no_network_is_refused_in_one_line(write: Callable[[Path], Any], why: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    write(path)
    with pytest.raises(InputError, match=why) as refused:
        load_torch(path, EXAMPLE, trust=True)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_class_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt"
    monkeypatch.setattr(Net, "__module__", "os.path")
    monkeypatch.setattr("os.path.Net", Net, raising=False)
    torch.save(Net(), path)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"Net.*load it where its class is defined"):
        load_torch(path, EXAMPLE, trust=True)


def test_a_package_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    path = tmp_path / "net.pt"
    module = ModuleType("no_such_package")
    module.Net = Net  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "no_such_package", module)
    monkeypatch.setattr(Net, "__module__", "no_such_package")
    torch.save(Net(), path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="needs the Python package 'no_such_package'"):
        load_torch(path, EXAMPLE, trust=True)


def test_a_script_that_cannot_be_captured(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            total = image.sum()
            while bool(total > 1):
                total = total / 2
            return total

    _script(Branches(), tmp_path / "net.pt", "script")
    with pytest.raises(InputError, match="this TorchScript network cannot be captured"):
        load_torch(tmp_path / "net.pt", EXAMPLE)


def test_a_program_for_another_size_says_so_when_captured(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(1, 3, 8, 8),)), tmp_path / "net.pt2")
    network = load_torch(tmp_path / "net.pt2", EXAMPLE)
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 3)
