"""What is downloaded for which board, with a pip that has a handful of made-up wheels."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devices import BOARDS, GENERIC, wheelhouse
from devices.wheelhouse import SYSTEMS, WheelhouseError, main, pip_download, target
from devices.wheels import MIB, Requirement, holds, missing, platform_tags, requirements, unpacked_mib

PI = target("raspberry-pi-4").environment


def wheel(folder: Path, name: str, needs: Sequence[str] = (), extras: Sequence[str] = (), payload: int = 0) -> Path:
    lines = [*(f"Requires-Dist: {need}" for need in needs), *(f"Provides-Extra: {extra}" for extra in extras)]
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            f"{name.split('-')[0]}-1.dist-info/METADATA", "\n".join(["Name: x", *lines, "", "Requires-Dist: prose"])
        )
        if payload:
            archive.writestr("payload", bytes(payload))
    return folder / name


def asked_of_pip(command: Sequence[str], option: str) -> list[str]:
    return [value for flag, value in pairwise(command) if flag == option]


def command(board: str, **given: Any) -> list[str]:
    return pip_download(target(board, **given), [Requirement("numpy", versions=">=1.26")], Path("out"), Path("constraints.txt"))


@pytest.mark.parametrize(
    ("board", "given", "python", "best", "not_taken"),
    [
        ("raspberry-pi-4", {}, "3.11", "manylinux_2_36_aarch64", "manylinux_2_37_aarch64"),
        ("raspberry-pi-zero-2w", {}, "3.11", "manylinux_2_36_aarch64", "manylinux_2_36_armv7l"),
        ("raspberry-pi-5", {"system": "trixie"}, "3.13", "manylinux_2_41_aarch64", "manylinux_2_42_aarch64"),
        ("raspberry-pi-3", {"system": "bookworm-32"}, "3.11", "manylinux_2_36_armv7l", "manylinux_2_36_aarch64"),
        ("jetson-orin-nano", {}, "3.10", "manylinux_2_35_aarch64", "manylinux_2_36_aarch64"),
        ("jetson-nano", {"python": "3.10"}, "3.10", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64"),
        ("generic-armv7", {}, "3.11", "linux_armv7l", "linux_aarch64"),
        ("generic-x86-64", {}, "3.11", "manylinux_2_36_x86_64", "manylinux_2_36_aarch64"),
    ],
)
def test_pip_is_told_the_boards_tags(board: str, given: dict[str, str], python: str, best: str, not_taken: str) -> None:
    asked = command(board, **given)
    platforms = asked_of_pip(asked, "--platform")
    assert best in platforms
    assert not_taken not in platforms
    machine = target(board, **given).machine
    assert {f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"} <= set(platforms)
    assert asked_of_pip(asked, "--python-version") == [python]
    assert asked_of_pip(asked, "--abi") == [f"cp{python.replace('.', '')}", "abi3", "none"]
    assert "--only-binary=:all:" in asked
    assert asked[-1] == "numpy>=1.26"


def test_pinned_versions_are_for_the_python_they_were_chosen_for() -> None:
    assert asked_of_pip(command("raspberry-pi-4"), "--constraint") == ["constraints.txt"]
    assert not asked_of_pip(command("raspberry-pi-4", python="3.12"), "--constraint")
    assert not asked_of_pip(command("raspberry-pi-4", system="trixie"), "--constraint")
    assert not asked_of_pip(command("raspberry-pi-4", extras=["onnx", "picamera"]), "--constraint")


@pytest.mark.parametrize("board", [board for board in (*BOARDS, *GENERIC) if board.machine], ids=lambda board: board.name)
def test_each_board_has_a_system_and_an_engine(board: Any) -> None:
    chosen = target(board.name, python="3.11")
    assert chosen.machine == board.machine
    assert chosen.extras == (("tflite",) if board.machine == "armv7l" else ("onnx",))


@pytest.mark.parametrize(
    ("board", "given", "said"),
    [
        ("raspberypi-4", {}, "BOARD 'raspberypi-4' is not known; did you mean raspberry-pi-4?"),
        ("orin", {}, "BOARD 'orin' is not known; choose one of raspberry-pi-zero-2w, "),
        ("raspberry-pi-4", {"system": "tricksie"}, "SYSTEM 'tricksie' is none of raspberry-pi-4's; did you mean trixie?"),
        ("raspberry-pi-4", {"system": "jetpack-6"}, "choose one of bookworm, trixie, bookworm-32"),
        ("raspberry-pi-4", {"python": "3.11.2"}, "PYTHON_VERSION '3.11.2' is not a version; give one as in 3.11"),
        (
            "jetson-orin-nano",
            {"system": "jetpack-5"},
            "Python 3.8 and edge-run needs 3.10; SYSTEM=jetpack-6, or install a newer",
        ),
        ("jetson-nano", {}, "JetPack 4 (Ubuntu 18.04) has Python 3.6 and edge-run needs 3.10; install a newer Python there"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(board: str, given: dict[str, str], said: str) -> None:
    with pytest.raises(WheelhouseError) as refused:
        target(board, **given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("marker", "environment", "true"),
    [
        ('platform_machine == "armv7l"', {}, False),
        ("platform_machine != 'armv7l'", {}, True),
        ('python_version < "3.9"', {}, False),
        ('python_version >= "3.9"', {}, True),
        ("python_version < '3.11' and extra == 'toml'", {"python_version": "3.10", "extra": "toml"}, True),
        ("(platform_system == 'Windows') or sys_platform == 'linux'", {}, True),
        ("platform_machine in 'x86_64 aarch64'", {}, True),
        ("'arm' not in platform_machine", {}, True),
        ("python_version ~= '3.9'", {}, True),
        ("python_version == '3.*'", {}, True),
        ("python_version == '2.*'", {}, True),
        ("python_full_version == '3.11'", {}, True),
        ("python_full_version > '3.11'", {}, False),
        ("python_version == '3.1'", {"python_version": "3.10"}, False),
        ("nobody_knows == 'this'", {}, True),
        ("os_name == ", {}, True),
    ],
)
def test_markers_are_asked_about_the_board(marker: str, environment: Mapping[str, str], true: bool) -> None:
    assert holds(marker, {**PI, "extra": "", **environment}) is true


def test_requirements_as_they_are_written(tmp_path: Path) -> None:
    needs = [
        "NumPy (>=1.21)",
        "Ruamel.yaml",
        "a[b, c]>=1,<2; extra == 'full'",
        "d; python_version < '3'",
        "e @ https://host/e.whl",
    ]
    made = wheel(tmp_path, "it-1-py3-none-any.whl", needs, ["full"])
    assert [str(need) for need in requirements(made, [], PI)] == ["numpy>=1.21", "ruamel-yaml"]
    assert [str(need) for need in requirements(made, ["full"], PI)][2:] == ["a[b,c]>=1,<2"]


def test_what_is_missing_is_found_at_any_depth(tmp_path: Path) -> None:
    wheel(tmp_path, "edge_run-1-py3-none-any.whl", ["middle", "edge-run[onnx]; extra == 'cloud'", "engine>=2; extra == 'onnx'"])
    roots = [Requirement("edge-run", frozenset({"cloud"}))]
    assert {str(one) for one in missing(tmp_path, roots, PI)} == {"middle", "engine>=2"}
    wheel(tmp_path, "middle-1-py3-none-any.whl", ["edge-run", "deep; python_version < '3.12'"])
    wheel(tmp_path, "engine-2-cp311-cp311-manylinux_2_28_aarch64.whl")
    assert [str(one) for one in missing(tmp_path, roots, PI)] == ["deep"]
    assert missing(tmp_path, roots, target("raspberry-pi-4", system="trixie").environment) == []


def test_unpacked_size_and_tags(tmp_path: Path) -> None:
    made = wheel(tmp_path, "big-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", payload=3 * MIB)
    assert made.stat().st_size < MIB
    assert unpacked_mib(tmp_path) == pytest.approx(3, abs=0.01)
    assert platform_tags(made) == ["manylinux2014_aarch64", "manylinux_2_17_aarch64"]


class Index:
    """A pip whose index has what `wheels` says, each with its needs; it follows markers as if it ran on the board's like."""

    def __init__(self, wheels: Mapping[str, Sequence[str]], says: str = "") -> None:
        self.wheels, self.says, self.commands = wheels, says, list[list[str]]()

    def run(self, asked: list[str], **_: Any) -> SimpleNamespace:
        self.commands.append(asked)
        folder = Path(asked_of_pip(asked, "--dest")[0])
        for requirement in asked[asked.index(str(folder)) + 1 :]:
            name = requirement.partition(">")[0].partition("<")[0]
            file = next((file for file in self.wheels if file.split("-")[0] == name), None)
            if file is None or self.says:
                return SimpleNamespace(
                    returncode=1, stderr=self.says or f"ERROR: No matching distribution found for {requirement}\n"
                )
            wheel(folder, file, self.wheels[file])
        return SimpleNamespace(returncode=0, stderr="")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    needs = ["numpy>=1.26", "engine; extra == 'onnx'", "small; platform_machine == 'armv7l' and extra == 'tflite'"]
    return wheel(tmp_path, "edge_run-0.1.0-py3-none-any.whl", needs, ["onnx", "tflite", "picamera"], payload=MIB)


USUAL = {"numpy-2-cp311-cp311-manylinux_2_27_aarch64.whl": ["late; python_version == '3.11'"], "engine-1-py3-none-any.whl": []}


def test_a_wheelhouse(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    index = Index(USUAL | {"late-1-py3-none-any.whl": []})
    monkeypatch.setattr(wheelhouse, "subprocess", SimpleNamespace(run=index.run))
    out = tmp_path / "out"
    (out / "stale").mkdir(parents=True)
    (out / "SHA256SUMS").touch()
    assert main(["raspberry-pi-4", "--wheel", str(own), "--out", str(out)]) == 0
    files = sorted(path.name for path in out.iterdir())
    assert files == sorted([own.name, *USUAL, "late-1-py3-none-any.whl", "README.txt", "SHA256SUMS", "edge-run.service"])
    unit = Path(__file__).parents[2] / "docs" / "edge-run.service"
    assert (out / "edge-run.service").read_bytes() == unit.read_bytes()
    assert "sudo cp edge-run.service /etc/systemd/system/" in (out / "README.txt").read_text()
    assert len(index.commands) == 2, "what pip, asking the wrong interpreter, left out is asked for"
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files if name != "SHA256SUMS"}
    line = "python3 -m venv --system-site-packages ~/edge && ~/edge/bin/pip install --no-index --find-links . 'edge-run[onnx]'"
    assert line in (out / "README.txt").read_text()
    said = capsys.readouterr()
    assert said.err == ""
    assert line in said.out
    assert not list(tmp_path.glob("*.part"))


def test_picamera_is_the_systems_and_numpy_as_that_needs_it(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index({"numpy-1.26-cp311-cp311-linux_aarch64.whl": [], "engine-1-py3-none-any.whl": []})
    monkeypatch.setattr(wheelhouse, "subprocess", SimpleNamespace(run=index.run))
    out = tmp_path / "out"
    assert main(["raspberry-pi-4", "--extras", "onnx,picamera", "--wheel", str(own), "--out", str(out)]) == 0
    assert index.commands[0][-3:] == ["numpy<2", "numpy>=1.26", "engine"]
    assert "python3-picamera2" in (out / "README.txt").read_text()
    assert "edge-run[onnx]'" in (out / "README.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "wheels", "says", "code", "said"),
    [
        (
            ["raspberry-pi-4"],
            {},
            "",
            1,
            "numpy>=1.26: the package index has no wheel for aarch64, Python 3.11 and glibc 2.36; try",
        ),
        (
            ["raspberry-pi-4", "--system", "bookworm-32"],
            {},
            "",
            1,
            "piwheels builds them: name its index in PIP_EXTRA_INDEX_URL",
        ),
        (["raspberry-pi-4"], USUAL, "WARNING: Retrying\nERROR: No matching distribution found for x", 1, "cannot be reached"),
        (
            ["raspberry-pi-4"],
            USUAL,
            "ERROR: Cannot install a and b\nERROR: see http://x",
            1,
            "pip download: Cannot install a and b",
        ),
        (
            ["raspberry-pi-4"],
            {"numpy-2-cp311-cp311-linux_x86_64.whl": [], "engine-1-py3-none-any.whl": []},
            "",
            1,
            "not for aarch64",
        ),
        (
            ["raspberry-pi-4", "--extras", "onx"],
            USUAL,
            "",
            2,
            "EXTRAS onx: edge_run-0.1.0-py3-none-any.whl has no such extra; did you",
        ),
        (["raspberry-pi-4", "--extras", "camera"], USUAL, "", 2, "has no such extra; did you mean picamera?"),
        (["raspberry-pi-4", "--extras", "web"], USUAL, "", 2, "has no such extra; choose one of onnx, tflite, picamera"),
        (
            ["raspberry-pi-4", "--system", "bookworm-32", "--extras", "onnx"],
            USUAL,
            "",
            2,
            "EXTRAS onnx: onnxruntime has no wheels for 32-bit ARM; take EXTRAS=tflite",
        ),
        (["raspberry-pi-4", "--constraints", "/nope"], USUAL, "", 2, "/nope: there is no such file; give --constraints"),
        (["raspberry-pi-44", "--extras", "onnx"], USUAL, "", 2, "did you mean raspberry-pi-4?"),
        (["raspberry-pi-4", "--wheel", "nowhere.whl"], USUAL, "", 2, "nowhere.whl: there is no such wheel; make wheel"),
    ],
)
def test_a_failure_is_one_line_and_leaves_what_was_there(
    arguments: list[str],
    wheels: Mapping[str, Sequence[str]],
    says: str,
    code: int,
    said: str,
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(wheelhouse, "subprocess", SimpleNamespace(run=Index(wheels, says).run))
    out = tmp_path / "out"
    out.mkdir()
    (out / "SHA256SUMS").touch()
    assert main(["--wheel", str(own), "--out", str(out), *arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert [path.name for path in out.iterdir()] == ["SHA256SUMS"]
    assert not list(tmp_path.glob("*.part"))


def test_without_a_wheel_the_board_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pi"]) == 2
    assert capsys.readouterr().err.startswith("wheelhouse: BOARD 'pi' is not known; ")
    assert main(["raspberry-pi-4"]) == 2
    assert capsys.readouterr().err == "wheelhouse: --wheel FILE is missing; make wheel, and give what it puts into dist/\n"


def test_a_folder_that_cannot_be_written(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["raspberry-pi-4", "--wheel", str(own), "--out", str(tmp_path / "file" / "out")]) == 1
    assert capsys.readouterr().err.endswith("Not a directory; choose another --out\n")


def test_what_is_no_wheelhouse_is_left_alone(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (".", "/", str(tmp_path), str(tmp_path / "thesis"), str(tmp_path / "link")):
        assert main(["raspberry-pi-4", "--wheel", str(own), "--out", out]) == 2
        assert capsys.readouterr().err.endswith(": is there and no wheelhouse; choose another --out\n")
    assert (tmp_path / "thesis").is_file()


def test_a_file_that_is_no_wheel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.whl").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "zip.whl", "w") as archive:
        archive.writestr("a", "b")
    for name in ("text.whl", "zip.whl"):
        assert main(["raspberry-pi-4", "--wheel", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        assert "is no wheel; make wheel" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_documentation_names_every_system() -> None:
    page = (Path(__file__).parents[2] / "docs" / "install.md").read_text()
    assert [one.name for one in SYSTEMS if f"`{one.name}`" not in page] == []


def test_the_command_itself() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "devices.wheelhouse", "pi", "--wheel", "x.whl"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("wheelhouse: BOARD 'pi' is not known; ")


def test_every_board_runs_systems_that_are_known() -> None:
    named = {system.name for system in SYSTEMS}
    assert [(board.name, system) for board in (*BOARDS, *GENERIC) for system in board.systems if system not in named] == []
