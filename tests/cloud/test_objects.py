"""The endpoint over a detector: what it says it gives, and that it gives what the device would see."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cloud.served import Served
from edge.bundle import open_bundle
from edge.model import open_model
from edge.oip import NamedTensor, decode_response, encode_request
from tests.cloud.conftest import InProcess, in_process
from tests.samples import encoded, squares

INFER = "/v2/models/squares/infer"


@pytest.fixture
def detector(tiny_detector: Path) -> Iterator[InProcess]:
    bundle = open_bundle(tiny_detector)
    endpoint = in_process(Served(open_model(bundle), bundle.card))
    yield endpoint
    endpoint.close()


def test_metadata(detector: InProcess) -> None:
    assert detector("GET", "/v2/models/squares").json["outputs"] == [
        {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
        {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "count", "datatype": "INT32", "shape": [-1]},
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_a_batch_is_padded_to_its_longest_answer(detector: InProcess, binary: bool) -> None:
    images = [squares(("red", 1, 2)), squares(), cv2.resize(squares(("blue", 0, 0), ("green", 3, 3)), (64, 64))]
    body, headers = encode_request([NamedTensor.of("image", [encoded(image, ".png") for image in images])], binary=binary)
    reply = detector("POST", INFER, body, headers)
    assert reply.status == 200
    outputs = decode_response(reply.body, reply.headers).outputs
    assert outputs["count"].data.tolist() == [1, 0, 2]  # type: ignore[union-attr]
    assert outputs["labels"].data == [b"red", b"", b"", b"", b"blue", b"green"]
    boxes = np.array(outputs["boxes"].data)
    assert boxes.shape == (3, 2, 4)
    np.testing.assert_allclose(boxes[0], [[8, 16, 16, 24], [0, 0, 0, 0]], atol=1e-3)
    np.testing.assert_allclose(boxes[2], [[0, 0, 16, 16], [48, 48, 64, 64]], atol=1)
    assert (np.array(outputs["scores"].data)[1] == 0).all()


def test_nothing_in_one_picture(detector: InProcess) -> None:
    body, headers = encode_request([NamedTensor.of("image", [encoded(squares(), ".png")])], ["boxes", "labels", "scores"])
    outputs = decode_response(*detector_answer(detector, body, headers)).outputs
    assert [outputs[name].shape for name in ("boxes", "labels", "scores")] == [(1, 0, 4), (1, 0), (1, 0)]


def detector_answer(detector: InProcess, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    reply = detector("POST", INFER, body, headers)
    assert reply.status == 200
    return reply.body, reply.headers


def test_edge_run_asks_about_a_doubtful_object(tiny_detector: Path, tmp_path: Path) -> None:
    """Two processes; of three pictures the second shows something faint, and the third nothing."""
    (tmp_path / "in").mkdir()
    for number, image in enumerate((squares(("red", 1, 2)), squares(("blue", 2, 2), level=150), squares())):
        (tmp_path / "in" / f"{number}.png").write_bytes(encoded(image, ".png"))
    serve = [sys.executable, "-m", "cloud.cli", "--model", str(tiny_detector), "--port", "0", "--name", "big"]
    endpoint = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
    try:
        assert endpoint.stderr is not None
        url = re.search(r"http://[\d.:]+", endpoint.stderr.readline())
        assert url is not None
        command = [sys.executable, "-m", "edge.commands.run", "--model", str(tiny_detector), "--source", str(tmp_path / "in")]
        command += ["--offload", f"{url[0]}/v2/models/big"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        actions = {event["seq"]: event["decision"]["action"] for event in events if not event["revises"]}
        assert actions == {0: "accept", 1: "offload", 2: "accept"}
        (revision,) = [event for event in events if event["revises"]]
        assert (revision["seq"], revision["served_by"], revision["model"]) == (1, "cloud", "big")
        (seen,) = revision["result"]["objects"]
        assert seen["label"] == "blue"
        np.testing.assert_allclose(seen["box_xyxy"], [16, 16, 24, 24], atol=0.01)
        endpoint.send_signal(signal.SIGTERM)
        assert endpoint.wait(15) == 0
    finally:
        endpoint.kill()
        endpoint.wait()
        endpoint.stderr.close() if endpoint.stderr else None
