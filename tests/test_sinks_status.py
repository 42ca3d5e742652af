"""The status line: calm, of a fixed shape, never stale, and gone at the end; through a terminal, too."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge.sinks.queued import QueuedSink, without_picture
from edge.sinks.status import StatusSink, status_stream
from edge.terminal import display_width
from edge.types import Notice, NoticeKind
from tests.samples import detections, event, frame
from tests.screen import Screen

BOX = (0.0, 0.0, 8.0, 8.0)


class Camera:
    """A sink, and a clock at which frames are shown to it."""

    def __init__(self, *names: str, **more: object) -> None:
        self.s = 1000.0
        self.sequence = 0
        self.sink = StatusSink(names, clock=lambda: self.s, **more)  # type: ignore[arg-type]

    def frames(self, count: int, every_s: float = 0.1, source: str = "camera:0", **more: object) -> None:
        for _ in range(count):
            self.s += every_s
            seen = frame(sequence=self.sequence, captured_s=self.s - 0.02, source=source)
            self.sink.emit(event(seen, **more))  # type: ignore[arg-type]
            self.sequence += 1

    def answers(self, sequence: int, source: str = "camera:0") -> None:
        self.sink.emit(event(frame(sequence=sequence, source=source), revises=True, scores=(0.9,), emitted_s=self.s))

    def notice(self, kind: NoticeKind, about: str = "camera:0", text: str = "") -> None:
        self.sink.emit(Notice(kind, about, text, 1.7e9))

    def line(self, width: int = 120) -> str:
        return self.sink.line(self.s, width)


def test_what_it_tells_of_one_source() -> None:
    camera = Camera("camera:0")
    assert camera.line() == "  0.0 frames/s  waiting for the first frame"
    camera.frames(50)
    assert camera.line() == " 10.0 frames/s     20 ms   75% class 0"
    camera.sink.emit(
        replace(event(frame(captured_s=camera.s, source="camera:0")), result=detections(("cat", 0.9, BOX), ("cat", 0.8, BOX)))
    )
    assert camera.line().endswith("  2 cat")


def test_numbers_do_not_move_what_stands_after_them() -> None:
    camera = Camera("camera:0", dropped=lambda: camera.sequence)
    starts = set()
    for every_s, scores in ((0.1, (0.75,)), (0.005, (0.05,)), (0.5, (1.0,)), (0.013, (0.999,))):
        camera.frames(20, every_s, scores=scores)
        starts.add(camera.line().index("class 0"))
    assert len(starts) == 1


def test_at_most_four_times_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    camera = Camera("camera:0")
    camera.frames(1000, 0.01)
    camera.sink.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert 35 <= shown.err.count("\r") <= 42
    assert shown.err.endswith("\r\x1b[K")
    assert camera.sink.lost == 0
    assert not camera.sink.wants_images


def test_a_camera_that_is_away_does_not_leave_the_line_stale(capsys: pytest.CaptureFixture[str]) -> None:
    camera = Camera("camera:0")
    camera.frames(50)
    camera.notice("source-stalled")
    camera.s += 2
    camera.notice("source-lost", text="unplugged; trying again until it is back")
    for _ in range(20):
        camera.s += 0.5
        assert camera.sink.idle()
    assert camera.line() == "  0.0 frames/s     20 ms  camera:0 away 12 s"
    assert "camera:0 away 12 s" in Screen().feed(capsys.readouterr().err).lines[0]
    camera.s += 100
    assert camera.line().endswith("camera:0 away  1 min")
    camera.notice("source-open")
    assert camera.line().endswith("no frame for  1 min")
    camera.frames(1)
    assert camera.line().endswith("75% class 0")


def test_a_frame_shows_that_a_source_is_back_unless_it_is_an_older_one() -> None:
    camera = Camera("camera:0")
    camera.notice("source-stalled")
    old = event(frame(captured_s=camera.s - 1, source="camera:0"), emitted_s=camera.s)
    camera.sink.emit(old)
    assert "away" in camera.line()
    camera.frames(1)
    assert "away" not in camera.line()


def test_several_sources_are_summed_up_and_have_their_turns() -> None:
    camera = Camera("door", "yard", "road")
    for _ in range(20):
        camera.frames(1, 0.05, "door")
        camera.frames(1, 0.05, "yard", scores=(0.25,))
    camera.notice("source-lost", "road", "no such device")
    seen = set()
    for _ in range(36):
        camera.s += 0.25
        camera.frames(1, 0.0, "door")
        camera.frames(1, 0.0, "yard", scores=(0.25,))
        line = camera.line()
        assert line.startswith("2 of 3 alive  ")
        seen.add(re.sub(r" +\d+ s$", "", line.split(" ms  ")[1]))
    assert seen == {"door:  75% class 0", "yard:  25% class 0", "road away"}
    camera.notice("source-ended", "yard")
    assert camera.line().startswith("1 of 3 alive")


def test_the_cloud() -> None:
    camera = Camera("camera:0")
    camera.frames(1)
    assert "cloud" not in camera.line()
    camera.frames(1, action="offload")
    assert "asking the cloud" in camera.line()
    camera.answers(1)
    assert "cloud answers    1" in camera.line()
    assert camera.line().endswith(" 90% class 0")  # it is about the frame that stands there
    camera.frames(1, action="offload")
    assert "cloud answers    1" in camera.line()  # it would come and go with each frame
    camera.frames(11)
    assert "asking the cloud" in camera.line()
    camera.notice("endpoint-lost", "https://example")
    camera.frames(30)
    assert "endpoint away  3 s" in camera.line()
    camera.notice("endpoint-back", "https://example")
    camera.frames(100)
    assert "cloud answers    1" in camera.line()  # what was not answered is not waited for
    starts = {camera.line().index("class 0")}
    camera.notice("endpoint-lost", "https://example")
    starts.add(camera.line().index("class 0"))
    assert len(starts) == 1


def test_drops_of_the_last_seconds() -> None:
    dropped = [0]
    camera = Camera("camera:0", dropped=lambda: dropped[0])
    camera.frames(30)
    assert "dropped" not in camera.line()
    dropped[0] = 7
    camera.frames(10)
    assert "   7 dropped" in camera.line()
    camera.frames(70)
    assert "   0 dropped" in camera.line()


def test_the_governor_and_a_pause() -> None:
    camera = Camera("camera:0")
    camera.frames(10)
    camera.notice("governor", "temperature", "62.1 °C of 60: 5 frames/s, gate 1.5x")
    assert "governor: 5 frames/s, gate 1.5x" in camera.line()
    camera.notice("governor", "temperature", "50.0 °C of 60: all frames")
    assert "governor" not in camera.line()
    camera.notice("control", "the live page", "paused")
    camera.s += 60
    assert camera.line().startswith("paused  ")
    assert "no frame" not in camera.line()
    camera.notice("control", "the live page", "threshold 0.4, was 0.5")
    assert camera.line().startswith("paused  ")
    camera.notice("control", "the live page", "goes on")
    assert "paused" not in camera.line()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_narrow_window_keeps_room_for_the_result(width: int) -> None:
    camera = Camera("door", "猫の扉", dropped=lambda: 3)
    camera.frames(10, source="door", action="offload")
    camera.frames(10, source="猫の扉")
    camera.notice("governor", "temperature", "62.1 °C of 60: 5 frames/s, gate 1.5x")
    line = camera.line(width)
    assert "frames/s" in line
    assert ("governor" in line) == (width == 200)
    if width >= 40:
        assert display_width(line) <= width
        assert "class 0" in line


def test_control_characters_in_names_reach_no_terminal() -> None:
    camera = Camera("bad\x1b[2J\nname", "other")
    camera.notice("source-lost", "bad\x1b[2J\nname")
    camera.notice("source-lost", "other")
    camera.s = 1002.0
    assert camera.line().isprintable()


# through a terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, io.TextIOWrapper]]:
    monkeypatch.setenv("TERM", "xterm")
    outside, inside = pty.openpty()
    with os.fdopen(inside, "w", encoding="utf-8") as stream:
        yield outside, stream
    os.close(outside)


def test_the_window_is_resized(terminal: tuple[int, io.TextIOWrapper]) -> None:
    outside, stream = terminal
    camera = Camera("camera:0", stream=stream)
    for width in (80, 30, 120):
        fcntl.ioctl(stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        screen = Screen(width)
        camera.frames(20, scores=(0.5,) * 9)
        screen.feed(os.read(outside, 65536).decode())
        assert len(screen.rows) == 1
        assert screen.widest < width
    camera.sink.close()
    assert screen.feed(os.read(outside, 4096).decode()).lines == []


def test_on_a_thread_of_its_own_it_goes_on_without_events(terminal: tuple[int, io.TextIOWrapper]) -> None:
    outside, stream = terminal
    said: list[str] = []
    sink = QueuedSink(StatusSink(["camera:0"], stream=stream), "status", said.append, waits=False, lossy=True)
    sink.emit(without_picture(event(frame(captured_s=time.monotonic(), source="camera:0"), emitted_s=time.monotonic())))
    sink.emit(Notice("source-lost", "camera:0", "unplugged", 1.7e9))
    seen = ""
    while "camera:0 away  0 s" not in seen:  # by `idle`, half a second after the last event
        seen += os.read(outside, 65536).decode()
    sink.close()
    seen += os.read(outside, 65536).decode()
    assert Screen().feed(seen).lines == []
    assert not said


def test_where_it_can_stand(terminal: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    stream = terminal[1]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, open(f"{tmp_path}/file", "w") as file, open(os.devnull, "w") as nowhere:
        for err, out, to_stdout, found in (
            (stream, stream, False, stream),
            (stream, stream, True, None),  # events stand there
            (stream, pipe, False, stream),
            (stream, pipe, True, None),  # its reader may print on the same terminal
            (stream, file, True, stream),
            (stream, nowhere, True, stream),
            (file, stream, False, stream),
            (pipe, stream, True, None),
            (file, pipe, False, None),
            (None, stream, False, stream),
            (stream, None, False, stream),
        ):
            monkeypatch.setattr(sys, "stderr", err)
            monkeypatch.setattr(sys, "stdout", out)
            assert status_stream(to_stdout) is found
        monkeypatch.undo()
