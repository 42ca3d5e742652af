"""One contract over every source, then what each does of its own. No time is measured: clocks are faked or bounds generous."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import CaptureError, EdgeError, SourceError, UsageError
from edge.protocols import Source
from edge.sources import camera as camera_module
from edge.sources import demo as demo_module
from edge.sources import open_source
from edge.sources.camera import CameraSource
from edge.sources.demo import FPS, DemoSource
from edge.sources.pictures import PictureSource
from edge.sources.video import VideoSource
from edge.types import Frame, UInt8
from tests.samples import encoded, picture, video

PATIENCE_S = 20.0
"""How long anything may take on a machine that is busy with other things; nothing here waits for it in vain."""


class FakeCapture:
    """A camera whose driver does what `script` says: pictures, None for a failed read, or a call (to wait, to raise)."""

    def __init__(self, script: Iterator[UInt8 | Callable[[], Any] | None]) -> None:
        self._script = script
        self.released = threading.Event()

    def read(self) -> tuple[bool, UInt8 | None]:
        step = next(self._script, None)
        while callable(step):
            step()
            step = next(self._script, None)
        return step is not None, step

    def get(self, what: int) -> float:
        return 30.0

    def set(self, what: int, value: float) -> bool:
        return True

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., FakeCapture]:
    """Make every camera a FakeCapture that follows a script."""

    def plug(script: Iterator[Any]) -> FakeCapture:
        capture = FakeCapture(script)
        device = tmp_path / "video"
        device.touch()
        monkeypatch.setattr(camera_module, "Path", lambda name: device)
        monkeypatch.setattr(camera_module, "open_capture", lambda *arguments: capture)
        return capture

    return plug


def endless() -> Iterator[Any]:
    number = 0
    while True:
        yield lambda: time.sleep(0.001)
        yield picture(seed=number)
        number += 1


KINDS = ("demo", "video", "folder", "picture", "camera")


@pytest.fixture
def sources(tmp_path: Path, plug_in: Callable[..., FakeCapture], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Source]:
    """Any kind of source; the files hold 12 pictures of 64x48, but for the one picture."""
    monkeypatch.setattr(demo_module, "FPS", 500.0)

    def make(kind: str) -> Source:
        if kind == "demo":
            return DemoSource()
        if kind == "camera":
            plug_in(endless())
            return CameraSource(0)
        if kind == "video":
            return VideoSource(video(tmp_path / "a.avi"))
        (tmp_path / "folder").mkdir()
        for number in range(12):
            (tmp_path / "folder" / f"{number:02}.png").write_bytes(encoded(picture(seed=number), ".png"))
        return PictureSource(tmp_path / "folder" / ("00.png" if kind == "picture" else ""))

    return make


# the contract


@pytest.mark.parametrize("kind", KINDS)
def test_frames(sources: Callable[[str], Source], kind: str) -> None:
    source = sources(kind)
    with source as entered:
        assert entered is source
        found = list(islice(source, 12))
    assert len(found) == (1 if kind == "picture" else 12)
    sequences = [frame.sequence for frame in found]
    if source.live:  # the newest frame: some may be left out
        assert sequences == sorted(set(sequences))
        assert sequences[0] >= 0
    else:
        assert sequences == list(range(len(found)))
        assert source.dropped == 0
    for frame in found:
        assert frame.image.dtype == np.uint8
        assert frame.image.ndim == 3
        assert frame.image.shape[2] == 3
        assert frame.image.shape[:2] == ((480, 640) if kind == "demo" else (48, 64))
        assert frame.size_wh == (frame.image.shape[1], frame.image.shape[0])
        assert frame.source == source.name
        assert frame.capture_ms >= 0
    times = [frame.captured_s for frame in found]
    assert times == sorted(times)
    assert abs(times[-1] - time.monotonic()) < PATIENCE_S  # the monotonic clock
    assert source.skipped == []
    assert source.fps is None or source.fps > 0


@pytest.mark.parametrize("kind", KINDS)
def test_frames_keep_their_pictures(sources: Callable[[str], Source], kind: str) -> None:
    """A frame that someone holds on to, as the offloader does, is not overwritten by the next."""
    with sources(kind) as source:
        held: list[tuple[Frame, UInt8]] = [(frame, frame.image.copy()) for frame in islice(source, 4)]
    for frame, kept in held:
        np.testing.assert_array_equal(frame.image, kept)
    if kind in ("video", "folder", "camera"):
        assert len({frame.image.tobytes() for frame, _ in held}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_stop_before_the_first_frame(sources: Callable[[str], Source], kind: str) -> None:
    with sources(kind) as source:
        source.stop()
        source.stop()
        assert list(source) == []


@pytest.mark.parametrize("kind", ["demo", "video", "folder", "camera"])
def test_stop_between_frames(sources: Callable[[str], Source], kind: str) -> None:
    with sources(kind) as source:
        frames = iter(source)
        next(frames)
        next(frames)
        source.stop()
        assert list(frames) == []


@pytest.mark.parametrize("kind", ["demo", "camera"])
def test_stop_from_another_thread(sources: Callable[[str], Source], kind: str) -> None:
    with sources(kind) as source:
        threading.Timer(0.05, source.stop).start()
        found = list(source)  # without the stop, for ever
    assert found


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_twice_does_no_harm(sources: Callable[[str], Source], kind: str) -> None:
    source = sources(kind)
    with source:
        next(iter(source))
    source.__exit__(None, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_inside_passes_through(sources: Callable[[str], Source], kind: str) -> None:
    with pytest.raises(ZeroDivisionError), sources(kind) as source:  # noqa: PT012
        next(iter(source))
        raise ZeroDivisionError


# videos


def test_a_video_is_read_whole(tmp_path: Path) -> None:
    with VideoSource(video(tmp_path / "a.avi", frames=23, fps=12.5)) as source:
        found = list(source)
        assert source.fps == pytest.approx(12.5)
    assert len(found) == 23
    for frame in found:
        assert np.abs(frame.image.astype(int) - picture(64, 48, seed=frame.sequence)).mean() < 12
    assert all(frame.name is None for frame in found)


def test_a_truncated_video_gives_what_it_has_then_says_so(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", frames=60, size_wh=(160, 120))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    found = []
    with VideoSource(path) as source, pytest.raises(CaptureError) as error:  # noqa: PT012
        for frame in source:
            found.append(frame)  # noqa: PERF402
    assert 20 < len(found) < 40
    assert f"ended after {len(found)} of 60 frames" in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


def test_a_video_without_a_frame_is_damaged_however_few_it_promised(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", frames=3)
    raw = bytearray(path.read_bytes())
    at = raw.find(b"00dc", raw.find(b"movi"))
    for _ in range(3):
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        raw[at + 8 : at + 8 + size] = bytes(size)
        at = raw.find(b"00dc", at + 8 + size)
    path.write_bytes(raw)
    with VideoSource(path) as source, pytest.raises(CaptureError, match="ended after 0 of"):
        list(source)


def test_a_stopped_video_is_not_called_damaged(tmp_path: Path) -> None:
    with VideoSource(video(tmp_path / "a.avi", frames=60)) as source:
        for frame in source:
            if frame.sequence == 3:
                source.stop()
    assert frame.sequence == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.mp4", b""), ("a.avi", b"text"), ("a.mkv", bytes(5000)), ("noext", b"x")],
)
def test_files_that_are_no_video(tmp_path: Path, name: str, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="not a video that can be decoded") as error, open_source(str(tmp_path / name)):
        pytest.fail("it was opened")
    assert str(tmp_path / name) in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_video_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a file"), VideoSource(tmp_path / "gone.mp4"):
        pytest.fail("it was opened")


def test_the_damaged_video_of_the_test_data(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Some builds of FFmpeg promise no more frames than they can decode; then there is nothing to complain of."""
    count, complaint = 0, None
    with VideoSource(shared_data / "videos" / "damaged.avi") as source:
        try:
            for frame in source:
                assert frame.sequence == count
                count += 1
        except CaptureError as error:
            complaint = str(error)
    assert count > 100
    assert complaint is None or f"after {count} of" in complaint
    assert capfd.readouterr() == ("", "")


def test_a_video_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    """In a process of its own, because OpenCV has crashed on it."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.avi"
    Path(os.fsdecode(path)).write_bytes(video(tmp_path / "a.avi").read_bytes())
    code = (
        "import sys\n"
        "from edge.errors import EdgeError\n"
        "from edge.sources import open_source\n"
        "try:\n"
        "    with open_source(sys.argv[1]) as source: print(len(list(source)))\n"
        "except EdgeError as error:\n"
        "    print(error.exit_code, ascii(str(error)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert done.stdout == "12\n" or (done.stdout.startswith("2 ") and "UTF-8" in done.stdout)


# pictures


def test_pictures_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "sub/c.png", "10.png", "9.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture(), ".png"))
    with PictureSource(tmp_path) as source:
        assert [frame.name for frame in source] == ["10.png", "9.png", "a.PNG", "b.png", "sub/c.png"]


def test_pictures_that_cannot_be_read_are_skipped_and_named(tmp_path: Path) -> None:
    for name in ("1.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(encoded())
    (tmp_path / "2.jpg").write_bytes(encoded()[:200])
    (tmp_path / "4.jpg").write_bytes(b"")
    with PictureSource(tmp_path) as source:
        found = list(source)
    assert [(frame.sequence, frame.name) for frame in found] == [(0, "1.jpg"), (1, "3.jpg")]
    assert len(source.skipped) == 2
    assert "2.jpg" in source.skipped[0]
    assert "4.jpg" in source.skipped[1]


@pytest.mark.parametrize("bad", [b"", b"text", encoded()[:200]])
def test_a_single_bad_picture(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(bad)
    with pytest.raises(SourceError, match=r"a\.jpg: not a readable picture"), PictureSource(tmp_path / "a.jpg") as source:
        list(source)


def test_a_folder_of_bad_pictures(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match="no picture in it can be read"), PictureSource(tmp_path) as source:
        list(source)
    assert len(source.skipped) == 2


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no pictures"), PictureSource(tmp_path):
        pytest.fail("it was opened")


# demo


def test_the_demo_is_the_same_every_time() -> None:
    with DemoSource() as one, DemoSource() as other:
        for number in (0, 1, 39, 59, 60, 200, 100_000):
            np.testing.assert_array_equal(one.picture(number), other.picture(number))
        assert len({one.picture(number).tobytes() for number in range(0, 180, 20)}) == 9


def test_the_demo_has_no_black_borders() -> None:
    with DemoSource() as source:
        for number in range(0, 240, 15):
            image = source.picture(number)
            for border in (image[0], image[-1], image[:, 0], image[:, -1]):
                assert border.std() > 0


class Clock:
    """Stands for the time module: time passes only when someone sleeps, or works."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> tuple[DemoSource, Clock]:
    clock, source = Clock(), DemoSource()
    monkeypatch.setattr(demo_module, "time", clock)
    return source, clock


def test_the_demo_keeps_its_pace(clocked: tuple[DemoSource, Clock]) -> None:
    source, clock = clocked
    with source:
        for frame in islice(source, 30):
            assert frame.captured_s == pytest.approx(1000 + frame.sequence / FPS, abs=1e-6)
            clock.now_s += 0.02  # what the loop takes


def test_a_reader_that_is_slow_once_catches_up(clocked: tuple[DemoSource, Clock]) -> None:
    source, clock = clocked
    with source:
        for frame in islice(source, 40):
            clock.now_s += 0.5 if frame.sequence == 3 else 0.01
    assert clock.now_s == pytest.approx(1000 + 39 / FPS, abs=0.02)
    assert source.dropped == 0


def test_a_reader_that_is_always_slow_gets_every_frame_and_no_wait(clocked: tuple[DemoSource, Clock]) -> None:
    source, clock = clocked
    with source:
        found = []
        for frame in islice(source, 50):
            found.append(frame.sequence)
            clock.now_s += 1.0
    assert found == list(range(50))
    assert sum(clock.waits) < 0.1


# cameras


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(SourceError, match=r"camera 97: /dev/video97 does not exist; cameras here: .*--source demo"):
        CameraSource(97).open()


def test_a_camera_without_permission(plug_in: Callable[..., FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(endless())
    monkeypatch.setattr(camera_module.os, "access", lambda path, mode: False)
    with pytest.raises(SourceError, match="group 'video'"):
        CameraSource(0).open()


def test_a_device_that_is_no_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    device = tmp_path / "video"
    device.touch()
    monkeypatch.setattr(camera_module, "Path", lambda name: device)
    with pytest.raises(SourceError, match=r"camera 98: .* cannot be opened"):
        CameraSource(98).open()
    assert capfd.readouterr() == ("", "")


def test_the_newest_frame_wins_and_the_rest_are_counted(plug_in: Callable[..., FakeCapture]) -> None:
    read_all, resume = threading.Event(), threading.Event()

    def script() -> Iterator[Any]:
        yield from (picture(seed=number) for number in range(5))
        yield read_all.set  # frames 0 to 4 are published by now
        yield lambda: resume.wait(PATIENCE_S)
        yield picture(seed=5)
        yield None

    capture = plug_in(script())
    with CameraSource(0) as source:
        assert read_all.wait(PATIENCE_S)
        frames = iter(source)
        newest = next(frames)
        assert newest.sequence == 4
        assert source.dropped == 4
        np.testing.assert_array_equal(newest.image, picture(seed=4))
        resume.set()
        assert next(frames).sequence == 5
        with pytest.raises(CaptureError, match="camera 0: stopped delivering after 6 frames"):
            next(frames)
        assert source.dropped == 4
        assert source.live
        assert source.fps == 30
    assert capture.released.is_set()


def test_a_camera_that_fails_at_once(plug_in: Callable[..., FakeCapture]) -> None:
    plug_in(iter([None]))
    with CameraSource(3) as source, pytest.raises(CaptureError, match="camera 3: stopped delivering after 0 frames"):
        next(iter(source))


def test_a_driver_that_raises(plug_in: Callable[..., FakeCapture]) -> None:
    import cv2

    def fail() -> None:
        raise cv2.error("select() timeout\n second line")

    plug_in(iter([picture(), fail]))
    with CameraSource(3) as source, pytest.raises(CaptureError, match="camera 3: "):
        list(source)


def test_a_silent_camera(plug_in: Callable[..., FakeCapture]) -> None:
    end = threading.Event()
    plug_in(iter([picture(), lambda: end.wait(PATIENCE_S)]))
    with CameraSource(0, deadline_s=0.1) as source:
        frames = iter(source)
        assert next(frames).sequence == 0
        with pytest.raises(CaptureError, match=r"camera 0: no frame for .* check its cable"):
            next(frames)
        end.set()


def test_stop_while_waiting_for_a_frame(plug_in: Callable[..., FakeCapture]) -> None:
    end = threading.Event()
    capture = plug_in(iter([lambda: end.wait(PATIENCE_S)]))
    with CameraSource(0, deadline_s=PATIENCE_S) as source:
        threading.Timer(0.05, source.stop).start()
        begun_s = time.monotonic()
        assert list(source) == []
        assert time.monotonic() - begun_s < PATIENCE_S / 2
        end.set()
    assert capture.released.wait(PATIENCE_S)


def test_closing_does_not_wait_for_a_read_that_never_returns(plug_in: Callable[..., FakeCapture]) -> None:
    end = threading.Event()
    plug_in(iter([lambda: end.wait(PATIENCE_S)]))
    begun_s = time.monotonic()
    with CameraSource(0):
        pass
    assert time.monotonic() - begun_s < PATIENCE_S / 2
    end.set()


def test_stop_in_a_signal_handler_takes_no_lock(plug_in: Callable[..., FakeCapture]) -> None:
    """The handler runs on the thread that may hold the lock already."""
    plug_in(endless())
    with CameraSource(0) as source:
        with source._fresh:
            source.stop()
        assert list(source) == []


# URIs


@pytest.mark.parametrize(
    ("uri", "kind", "name"),
    [
        ("demo", DemoSource, "demo"),
        ("camera:0", CameraSource, "camera:0"),
        ("camera:12", CameraSource, "camera:12"),
        ("/dev/video3", CameraSource, "camera:3"),
    ],
)
def test_uris(uri: str, kind: type, name: str) -> None:
    source = open_source(uri)
    assert type(source) is kind
    assert source.name == name


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_paths(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "a.JPEG").write_bytes(encoded())
    (tmp_path / "demo.avi").write_bytes(b"")
    for name, kind in (("a.JPEG", PictureSource), ("", PictureSource), ("demo.avi", VideoSource)):
        assert type(open_source(f"{prefix}{tmp_path}/{name}")) is kind


@pytest.mark.parametrize(
    ("uri", "error", "part"),
    [
        ("", UsageError, "empty"),
        ("rtsp://10.0.0.1/stream", UsageError, "not rtsp://"),
        ("http://localhost/a.jpg", UsageError, "not http://"),
        ("gopher://x", UsageError, "not gopher://"),
        ("camera:", UsageError, "named by its number"),
        ("camera:-1", UsageError, "named by its number"),
        ("camera:1234", UsageError, "named by its number"),
        ("Demo", SourceError, "no such file"),
        ("nothing.mp4", SourceError, "nothing.mp4: no such file"),
        ("file:///nothing.mp4", SourceError, "/nothing.mp4: no such file"),
        ("x" * 300, SourceError, "no such file"),
        ("two\nlines.mp4", SourceError, "no such file"),
    ],
)
def test_uris_that_are_refused(
    uri: str, error: type[EdgeError], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=part) as caught:
        open_source(uri)
    assert caught.value.exit_code == 2
