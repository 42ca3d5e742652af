"""The offloader against a real server on loopback: whatever it does, the loop is neither blocked nor told off."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge.errors import UsageError
from edge.offload import Answer, Offloader
from edge.offload.address import parse_address
from edge.offload.breaker import FAILURES
from edge.offload.client import NICENESS, QUEUE_FRAMES
from edge.offload.credentials import Credentials
from edge.offload.transport import ANSWER_LIMIT_BYTES, RequestError, Transport
from edge.offload.uplink import LADDER
from edge.oip import HEADER_LENGTH, NamedTensor, encode_response
from edge.types import Detections, Event
from tests.endpoint import METADATA, RESET, Endpoint, Reply, fixed, flaky, good, hangs, opening, serving, until
from tests.samples import detections, event, frame, plain

PATIENCE_S = 20.0
Opener = Callable[..., tuple[Offloader, list[str]]]


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opening() as make:
        yield make


def submit(offloader: Offloader, *sequences: int, scores: tuple[float, ...] = (0.75, 0.125)) -> None:
    for sequence in sequences:
        given = frame(plain(10 * sequence), sequence, time.monotonic())
        offloader.submit(event(given, action="offload", scores=scores))


def settled(offloader: Offloader, answered: list[Answer], total: int) -> bool:
    """Wait until every frame submitted is answered or counted."""

    def done() -> bool:
        answered.extend(offloader.answers())
        counted = offloader.given_up + offloader.failed + offloader.late + offloader.withheld
        return len(answered) + counted == offloader.submitted == total

    return until(done)


def fail(offloader: Offloader, said: list[str]) -> None:
    """Submit one frame after another until the breaker opens and that is said."""
    begun = len(said)
    for number in range(1, FAILURES + 1):
        counted = offloader.failed + offloader.late
        submit(offloader, number)
        assert until(lambda counted=counted: offloader.failed + offloader.late > counted)
        if len(said) > begun:
            break
    assert until(lambda: len(said) == begun + 1)


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
        offloader, said = opened(endpoint.url, deadline_s=1.0)
        fail(offloader, said)
        assert offloader.answers() == []
        assert said[0].startswith(f"offload: {endpoint.url}")
        assert part in said[0]
        assert "\n" not in said[0]
        assert len(said[0]) < 500
        assert not offloader.available(time.monotonic())
        assert offloader.available(time.monotonic() + 60)
        endpoint.answer = good  # and the threads are still there
        assert until(lambda: offloader.available(time.monotonic()))
        submit(offloader, 2)
        assert until(offloader.answers)
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
    """What another attempt will not mend is said at once."""
    status, body, part = METADATA_ANSWERS[name]
    with serving(metadata=(status, body, {})) as endpoint:
        offloader, said = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert part in said[0]
        assert "\n" not in said[0]
        assert endpoint.requests == ["/v2/models/tiny"]  # and no picture was sent
        endpoint.metadata = (200, json.dumps(METADATA).encode(), {})
        assert until(lambda: offloader.available(time.monotonic()))
        submit(offloader, 2)
        assert until(offloader.answers)
        assert until(lambda: said[1:] == [f"offload: {endpoint.url} answers again"])


def test_refused_then_there(opened: Opener, unused_port: int) -> None:
    offloader, said = opened(f"http://127.0.0.1:{unused_port}")
    for number in range(3):
        submit(offloader, number)
        assert settled(offloader, [], number + 1)
    assert said == [
        f"offload: http://127.0.0.1:{unused_port}: connection refused; answers stay local, trying again in the background"
    ]
    with serving(port=unused_port):
        assert until(lambda: offloader.available(time.monotonic()))
        submit(offloader, 5)
        assert until(offloader.answers)
    assert until(lambda: len(said) == 2)
    assert "answers again" in said[1]


def test_an_endpoint_that_restarts_loses_no_frame(opened: Opener) -> None:
    """The kept connection is dead when the next frame comes: it never got an answer, so it is sent again."""
    answers: list[Answer] = []
    with serving() as endpoint:
        offloader, _ = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, answers, 1)
    with serving(port=endpoint.port):
        submit(offloader, 2)
        assert settled(offloader, answers, 2)
    assert len(answers) == 2


def test_a_reset_is_tried_again_under_the_same_key(opened: Opener) -> None:
    with serving(flaky(3)) as endpoint:
        offloader, said = opened(endpoint.url)
        answers: list[Answer] = []
        for number in range(1, 4):
            submit(offloader, number)
            assert settled(offloader, answers, number)
            answers_there = len(answers)
        assert (answers_there, offloader.failed, said) == (3, 0, [])
        keys = [headers["Idempotency-Key"] for headers in endpoint.headers]
        assert len(keys) == 9
        assert [len(set(keys[at : at + 3])) for at in (0, 3, 6)] == [1, 1, 1]
        assert len(set(keys)) == 3


def test_a_busy_endpoint_is_asked_again_when_it_said(opened: Opener) -> None:
    with serving(flaky(2, otherwise=(429, b'{"error": "busy"}', {"Retry-After": "1"}))) as endpoint:
        offloader, said = opened(endpoint.url)
        answers: list[Answer] = []
        begun_s = time.monotonic()
        submit(offloader, 1)
        assert until(lambda: endpoint.headers)
        assert until(lambda: not offloader.available(time.monotonic()))  # which is for all frames
        assert settled(offloader, answers, 1)
        assert time.monotonic() - begun_s >= 1.0
        assert (len(answers), said) == (1, [])


def test_no_retry_when_the_wait_is_longer_than_the_deadline(opened: Opener) -> None:
    with serving(fixed(b"", 503, **{"Retry-After": "3"})) as endpoint:
        offloader, _ = opened(endpoint.url, deadline_s=2.0)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert len(endpoint.headers) == 1
        now_s = time.monotonic()
        assert not offloader.available(now_s + 1.5)
        assert offloader.available(now_s + 3.1)


@pytest.mark.parametrize("status", [400, 415, 500, 502])
def test_what_may_have_been_processed_is_not_sent_again(opened: Opener, status: int) -> None:
    with serving(fixed(b"", status)) as endpoint:
        endpoint.server = (200, b'{"name": "edge-cloud"}', {})
        offloader, _ = opened(endpoint.url)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert len(endpoint.headers) == 1


@pytest.mark.parametrize("status", [400, 415, 500])
def test_a_server_that_takes_no_binary_tensors_is_asked_in_json(opened: Opener, status: int) -> None:
    def json_only(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        if HEADER_LENGTH in headers:
            return status, b"", {}
        parameters = json.loads(body)["inputs"][0]["parameters"]
        return good(endpoint, body, headers) if parameters == {"content_type": "base64"} else (422, b"", {})

    with serving(json_only) as endpoint:
        offloader, said = opened(endpoint.url)
        answers: list[Answer] = []
        for number in range(3):
            submit(offloader, number)
            assert settled(offloader, answers, number + 1)
        assert (len(answers), said) == (3, [])
        assert [HEADER_LENGTH in headers for headers in endpoint.headers] == [True, False, False, False]


def test_json_is_tried_once(opened: Opener) -> None:
    with serving(good) as endpoint:
        offloader, _ = opened(endpoint.url)
        answers: list[Answer] = []
        for number, (answer, requests) in enumerate([(fixed(b"", 500), 2), (fixed(b"", 500), 3), (good, 4)], start=1):
            endpoint.answer = answer
            submit(offloader, number)
            assert settled(offloader, answers, number)
            assert len(endpoint.headers) == requests
        assert [HEADER_LENGTH in headers for headers in endpoint.headers] == [True, False, True, True]


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
    assert "host name not found; check its spelling and this machine's DNS; " in said[0]


def test_an_endpoint_that_hangs_blocks_nobody(opened: Opener) -> None:
    with serving(hangs) as endpoint:
        offloader, said = opened(endpoint.url, deadline_s=30.0)
        begun_s = time.monotonic()
        submit(offloader, *range(20))
        assert offloader.answers() == []
        assert time.monotonic() - begun_s < 0.5
        assert until(lambda: len(endpoint.headers) == 2)  # two in flight, and no more
        assert offloader.drain(0.2) == []
        offloader.close()
        assert (offloader.submitted, offloader.given_up + offloader.failed, said) == (20, 20, [])
        assert QUEUE_FRAMES <= offloader.failed <= QUEUE_FRAMES + 2  # those that waited, and those under way
        assert len(endpoint.headers) == 2
        endpoint.released.set()


def test_a_request_that_hangs_is_late_at_its_deadline(opened: Opener) -> None:
    with serving(hangs) as endpoint:
        offloader, said = opened(endpoint.url, deadline_s=0.3)
        fail(offloader, said)
        assert "no answer within 0." in said[0]
        assert (offloader.failed, offloader.late) == (0, 3)
        assert len(endpoint.headers) == 3  # none was sent twice
        assert offloader._endpoint.uplink.rung == LADDER[-1]  # and smaller ones go next


def test_a_frame_that_is_old_already_is_late_and_no_fault_of_the_endpoint(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, said = opened(endpoint.url)
        for number in range(5):
            offloader.submit(event(frame(plain(9), number, time.monotonic() - 6), action="offload"))
            assert settled(offloader, [], number + 1)
        assert (offloader.late, offloader.failed, said, endpoint.requests) == (5, 0, [], [])
        assert offloader.available(time.monotonic())


def test_a_dripping_answer_ends_with_its_deadline(opened: Opener) -> None:
    """One byte now and then keeps every single read from timing out."""
    with serving(fixed(b"x" * 10_000, **{"X-Drip": "yes"})) as endpoint:
        offloader, _ = opened(endpoint.url, deadline_s=0.5)
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert offloader.late == 1


def test_a_dripping_head_ends_with_its_deadline(opened: Opener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    connection.send(b"X")

        dripping = threading.Thread(target=drip)
        dripping.start()
        offloader, _ = opened(f"http://127.0.0.1:{server.getsockname()[1]}", deadline_s=0.5)
        begun_s = time.monotonic()
        submit(offloader, 1)
        assert settled(offloader, [], 1)
        assert time.monotonic() - begun_s < 5.0
        ended.set()
        dripping.join()


@contextlib.contextmanager
def answering(*pieces: tuple[float, bytes]) -> Iterator[str]:
    """A server that sends each piece so many seconds after the one before, and then nothing; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def answer() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                for pause_s, piece in pieces:
                    if ended.wait(pause_s):
                        return
                    connection.sendall(piece)
                ended.wait(10)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\n"
SLOW_BODIES = {
    "silent": [(0.85, HEAD + b"Content-Length: 9\r\n\r\n")],
    "silent, until the end": [(0.85, HEAD + b"Connection: close\r\n\r\n")],
    "begun, until the end": [(0.85, HEAD + b"Connection: close\r\n\r\n{}")],
    "a size that drips": [(0.5, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"), *[(0.1, b"0")] * 30],
}


@pytest.mark.parametrize("name", SLOW_BODIES)
def test_the_deadline_holds_for_head_and_body_together(name: str) -> None:
    with answering(*SLOW_BODIES[name]) as url:
        transport = Transport(parse_address(url, "tiny"), Credentials(), connections=1)
        begun_s = time.monotonic()
        with pytest.raises(RequestError, match=r"within (1|0\.9\d+) s") as error:
            transport.get("/v2", begun_s + 1.0)
        assert 0.95 < time.monotonic() - begun_s < 1.3
        assert error.value.late
        assert not error.value.again
        transport.close()


def test_an_endless_answer_ends_with_its_limit(opened: Opener) -> None:
    with serving(fixed(bytes(ANSWER_LIMIT_BYTES * 4))) as endpoint:
        offloader, said = opened(endpoint.url)
        fail(offloader, said)
        assert f"more than {ANSWER_LIMIT_BYTES} bytes" in said[0]


def test_an_answer_that_unpacks_to_much_is_not_unpacked(opened: Opener) -> None:
    import gzip

    bomb = gzip.compress(bytes(200 << 20), 9)
    with serving(fixed(bomb, **{"Content-Encoding": "gzip"})) as endpoint:
        offloader, said = opened(endpoint.url)
        fail(offloader, said)


def test_frames_of_any_size_are_sent(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, said = opened(endpoint.url)
        answers: list[Answer] = []
        for number, (width, height) in enumerate([(1, 1), (5000, 1), (1, 5000), (2560, 1440), (1280, 720)], start=1):
            offloader.submit(event(frame(plain(50, width, height), number, time.monotonic())))
            assert settled(offloader, answers, number)
        assert said == []
        assert [found.shape[1::-1] for found in endpoint.pictures] == [(1, 1), (1280, 1), (1, 1280), (1280, 720), (1280, 720)]


# the queue


def gated() -> tuple[threading.Event, Callable[..., Reply]]:
    gate = threading.Event()

    def answer(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        gate.wait(PATIENCE_S)
        return good(endpoint, body, headers)

    return gate, answer


def test_the_most_uncertain_and_newest_go_first_and_the_most_certain_and_oldest_are_given_up(opened: Opener) -> None:
    gate, answer = gated()
    with serving(answer) as endpoint:
        offloader, _ = opened(endpoint.url, deadline_s=PATIENCE_S, in_flight=1)
        submit(offloader, 0)
        assert until(lambda: endpoint.headers)  # frame 0 is under way
        for sequence, score in ((1, 0.5), (2, 0.25), (3, 0.5), (4, 0.25), (5, 0.75), (6, 0.5), (7, 0.125)):
            submit(offloader, sequence, scores=(score,))
        assert (offloader.submitted, offloader.given_up, offloader.failed) == (8, 7 - QUEUE_FRAMES, 0)
        gate.set()
        answers: list[Answer] = []
        assert settled(offloader, answers, 8)
        assert [answer.event.frame.sequence for answer in answers] == [0, 7, 4, 2, 6]


def test_two_requests_are_under_way_at_once_over_kept_connections(opened: Opener) -> None:
    gate, answer = gated()
    with serving(answer) as endpoint:
        offloader, _ = opened(endpoint.url, deadline_s=PATIENCE_S)
        submit(offloader, *range(4))
        assert until(lambda: len(endpoint.headers) == 2)
        time.sleep(0.1)
        assert len(endpoint.headers) == 2
        gate.set()
        answers: list[Answer] = []
        assert settled(offloader, answers, 4)
        for number in range(4, 10):
            submit(offloader, number)
            assert settled(offloader, answers, number + 1)
        assert endpoint.connections == 2


def test_drain_waits_for_what_is_under_way(opened: Opener) -> None:
    def slow(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Any:
        time.sleep(0.1)
        return good(endpoint, body, headers)

    with serving(slow) as endpoint:
        offloader, _ = opened(endpoint.url)
        submit(offloader, 1, 2, 3)
        answers = offloader.drain(PATIENCE_S)
        assert sorted(answer.event.frame.sequence for answer in answers) == [1, 2, 3]
        assert offloader.failed == 0


def test_after_the_drain_nothing_is_sent(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, _ = opened(endpoint.url)
        assert offloader.drain(1.0) == []
        submit(offloader, 1)
        assert until(lambda: not any(thread.is_alive() for thread in offloader._threads))
        assert endpoint.requests == []
        offloader.close()
        offloader.close()


def test_an_open_breaker_gives_up_what_waits(opened: Opener) -> None:
    gate = threading.Event()

    def answer(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        gate.wait(PATIENCE_S)
        return 404, b"", {}

    with serving(answer) as endpoint:
        offloader, said = opened(endpoint.url, deadline_s=PATIENCE_S)
        submit(offloader, 0, 1, 2, 3)
        assert until(lambda: len(endpoint.headers) == 2)
        gate.set()
        assert settled(offloader, [], 4)
        assert offloader.failed == 4
        assert len(endpoint.headers) == 2
        assert len(said) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_encoding_yields_to_the_loop(opened: Opener) -> None:
    offloader, _ = opened("http://127.0.0.1:9")
    threads = [thread.native_id or 0 for thread in offloader._threads]
    assert until(lambda: all(os.getpriority(os.PRIO_PROCESS, thread) >= NICENESS for thread in threads))
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < NICENESS


# endpoints that fail while frames keep coming


def late(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
    """An answer after the deadline of these tests."""
    endpoint.released.wait(0.6)
    return good(endpoint, body, headers)


BROKEN: dict[str, Callable[..., Reply]] = {
    "hanging": hangs,
    "late": late,
    "garbage": fixed(b"\x00\xff garbage"),
    "resetting": lambda *_: (RESET, b"", {}),
    "half lossy": flaky(2),
}


@pytest.mark.parametrize("name", [*BROKEN, "dead"])
def test_frames_are_neither_held_up_nor_held_on_to(opened: Opener, name: str, unused_port: int) -> None:
    """Submitting takes no time, what waits is bounded, every frame is accounted for."""
    with serving(BROKEN.get(name, good)) as endpoint:
        url = f"http://127.0.0.1:{unused_port}" if name == "dead" else endpoint.url
        offloader, said = opened(url, deadline_s=0.5)
        longest_s, answers, frames = 0.0, 0, []
        for number in range(200):
            one = event(frame(plain(number), number, time.monotonic()), action="offload")
            frames.append(weakref.ref(one.frame.image))
            begun_s = time.monotonic()
            if offloader.available(begun_s):
                offloader.submit(one)
            answers += len(offloader.answers())
            longest_s = max(longest_s, time.monotonic() - begun_s)
            del one
            assert sum(ref() is not None for ref in frames) <= 20  # those that wait or are under way, and answers not taken yet
            time.sleep(0.005)
        answers += len(offloader.drain(PATIENCE_S))
        assert longest_s < 0.2
        assert answers + offloader.given_up + offloader.failed + offloader.late == offloader.submitted
        assert sum("trying again" in line for line in said) - sum("answers again" in line for line in said) in (0, 1)
        assert len(said) <= 5
        if name == "half lossy":
            assert answers > 0


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
    ("url", "meant"),
    [
        ("localhost", "http://localhost:8000"),
        ("cloud.example:9000", "http://cloud.example:9000"),
        ("10.0.0.1/v2/models/big", "http://10.0.0.1:8000/v2/models/big"),
        ("ftp://host", ""),
        ("http://", ""),
        ("a@b", ""),
    ],
)
def test_a_scheme_that_is_missing_is_proposed(url: str, meant: str) -> None:
    with pytest.raises(UsageError) as error:
        Offloader(url, "tiny")
    assert str(error.value).partition("; try --offload ")[2] == meant


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
    return replace(
        event(frame(plain(9, width, height), 0, time.monotonic()), action="offload"),
        result=detections(("cat", 0.4, (0, 0, 9, 9))),
    )


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
        for number in range(1, FAILURES + 1):
            offloader.submit(seen_by_a_detector())
            assert settled(offloader, [], number)
        assert offloader.failed == FAILURES
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
