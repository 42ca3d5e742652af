"""edge-run asks MLServer, somebody else's server, over the same protocol: a runtime of ours in an environment of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("mlserver", "onnxruntime", "opencv-python-headless", "msgspec", "click", "urllib3")
MODEL = {
    "name": "lite0",
    "implementation": "peer_mlserver.Lite0",
    "parameters": {"extra": {"lanes": 1}},
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [
        {"name": "labels", "datatype": "BYTES", "shape": [-1, 5]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, 5]},
    ],
}


def interpreter(folder: Path) -> Path:
    """A Python with MLServer: EDGE_MLSERVER, or one made now; skips, saying why, when it cannot be had."""
    if given := os.environ.get("EDGE_MLSERVER"):
        return Path(given)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install mlserver here: {done.stderr.strip().splitlines()[-1]}")
    return python


@contextmanager
def mlserver(python: Path, folder: Path) -> Iterator[dict[str, str]]:
    """MLServer with the packaged model, ready; the model's URL by each transport."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in free]
    for one in free:
        one.close()
    names = ("http_port", "grpc_port", "metrics_port")
    settings = dict(zip(names, ports, strict=True)) | {"host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    (folder / "model-settings.json").write_text(json.dumps(MODEL))
    (folder / "settings.json").write_text(json.dumps(settings))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "benchmarks")}
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen([python.with_name("mlserver"), "start", folder], stdout=out, stderr=out, env=environment)
    try:
        url = f"http://127.0.0.1:{ports[0]}/v2/models/lite0"
        wait_until_ready(f"{url}/ready", process, log)
        yield {"http": url, "grpc": f"grpc://127.0.0.1:{ports[1]}/lite0"}
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            with urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"MLServer is not ready: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("mlserver")
    (folder / "served").mkdir()
    with mlserver(interpreter(folder / "python"), folder / "served") as urls:
        yield urls


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_edge_run_asks_mlserver(served: dict[str, str], transport: str, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("edge-run"), "--source", "demo", "--max-frames", "60", "--threshold", "1"]
    command += ["--offload", served[transport], "--summary", tmp_path / "summary.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    local = {event["seq"]: event for event in events if event["kind"] == "frame" and not event["revises"]}
    revised = [event for event in events if event["kind"] == "frame" and event["revises"]]
    assert len(local) == 60
    assert len(revised) > 10, done.stderr
    for event in revised:
        assert (event["served_by"], event["model"]) == ("cloud", "lite0")
        assert len(event["result"]["classes"]) == 5
    same = [event["result"]["classes"][0]["label"] == local[event["seq"]]["result"]["classes"][0]["label"] for event in revised]
    assert sum(same) > 0.8 * len(same)  # the same model, on JPEGs of the frames
