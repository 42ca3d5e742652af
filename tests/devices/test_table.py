"""`python -m devices`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devices import BOARDS, GENERIC
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


def test_as_a_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "devices", "--here"], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.startswith("| board |")
    assert ran.stderr == ""
