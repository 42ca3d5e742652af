"""Pictures are drawn and encoded once, and only when somebody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import numpy as np
import pytest
from starlette.types import Message

from edge.web.app import PATIENCE_S
from edge.web.messages import Streamed
from edge.web.preview import LONGEST_SIDE, Preview, drawn, encoded
from tests.samples import detections, event, frame, picture, plain
from tests.web.serving import Page, Stream, decoded, eventually, in_background, serving


def test_nobody_looks_and_nothing_is_encoded(page: Page) -> None:
    for _ in range(50):
        one = page.frame(picture())
        assert not page.sink.wants(one)
    assert page.sink.preview.encoded == 0
    assert page.sink.moments.newest() == []


def test_five_viewers_share_each_picture(page: Page) -> None:
    streams = [page.stream("/stream.mjpg?source=1") for _ in range(5)]
    for stream in streams:
        stream.until(b"--edge-frame\r\n")
    for number in range(1, 6):
        eventually(lambda: page.sink.preview.waiting(0) == 5)
        eventually(lambda: page.sink.preview.due(0))
        page.frame()
        for stream in streams:
            stream.until(b"--edge-frame\r\n", number + 1)
    assert page.sink.preview.encoded == 5
    first = streams[0].heard.partition(b"--edge-frame")[2]
    assert all(stream.heard.partition(b"--edge-frame")[2] == first for stream in streams)


def test_a_viewer_of_one_source_wants_no_other(page: Page) -> None:
    page.stream("/stream.mjpg?source=1").until(b"--edge-frame\r\n")
    eventually(lambda: page.sink.preview.waiting(0) == 1)
    assert not page.sink.wants(event(frame(source="b")))
    assert page.sink.wants(event(frame(source="a")))


def test_a_slow_viewer_holds_up_nobody_and_skips(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (720, 960, 3), np.uint8)  # about a megabyte each
    slow = page.stream("/stream.mjpg")
    fast = page.stream("/stream.mjpg")
    slow.until(b"--edge-frame\r\n")
    fast.until(b"--edge-frame\r\n")
    for number in range(1, 13):
        eventually(lambda: page.sink.preview.waiting(0) >= 1 and page.sink.preview.due(0))
        page.frame(noise)
        fast.until(b"--edge-frame\r\n", number + 1)
    held = [one.transport.get_write_buffer_size() for one in page.sink.server._state.connections]
    assert max(held) < 2 * len(fast.heard) / 12  # one picture, of twelve
    slow.until(b"Content-Length")
    assert slow.heard.count(b"--edge-frame\r\n") < 12


def test_who_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.server.SEND_S", 0.1)
    noise = np.random.default_rng(0).integers(0, 256, (720, 960, 3), np.uint8)
    with serving() as page:
        page.stream("/stream.mjpg").until(b"--edge-frame\r\n")
        eventually(lambda: page.sink.preview.waiting(0) == 1)
        page.frame(noise)
        eventually(lambda: page.sink.server.connections == 0)
        eventually(lambda: page.sink.app.viewers == 0)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("camera_fps", "expected"), [(30, 50), (7, 50), (3, 30)])
def test_at_most_so_many_pictures_a_second(camera_fps: int, expected: int) -> None:
    clock = Clock()
    preview = Preview(1, 5.0, clock=clock)
    preview._waiting[0][False] = 1
    for number in range(10 * camera_fps):
        clock.now_s = 100 + number / camera_fps
        if preview.due(0):
            preview.show(0, event(frame(sequence=number, captured_s=clock.now_s)))
    assert expected - 1 <= preview.encoded <= expected


def test_the_frame_is_not_written_into() -> None:
    for size in ((64, 48), (1920, 1080), (1000, 3000)):
        image = picture(*size)
        before = image.copy()
        one = replace(event(frame(image)), result=detections(("cup", 0.9, (0, 0, size[0], size[1]))))
        shown = drawn(one, LONGEST_SIDE)
        assert not np.shares_memory(shown, image)
        assert max(shown.shape) <= max(LONGEST_SIDE, 64)
        assert (image == before).all()
        assert (shown[0] != 0).any()


def test_boxes_are_where_they_belong_in_a_smaller_picture() -> None:
    one = replace(event(frame(plain(0, 1920, 1080))), result=detections(("cup", 0.9, (960, 540, 1440, 810))))
    shown = drawn(one, LONGEST_SIDE)
    assert shown.shape == (540, 960, 3)
    assert shown[400, 479:482].any()
    assert not shown[400, 490:700].any()


def test_the_clouds_answer_stands_in_the_pictures_for_a_while() -> None:
    clock = Clock()
    preview = Preview(1, 5.0, clock=clock)
    answer = event(frame(sequence=1), revises=True, served_by="cloud", emitted_s=clock.now_s)
    preview._waiting[0][True] = 1
    preview.revised(0, answer)
    held = preview._revisions[0]
    assert held is not None
    assert held.frame.image.size == 0  # a camera's memory is given back
    shown = []
    for later_s in (1.0, 3.0):
        clock.now_s = 100.0 + later_s
        preview.show(0, event(frame(plain(0, 640, 480), sequence=2)))
        shown.append(decoded(preview._newest[0][True].jpeg)[25:44].max())
    assert shown[0] > 100 > shown[1]


def test_words_stand_only_in_pictures_for_those_who_ask_so() -> None:
    preview = Preview(1, 5.0)
    preview._waiting[0].update({False: 1, True: 1})
    preview.show(0, event(frame(plain(90, 640, 480))))
    top = {words: decoded(one.jpeg)[:20] for words, one in preview._newest[0].items()}
    assert (preview.encoded, (top[False] == 90).all()) == (2, True)
    assert top[True].max() > 150
    preview._waiting[0][True] = 0
    preview.show(0, event(frame(plain(90, 640, 480))))
    assert preview.encoded == 3


def test_a_picture_that_cannot_be_encoded_is_an_error_of_the_sink() -> None:
    with pytest.raises(Exception, match=r"encode|empty"):
        encoded(np.empty((0, 0, 3), np.uint8), 80)


def test_a_page_asks_for_one_picture_after_the_other(page: Page) -> None:
    after = -1
    for _ in range(3):
        asked = in_background(lambda after=after: page.ask(f"/frame.jpg?after={after}"))
        eventually(lambda: page.sink.preview.waiting(0) == 1 and page.sink.preview.due(0))
        page.frame()
        newer = int(asked().headers["x-edge-seq"])
        assert newer > after
        after = newer


def test_who_goes_while_waiting_keeps_no_place(page: Page) -> None:
    waiting = page.stream("/frame.jpg")
    eventually(lambda: page.sink.preview.waiting(0) == 1)
    begun_s = time.monotonic()
    waiting.connection.close()
    eventually(lambda: (page.sink.app._waiting, page.sink.preview.waiting(0)) == (0, 0))
    assert time.monotonic() - begun_s < PATIENCE_S / 2
    assert not page.sink.wants(page.frame())


@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_a_viewer_who_goes_is_noticed_whatever_the_server_claims(version: str) -> None:
    """By ASGI 2.4 sending to nobody raises OSError; uvicorn 0.30 and 0.31 claim 2.4, and send in silence."""
    left: list[bool] = []

    async def parts() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"more"
            await asyncio.sleep(0.001)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    answer = Streamed(parts(), "text/plain", lambda: left.append(True))
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": version}}
    asyncio.run(asyncio.wait_for(answer(scope, receive, send), 2))
    assert left == [True]


def test_viewers_are_counted_and_limited(page: Page) -> None:
    streams: list[Stream] = [page.stream("/updates") for _ in range(8)]
    for stream in streams:
        stream.until(b"event: status")
    refused = page.ask("/stream.mjpg")
    assert (refused.status, refused.headers["retry-after"], refused.body) == (503, "2", b"too many viewers\n")
    waiting = [page.stream("/frame.jpg") for _ in range(4)]
    eventually(lambda: page.sink.preview.waiting(0) == 4)
    assert page.ask("/frame.jpg").status == 503
    assert page.ask("/status.json").json["session"]["viewers"] == 8  # a place is left for those who do not stay
    streams[0].connection.close()
    eventually(lambda: page.sink.app.viewers == 7)
    page.frame()
    for one in waiting:
        one.until(b"image/jpeg")
