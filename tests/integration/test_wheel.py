"""The wheel as a board gets it: a fresh environment, one extra, and the command works at once."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, REPOSITORY], check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_what_a_board_needs_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "edge/data/efficientnet-lite0.edge" in names
    assert "edge/data/NOTICE.md" in names
    assert "edge/py.typed" in names
    assert sum(name.startswith("edge/data/photos/") for name in names) == 3
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    bundle = zipfile.ZipFile(wheel).getinfo("edge/data/efficientnet-lite0.edge")
    assert bundle.file_size <= 12_000_000


@pytest.mark.parametrize(("extra", "engine"), [("onnx", "onnx"), ("tflite", "tflite")])
def test_a_fresh_environment_with_one_engine_runs_at_once(wheel: Path, extra: str, engine: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", REPOSITORY / "constraints.txt"]
    subprocess.run([*install, f"{wheel}[{extra}]"], check=True)
    run = [python.with_name("edge-run"), "--source", "demo", "--max-frames", "3", "--summary", tmp_path / "summary.json"]
    ran = subprocess.run(run, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["seq"] for line in ran.stdout.splitlines()] == [0, 1, 2]
    assert json.loads((tmp_path / "summary.json").read_text())["engine"] == engine
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True)
    assert not {"torch", "onnx", "starlette"} & {package["name"] for package in json.loads(listed.stdout)}
