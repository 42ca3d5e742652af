"""The offloader against a real server on loopback: whatever it does, the loop is neither blocked nor told off."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from edge import offload as offload_module
from edge.errors import OffloadError, UsageError
from edge.offload import ANSWER_LIMIT_BYTES, QUEUE_FRAMES, Answer, Offloader, encode_jpeg
from edge.oip import NamedTensor, encode_response
from edge.types import Detections, Event
from tests.endpoint import METADATA, Endpoint, Reply, fixed, good, hangs, serving, until
from tests.samples import detections, event, frame, picture, plain

PATIENCE_S = 20.0
Opener = Callable[..., tuple[Offloader, list[str]]]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Open offloaders, and close them in the end; their threads must end, too."""
    made: list[Offloader] = []

    def make(url: str, model: str = "tiny", **more: Any) -> tuple[Offloader, list[str]]:
        said: list[str] = []
        made.append(Offloader(url, model, say=said.append, **({"timeout_s": 5.0} | more)))
        return made[-1], said

    yield make
    for offloader in made:
        offloader.close()
    assert until(lambda: not any(offloader._thread.is_alive() for offloader in made))


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def submit(offloader: Offloader, *sequences: int) -> None:
    for sequence in sequences:
        offloader.submit(event(frame(plain(10 * sequence), sequence), action="offload"))


def settled(offloader: Offloader, answered: list[Answer], total: int) -> bool:
    """Wait until every frame submitted is answered or counted as failed."""

    def done() -> bool:
        answered.extend(offloader.answers())
        return len(answered) + offloader.failed == offloader.submitted == total

    return until(done)


# success


def test_an_answer_comes_with_the_event_it_is_for(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, said = opened(endpoint.url)
        assert offloader.available(time.monotonic())
        answers: list[Answer] = []
        for number in range(3):
            submit(offloader, number)
            assert settled(offloader, answers, number + 1)
        assert [answer.event.frame.sequence for answer in answers] == [0, 1, 2]
        assert [answer.result.labels for answer in answers] == [(f"mean {mean}", "other") for mean in (0, 10, 20)]
        for answer in answers:
            assert answer.model == "big"
            assert answer.result.scores.tolist() == [0.875, 0.125]
            assert answer.result.confidence == 0.875
        assert (offloader.submitted, offloader.failed, said) == (3, 0, [])
        assert endpoint.requests == ["/v2/models/tiny", *["/v2/models/tiny/infer"] * 3]


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v2/models/tiny"),
        ("/", "/v2/models/tiny"),
        ("/v2/models/other", "/v2/models/other"),
        ("/v2/models/other/", "/v2/models/other"),
        ("/behind/a/proxy", "/behind/a/proxy/v2/models/tiny"),
        ("/behind/v2/models/other", "/behind/v2/models/other"),
    ],
)
def test_urls_with_and_without_a_model(opened: Opener, suffix: str, path: str) -> None:
    with serving() as endpoint:
        offloader, _ = opened(endpoint.url + suffix)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert endpoint.requests == [path, f"{path}/infer"]


def test_answers_in_plain_json(opened: Opener) -> None:
    body = {
        "model_name": "other",
        "outputs": [
            {"name": "labels", "datatype": "BYTES", "shape": [1, 2], "data": [["käse", "b"]]},
            {"name": "scores", "datatype": "FP64", "shape": [1, 2], "data": [0.5, 0.25]},
            {"name": "more", "datatype": "INT8", "shape": [1], "data": [1]},
        ],
    }
    with serving(fixed(json.dumps(body).encode())) as endpoint:
        offloader, _ = opened(endpoint.url)
        answers: list[Answer] = []
        submit(offloader, 1)
        assert settled(offloader, answers, 1)
        assert answers[0].result.labels == ("käse", "b")
        assert answers[0].result.scores.dtype == np.float32


# failures

INFER_ANSWERS = {
    "garbage": (fixed(b"\x00\xff garbage"), ""),
    "nothing": (fixed(b""), ""),
    "deep json": (fixed(b"[" * 200_000), ""),
    "not utf-8": (fixed(b'{"model_name": "caf\xe9"}'), ""),
    "html": (fixed(b"<html>login</html>"), ""),
    "error 500": (fixed(b'{"error": "out of memory"}', 500), "status 500 for /v2/models/tiny/infer: out of memory"),
    "error 500 in html": (fixed(b"<html>\n<body>oops</body></html>", 500), "status 500"),
    "error 503 without a body": (fixed(b"", 503), "no message"),
    "a message of another kind": (fixed(b'{"error": {"code": 5}}', 400), "status 400"),
    "a deep error": (fixed(b"[" * 200_000, 500), "status 500"),
    "a redirect": (fixed(b"", 302, Location="http://127.0.0.1:1/"), "status 302"),
    "no outputs": (fixed(b'{"model_name": "m", "outputs": []}'), "labels"),
    "a size that lies": (fixed(b"{}", **{"Inference-Header-Content-Length": "99999"}), ""),
    "a size that is none": (fixed(b"{}", **{"Inference-Header-Content-Length": "x"}), ""),
    "a content length that lies": (fixed(b"{}", **{"Content-Length": "100000", "Connection": "close"}), ""),
}


def outputs(*tensors: NamedTensor) -> Callable[..., Any]:
    body, headers = encode_response("m", tensors)
    return fixed(body, **headers)


LABELS = NamedTensor.of("labels", [b"a", b"b"])
INFER_ANSWERS |= {
    "no scores": (outputs(LABELS), "scores"),
    "more labels than scores": (outputs(LABELS, NamedTensor.of("scores", np.zeros(3, np.float32))), "2 labels and 3 scores"),
    "no labels": (outputs(NamedTensor.of("labels", []), NamedTensor.of("scores", np.zeros(0, np.float32))), "0 labels"),
    "scores that are text": (outputs(LABELS, NamedTensor.of("scores", [b"x", b"y"])), "makes no sense"),
}


@pytest.mark.parametrize("name", INFER_ANSWERS)
def test_bad_answers(opened: Opener, name: str) -> None:
    answer, part = INFER_ANSWERS[name]
    with serving(answer) as endpoint:
        offloader, said = opened(endpoint.url, timeout_s=1.0)
        answers: list[Answer] = []
        submit(offloader, 1)
        assert settled(offloader, answers, 1)
        assert until(lambda: said)
        assert answers == []
        assert len(said) == 1
        assert said[0].startswith(f"offload: {endpoint.url}")
        assert part in said[0]
        assert "\n" not in said[0]
        assert len(said[0]) < 500
        assert not offloader.available(time.monotonic())
        assert offloader.available(time.monotonic() + 60)
        endpoint.answer = good  # and the thread is still there
        submit(offloader, 2)
        assert settled(offloader, answers, 2)
        assert len(answers) == 1
        assert until(lambda: len(said) == 2)
        assert said[1] == f"offload: {endpoint.url} answers again"


METADATA_ANSWERS = {
    "another model's server": (
        404,
        b'{"error": "unknown model tiny"}',
        "no model tiny there (unknown model tiny); name the model with --offload http",
    ),
    "a web page": (200, b"<html></html>", "does not speak the Open Inference Protocol v2; start edge-cloud there"),
    "deep json": (200, b"[" * 200_000, "does not speak"),
    "a list": (200, b"[]", "does not speak"),
    "no tensors": (200, b'{"name": "tiny"}', "does not speak"),
    "tensors of another kind": (200, b'{"inputs": [1], "outputs": "x"}', "does not speak"),
    "names of another kind": (200, b'{"inputs": [{"name": [1], "datatype": "BYTES"}], "outputs": []}', "does not speak"),
    "a tensor model": (
        200,
        json.dumps(METADATA | {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3]}]}).encode(),
        "model tiny takes no encoded 'image'",
    ),
    "other outputs": (200, json.dumps(METADATA | {"outputs": []}).encode(), "serve it with edge-cloud"),
}


@pytest.mark.parametrize("name", METADATA_ANSWERS)
def test_bad_metadata(opened: Opener, name: str) -> None:
    status, body, part = METADATA_ANSWERS[name]
    with serving(metadata=(status, body, {})) as endpoint:
        offloader, said = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert until(lambda: said)
        assert part in said[0]
        assert "\n" not in said[0]
        assert endpoint.requests == ["/v2/models/tiny"]  # and no picture was sent
        endpoint.metadata = (200, json.dumps(METADATA).encode(), {})
        answers: list[Answer] = []
        submit(offloader, 2)
        assert until(lambda: answers.extend(offloader.answers()) or answers)
        assert until(lambda: said[1:] == [f"offload: {endpoint.url} answers again"])


def test_refused_then_there(opened: Opener, unused_port: int) -> None:
    offloader, said = opened(f"http://127.0.0.1:{unused_port}")
    for number in range(3):
        submit(offloader, number)
        assert settled(offloader, [], number + 1)
    assert until(lambda: said)
    assert said == [
        f"offload: http://127.0.0.1:{unused_port}: connection refused; answers stay local, trying again in the background"
    ]
    with serving(port=unused_port):
        answers: list[Answer] = []
        submit(offloader, 5)
        assert settled(offloader, answers, 4)
        assert len(answers) == 1
    assert until(lambda: len(said) == 2)
    assert "answers again" in said[1]


def test_an_endpoint_that_restarts(opened: Opener) -> None:
    """The kept connection is dead when the next frame comes; at worst that frame is lost."""
    answers: list[Answer] = []
    with serving() as endpoint:
        offloader, _ = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, answers, 1)
    submit(offloader, 2)
    assert settled(offloader, answers, 2)
    assert offloader.failed == 1
    with serving(port=endpoint.port):
        for number in range(3, 5):
            submit(offloader, number)
            assert settled(offloader, answers, number)
        assert len(answers) >= 2


def test_a_name_that_does_not_resolve(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    offloader, said = opened("http://nowhere.invalid")
    submit(offloader, 1)
    assert settled(offloader, [], 1)
    assert until(lambda: said)
    assert "\n" not in said[0]
    assert "0x" not in said[0]  # no object's address


def test_an_endpoint_that_hangs_blocks_nobody(opened: Opener) -> None:
    with serving(hangs) as endpoint:
        offloader, said = opened(endpoint.url, timeout_s=30.0)
        begun_s = time.monotonic()
        submit(offloader, *range(20))
        assert offloader.answers() == []
        assert until(lambda: len(endpoint.requests) == 2)
        assert offloader.drain(0.2) == []
        offloader.close()
        assert time.monotonic() - begun_s < PATIENCE_S
        assert (offloader.submitted, offloader.failed, said) == (20, 20, [])
        endpoint.released.set()


def test_a_request_that_hangs_ends_with_its_deadline(opened: Opener) -> None:
    with serving(hangs) as endpoint:
        offloader, said = opened(endpoint.url, timeout_s=0.2)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert until(lambda: said)
        assert "no answer within 0.2 s" in said[0]


def test_a_dripping_answer_ends_with_its_deadline(opened: Opener) -> None:
    """One byte now and then keeps every single read from timing out."""
    with serving(fixed(b"x" * 10_000, **{"X-Drip": "yes"})) as endpoint:
        offloader, said = opened(endpoint.url, timeout_s=0.5)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert until(lambda: said)


def test_an_endless_answer_ends_with_its_limit(opened: Opener) -> None:
    with serving(fixed(bytes(ANSWER_LIMIT_BYTES * 4))) as endpoint:
        offloader, said = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert until(lambda: said)
        assert f"more than {ANSWER_LIMIT_BYTES} bytes" in said[0]


def test_an_answer_that_unpacks_to_much_is_not_unpacked(opened: Opener) -> None:
    import gzip

    bomb = gzip.compress(bytes(200 << 20), 9)
    with serving(fixed(bomb, **{"Content-Encoding": "gzip"})) as endpoint:
        offloader, said = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert until(lambda: said)


def test_thousands_of_failures_in_a_row(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 ** 1024 is no float: an endpoint that was down for a night must be tried again in the morning."""

    def refuse(self: Offloader, sent: Event) -> Answer:
        raise OffloadError("refused")

    monkeypatch.setattr(Offloader, "_ask", refuse)
    monkeypatch.setattr(offload_module, "BACKOFF_S", (0.0, 0.0))
    offloader, said = opened("http://127.0.0.1:9")
    for number in range(1, 1101):
        submit(offloader, 1)
        with offloader._wake:
            assert offloader._wake.wait_for(lambda number=number: offloader.failed == number, PATIENCE_S)
    assert offloader._thread.is_alive()
    assert len(said) == 1


def test_the_pause_grows_and_is_bounded(opened: Opener, unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload_module.random, "uniform", lambda low, high: 1.0)
    offloader, _ = opened(f"http://127.0.0.1:{unused_port}")
    pauses = []
    for number in range(9):
        submit(offloader, 1)
        assert until(lambda number=number: offloader.failed == number + 1)
        now_s = time.monotonic()
        pauses.append(offloader._down_until_s - now_s)
        assert not offloader.available(offloader._down_until_s - 0.01)
        assert offloader.available(offloader._down_until_s)
    np.testing.assert_allclose(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30, 30], atol=0.45)


def test_frames_of_any_size_are_sent(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, said = opened(endpoint.url)
        answers: list[Answer] = []
        for number, (width, height) in enumerate([(1, 1), (5000, 1), (1, 5000), (2560, 1440), (1280, 720)], start=1):
            offloader.submit(event(frame(plain(50, width, height), number)))
            assert settled(offloader, answers, number)
        assert said == []
        assert [found.shape[1::-1] for found in endpoint.pictures] == [(1, 1), (1280, 1), (1, 1280), (1280, 720), (1280, 720)]


# the queue


def test_four_wait_and_the_newest_win(opened: Opener) -> None:
    gate, asked = threading.Event(), threading.Event()

    def gated(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Any:
        asked.set()
        gate.wait(PATIENCE_S)
        return good(endpoint, body, headers)

    with serving(gated) as endpoint:
        offloader, _ = opened(endpoint.url, timeout_s=PATIENCE_S)
        submit(offloader, 0)
        assert asked.wait(PATIENCE_S)  # frame 0 is under way
        submit(offloader, *range(1, 10))
        assert (offloader.submitted, offloader.failed) == (10, 9 - QUEUE_FRAMES)
        gate.set()
        answers: list[Answer] = []
        assert settled(offloader, answers, 10)
        assert [answer.event.frame.sequence for answer in answers] == [0, 6, 7, 8, 9]


def test_drain_waits_for_what_is_under_way(opened: Opener) -> None:
    def slow(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Any:
        time.sleep(0.1)
        return good(endpoint, body, headers)

    with serving(slow) as endpoint:
        offloader, _ = opened(endpoint.url)
        submit(offloader, 1, 2, 3)
        answers = offloader.drain(PATIENCE_S)
        assert [answer.event.frame.sequence for answer in answers] == [1, 2, 3]
        assert offloader.failed == 0


def test_after_the_drain_nothing_is_sent(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, _ = opened(endpoint.url)
        assert offloader.drain(1.0) == []
        submit(offloader, 1)
        assert until(lambda: not offloader._thread.is_alive())
        assert endpoint.requests == []
        offloader.close()
        offloader.close()


def test_a_failure_gives_up_what_waits(opened: Opener) -> None:
    gate, asked = threading.Event(), threading.Event()

    def gated(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Any:
        asked.set()
        gate.wait(PATIENCE_S)
        return 500, b"", {}

    with serving(gated) as endpoint:
        offloader, _ = opened(endpoint.url, timeout_s=PATIENCE_S)
        submit(offloader, 0)
        assert asked.wait(PATIENCE_S)
        submit(offloader, 1, 2)
        gate.set()
        assert settled(offloader, [], 3)
        assert offloader.failed == 3
        assert len(endpoint.requests) == 2


# pictures


@pytest.mark.parametrize(
    ("size_wh", "sent_wh"),
    [
        ((64, 48), (64, 48)),
        ((1280, 720), (1280, 720)),
        ((1920, 1080), (1280, 720)),
        ((1080, 1920), (720, 1280)),
        ((1, 1), (1, 1)),
    ],
)
def test_jpeg(size_wh: tuple[int, int], sent_wh: tuple[int, int]) -> None:
    image = picture(*size_wh)
    image.flags.writeable = False
    raw = encode_jpeg(image).tobytes()
    found = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert found.shape[1::-1] == sent_wh
    assert b"Exif" not in raw
    assert np.abs(found.astype(int) - cv2.resize(image, sent_wh, interpolation=cv2.INTER_AREA)).mean() < 6


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http:///v2",
        "http://:80",
        "http://host:0",
        "http://host:port",
        "http://host:65536",
        "http://host:-1",
        "http://[::1",
        "file:///etc/passwd",
        "http://user@host",
        "http://user:secret@host",
        "http://host/?a=b",
        "http://host/#a",
    ],
)
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(UsageError, match="--offload") as error:
        Offloader(url, "tiny")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://host", "https://host", "HTTP://host:8000", "http://[::1]:8000", "http://10.0.0.1/path/"]
)
def test_urls_that_can_be(opened: Opener, url: str) -> None:
    opened(url)  # asks nobody before the first frame


# a detector


def objects_answer(*outputs: NamedTensor) -> Reply:
    return 200, *encode_response("big", outputs, binary=[output.name for output in outputs])


def objects_of(boxes: Any, scores: Any, labels: list[bytes]) -> list[NamedTensor]:
    return [
        NamedTensor.of("boxes", np.array(boxes, np.float32).reshape(1, -1, 4)),
        NamedTensor.of("scores", np.array([scores], np.float32)),
        NamedTensor("labels", "BYTES", (1, len(labels)), labels),
    ]


DETECTOR = {
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, -1]} for name in ("boxes", "labels", "scores", "count")],
}
DETECTOR_METADATA: Reply = (200, json.dumps(DETECTOR).encode(), {})


def seen_by_a_detector(width: int = 64, height: int = 48) -> Event:
    return replace(event(frame(plain(9, width, height)), action="offload"), result=detections(("cat", 0.4, (0, 0, 9, 9))))


@pytest.mark.parametrize(("width", "height", "scale"), [(64, 48, 1.0), (2560, 1440, 2.0)])
def test_objects_come_back_in_pixels_of_the_frame(opened: Opener, width: int, height: int, scale: float) -> None:
    reply = objects_answer(*objects_of([[1, 2, 3, 4], [5, 6, 7, 8]], [0.9, 0.5], [b"dog", b"cat"]))
    with serving(lambda *_: reply, DETECTOR_METADATA) as endpoint:
        offloader, said = opened(endpoint.url)
        offloader.submit(seen_by_a_detector(width, height))
        answers: list[Answer] = []
        assert settled(offloader, answers, 1)
        assert said == []
        result = answers[0].result
        assert isinstance(result, Detections)
        assert result.labels == ("dog", "cat")
        np.testing.assert_allclose(result.boxes_xyxy, np.array([[1, 2, 3, 4], [5, 6, 7, 8]]) * scale)


def test_an_answer_without_objects(opened: Opener) -> None:
    reply = objects_answer(*objects_of([], [], []))
    with serving(lambda *_: reply, DETECTOR_METADATA) as endpoint:
        offloader, _ = opened(endpoint.url)
        offloader.submit(seen_by_a_detector())
        answers: list[Answer] = []
        assert settled(offloader, answers, 1)
        assert len(answers[0].result) == 0


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (objects_of([[1, 2, 3, 4]], [0.9], [b"a", b"b"]), "2 labels and 1 scores"),
        (objects_of([[1, 2, 3, 4]] * 2, [0.9], [b"a"]), "boxes"),
        (objects_of([[3, 2, 1, 4]], [0.9], [b"a"]), "corners are swapped"),
        (objects_of([[1, 2, 3, 4]], [1.5], [b"a"]), "no probabilities"),
        (objects_of([[1, 2, 3, 4]] * 2, [0.1, 0.9], [b"a", b"b"]), "best first"),
        (objects_of([[1, 2, 3, 4]], [0.9], [b"a"])[1:], "boxes"),
    ],
)
def test_objects_that_make_no_sense(opened: Opener, outputs: list[NamedTensor], said: str) -> None:
    reply = objects_answer(*outputs)
    with serving(lambda *_: reply, DETECTOR_METADATA) as endpoint:
        offloader, lines = opened(endpoint.url)
        offloader.submit(seen_by_a_detector())
        assert settled(offloader, [], 1)
        assert offloader.failed == 1
        assert "the answer makes no sense" in lines[0]
        assert said in lines[0]


def test_models_of_two_kinds(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, lines = opened(endpoint.url)
        offloader.submit(seen_by_a_detector())
        assert settled(offloader, [], 1)
        assert "model tiny is a classifier, the local one a detector; name another with --offload" in lines[0]
    with serving(metadata=DETECTOR_METADATA) as endpoint:
        offloader, lines = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert "model tiny is a detector, the local one a classifier" in lines[0]
