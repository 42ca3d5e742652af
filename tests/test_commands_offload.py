"""edge-run's offload options, end to end: what is sent, kept, counted and refused."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.commands.run import main
from edge.oip import NamedTensor, decode_request, encode_response
from tests.conftest import Finished
from tests.endpoint import RESET, Endpoint, Reply, fixed, flaky, hangs, serving
from tests.samples import encoded, squares

Command = Callable[..., Finished]
CERTIFICATES = Path(__file__).parent / "certificates"
TOKEN = "s3cret-t0ken"
METADATA: Reply = (
    200,
    json.dumps(
        {
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("boxes", "labels", "scores")],
        }
    ).encode(),
    {},
)


def finds_nothing(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
    """No objects; the picture is kept."""
    request = decode_request(body, headers)
    endpoint.pictures.append(cv2.imdecode(np.frombuffer(request.inputs["image"].data[0], np.uint8), cv2.IMREAD_COLOR))
    empty = [NamedTensor.of("boxes", np.zeros((1, 0, 4), np.float32)), NamedTensor.of("scores", np.zeros((1, 0), np.float32))]
    return 200, *encode_response("big", [*empty, NamedTensor("labels", "BYTES", (1, 0), [])])


@pytest.fixture
def red_and_green(tmp_path: Path) -> Path:
    """A picture with a red square at the top left and a green one."""
    image = cv2.resize(squares(("red", 0, 0), ("green", 2, 2), level=200), (320, 320), interpolation=cv2.INTER_NEAREST)
    (tmp_path / "picture.png").write_bytes(encoded(image, ".png"))
    return tmp_path / "picture.png"


@pytest.fixture
def detect(command: Command, tiny_detector: Path, red_and_green: Path, tmp_path: Path) -> Command:
    def run(*arguments: object) -> Finished:
        fixed = ["--model", tiny_detector, "--source", red_and_green, "--summary", tmp_path / "s.json", "--threshold", 1]
        return command(main, *fixed, *arguments)

    return run


def summary_in(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "s.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("more", [[], ["--classes", "green"], ["--score-threshold", "0.9"], ["--roi", "0.4,0.4,1,1"]])
def test_what_is_redacted_is_not_sent_whatever_is_reported(detect: Command, more: list[str]) -> None:
    with serving(finds_nothing, METADATA) as endpoint:
        done = detect("--offload", endpoint.url, "--redact", "red", *more)
        assert done.code == 0, done.err
        if not endpoint.pictures:  # nothing below the threshold is left to ask about
            assert more == ["--score-threshold", "0.9"]
            return
        picture = endpoint.pictures[0]
        assert np.abs(picture[:72, :72].astype(int) - 128).max() <= 6
        assert picture[170:230, 170:230, 1].min() > 180


def test_without_redaction_it_is_sent(detect: Command) -> None:
    with serving(finds_nothing, METADATA) as endpoint:
        assert detect("--offload", endpoint.url).code == 0
        assert endpoint.pictures[0][8:72, 8:72, 2].min() > 180


def test_a_run_without_a_network_then_one_with_it(detect: Command, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = detect("--offload", url, "--spool", tmp_path / "spool", "--redact", "red")
    assert done.code == 0
    found = summary_in(tmp_path)
    assert (found["offloaded"], found["revised"], found["spooled"], found["spool_sent"]) == (1, 0, 1, 0)
    assert "spool: 1 frames kept, 0 sent, 0 lost, 1 waiting for the next run" in done.err
    assert found["spool_waiting"] == 1
    with serving(finds_nothing, METADATA) as endpoint:
        done = detect(
            "--offload",
            endpoint.url,
            "--spool",
            tmp_path / "spool",
            "--redact",
            "red",
            "--threshold",
            0,
            "--source",
            "demo",
            "--max-frames",
            8,
        )
        assert f"offload: spool: 1 frame waits in {tmp_path / 'spool'} from before" in done.err
        assert (summary_in(tmp_path)["spool_sent"], summary_in(tmp_path)["spool_waiting"]) == (1, 0)
        assert np.abs(endpoint.pictures[0][:72, :72].astype(int) - 128).max() <= 6


def test_in_quiet_hours_the_spool_waits_too(detect: Command, tmp_path: Path) -> None:
    assert detect("--offload", "http://127.0.0.1:9", "--spool", tmp_path / "spool").code == 0
    with serving(finds_nothing, METADATA) as endpoint:
        quiet = ["--quiet-hours", "00:00-12:00", "--quiet-hours", "12:00-00:00"][2 * (time.localtime().tm_hour >= 12) :][:2]
        done = detect("--offload", endpoint.url, "--spool", tmp_path / "spool", *quiet, "--source", "demo", "--max-frames", 4)
        assert done.code == 0, done.err
        assert endpoint.pictures == []
    found = summary_in(tmp_path)
    assert (found["offloaded"], found["spool_sent"], found["spool_waiting"]) == (0, 0, 1)
    assert found["offload_declined"] > 0
    assert "more were uncertain while the endpoint was away or the governor spared the board" in done.err


def test_an_answer_after_the_deadline_is_counted(detect: Command, tmp_path: Path) -> None:
    def slow(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        endpoint.released.wait(1.0)
        return finds_nothing(endpoint, body, headers)

    with serving(slow, METADATA) as endpoint:
        done = detect("--offload", endpoint.url, "--offload-deadline", "0.3")
    found = summary_in(tmp_path)
    assert (found["offloaded"], found["revised"], found["late"], found["offload_failed"]) == (1, 0, 1, 0)
    assert "offloaded 1: 0 revised by the cloud, 1 late, 0 failed" in done.err


def test_a_token_is_in_nothing_that_is_written(detect: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_OFFLOAD_TOKEN", TOKEN)

    def refuses(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        return 401, json.dumps({"error": f"{headers['Authorization']} is not known"}).encode(), {}

    with serving(refuses, METADATA) as endpoint:
        done = detect("--offload", endpoint.url, "--spool", tmp_path / "spool")
        assert endpoint.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    assert "status 401 (Bearer *** is not known)" in done.err
    assert TOKEN not in done.out + done.err
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


BROKEN: dict[str, Callable[..., Reply]] = {
    "hanging": hangs,
    "garbage": fixed(b"\x00\xff garbage"),
    "resetting": lambda *_: (RESET, b"", {}),
    "half lossy": flaky(2, answer=finds_nothing),
}


@pytest.mark.parametrize("name", [*BROKEN, "dead"])
def test_every_frame_has_a_local_answer_whatever_the_endpoint_does(detect: Command, tmp_path: Path, name: str) -> None:
    with serving(BROKEN.get(name, finds_nothing), METADATA) as endpoint:
        url = "http://127.0.0.1:9" if name == "dead" else endpoint.url
        done = detect(
            "--source", "demo", "--max-frames", 20, "--score-threshold", 0.01, "--offload", url, "--offload-deadline", 0.5
        )
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert sum(not event["revises"] for event in events if event["kind"] == "frame") == 20
    found = summary_in(tmp_path)
    counted = found["revised"] + found["late"] + found["offload_given_up"] + found["offload_failed"]
    assert (found["frames"], found["offloaded"]) == (20, counted)
    assert found["offloaded"] + found["offload_declined"] > 5


NOWHERE = ["--source", "demo", "--offload", "http://127.0.0.1:9"]
REFUSED = [
    (["--source", "demo", "--offload-deadline", "3"], "--offload-deadline does nothing without --offload"),
    (["--source", "demo", "--redact", "red"], "--redact does nothing without --offload"),
    (["--source", "demo", "--spool", "{tmp}/x"], "--spool does nothing without --offload"),
    ([*NOWHERE, "--spool-mb", "3"], "--spool-mb does nothing without --spool"),
    ([*NOWHERE, "--offload-key", "k"], "--offload-key does nothing without --offload-cert"),
    ([*NOWHERE, "--offload-ca", "ca.pem"], "--offload-ca does nothing over http"),
    ([*NOWHERE, "--offload-send", "everything"], "--offload-send"),
    ([*NOWHERE, "--offload-deadline", "0"], "--offload-deadline"),
    (
        [*NOWHERE, "--offload-token-file", "{tmp}/none"],
        "--offload-token-file {tmp}/none: No such file or directory; write the token into it, or set EDGE_OFFLOAD_TOKEN",
    ),
    (
        ["--source", "demo", "--offload", "https://127.0.0.1:9", "--offload-cert", "{tmp}/none"],
        "--offload-cert {tmp}/none: No such file or directory; give a PEM certificate and its key in one file, or the key as",
    ),
    (
        ["--source", "demo", "--offload", "https://127.0.0.1:9", "--offload-cert", "{tmp}/file"],
        "--offload-cert {tmp}/file: no PEM certificate with its key; give a PEM certificate and its key in one file, or",
    ),
    (["--source", "demo", "--offload", "https://127.0.0.1:9", "--offload-cert"], "'--offload-cert' requires an argument"),
    (["--source", "demo", "--offload", "nosuchhost"], "https://HOST/v2/models/NAME; try --offload http://nosuchhost:8000"),
    ([*NOWHERE, "--offload-send", "crop"], "cuts out the objects asked about, which only --track tells apart; add --track"),
    ([*NOWHERE, "--offload-send", "tensor", "--spool", "{tmp}/x"], "leave one out"),
    ([*NOWHERE, "--spool", "{tmp}/file"], "--spool {tmp}/file: File exists; choose a folder"),
    (
        [*NOWHERE, "--redact", "rod"],
        "--redact rod: class 'rod': the model does not know it; did you mean red? It knows red, green, blue",
    ),
    ([*NOWHERE, "--redact", "zzz"], "--redact zzz: class 'zzz': the model does not know it; it knows red, green, blue"),
    (["--source", "demo", "--offload", "https://127.0.0.1:9", "--offload-pin", "12"], "--offload-pin: expected sha256:"),
]


@pytest.mark.parametrize(("arguments", "part"), REFUSED)
def test_what_is_refused(command: Command, tiny_detector: Path, tmp_path: Path, arguments: list[str], part: str) -> None:
    (tmp_path / "file").write_text("")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    line = command(main, "--model", tiny_detector, *filled).refused(2)
    assert part.replace("{tmp}", str(tmp_path)) in line


def test_a_classifier_cannot_redact(command: Command, tiny_edge: Path) -> None:
    line = command(main, "--model", tiny_edge, *NOWHERE, "--redact", "class 1").refused(2)
    assert "--redact is for detectors, tiny is none" in line


def test_a_classifier_finds_nothing_to_cut_out(command: Command, tiny_edge: Path) -> None:
    line = command(main, "--model", tiny_edge, *NOWHERE, "--offload-send", "crop").refused(2)
    assert "--offload-send crop is for detectors, tiny is none and finds nothing to cut out; leave it out" in line


def test_a_wrong_endpoint_is_noticed_where_every_frame_is_certain(detect: Command, tmp_path: Path) -> None:
    with serving() as endpoint:  # a classifier
        done = detect("--offload", endpoint.url, "--threshold", 0)
    assert done.code == 0
    found = [json.loads(line) for line in done.out.splitlines()]
    [lost] = [record for record in found if record["kind"] == "notice" and record["notice"] == "endpoint-lost"]
    assert lost["about"] == endpoint.url
    assert lost["text"].startswith("model squares is a classifier, the local one a detector; name another")
    assert done.err.count("is a classifier, the local one a detector") == 1  # a notice of it is not said again
    assert "offloaded 0: no frame was to be asked about" in done.err


def test_a_full_queue_is_no_failure(detect: Command, tmp_path: Path) -> None:
    """Forty frames at once while the endpoint thinks."""

    def slow(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        endpoint.released.wait(0.2)
        return finds_nothing(endpoint, body, headers)

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(40):
        (pictures / f"{number:02}.png").write_bytes(encoded(squares(("red", 0, 0), level=200), ".png"))
    with serving(slow, METADATA) as endpoint:
        done = detect("--source", pictures, "--offload", endpoint.url)
    found = summary_in(tmp_path)
    assert found["offload_given_up"] > 0
    parts = found["revised"] + found["late"] + found["withheld"] + found["offload_given_up"] + found["offload_failed"]
    assert parts == found["offloaded"] == 41
    assert found["offload_failed"] == 0
    assert f"{found['offload_given_up']} given up by a full queue, 0 failed" in done.err


def test_later_frames_of_an_object_show_what_the_cloud_said(command: Command, tiny_detector: Path, tmp_path: Path) -> None:
    """A red square that stands still; the cloud says it is blue, once."""

    def blue(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        tensors = [
            NamedTensor.of("boxes", np.array([[[0, 0, 80, 80]]], np.float32)),
            NamedTensor.of("scores", np.array([[0.875]], np.float32)),
            NamedTensor("labels", "BYTES", (1, 1), [b"blue"]),
        ]
        return 200, *encode_response("big", tensors)

    image = cv2.resize(squares(("red", 0, 0), level=200), (320, 320), interpolation=cv2.INTER_NEAREST)
    writer = cv2.VideoWriter(str(tmp_path / "still.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 320))
    for _ in range(400):
        writer.write(image)
    writer.release()
    more = ["--track", "--threshold", 1, "--offload-deadline", 60]
    with serving(blue, METADATA) as endpoint:
        done = command(main, "--model", tiny_detector, "--source", tmp_path / "still.avi", "--offload", endpoint.url, *more)
    assert done.code == 0, done.err
    records = [json.loads(line) for line in done.out.splitlines()]
    frames = [record for record in records if record["kind"] == "frame"]
    [answer] = [record for record in frames if record["revises"]]
    assert [(one["label"], one["track"]) for one in answer["result"]["objects"]] == [("blue", 1)]
    after = [record for record in frames[frames.index(answer) + 1 :] if record["result"]["objects"]]
    before = frames[: frames.index(answer)]
    assert all("cloud" not in one for record in before for one in record["result"]["objects"])
    assert after
    for record in after:
        [one] = record["result"]["objects"]
        assert (one["label"], one["track"], one["cloud"]) == ("red", 1, {"label": "blue", "score": 0.875})


def test_a_token_over_a_network_in_the_clear(command: Command, tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_OFFLOAD_TOKEN", TOKEN)
    line = command(main, "--model", tiny_edge, "--source", "demo", "--offload", "http://192.0.2.1").refused(2)
    assert "a token would cross the network in the clear; use https://" in line
    assert TOKEN not in line
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("offload")]
