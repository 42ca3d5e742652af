"""Every board's literal, held to what all of them must be."""

from __future__ import annotations

import pytest

from devices import BOARDS, GENERIC, Board
from devices.generic import UNKNOWN
from devices.power import RAILS

ALL = (*BOARDS, *GENERIC, UNKNOWN)
ACCELERATORS = {"onnx": {"cpu", "cuda", "tensorrt"}, "tflite": {"cpu", "edgetpu"}}
SENSORS = {*RAILS, "rapl", "rpi-pmic", "rpi-volt"}


def by_name(board: Board) -> str:
    return board.name


@pytest.mark.parametrize("board", ALL, ids=by_name)
def test_a_literal_makes_sense(board: Board) -> None:
    assert board.name == board.name.lower().replace(" ", "-")
    assert board.title
    assert board.integers == ("u8s8" if board.machine == "x86_64" else "s8s8")
    assert board.cameras
    assert set(board.cameras) <= {"v4l2", "picamera2", "gstreamer"}
    assert set(board.power) <= SENSORS
    thermal = board.thermal
    assert thermal.zones
    assert 40 < thermal.limit_c < thermal.throttle_c < thermal.critical_c < 110
    for choice in board.engines:
        assert choice.accelerator in ACCELERATORS[choice.engine]
        assert all(isinstance(word, str) for option in choice.options for word in option)
    assert any(choice.accelerator == "cpu" for choice in board.engines)
    assert len({(choice.engine, choice.accelerator) for choice in board.engines}) == len(board.engines)


@pytest.mark.parametrize("board", BOARDS, ids=by_name)
def test_a_known_board_has_its_figures_and_says_where_they_stand(board: Board) -> None:
    assert board.machine == "aarch64"
    assert "asimd" in board.features
    assert 1 <= board.threads < board.cores  # one core is the camera's
    assert all(500 <= cluster.mhz <= 3000 and cluster.count > 0 and cluster.core for cluster in board.clusters)
    assert board.memory_mb
    assert list(board.memory_mb) == sorted(set(board.memory_mb))
    assert all(size % 512 == 0 for size in board.memory_mb)
    assert board.models
    assert board.compatible
    assert all("," in string and string == string.strip() for string in board.compatible)
    assert board.sources
    assert all(source.startswith("https://") and " " not in source for source in board.sources)


@pytest.mark.parametrize("board", GENERIC, ids=by_name)
def test_a_generic_board_leaves_to_the_machine_what_is_the_machine_s(board: Board) -> None:
    assert (board.clusters, board.memory_mb, board.threads, board.models, board.compatible) == ((), (), 0, (), ())


def test_names_models_and_compatible_strings_are_unique() -> None:
    for values in (
        [board.name for board in ALL],
        [model for board in BOARDS for model in board.models],
        [string for board in BOARDS for string in board.compatible],
    ):
        assert len(values) == len(set(values))


def test_dot_products() -> None:
    having = {board.name for board in ALL if board.dotprod}
    assert having == {"raspberry-pi-5", "jetson-orin-nano", "jetson-agx-orin", "generic-x86-64-vnni"}


def test_the_boards_that_the_project_promises() -> None:
    assert [board.name for board in BOARDS] == [
        "raspberry-pi-zero-2w",
        "raspberry-pi-3",
        "raspberry-pi-3-plus",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "jetson-nano",
        "jetson-orin-nano",
        "jetson-agx-orin",
        "coral-dev-board",
    ]
