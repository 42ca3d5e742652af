"""The short form of `make soak`: cameras that keep failing, one that never was there, and nothing grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent.parent.parent / "benchmarks" / "soak.py"


@pytest.mark.integration
def test_two_minutes_of_failing_cameras_leave_nothing_behind() -> None:
    ran = subprocess.run([sys.executable, SOAK, "--minutes", "2"], capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
