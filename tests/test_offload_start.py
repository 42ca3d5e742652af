"""Before the first frame is asked about: the endpoint's model, a frame's size, the notices, and who pays for stored frames."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.offload import Offloader
from edge.offload.breaker import FAILURES
from edge.offload.credentials import TOKEN_VARIABLE
from edge.offload.forms import CropForm
from edge.offload.spool import Spool, Stored
from edge.offload.uplink import TYPICAL_BYTES
from edge.policies import Allowance, Budget, PerFrame
from edge.types import Classes, Detections
from tests.endpoint import METADATA, RESET, Endpoint, Reply, fixed, flaky, good, opening, serving, until
from tests.samples import detections, event, frame, picture, plain

Opener = Callable[..., tuple[Offloader, list[str]]]
CLASSIFIER = Classes(np.zeros(0, np.int64), np.zeros(0, np.float32), ())
DETECTOR = detections()
TOKEN = "s3cret-t0ken"


@pytest.fixture
def opened() -> Iterator[Opener]:
    with opening() as make:
        yield make


def told(offloader: Offloader) -> list[tuple[str, str, str]]:
    return [(notice.kind, notice.about, notice.text) for notice in offloader.notices]


# the endpoint's model


def test_the_model_is_asked_for_once_and_no_picture_is_sent(opened: Opener) -> None:
    with serving() as endpoint:
        offloader, said = opened(endpoint.url, local=CLASSIFIER)
        assert until(lambda: endpoint.requests)
        assert offloader.drain(5.0) == []
        assert (endpoint.requests, said, told(offloader)) == (["/v2/models/tiny"], [], [])


WRONG: dict[str, tuple[Any, Reply | None, str]] = {
    "no such model": (CLASSIFIER, (404, b'{"error": "unknown"}', {}), "no model tiny there (unknown); name the model with"),
    "a web page": (CLASSIFIER, (200, b"<html></html>", {}), "does not speak the Open Inference Protocol v2; start edge-cloud"),
    "a classifier for a detector": (DETECTOR, None, "model tiny is a classifier, the local one a detector; name another"),
    "no token": (CLASSIFIER, (401, b"", {}), "status 401 (no message); give --offload-token-file"),
    "an error": (CLASSIFIER, (500, b"", {}), "status 500"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_endpoint_is_said_before_any_frame_is_uncertain(opened: Opener, name: str) -> None:
    local, metadata, part = WRONG[name]
    with serving(metadata=metadata) as endpoint:
        offloader, said = opened(endpoint.url, local=local)
        offloader.drain(5.0)  # a short run tells it, too
        assert len(said) == 1
        assert part in said[0]
        assert said[0].endswith("; answers stay local, trying again in the background")
        assert endpoint.headers == []


def test_an_endpoint_that_is_away_is_said_and_noticed_and_so_is_its_return(opened: Opener, unused_port: int) -> None:
    """Nobody asks about a frame all the while."""
    root = f"http://127.0.0.1:{unused_port}"
    offloader, said = opened(root, local=CLASSIFIER)
    assert until(lambda: said)
    assert said == [f"offload: {root}: connection refused; answers stay local, trying again in the background"]
    with serving(port=unused_port) as endpoint:
        assert until(lambda: len(said) == 2)
        assert endpoint.headers == []
    assert told(offloader) == [
        ("endpoint-lost", root, "connection refused; answers stay local, trying again in the background"),
        ("endpoint-back", root, "answers again"),
    ]


def test_a_frame_is_asked_about_while_the_model_is_awaited(opened: Opener) -> None:
    """Metadata that hang hold up neither whoever submits nor, once they come, the answer; they are asked for once."""
    answering = threading.Event()

    class Slow(dict[str, str]):
        def __ror__(self, other: Any) -> Any:  # what the server adds headers to: it waits here
            answering.wait(10)
            return other

    with serving(metadata=(200, json.dumps(METADATA).encode(), Slow())) as endpoint:
        offloader, said = opened(endpoint.url, local=CLASSIFIER)
        assert until(lambda: endpoint.requests)
        begun_s = time.monotonic()
        offloader.submit(event(frame(plain(9), 1, begun_s), action="offload"))
        assert time.monotonic() - begun_s < 0.5
        answering.set()
        assert until(lambda: offloader.idle)
        assert len(offloader.answers()) == 1
        assert (endpoint.requests, said) == (["/v2/models/tiny", "/v2/models/tiny/infer"], [])


def test_a_network_that_drops_a_request_is_no_lost_endpoint(opened: Opener) -> None:
    """It is looked at again, and the breaker counts."""
    with serving() as endpoint:
        well, endpoint.metadata = endpoint.metadata, (RESET, b"", {})
        offloader, said = opened(endpoint.url, local=CLASSIFIER)
        assert until(lambda: endpoint.requests)
        endpoint.metadata = well
        assert until(lambda: len(endpoint.requests) >= 2)
        offloader.drain(5.0)
        assert said == []
        assert len(endpoint.requests) <= FAILURES


def test_a_lost_endpoint_and_its_return_are_notices_without_the_token(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)

    def refuses(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        return 401, json.dumps({"error": f"{headers['Authorization']} is not known"}).encode(), {}

    with serving(refuses) as endpoint:
        offloader, _ = opened(endpoint.url)
        offloader.submit(event(frame(plain(9), 1, time.monotonic()), action="offload"))
        assert until(lambda: offloader.notices)
        endpoint.answer = good
        assert until(lambda: offloader.available(time.monotonic()))
        offloader.submit(event(frame(plain(9), 2, time.monotonic()), action="offload"))
        assert until(lambda: len(offloader.notices) == 2)
        lost, back = told(offloader)
        assert lost[:2] == ("endpoint-lost", endpoint.url)
        assert lost[2].startswith("status 401 (Bearer *** is not known); give another token")
        assert back == ("endpoint-back", endpoint.url, "answers again")
        assert TOKEN not in repr(offloader.notices)


# a frame's size


def test_the_first_frame_that_comes_tells_how_large_one_is(opened: Opener, unused_port: int) -> None:
    offloader, said = opened(f"http://127.0.0.1:{unused_port}")
    assert offloader.request_bytes == TYPICAL_BYTES
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    offloader.see(event(frame(noise)))
    assert until(lambda: offloader.request_bytes != TYPICAL_BYTES)
    expected = len(cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    assert offloader.request_bytes == expected
    offloader.see(event(frame(plain(0, 8, 8))))
    time.sleep(0.05)
    assert (offloader.request_bytes, offloader.submitted, said) == (expected, 0, [])


def test_a_frame_that_may_not_be_seen_is_not_sized(opened: Opener, unused_port: int) -> None:
    offloader, said = opened(f"http://127.0.0.1:{unused_port}", redact=True, form=CropForm(["dog"]))
    offloader.see(event(frame(plain(0))))
    assert until(lambda: offloader._unsized is None)
    time.sleep(0.05)
    assert (offloader.request_bytes, offloader.withheld, said) == (TYPICAL_BYTES, 0, [])


def test_bytes_are_those_that_were_sent_and_those_that_will_be(opened: Opener) -> None:
    gate = threading.Event()

    def answer(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        gate.wait(20)
        return good(endpoint, body, headers)

    with serving(answer) as endpoint:
        offloader, _ = opened(endpoint.url, deadline_s=20.0)
        assert offloader.spent_bytes == 0
        for number in range(3):
            offloader.submit(event(frame(picture(seed=number), number, time.monotonic()), action="offload"))
        assert until(lambda: len(endpoint.headers) == 2)
        assert offloader.spent_bytes == 3 * TYPICAL_BYTES
        gate.set()
        assert until(lambda: offloader.idle)
        sent = sum(int(headers["Inference-Header-Content-Length"]) for headers in endpoint.headers)
        lengths = sum(int(headers["Content-Length"]) for headers in endpoint.headers)
        assert lengths - sent - 50 < offloader.spent_bytes <= lengths - sent


@pytest.mark.parametrize(("status", "attempts"), [(400, 1), (500, 1), (429, 2)])
def test_a_picture_that_was_refused_was_sent(opened: Opener, status: int, attempts: int) -> None:
    with serving(flaky(attempts, otherwise=(status, b"", {})) if attempts > 1 else fixed(b"", status)) as endpoint:
        endpoint.server = (200, b'{"name": "edge-cloud"}', {})
        offloader, _ = opened(endpoint.url)
        offloader.submit(event(frame(plain(9), 1, time.monotonic()), action="offload"))
        assert until(lambda: offloader.idle)
        assert len(endpoint.headers) == attempts
        assert offloader.spent_bytes == attempts * len(cv2.imencode(".jpg", plain(9), [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def test_what_never_left_costs_nothing(opened: Opener, unused_port: int) -> None:
    offloader, _ = opened(f"http://127.0.0.1:{unused_port}")
    offloader.submit(event(frame(plain(9), 1, time.monotonic()), action="offload"))
    assert until(lambda: offloader.failed == 1)
    assert offloader.spent_bytes == 0


# stored frames and the budget


def test_stored_frames_wait_until_the_budget_pays_for_them(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.offload.client.UNPAID_PAUSE_S", 0.02)
    spool = Spool(str(tmp_path), print, quota_bytes=10**7, days=7)
    jpeg = cv2.imencode(".jpg", plain(9))[1].tobytes()
    spool.put(Stored("key", time.time(), 0.5, {"source": "test"}, jpeg), time.time())
    asked: list[int] = []
    pays = threading.Event()

    def pays_for(size: int) -> bool:
        asked.append(size)
        return pays.is_set()

    with serving() as endpoint:
        offloader, _ = opened(endpoint.url, spool=spool, pays_for=pays_for)
        assert until(lambda: len(asked) > 3)
        assert (endpoint.headers, offloader.spool_waiting, offloader.spent_bytes) == ([], 1, 0)
        pays.set()
        assert until(lambda: offloader.spool_sent == 1)
        assert set(asked) == {len(jpeg)}
        assert (offloader.spent_bytes, offloader.spool_waiting) == (len(jpeg), 0)


def test_a_budget_of_bytes_pays_what_was_really_spent() -> None:
    """Questions turn out to be twice as dear as expected: half as many are asked, once that has shown."""
    spent, asked = 0.0, 0
    confidences = np.random.default_rng(5).beta(4, 1, 6000).tolist()
    rule = Budget(Allowance("1MB/h", per_s=1.0, in_bytes=True), cost=lambda: 1.0, spent=lambda: spent)
    policy = PerFrame(rule)
    for number, confidence in enumerate(confidences):
        result = Classes(np.array([0]), np.array([confidence], np.float32), ("a",))
        if policy.decide(result, number / 30).action == "offload":
            asked += 1
            spent += 2.0
    earned = len(confidences) / 30
    assert spent <= earned + 1.0  # more than there was is owed by the next ones
    assert asked == pytest.approx(earned / 2, rel=0.1)


def test_what_the_spool_sends_is_taken_from_questions() -> None:
    spent, stored, asked = 0.0, 0, 0
    confidences = np.random.default_rng(5).beta(4, 1, 9000).tolist()
    rule = Budget(Allowance("1MB/h", per_s=1.0, in_bytes=True), cost=lambda: 1.0, spent=lambda: spent)
    policy = PerFrame(rule)
    for number, confidence in enumerate(confidences):
        if rule.spares(1.0):
            stored += 1
            spent += 1.0
        result = Classes(np.array([0]), np.array([confidence], np.float32), ("a",))
        if policy.decide(result, number / 30).action == "offload":
            asked += 1
            spent += 1.0
    earned = len(confidences) / 30
    assert asked + stored <= earned + 1.0
    assert asked > 0.3 * earned  # neither starves
    assert stored > 0.05 * earned


def test_a_full_bucket_pays_for_any_stored_frame_and_a_number_for_all() -> None:
    nothing = detections()
    rule = Budget(Allowance("1MB/h", per_s=1.0, in_bytes=True), cost=lambda: 1.0, spent=lambda: 0.0)
    assert not rule.spares(1.0)  # it begins empty
    PerFrame(rule).decide(nothing, 0.0)
    PerFrame(rule).decide(nothing, 1e3)
    assert rule.spares(1e6)
    assert Budget(Allowance("3/h", per_s=3 / 3600)).spares(1e6)


def test_the_window_survives_a_debt() -> None:
    spent = 0.0
    rule = Budget(Allowance("1MB/h", per_s=1.0, in_bytes=True), cost=lambda: 1.0, spent=lambda: spent)
    policy = PerFrame(rule)
    result = Classes(np.array([0]), np.array([0.5], np.float32), ("a",))
    policy.decide(result, 0.0)
    spent = 100.0
    assert policy.decide(result, 1.0).reason.endswith("nothing is left of 1MB/h for now")
    assert policy.decide(result, 90.0).action == "accept"
    assert policy.decide(result, 200.0).action == "offload"


def test_answers_get_the_tracks_of_the_objects_they_overlap(opened: Opener) -> None:
    from edge.offload.forms import with_tracks

    local = replace(
        detections(("cat", 0.4, (0, 0, 10, 10)), ("dog", 0.9, (50, 50, 80, 80)), ("cow", 0.9, (90, 0, 99, 9))),
        tracks=np.array([7, 8, 0]),
    )
    answer = detections(("fox", 0.9, (51, 51, 79, 80)), ("hen", 0.8, (1, 0, 10, 10)), ("ant", 0.7, (9, 9, 30, 30)))
    found = with_tracks(answer, local)
    assert isinstance(found, Detections)
    assert found.tracks is not None
    assert found.tracks.tolist() == [8, 7, 0]
    assert with_tracks(answer, replace(local, tracks=None)) is answer
    assert with_tracks(found, local) is found
    assert with_tracks(answer, CLASSIFIER) is answer


def test_half_of_all_requests_may_fail_while_it_is_looked_at(opened: Opener) -> None:
    with serving(flaky(2)) as endpoint:
        offloader, said = opened(endpoint.url, local=CLASSIFIER)
        offloader.submit(event(frame(plain(9), 1, time.monotonic()), action="offload"))
        assert until(lambda: offloader.idle)
        assert (len(offloader.answers()), said) == (1, [])
