"""The unit file in docs, as systemd reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
UNIT = Path(__file__).parents[2] / "docs" / "edge-run.service"


def test_systemd_accepts_the_unit_file(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed; apt install systemd")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=/opt/edge/bin/edge-run ", "ExecStart=/bin/true ", UNIT.read_text(), flags=re.MULTILINE))
    verified = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
