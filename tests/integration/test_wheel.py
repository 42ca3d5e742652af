"""The wheel as a board gets it: a fresh environment, one extra, and the command works at once."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
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


def test_the_live_page_comes_with_the_wheel(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", REPOSITORY / "constraints.txt"]
    subprocess.run([*install, f"{wheel}[onnx]"], check=True)
    command = [python.with_name("edge-run"), "--source", "demo", "--web", "0", "--events", "/dev/null"]
    without = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (without.returncode, without.stderr) == (
        2,
        "edge-run: --web: starlette and uvicorn are not installed; pip install 'edge-run[web]'\n",
    )
    subprocess.run([*install, f"{wheel}[onnx,web,mqtt]"], check=True)
    loop = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert loop.stderr is not None
        url = next(line for line in loop.stderr if "web: http" in line).split()[-1]
        for path, expected in (("", b"<!doctype html>"), ("static/picture.js", b"frame.jpg"), ("metrics", b"edge_build_info")):
            with urllib.request.urlopen(url + path, timeout=20) as answer:
                assert expected in answer.read()
        loop.terminate()
        assert loop.wait(timeout=20) == 0
    finally:
        loop.kill()
        loop.communicate()
