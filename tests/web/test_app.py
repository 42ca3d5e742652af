"""What the page's addresses answer."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from edge import __version__
from edge.controls import Controls
from edge.loop import Scene
from edge.motion import MotionGate
from edge.pace import Pace
from edge.policies import Threshold
from edge.regions import PrivacyMask, parse_region
from edge.status import Status
from edge.types import Notice
from edge.web.security import HEADERS
from edge.web.static_files import FOLDER
from tests.samples import frame, plain
from tests.web.serving import Page, decoded, eventually, in_background, serving


def test_the_page_is_announced_and_served(page: Page) -> None:
    assert page.said == [f"web: http://127.0.0.1:{page.port}/"]
    reply = page.ask("/")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.body == (FOLDER / "index.html").read_bytes()


def test_every_answer_has_the_headers(page: Page) -> None:
    for path, status in (
        ("/", 200),
        ("/nothing", 404),
        ("/controls", 405),
        ("/frame.jpg?source=9", 404),
        ("/status.json", 200),
    ):
        reply = page.ask(path)
        assert reply.status == status
        for name, value in HEADERS.items():
            assert name in reply.headers
            assert name == "cache-control" or reply.headers[name] == value
        assert "server" not in reply.headers


def test_files_are_asked_about_each_time(page: Page) -> None:
    first = page.ask("/static/style.css")
    assert (first.status, first.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "must-revalidate" in first.headers["cache-control"]
    assert page.ask("/static/style.css", If_None_Match=first.headers["etag"]).status == 304
    assert page.ask("/static/style.css", If_None_Match='"other"').status == 200
    for name in ("nothing", "index.html", "..%2f__init__.py", "../app.py", "%2e%2e/app.py"):
        assert page.ask(f"/static/{name}").status == 404


def test_the_status_is_the_monitors(page: Page) -> None:
    page.frame()
    told = page.ask("/status.json").json
    status = msgspec.convert(told["status"], Status)
    assert [source.name for source in status.sources] == ["a", "b"]
    assert status.sources[0].result is not None
    assert told["session"] == {"viewers": 0, "controllable": True, "version": __version__, "signed_in": False}
    assert told["moments"] == []


def test_updates_come_once_a_second_and_moments_as_they_happen(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.app.EVERY_S", 0.1)
    stream = page.stream("/updates")
    first = stream.until(b"\n\n", 2)
    assert b"content-type: text/event-stream" in first
    assert b"retry: 1000\n\nevent: status\ndata: {" in first
    assert page.ask("/status.json").json["session"]["viewers"] == 1
    page.see(Notice("source-lost", "b", "unplugged", 1.7e9))
    told = stream.until(b"event: moment\ndata: ").split(b"event: moment\ndata: ")[1]
    moment = json.loads(told.split(b"\n\n")[0])
    assert moment == {
        "id": moment["id"], "at": "2023-11-14T22:13:20.000Z", "kind": "notice", "source": 2, "seq": None, "text": "unplugged",
        "picture": False, "more": 0,
    }  # fmt: skip
    messages = stream.until(b"event: status", 4).split(b"event: status\ndata: ")
    brief = json.loads(messages[-2].split(b"\n\n")[0])
    assert all(len(values) <= 5 for name, values in brief["status"]["history"].items() if name != "end")
    assert [moment["text"] for moment in brief["moments"]] == ["unplugged"]
    stream.connection.close()
    eventually(lambda: page.sink.app.viewers == 0)


def test_a_picture_comes_as_soon_as_it_is_another_one(page: Page) -> None:
    asked = in_background(lambda: page.ask("/frame.jpg?source=1&after=-1"))
    eventually(lambda: page.sink.preview.waiting(0) == 1)
    one = page.frame()
    reply = asked()
    assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
    assert int(reply.headers["x-edge-seq"]) == one.frame.sequence
    assert float(reply.headers["x-edge-age-ms"]) >= 20
    assert decoded(reply.body).shape == (48, 64, 3)
    again = page.ask(f"/frame.jpg?after={one.frame.sequence - 1}")  # for somebody else: it is fresh
    assert again.body == reply.body
    assert page.sink.preview.encoded == 1


def test_no_picture_came(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.app.PATIENCE_S", 0.05)
    assert page.ask("/frame.jpg").status == 204
    page.frame(source="b")
    assert page.ask("/frame.jpg?source=1").status == 204


def test_an_old_picture_is_given_only_when_no_other_comes(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = in_background(lambda: page.ask("/frame.jpg"))
    eventually(lambda: page.sink.preview.waiting(0) == 1)
    page.frame()
    assert asked().status == 200
    monkeypatch.setattr("edge.web.app.PATIENCE_S", 0.1)
    monkeypatch.setattr("edge.web.preview.FRESH_S", 0.0)
    assert page.ask("/frame.jpg").headers["x-edge-seq"] == "1"
    assert page.ask("/frame.jpg?after=1").status == 204
    monkeypatch.setattr("edge.web.app.PATIENCE_S", 5.0)
    asked = in_background(lambda: page.ask("/frame.jpg"))
    eventually(lambda: page.sink.preview.waiting(0) == 1)
    monkeypatch.setattr("edge.web.preview.FRESH_S", 1.0)
    page.frame()
    assert asked().headers["x-edge-seq"] == "2"


def test_a_stream_for_other_programs(page: Page) -> None:
    stream = page.stream("/stream.mjpg?source=2")
    assert b"content-type: multipart/x-mixed-replace; boundary=edge-frame" in stream.until(b"--edge-frame\r\n")
    for number in range(1, 4):
        eventually(lambda: page.sink.preview.waiting(1) == 1)
        page.frame(source="b")
        parts = stream.until(b"--edge-frame\r\n", number + 1)
        eventually(lambda: page.sink.preview._due_s[1] <= time.monotonic())
    head, _, rest = parts.split(b"--edge-frame\r\n")[-2].partition(b"Content-Type: image/jpeg\r\n")[2].partition(b"\r\n\r\n")
    assert decoded(rest).shape == (48, 64, 3)
    assert head.startswith(b"Content-Length: ")
    assert page.sink.preview.encoded == 3


def test_a_thumbnail_of_a_moment(page: Page) -> None:
    page.frame(action="offload")
    eventually(lambda: page.sink.moments.newest())
    moment = page.ask("/status.json").json["moments"][0]
    assert (moment["kind"], moment["source"], moment["picture"]) == ("offload", 1, True)
    reply = page.ask(f"/moments/{moment['id']}.jpg")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
    assert "immutable" in reply.headers["cache-control"]
    assert decoded(reply.body).shape == (48, 64, 3)
    for name in ("99.jpg", "1.png", "1"):
        assert page.ask(f"/moments/{name}").status == 404
    assert page.ask("/moments/x.jpg").status == 400
    assert page.ask(f"/moments/{'9' * 5000}.jpg").status == 400


def test_no_moment_has_the_number_of_one_of_an_earlier_run(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser keeps its picture for a day, and a board without a battery begins at the same time again."""
    monkeypatch.setattr("time.time", lambda: 1.7e9)
    with serving() as first, serving() as second:
        for one in (first, second):
            one.see(Notice("control", "web", "paused", 1.7e9))
        ids = [one.sink.moments.newest()[0].id for one in (first, second)]
    assert ids[0] != ids[1]
    assert max(ids) < 2**53  # a number of JavaScript


class Rule:
    """A policy with a threshold."""

    threshold = 0.5


def test_controls_are_turned() -> None:
    rule, gate = Rule(), MotionGate()
    controls = Controls(Pace(2), [rule], [gate], score_threshold=0.25)  # type: ignore[list-item]
    with serving(controls=controls) as page:
        reply = page.turn({"threshold": 0.6, "paused": True})
        assert (reply.status, reply.json) == (
            200,
            reply.json | {"paused": True, "threshold": 0.6, "score_threshold": 0.25, "gate": True},
        )
        assert page.turn({"gate": False}).json["gate"] is False
        assert page.turn({"score_threshold": 1}).json["score_threshold"] == 1
    assert (rule.threshold, gate.enabled, controls.paused) == (0.6, False, True)
    assert {notice.about for notice in controls.notices} == {"web"}


@pytest.mark.parametrize(
    ("wish", "status", "error"),
    [
        ({"threshold": 0.5}, 409, "nothing is offloaded by a threshold here"),
        ({"score_threshold": 0.5}, 409, "there is no score threshold to set here"),
        ({"gate": True}, 409, "there is no motion gate here"),
        ({"threshold": 1.5}, 400, "threshold: 1.5: expected a number from 0 to 1"),
        ({"threshold": "high"}, 400, "Expected `float`, got `str` - at `$.threshold`"),
        ({"paused": 1}, 400, "Expected `bool`, got `int` - at `$.paused`"),
        ({"volume": 11}, 400, "Object contains unknown field `volume`"),
        ({}, 400, "expected one of paused, threshold, score_threshold, gate"),
        ([], 400, "Expected `object`, got `array`"),
    ],
)  # fmt: skip
def test_controls_that_cannot_be(page: Page, wish: object, status: int, error: str) -> None:
    reply = page.turn(wish)
    assert (reply.status, reply.json) == (status, {"error": error})


def test_all_that_is_asked_for_or_nothing(page: Page) -> None:
    assert page.turn({"paused": True, "threshold": 0.5}).status == 409
    assert not page.monitor.controls.paused


def test_bodies_are_short_and_in_time(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.messages.BODY_S", 0.05)
    assert page.ask("/controls", "POST", b" " * 5000, Content_Type="application/json").status == 413
    connection = page.connect()
    head = f"POST /controls HTTP/1.1\r\nHost: localhost:{page.port}\r\nContent-Type: application/json\r\n"
    connection.sendall(head.encode() + b"Content-Length: 9\r\n\r\n{")
    answer = b""
    while more := connection.recv(4096):  # it is also closed
        answer += more
    assert answer.startswith(b"HTTP/1.1 408")


def test_health_is_told_without_details(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (page.ask("/healthz").status, page.ask("/healthz").body) == (503, b"no result for a while\n")
    page.frame()
    page.sink.app._status = None
    assert (page.ask("/healthz").status, page.ask("/healthz").body) == (200, b"ok\n")
    monkeypatch.setattr("edge.web.app.HEALTHY_S", 0.0)
    assert page.ask("/healthz").status == 503


def test_a_paused_loop_is_healthy(page: Page) -> None:
    page.turn({"paused": True})
    assert page.ask("/healthz").status == 200


def test_metrics(page: Page) -> None:
    pytest.importorskip("edge.web.metrics")
    page.frame()
    reply = page.ask("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    assert b"edge_" in reply.body


def test_head_says_what_would_come(page: Page) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/updates", "text/event-stream"),
        ("/frame.jpg", "image/jpeg"),
        ("/stream.mjpg", "multipart/x-mixed-replace"),
    ):
        reply = page.ask(path, "HEAD")
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["content-type"].startswith(kind)


def test_a_failure_is_one_line_and_the_page_goes_on(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.monitor, "status", lambda: 1 / 0)
    for _ in range(2):
        reply = page.ask("/status.json")
        assert (reply.status, reply.body) == (500, b"the page failed; the loop goes on\n")
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert page.said[1:] == ["web: /status.json: ZeroDivisionError: division by zero"]
    assert page.ask("/").status == 200


def test_what_was_asked_for_cannot_write_on_the_terminal(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.app.whole", lambda text: 1 / 0)
    assert page.ask("/moments/%1b%5b2J%0aedge-run: all is well.jpg".replace(" ", "%20")).status == 500
    assert page.said[1:] == ["web: /moments/ [2J edge-run: all is well.jpg: ZeroDivisionError: division by zero"]


def test_masks_are_in_the_preview(page: Page) -> None:
    scene = Scene(Threshold(0.5), PrivacyMask([parse_region("0.5,0.5,1,1")]))
    asked = in_background(lambda: page.ask("/frame.jpg"))
    eventually(lambda: page.sink.preview.waiting(0) == 1)
    white = frame(plain(255, 320, 240))
    scene.look(white)
    page.frame(white.image)
    shown = decoded(asked().body)
    assert shown[130:, 170:].max() < 20
    assert shown[130:, :150].min() > 200
