"""A wheelhouse for a board from the real package index: whole, for that board, and as small as was promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devices.wheelhouse import checksums, foreign, main, target
from devices.wheels import Requirement, missing, unpacked_mib

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, REPOSITORY], check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


@pytest.mark.parametrize(
    ("board", "system", "extra", "most_mib"),
    [
        ("raspberry-pi-4", "bookworm", "onnx", 225),
        ("raspberry-pi-4", "bookworm", "tflite", 210),
        ("jetson-orin-nano", "jetpack-6", "onnx", 225),
    ],
)
def test_a_board_gets_all_it_needs_and_little_more(
    board: str, system: str, extra: str, most_mib: float, wheel: Path, tmp_path: Path
) -> None:
    arguments = [board, "--system", system, "--extras", extra, "--wheel", str(wheel), "--constraints", str(CONSTRAINTS)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    of = target(board, [extra], system=system)
    assert foreign(of, tmp_path / "out") == []
    assert missing(tmp_path / "out", [Requirement("edge-run", frozenset({extra}))], of.environment) == []
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == checksums(tmp_path / "out")
    assert unpacked_mib(tmp_path / "out") <= most_mib
