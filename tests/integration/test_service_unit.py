"""The unit file in docs and the drop-ins of docs/install.md, as systemd reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
DOCS = Path(__file__).parents[2] / "docs"
UNIT = DOCS / "edge-run.service"
DROP_INS = re.findall(
    r"```ini\n# /etc/systemd/system/edge-run\.service\.d/(\S+)\n(.*?)```", (DOCS / "install.md").read_text(), re.DOTALL
)
MOST_EXPOSED = 20
"""A tenth of it is what `systemd-analyze security` calls the exposure."""


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed; apt install systemd")
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a command that is here."""
    path = tmp_path / UNIT.name
    path.write_text(re.sub(r"^ExecStart=/opt/edge/bin/edge-run ", "ExecStart=/bin/true ", UNIT.read_text(), flags=re.MULTILINE))
    return path


def verify(analyze: str, unit: Path) -> tuple[int, str, str]:
    ran = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_systemd_accepts_the_unit_file(analyze: str, unit: Path) -> None:
    assert verify(analyze, unit) == (0, "", "")


def test_a_mistake_would_be_seen(analyze: str, unit: Path) -> None:
    unit.write_text(unit.read_text().replace("OOMPolicy=continue", "OOMPolicy=contiune"))
    assert "contiune" in verify(analyze, unit)[2]


def test_there_are_drop_ins() -> None:
    assert [name for name, _ in DROP_INS] == ["offline.conf", "jetson.conf", "coral.conf", "read-only-root.conf"]


@pytest.mark.parametrize(("name", "text"), DROP_INS, ids=[name for name, _ in DROP_INS])
def test_systemd_accepts_the_drop_ins_of_the_documentation(name: str, text: str, analyze: str, unit: Path) -> None:
    folder = unit.parent / f"{UNIT.name}.d"
    folder.mkdir()
    (folder / name).write_text(text)
    assert verify(analyze, unit) == (0, "", "")
    (folder / name).write_text(f"{text}\nNoSuchThing=1\n")
    assert f"{name}:" in verify(analyze, unit)[2], "the drop-in was not read"


def test_the_service_stays_shut(analyze: str, unit: Path) -> None:
    command = [analyze, "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", unit]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in ran.stderr:
        pytest.skip("this systemd-analyze cannot judge a file; systemd 250 can")
    assert ran.returncode == 0, ran.stdout[-500:] + ran.stderr
