"""edge-run asks the real edge-cloud, in two processes, as on a board and a server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path


def test_uncertain_frames_are_revised_by_the_endpoint(tiny_edge: Path, tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "cloud.cli", "--model", tiny_edge, "--port", "0", "--name", "big"]
    endpoint = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
    try:
        assert endpoint.stderr is not None
        url = re.search(r"http://[\d.:]+", endpoint.stderr.readline())
        assert url is not None
        command = [sys.executable, "-m", "edge.commands.run", "--model", tiny_edge, "--source", "demo", "--max-frames", "4"]
        command += ["--threshold", "1", "--offload", f"{url[0]}/v2/models/big", "--summary", tmp_path / "s.json"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        revised = [event for event in events if event["revises"]]
        assert [event["seq"] for event in events if not event["revises"]] == [0, 1, 2, 3]
        assert sorted(event["seq"] for event in revised) == [0, 1, 2, 3]
        assert {(event["served_by"], event["model"]) for event in revised} == {("cloud", "big")}
        assert {event["variant"] for event in revised} <= {"float32", "int8-x86"}
        summary = json.loads((tmp_path / "s.json").read_text())
        assert (summary["offloaded"], summary["revised"], summary["offload_failed"]) == (4, 4, 0)
        endpoint.send_signal(signal.SIGTERM)
        assert endpoint.wait(15) == 0
    finally:
        endpoint.kill()
        endpoint.wait()
        endpoint.stderr.close() if endpoint.stderr else None
