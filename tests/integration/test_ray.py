"""The endpoint on a local Ray of two replicas, in an environment of its own: the wheel with its extra `cluster`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


def environment(folder: Path, extra: str) -> Path:
    """The interpreter of a fresh environment with this repository's wheel; skips, saying why, when it cannot be had."""
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, REPOSITORY], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    wheel = next(folder.glob("*.whl"))
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[{extra}]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install edge-run[{extra}] here: {done.stderr.strip().splitlines()[-1]}")
    return python


def test_two_replicas_answer(tmp_path: Path) -> None:
    python = environment(tmp_path, "cluster")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    picture = next((REPOSITORY / "edge" / "data" / "photos").glob("*.jpg"))
    run = [python, Path(__file__).with_name("ray_two_replicas.py"), "efficientnet-lite0", picture, str(port)]
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert told["running"] == 2
    assert len(told["labels"]) == 1
    assert 0 < told["busier"] < 40
