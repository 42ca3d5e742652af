"""`python -m devices`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devices import BOARDS, GENERIC, detect
from devices.__main__ import main
from tests.devices.faked import machine


def test_the_table_has_every_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(BOARDS) + len(GENERIC)
    assert len({line.count("|") for line in lines}) == 1
    for board, line in zip((*BOARDS, *GENERIC), lines[2:], strict=True):
        assert line.startswith(f"| {board.name} |")
    assert "4 × cortex-a72 at 1.8 GHz | 1, 2, 4, 8 |" in lines[5]


def test_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    machine(tmp_path, {f"{zone}/type": "cpu-thermal", f"{zone}/temp": 48_300, "proc/loadavg": "1.0 1 1"})
    assert main(["--here", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "temperature_c: 48.3\n" in out
    assert "zone: cpu-thermal\n" in out
    assert "watts: -\n" in out


def test_here_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thermal = detect(tmp_path).thermal
    assert main(["--here", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| throttles at | limit |\n" in out
    assert f"\nthrottles at: {thermal.throttle_c:g} °C: the firmware or the kernel slows it down; critical " in out
    assert f"\nlimit: {thermal.limit_c:g} °C: what edge-run --max-temp auto keeps it below\n" in out
    assert "\nits sensors, now; - where there is none:\n" in out


def test_a_board_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for board in (*BOARDS, *GENERIC):
        assert main([board.name]) == 0
        assert capsys.readouterr().out.startswith(f"{board.name}: {board.title}\ncores: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["raspberry-pi-44"], "BOARD 'raspberry-pi-44' is not known; did you mean raspberry-pi-4?"),
        (["vax"], "BOARD 'vax' is not known; choose one of raspberry-pi-zero-2w, "),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["raspberry-pi-4", "--here"], "give one of them"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert (ended.value.code, len(lines)) == (2, 1)
    assert said in lines[0]


def test_as_a_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "devices", "--here"], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.startswith("| board |")
    assert ran.stderr == ""
