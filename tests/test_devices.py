"""Which board this is, from pretended roots."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import Board, detect
from devices.board import BOARDS, GENERIC, MACHINE_ALIASES


def root(folder: Path, model: bytes | None, place: str = "proc/device-tree/model") -> Path:
    if model is not None:
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(model)
    return folder


REAL = [
    (b"Raspberry Pi 5 Model B Rev 1.0\0", "raspberry-pi-5"),
    (b"Raspberry Pi Compute Module 5 Rev 1.0\0", "raspberry-pi-5"),
    (b"Raspberry Pi 500 Rev 1.0\0", "raspberry-pi-5"),
    (b"Raspberry Pi 4 Model B Rev 1.4\0", "raspberry-pi-4"),
    (b"Raspberry Pi 400 Rev 1.0\0", "raspberry-pi-4"),
    (b"Raspberry Pi Compute Module 4 Rev 1.1\0", "raspberry-pi-4"),
    (b"Raspberry Pi 3 Model B Plus Rev 1.3\0", "raspberry-pi-3"),
    (b"Raspberry Pi Zero 2 W Rev 1.0\0", "raspberry-pi-zero-2w"),
    (b"NVIDIA Jetson Nano Developer Kit\0", "jetson-nano"),
    (b"NVIDIA Jetson Orin Nano Developer Kit\0", "jetson-orin-nano"),
    (b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0", "jetson-orin-nano"),
    (b"NVIDIA Jetson AGX Orin Developer Kit\0", "jetson-agx-orin"),
]


@pytest.mark.parametrize(("model", "name"), REAL)
@pytest.mark.parametrize("place", ["proc/device-tree/model", "sys/firmware/devicetree/base/model"])
def test_known_boards(tmp_path: Path, model: bytes, name: str, place: str) -> None:
    board = detect(root(tmp_path, model, place), "aarch64", 16)
    assert board.name == name
    assert board == next(known for known in BOARDS if known.name == name)


def test_every_board_is_known_by_its_own_models(tmp_path: Path) -> None:
    for number, board in enumerate(BOARDS):
        for place, model in enumerate(board.models):
            folder = tmp_path / f"{number}-{place}"
            assert detect(root(folder, model.encode() + b" Rev 9\0"), board.machine, 64).name == board.name


@pytest.mark.parametrize(
    "model",
    [
        None,
        b"",
        b"\0",
        b"Raspberry",
        b"Orange Pi 5\0",
        b"My Raspberry Pi 5\0",
        b"raspberry pi 5\0",
        b"\xff\xfe\x00\x80garbage\x00\xff",
        b"Raspberry\0 Pi 5",
        b"x" * 100_000,
        b"\n\n",
    ],
)
def test_anything_else_is_generic(tmp_path: Path, model: bytes | None) -> None:
    board = detect(root(tmp_path, model), "aarch64", 6)
    assert (board.name, board.cores, board.threads, board.spin) == ("generic-arm64", 6, 4, False)


@given(st.binary(max_size=60))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, model: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "board"
    (folder / "proc/device-tree").mkdir(parents=True, exist_ok=True)
    (folder / "proc/device-tree/model").write_bytes(model)
    assert detect(folder, "aarch64", 4).threads >= 1


def test_things_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree/model").mkdir(parents=True)
    second = tmp_path / "sys/firmware/devicetree/base"
    second.mkdir(parents=True)
    assert detect(tmp_path, "aarch64", 4).name == "generic-arm64"
    (second / "model").write_bytes(b"Raspberry Pi 5 Model B\0")
    assert detect(tmp_path, "aarch64", 4).name == "raspberry-pi-5"
    assert detect(tmp_path / "nowhere", "aarch64", 4).name == "generic-arm64"


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "generic-x86-64"),
        ("amd64", "generic-x86-64"),
        ("AMD64", "generic-x86-64"),
        ("aarch64", "generic-arm64"),
        ("arm64", "generic-arm64"),
        ("ARM64", "generic-arm64"),
        ("armv7l", "generic-armv7"),
        ("armv8l", "generic-armv7"),
        ("riscv64", "generic-riscv64"),
        ("weird", "generic-weird"),
    ],
)
def test_machines_and_their_other_names(tmp_path: Path, machine: str, name: str) -> None:
    board = detect(tmp_path, machine, 2)
    assert board.name == name
    assert board.machine == MACHINE_ALIASES.get(machine.lower(), machine.lower())


def test_a_board_s_name_on_another_machine_is_not_believed(tmp_path: Path) -> None:
    """A 32-bit system on a Pi 4 runs other code than the board's literal is about."""
    assert detect(root(tmp_path, b"Raspberry Pi 4 Model B\0"), "armv7l", 4).name == "generic-armv7"
    assert detect(tmp_path, "arm64", 4).name == "raspberry-pi-4"


@pytest.mark.parametrize(
    ("model", "machine", "cores", "threads"),
    [
        (b"Raspberry Pi 5 Model B\0", "aarch64", 4, 3),
        (b"Raspberry Pi 5 Model B\0", "aarch64", 2, 2),
        (b"Raspberry Pi 5 Model B\0", "aarch64", 1, 1),
        (b"NVIDIA Jetson AGX Orin\0", "aarch64", 12, 4),
        (None, "x86_64", 1, 1),
        (None, "x86_64", 2, 2),
        (None, "x86_64", 64, 4),
        (None, "armv7l", 4, 4),
    ],
)
def test_threads_stay_within_the_cores(tmp_path: Path, model: bytes | None, machine: str, cores: int, threads: int) -> None:
    assert detect(root(tmp_path, model), machine, cores).threads == threads


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.board.os.sched_getaffinity", lambda process: {0, 5, 9}, raising=False)
    assert detect(tmp_path, "x86_64").cores == 3
    monkeypatch.delattr("devices.board.os.sched_getaffinity")
    monkeypatch.setattr("devices.board.os.cpu_count", lambda: None)
    assert (detect(tmp_path, "x86_64").cores, detect(tmp_path, "x86_64").threads) == (1, 1)


def test_this_machine() -> None:
    board = detect()
    assert board.threads >= 1
    assert board.cores >= 1
    assert board.name


@pytest.mark.parametrize("board", [*BOARDS, *GENERIC.values()], ids=lambda board: board.name)
def test_every_literal_makes_sense(board: Board) -> None:
    assert board.machine in ("aarch64", "armv7l", "x86_64")
    assert board.name == board.name.lower()
    if board in BOARDS:
        assert 1 <= board.threads < board.cores  # one core is the camera's
        assert board.models
        assert all(model == model.strip() and model for model in board.models)


def test_names_and_models_are_unambiguous() -> None:
    assert len({board.name for board in (*BOARDS, *GENERIC.values())}) == len(BOARDS) + len(GENERIC)
    models = [(model, board) for board in BOARDS for model in board.models]
    for model, board in models:
        assert not [other.name for prefix, other in models if other is not board and model.startswith(prefix)]
