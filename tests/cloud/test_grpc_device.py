"""edge-run and the offload client ask the real edge-cloud by gRPC, in two processes, as on a board and a server."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.offload import Offloader
from edge.offload.credentials import Credentials
from edge.offload.forms import Form, FrameForm
from tests.cloud.conftest import Process, running
from tests.cloud.test_network import CERTIFICATES, TOKEN
from tests.endpoint import until
from tests.samples import event, frame

if importlib.util.find_spec("grpc") is None:
    pytest.skip("grpcio is not installed; pip install 'edge-run[cloud,grpc]'", allow_module_level=True)


def grpc_port(endpoint: Process) -> int:
    return int(endpoint.ready.rpartition(" ")[2])


@pytest.fixture(scope="module")
def process(bundle: Path) -> Iterator[Process]:
    with running("--model", bundle, "--name", "big", "--grpc-port", 0) as endpoint:
        yield endpoint


def edge_run(bundle: Path, summary: Path, *more: object) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    command = [sys.executable, "-m", "edge.commands.run", "--model", bundle, "--source", "demo", "--max-frames", "4"]
    command += ["--threshold", "1", "--summary", summary, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    return done, json.loads(summary.read_text()) if done.returncode == 0 else {}


@pytest.mark.parametrize("form", ["frame", "tensor"])
def test_uncertain_frames_are_revised(process: Process, bundle: Path, tmp_path: Path, form: str) -> None:
    url = f"grpc://127.0.0.1:{grpc_port(process)}/big"
    done, summary = edge_run(bundle, tmp_path / "s.json", "--offload", url, "--offload-send", form)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    revised = [one for one in events if one["revises"]]
    assert sorted(one["seq"] for one in revised) == [0, 1, 2, 3]
    assert {(one["served_by"], one["model"]) for one in revised} == {("cloud", "big")}
    assert (summary["offloaded"], summary["revised"], summary["offload_failed"]) == (4, 4, 0)


def test_the_answer_is_the_one_that_http_gives(process: Process) -> None:
    answers = []
    for url in (f"http://{process.address}/v2/models/big", f"grpc://127.0.0.1:{grpc_port(process)}/big"):
        [answer] = asked(url, FrameForm())
        answers.append((answer.model, answer.variant, answer.result.labels, answer.result.scores.tolist()))
    assert answers[0] == answers[1]


def asked(url: str, form: Form, **credentials: str) -> list[Any]:
    said: list[str] = []
    offloader = Offloader(url, "tiny", form=form, credentials=Credentials(**credentials), say=said.append)
    try:
        offloader.submit(event(frame(captured_s=time.monotonic())))
        assert until(lambda: offloader.idle)
        return offloader.answers() or said
    finally:
        offloader.close()


def test_a_token_and_tls(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    tls = ("--tls-cert", CERTIFICATES / "server.pem", "--tls-key", CERTIFICATES / "server.key")
    guarded = ("--token-file", tmp_path / "token", "--tls-client-ca", CERTIFICATES / "ca.pem")
    us = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
    trust = {name: str(CERTIFICATES / file) for name, file in us.items()}
    with running("--model", bundle, "--grpc-port", 0, *tls, *guarded) as endpoint:
        url = f"grpcs://localhost:{grpc_port(endpoint)}/tiny"
        [answer] = asked(url, FrameForm(), **trust, token_file=str(tmp_path / "token"))
        assert answer.model == "tiny"
        [line] = asked(url, FrameForm(), **trust)
        assert "status UNAUTHENTICATED (a bearer token is needed); give --offload-token-file" in line
        [line] = asked(url.replace("tiny", "other"), FrameForm(), **trust, token_file=str(tmp_path / "token"))
        assert "no model other there (unknown model 'other'" in line


def test_a_hanging_up_endpoint_ends_no_run(process: Process, bundle: Path, tmp_path: Path) -> None:
    """The REST port by gRPC: told in one line, and the frames have their local answers."""
    done, summary = edge_run(bundle, tmp_path / "s.json", "--offload", f"grpc://{process.address}/big")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "offload: grpc://" in line] != []
    assert "Traceback" not in done.stderr
    assert summary["offloaded"] + summary["offload_declined"] > 0  # it may have been given up before a frame was asked about
    assert summary["revised"] == 0
