"""Where events go: JSON lines and annotated video."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from edge.errors import UsageError
from edge.events import encode_event, event_schema
from edge.sinks.caption import caption
from edge.sinks.jsonl import JsonlSink, ReaderGoneError
from edge.sinks.queued import QueuedSink
from edge.sinks.video import CODECS, PLATES, VideoSink, annotate
from edge.types import Event, Notice, UInt8
from tests.samples import detections, event, frame, picture, plain

NOTICE = Notice("source-lost", "camera", "unplugged; trying again until it is back", 1.7e9)


def jsonl(target: Path | str, **more: int) -> tuple[JsonlSink, list[str]]:
    said: list[str] = []
    return JsonlSink(str(target), said.append, **more), said


def events(count: int, first: int = 0) -> list[Event]:
    return [event(frame(sequence=number, captured_s=number / 10)) for number in range(first, first + count)]


def records(path: Path) -> list[dict[str, object]]:
    """The lines that are whole events."""
    validator = jsonschema.Draft202012Validator(event_schema())
    found = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        validator.validate(record)
        found.append(record)
    return found


# JSON lines


def test_lines_parse_and_follow_the_schema(tmp_path: Path) -> None:
    sink, said = jsonl(tmp_path / "events.jsonl")
    for one in events(3):
        sink.emit(one)
    sink.emit(event(frame(sequence=1), revises=True, served_by="cloud", variant=""))
    sink.close()
    raw = (tmp_path / "events.jsonl").read_bytes()
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 4
    found = records(tmp_path / "events.jsonl")
    assert [(record["seq"], record["revises"]) for record in found] == [(0, False), (1, False), (2, False), (1, True)]
    assert (sink.lost, said) == (0, [])


def test_notices_are_lines_too(tmp_path: Path) -> None:
    sink, _ = jsonl(tmp_path / "e")
    for one in (event(), NOTICE):
        sink.emit(one)
    sink.close()
    assert [record["kind"] for record in records(tmp_path / "e")] == ["frame", "notice"]


def test_a_line_is_there_as_soon_as_it_is_emitted(tmp_path: Path) -> None:
    sink, _ = jsonl(tmp_path / "e")
    for number, one in enumerate(events(3), start=1):
        sink.emit(one)
        assert len(records(tmp_path / "e")) == number
    sink.close()


def test_lines_are_appended(tmp_path: Path) -> None:
    for first in (0, 2):
        sink, _ = jsonl(tmp_path / "e")
        for one in events(2, first):
            sink.emit(one)
        sink.close()
    assert [record["seq"] for record in records(tmp_path / "e")] == [0, 1, 2, 3]


@pytest.mark.parametrize("torn", [b'{"seq": 4, "sou', b'{"seq":4}\n{', b"x"])
def test_a_line_torn_by_a_power_cut_does_not_swallow_the_next(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "e").write_bytes(torn)
    sink, _ = jsonl(tmp_path / "e")
    for one in events(2):
        sink.emit(one)
    sink.close()
    lines = (tmp_path / "e").read_bytes().splitlines()
    assert [json.loads(line)["seq"] for line in lines[-2:]] == [0, 1]
    assert len(lines) == len(torn.splitlines()) + 2


def test_a_full_disk_is_counted_and_said_once() -> None:
    sink, said = jsonl("/dev/full")
    for one in events(5):
        sink.emit(one)
    sink.close()
    assert sink.lost == 5
    assert len(said) == 1
    assert "/dev/full: No space left on device" in said[0]
    assert "\n" not in said[0]


class Disk:
    """os.write whose next writes take as many bytes as `takes` says (None: all); 0 raises that the disk is full."""

    def __init__(self, *takes: int | None) -> None:
        self._takes = list(takes)
        self._write = os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        take = self._takes.pop(0) if self._takes else None
        if take == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(descriptor, data[:take])


@pytest.mark.parametrize(
    ("takes", "written", "lost", "said"),
    [
        ((), [0, 1, 2, 3], 0, 0),
        ((10, None), [0, 1, 2, 3], 0, 0),  # in two parts
        ((1, 1, 1, None), [0, 1, 2, 3], 0, 0),
        ((0,), [1, 2, 3], 1, 2),  # full, then written again
        ((0, 0, 0), [3], 3, 2),
        ((10, 0), [1, 2, 3], 1, 2),  # torn, then written again
        ((10, 0, 0, 0), [3], 3, 2),
        ((10, 0, 1, 0), [2, 3], 2, 2),  # torn again right behind the line's end
        ((10, 0, 20, 0), [2, 3], 2, 2),
        ((None, 10, 0), [0, 2, 3], 1, 2),
        ((0, None, 0, None), [1, 3], 2, 4),  # each bout is said
    ],
)
def test_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: tuple[int | None, ...], written: list[int], lost: int, said: int
) -> None:
    sink, lines = jsonl(tmp_path / "e")
    with monkeypatch.context() as patch:
        patch.setattr("edge.sinks.jsonl.os.write", Disk(*takes))
        for one in events(4):
            sink.emit(one)
    sink.close()
    assert [record["seq"] for record in records(tmp_path / "e")] == written
    assert sink.lost == lost
    assert len(lines) == said
    assert (tmp_path / "e").read_bytes().endswith(b"\n")


def test_how_many_were_lost_is_said_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, said = jsonl(tmp_path / "e")
    with monkeypatch.context() as patch:
        patch.setattr("edge.sinks.jsonl.os.write", Disk(0, 0))
        for one in events(3):
            sink.emit(one)
    sink.close()
    assert "No space left" in said[0]
    assert "2 events were lost" in said[1]


def test_a_reader_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        sink, _ = jsonl("-")
        sink.emit(event())
        assert json.loads(os.read(reader, 10_000))["seq"] == 0
        os.close(reader)
        with pytest.raises(ReaderGoneError):
            sink.emit(event())
        sink.close()
        os.fstat(stdout.fileno())  # left open


# rotation


def line_bytes() -> int:
    """Of the events that `events` makes from number 10 to 99."""
    return len(encode_event(events(1, 10)[0]))


def test_no_line_is_lost_over_many_rotations(tmp_path: Path) -> None:
    limit = 8 * line_bytes()
    sink, said = jsonl(tmp_path / "e", rotate_bytes=limit, keep=1000)
    for one in events(1000):
        sink.emit(one)
    sink.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:] or 0))
    assert files[-1].name == "e"
    assert [path.name for path in files[-4:-1]] == ["e.3", "e.2", "e.1"]
    assert [record["seq"] for path in files for record in records(path)] == list(range(1000))
    for path in files:
        assert path.read_bytes().endswith(b"\n")
        assert path.stat().st_size <= limit
    assert 100 < len(files) < 200
    assert (sink.lost, said) == (0, [])


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_only_the_newest_files_are_kept(tmp_path: Path, keep: int) -> None:
    for number in (keep + 1, keep + 2):  # from a run that kept more
        (tmp_path / f"e.{number}").write_bytes(b"old\n")
    sink, said = jsonl(tmp_path / "e", rotate_bytes=2 * line_bytes(), keep=keep)
    for one in events(20, first=10):
        sink.emit(one)
    sink.close()
    assert {path.name for path in tmp_path.iterdir()} == {"e", *(f"e.{number}" for number in range(1, keep + 1))}
    files = [tmp_path / f"e.{number}" for number in range(keep, 0, -1)] + [tmp_path / "e"]
    assert [record["seq"] for path in files for record in records(path)] == list(range(30 - 2 * (keep + 1), 30))
    assert (sink.lost, said) == (0, [])


def test_a_gap_in_the_numbers_is_filled_first(tmp_path: Path) -> None:
    (tmp_path / "e.1").write_bytes(b"one\n")
    (tmp_path / "e.3").write_bytes(b"three\n")  # the power went between two renames
    sink, _ = jsonl(tmp_path / "e", rotate_bytes=1, keep=3)
    for one in events(2):
        sink.emit(one)
    sink.close()
    assert (tmp_path / "e.2").read_bytes() == b"one\n"
    assert (tmp_path / "e.3").read_bytes() == b"three\n"


def test_a_file_that_is_too_long_already_and_lines_longer_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"{}\n" * 100)
    sink, said = jsonl(tmp_path / "e", rotate_bytes=10, keep=5)
    for one in events(3):
        sink.emit(one)
    sink.close()
    assert (tmp_path / "e.3").read_bytes() == b"{}\n" * 100
    assert [record["seq"] for name in ("e.2", "e.1", "e") for record in records(tmp_path / name)] == [0, 1, 2]
    assert (sink.lost, said) == (0, [])


def test_a_torn_line_is_closed_before_the_file_is_rotated(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b'{"seq": 4')
    sink, _ = jsonl(tmp_path / "e", rotate_bytes=5)
    for one in events(2):
        sink.emit(one)
    sink.close()
    assert [record["seq"] for record in records(tmp_path / "e.1")] == [0]
    assert [record["seq"] for record in records(tmp_path / "e")] == [1]
    assert (tmp_path / "e.1").read_bytes().startswith(b'{"seq": 4\n')


def test_a_rename_that_fails_is_said_once_and_the_file_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    sink, said = jsonl(tmp_path / "e", rotate_bytes=10)
    with monkeypatch.context() as patch:
        patch.setattr("edge.sinks.jsonl.os.replace", refuse)
        for one in events(4):
            sink.emit(one)
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    assert said == [f"events: {tmp_path / 'e'}: cannot be rotated: Permission denied; it goes on in the same file"]
    for one in events(1, first=4):
        sink.emit(one)
    sink.close()
    assert [record["seq"] for record in records(tmp_path / "e.1")] == [0, 1, 2, 3]
    assert [record["seq"] for record in records(tmp_path / "e")] == [4]
    assert (sink.lost, len(said)) == (0, 1)


def test_a_new_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sink, said = jsonl(tmp_path / "e", rotate_bytes=10)
    sink.emit(events(1)[0])
    with monkeypatch.context() as patch:
        patch.setattr("edge.sinks.jsonl.os.open", refuse)
        for one in events(2, first=1):
            sink.emit(one)
    for one in events(1, first=3):
        sink.emit(one)
    sink.close()
    assert [record["seq"] for record in records(tmp_path / "e.1")] == [0, 1, 2]  # what was open went on
    assert [record["seq"] for record in records(tmp_path / "e")] == [3]
    assert (sink.lost, len(said)) == (0, 1)


def test_a_file_that_someone_else_has_moved_is_not_ours_to_rename(tmp_path: Path) -> None:
    sink, said = jsonl(tmp_path / "e", rotate_bytes=10)
    sink.emit(events(1)[0])
    (tmp_path / "e").rename(tmp_path / "moved")
    (tmp_path / "e").write_bytes(b"theirs\n")
    sink.emit(events(1, first=1)[0])
    sink.close()
    assert {path.name for path in tmp_path.iterdir()} == {"e", "moved"}
    assert (tmp_path / "e").read_bytes().startswith(b"theirs\n")
    assert [record["seq"] for record in records(tmp_path / "e")] == [1]
    assert (sink.lost, said) == (0, [])


def test_a_link_goes_on_pointing_at_the_newest_file(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "e")
    sink, _ = jsonl(tmp_path / "link", rotate_bytes=10)
    for one in events(2):
        sink.emit(one)
    sink.close()
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"e", "e.1"}
    assert [record["seq"] for record in records(tmp_path / "link")] == [1]


def test_what_is_no_file_of_ours_is_not_rotated(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with (tmp_path / "out").open("wb") as out:
        for target in (str(tmp_path / "fifo"), "/dev/null", f"/dev/fd/{out.fileno()}"):
            sink, said = jsonl(target, rotate_bytes=10)
            for one in events(3):
                sink.emit(one)
            sink.close()
            assert (sink.lost, said) == (0, [])
    assert os.read(reader, 100_000).count(b"\n") == 3
    os.close(reader)
    assert {path.name for path in tmp_path.iterdir()} == {"fifo", "out"}
    assert len(records(tmp_path / "out")) == 3


@pytest.mark.parametrize("target", ["folder.mp4", "no/such/folder/e.mp4", "file/e.mp4", "x" * 300 + ".mp4"])
@pytest.mark.parametrize("sink", ["events", "video"])
def test_places_that_cannot_be_written(tmp_path: Path, target: str, sink: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"--{sink} .*choose a file that can be written") as error:
        jsonl(tmp_path / target) if sink == "events" else VideoSink(str(tmp_path / target), 10.0)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


# video


@pytest.mark.parametrize("suffix", [*CODECS, ".MP4"])
def test_a_video_can_be_read_again(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(str(path), 10.0)
    for number in range(7):
        sink.emit(event(frame(picture(160, 120, seed=number), number)))
    sink.close()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    found = []
    while (read := capture.read())[0]:
        found.append(read[1])
    capture.release()
    assert len(found) == 7
    for number, image in enumerate(found):
        assert image.shape == (120, 160, 3)
        below = image[60:].astype(int) - picture(160, 120, seed=number)[60:]
        assert np.abs(below).mean() < 20
    assert sink.lost == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("on_a_thread", [False, True])
def test_of_several_sources_the_first_to_come_is_shown(tmp_path: Path, on_a_thread: bool) -> None:
    said: list[str] = []
    video = VideoSink(str(tmp_path / "a.avi"), 10, said.append)
    sink = QueuedSink(video, "video", said.append, depth=2, waits=True) if on_a_thread else video
    sink.emit(NOTICE)
    for number in range(6):
        sink.emit(event(frame(plain(90), number, source=("yard", "gate")[number % 2])))
    sink.emit(event(frame(plain(90), 0, source="gate"), revises=True))
    sink.close()
    assert len(read_back(tmp_path / "a.avi")) == 3
    assert said == [f"video: {tmp_path / 'a.avi'}: shows yard only, no frames of gate or other sources"]
    assert sink.lost == 0


def read_back(path: Path) -> list[tuple[int, ...]]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    shapes = []
    while (read := capture.read())[0]:
        shapes.append(read[1].shape)
    capture.release()
    return shapes


def test_frames_of_other_sizes_are_fitted_to_the_first(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "a.mp4"), None)
    for number, (width, height) in enumerate([(64, 48), (128, 96), (30, 90), (64, 48), (1, 1)]):
        sink.emit(event(frame(picture(width, height), number)))
    sink.close()
    assert read_back(tmp_path / "a.mp4") == [(48, 64, 3)] * 5
    assert sink.lost == 0


def test_odd_sizes_are_written_but_for_their_last_line(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "a.mp4"), 10)
    for number in range(3):
        sink.emit(event(frame(picture(65, 49), number)))
    sink.close()
    shapes = read_back(tmp_path / "a.mp4")
    assert len(shapes) == 3 - sink.lost == 3
    assert shapes[0][0] in (48, 49)
    assert shapes[0][1] in (64, 65)


@pytest.mark.parametrize("fps", [None, 1.0, 14.985, 23.976023976, 29.97, 59.94005994, 240.0, 999.0])
def test_any_rate(tmp_path: Path, fps: float | None) -> None:
    sink = VideoSink(str(tmp_path / "a.mp4"), fps)
    for number in range(3):
        sink.emit(event(frame(picture(), number)))
    sink.close()
    assert len(read_back(tmp_path / "a.mp4")) == 3
    assert sink.lost == 0


def test_a_video_that_cannot_be_encoded_counts_what_it_lost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sink = VideoSink(str(tmp_path / "a.mp4"), 10)
    for number in range(3):
        sink.emit(event(frame(picture(1, 1), number)))
    sink.close()
    assert sink.lost == 3 - len(read_back(tmp_path / "a.mp4"))
    assert capfd.readouterr().err == ""


def test_no_frames_leave_no_broken_process(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "a.mp4"), 10)
    sink.close()
    sink.close()
    assert sink.lost == 0


@pytest.mark.parametrize("name", ["out", "out.gif", "out.mp4.txt", "mp4", ""])
def test_names_that_tell_no_codec(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"give a name ending in \.mp4, \.avi, \.mkv"):
        VideoSink(str(tmp_path / name), 10.0)
    assert list(tmp_path.iterdir()) == []


def test_a_cloud_s_answer_is_shown_and_not_a_frame(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "a.avi"), 10)
    sink.emit(event(frame(plain(90, 320, 240), 0), action="offload"))
    sink.emit(event(frame(plain(90, 320, 240), 0), revises=True, served_by="cloud"))
    sink.emit(event(frame(plain(90, 320, 240), 1)))
    sink.close()
    assert len(read_back(tmp_path / "a.avi")) == 2


def test_annotations() -> None:
    base = plain(90, 320, 240)
    local = annotate(base.copy(), event(frame(base)))
    asking = annotate(base.copy(), event(frame(base), action="offload"))
    revised = annotate(base.copy(), event(frame(base)), event(frame(base), revises=True, served_by="cloud"))
    assert len({base.tobytes(), local.tobytes(), asking.tobytes(), revised.tobytes()}) == 4
    for image in (local, asking, revised):
        np.testing.assert_array_equal(image[100:], base[100:])  # the picture itself stays


BOX = (100.0, 120.0, 200.0, 200.0)


def test_objects_are_drawn_where_they_are() -> None:
    base = plain(90, 320, 240)
    drawn = annotate(base.copy(), replace(event(frame(base)), result=detections(("cat", 0.9, BOX))))
    changed = (drawn[40:] != 90).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert xs.min() == pytest.approx(100, abs=2)
    assert max(xs.max(), 200) == pytest.approx(200, abs=2)
    assert ys.max() + 40 == pytest.approx(200, abs=2)
    assert ys.min() + 40 < 118  # the label stands above
    assert not changed[130 - 40 : 190 - 40, 110:190].any()  # the object itself stays


def test_without_words_nothing_but_the_objects_is_drawn() -> None:
    base = plain(90, 320, 240)
    seen = replace(event(frame(base), action="offload"), result=detections(("cat", 0.9, BOX)))
    drawn = annotate(base.copy(), seen, seen, words=False)
    assert (drawn[:90] == 90).all()
    np.testing.assert_array_equal(drawn[95:], annotate(base.copy(), seen, seen)[95:])
    np.testing.assert_array_equal(annotate(base.copy(), event(frame(base)), words=False), base)


Rectangle = tuple[int, int, int, int]


@pytest.fixture
def plates(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Rectangle]]:
    """Annotates a picture and gives the plates by what stands on them: x, y, width and height."""
    filled: list[Rectangle] = []
    draw, write = cv2.rectangle, cv2.putText
    placed: dict[str, Rectangle] = {}

    def rectangle(image: UInt8, start: Sequence[int], end: Sequence[int], color: Any, thickness: int, *more: Any) -> Any:
        if thickness == cv2.FILLED:
            filled.append((start[0], start[1], end[0] - start[0] + 1, end[1] - start[1] + 1))
        return draw(image, start, end, color, thickness, *more)

    def put_text(image: UInt8, text: str, *more: Any) -> Any:
        if filled:
            placed[text] = filled.pop()
        return write(image, text, *more)

    monkeypatch.setattr("edge.sinks.video.cv2.rectangle", rectangle)
    monkeypatch.setattr("edge.sinks.video.cv2.putText", put_text)

    def annotated(*found: Any, size_wh: tuple[int, int] = (320, 240), words: bool = False, **more: Any) -> dict[str, Rectangle]:
        placed.clear()
        image = plain(90, *size_wh)
        annotate(image, replace(event(frame(image.copy())), result=replace(detections(*found), **more)), words=words)
        return dict(placed)

    return annotated


def test_a_plate_goes_above_else_inside_else_below_else_nowhere(plates: Callable[..., dict[str, Rectangle]]) -> None:
    found = [("cat", score, BOX) for score in (0.95, 0.85, 0.75, 0.65, 0.55)]
    placed = plates(*found)
    height = placed["cat 95%"][3]
    assert {text: (x, y) for text, (x, y, _, _) in placed.items()} == {
        "cat 95%": (100, 120 - height),
        "cat 85%": (100, 120),
        "cat 75%": (100, 200),
        "cat 65%": (100, 200 - height),
    }
    assert plates(*reversed(found)) == placed  # whatever their order is


def test_plates_stay_in_the_picture_and_below_the_words(plates: Callable[..., dict[str, Rectangle]]) -> None:
    corner = ("person", 0.9, (300.0, 0.0, 320.0, 60.0))
    x, y, width, _ = plates(corner)["person 90%"]
    assert (x + width, y) == (320, 0)
    assert plates(corner, words=True)["person 90%"][1] == 60
    assert plates(("person", 0.9, (0.0, 0.0, 320.0, 240.0)))["person 90%"][:2] == (0, 0)


def test_tracked_objects_keep_their_plates_when_scores_change(plates: Callable[..., dict[str, Rectangle]]) -> None:
    tracks = np.array([8, 3, 0])
    seen = [
        plates(("cat", one, BOX), ("cat", other, BOX), ("cat", 0.99, BOX), tracks=tracks)
        for one, other in ((0.9, 0.8), (0.8, 0.9))
    ]
    first, second = ({text.split(" ")[0]: place[:2] for text, place in placed.items()} for placed in seen)
    assert first == second
    assert first["#3"][1] < first["#8"][1] < first["cat"][1]


@pytest.mark.parametrize("count", [10, 60, 300])
def test_no_plate_covers_another(count: int, plates: Callable[..., dict[str, Rectangle]]) -> None:
    rng = np.random.default_rng(count)
    lefts, tops = rng.integers(0, 600, count), rng.integers(0, 440, count)
    found = [
        (f"thing {i}", float(score), (float(x), float(y), float(x) + 40, float(y) + 60))
        for i, (x, y, score) in enumerate(zip(lefts, tops, rng.random(count), strict=True))
    ]
    placed = plates(*found, size_wh=(640, 480))
    assert min(count, 8) <= len(placed) <= PLATES
    covered = np.zeros((480, 640), np.int64)
    for x, y, width, height in placed.values():
        covered[y : y + height, x : x + width] += 1
        assert x >= 0
        assert y >= 0
    assert covered.max() == 1


def test_identities_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(detections(("person", 0.83, BOX), ("dog", 0.5, BOX)), tracks=np.array([7, 0]))
    written = Counter[str]()
    monkeypatch.setattr("edge.sinks.video.cv2.putText", lambda image, text, *_: written.update([text]))
    annotate(plain(90, 320, 240), replace(event(frame(plain(90, 320, 240))), result=found))
    assert {"#7 person 83%", "dog 50%"} <= set(written)


def test_objects_in_a_video_of_another_size_than_the_frame() -> None:
    seen = replace(event(frame(plain(90, 640, 480))), result=detections(("cat", 0.9, tuple(2 * edge for edge in BOX))))
    same = replace(event(frame(plain(90, 320, 240))), result=detections(("cat", 0.9, BOX)))
    np.testing.assert_array_equal(annotate(plain(90, 320, 240), seen), annotate(plain(90, 320, 240), same))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (64, 48), (1920, 1080)])
def test_objects_anywhere_in_pictures_of_any_size(size: tuple[int, int]) -> None:
    width, height = size
    boxes = [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height), (width, height, width, height)]
    found = detections(*(("käse", 0.5, box) for box in boxes), class_ids=(-1, 0, 7, 79))
    image = plain(90, width, height)
    seen = replace(event(frame(image)), result=found)
    assert annotate(image.copy(), seen, seen).shape == (height, width, 3)


def test_captions() -> None:
    assert caption(event().result) == "class 0 75%"
    assert caption(event(scores=()).result) == "nothing 0%"
    assert caption(detections()) == "nothing"
    several = detections(("dog", 0.9, BOX), ("cat", 0.8, BOX), ("cat", 0.7, BOX))
    assert caption(several) == "2 cat, 1 dog"


def test_the_frame_is_not_written_into(tmp_path: Path) -> None:
    sink, image = VideoSink(str(tmp_path / "a.avi"), 10), picture(160, 120)
    kept = image.copy()
    image.flags.writeable = False
    sink.emit(event(frame(image)))
    sink.close()
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (8, 8)])
def test_small_pictures_can_be_annotated(size: tuple[int, int]) -> None:
    assert annotate(picture(*size), event(), event(revises=True)).shape == (size[1], size[0], 3)


def test_labels_beyond_the_font_and_no_labels() -> None:
    odd = event(scores=())
    assert annotate(picture(200, 100), odd).shape == (100, 200, 3)


def test_a_video_name_that_is_not_utf_8(tmp_path: Path) -> None:
    """In a process of its own, because OpenCV has crashed on it."""
    code = (
        "import sys\n"
        "from edge.errors import EdgeError\n"
        "from edge.sinks.video import VideoSink\n"
        "from tests.samples import event\n"
        "try:\n"
        "    sink = VideoSink(sys.argv[1], 10.0); sink.emit(event()); sink.close(); print('lost', sink.lost)\n"
        "except EdgeError as error:\n"
        "    print(error.exit_code, ascii(str(error)))\n"
    )
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert (done.stdout.startswith("2 ") and "UTF-8" in done.stdout) or done.stdout == "lost 0\n"


def test_a_disk_that_fills_inside_a_line_leaves_whole_lines_only(tmp_path: Path) -> None:
    """In a process with a limit on file size, which the kernel enforces as it does a full disk."""
    code = (
        "import resource, signal, sys; from edge.sinks.jsonl import JsonlSink; from tests.samples import event\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); said = []\n"
        "sink = JsonlSink(sys.argv[1], said.append); sink.emit(event()); size = open(sys.argv[1], 'rb').seek(0, 2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))\n"
        "sink.emit(event()); sink.emit(event())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2); sink.emit(event()); sink.close()\n"
        "print(sink.lost, len(said))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "e"], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "2"], done.stderr
    lines = (tmp_path / "e").read_bytes().splitlines()
    assert [bool(json.loads(line)) for line in lines] == [True, True]


def test_a_video_that_is_not_all_there_is_said_and_counted(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from edge.sinks.video import VideoSink; from tests.samples import event\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); said = []\n"
        "sink = VideoSink(sys.argv[1], 10.0, said.append)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "[sink.emit(event()) for _ in range(30)]; sink.close(); print(sink.lost, *said)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "v.mp4"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("30 video: "), done
    assert "30 of 30 frames are not in it" in done.stdout
