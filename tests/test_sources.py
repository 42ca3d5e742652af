"""One contract over every source, then what each does of its own. No time is measured: clocks are faked or bounds generous."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edge.capture.devices import DeviceSpec
from edge.capture.reader import ReaderSpec
from edge.errors import CaptureError, EdgeError, SourceError, UsageError
from edge.protocols import Source
from edge.sources import STREAMS, open_source
from edge.sources import camera as camera_module
from edge.sources import demo as demo_module
from edge.sources.camera import Wish, gstreamer_source, picamera_source, stream_source, v4l2_source
from edge.sources.demo import FPS, DemoSource
from edge.sources.live import SLOTS, Limits, LiveSource
from edge.sources.pictures import PictureSource
from edge.sources.video import VideoSource
from edge.types import Frame, UInt8
from tests.samples import encoded, picture, video

PATIENCE_S = 20.0
"""How long anything may take on a machine that is busy with other things; nothing here waits for it in vain."""


KINDS = ("demo", "video", "folder", "picture", "camera")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Source]:
    """Any kind of source; the files hold 12 pictures of 64x48, but for the one picture."""
    monkeypatch.setattr(demo_module, "FPS", 500.0)

    def make(kind: str) -> Source:
        if kind == "demo":
            return DemoSource()
        if kind == "camera":
            return LiveSource("camera:0", DeviceSpec("faulty", "none"))
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
    assert [notice.kind for notice in source.notices] == (["source-open"] if source.live else [])
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
        frames = iter(source)
        first = next(frames)
        threading.Timer(0.05, source.stop).start()
        assert all(one.sequence > first.sequence for one in frames)  # without the stop, for ever


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


# cameras and streams (what befalls them is in test_capture.py)


class Devices:
    """Stands for pathlib.Path in edge.sources.camera: /dev has what a test says."""

    names: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return self._name

    def exists(self) -> bool:
        return self._name in self.names

    def glob(self, pattern: str) -> list[str]:
        assert (self._name, pattern) == ("/dev", "video*")
        return list(reversed(self.names))


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> type[Devices]:
    """The devices that are there: none, and all may be opened."""

    class Here(Devices):
        pass

    monkeypatch.setattr(camera_module, "Path", Here)
    monkeypatch.setattr(camera_module.os, "access", lambda path, mode: True)
    return Here


@pytest.mark.parametrize(
    ("names", "listed"),
    [((), "none"), (("/dev/video0",), "/dev/video0"), (("/dev/video0", "/dev/video2"), "/dev/video0, /dev/video2")],
)
def test_a_camera_that_is_not_there(devices: type[Devices], names: tuple[str, ...], listed: str) -> None:
    devices.names = names
    with pytest.raises(SourceError) as error:
        v4l2_source("/dev/video97", Wish()).open()
    assert str(error.value) == f"camera:97: /dev/video97 does not exist; cameras here: {listed}; try --source demo"
    assert error.value.exit_code == 2


def test_a_camera_without_permission(devices: type[Devices], monkeypatch: pytest.MonkeyPatch) -> None:
    devices.names = ("/dev/video0",)
    asked: list[int] = []
    monkeypatch.setattr(camera_module.os, "access", lambda path, mode: asked.append(mode))
    with pytest.raises(SourceError, match="camera:0: no permission to open /dev/video0; add yourself to the group 'video'"):
        v4l2_source("/dev/video0", Wish()).open()
    assert asked == [os.R_OK | os.W_OK]


def test_a_patient_camera_waits_until_it_is_there(devices: type[Devices]) -> None:
    source = v4l2_source("/dev/video7", Wish(patient=True))
    source._spec = ReaderSpec(DeviceSpec("faulty", "none"), SLOTS)
    with source:
        plug = threading.Timer(0.3, lambda: setattr(devices, "names", ("/dev/video7",)))
        plug.start()
        assert next(iter(source)).sequence == 0
        plug.join()
    lost, back = source.notices
    assert (lost.kind, lost.about) == ("source-lost", "camera:7")
    assert "/dev/video7 does not exist" in lost.text
    assert back.kind == "source-open"
    assert "back after" in back.text


def test_a_device_that_is_no_camera(devices: type[Devices], capfd: pytest.CaptureFixture[str]) -> None:
    devices.names = ("/dev/video98",)  # in the reader's process it is not there
    with (
        v4l2_source("/dev/video98", Wish()) as source,
        pytest.raises(SourceError, match=r"^camera:98: /dev/video98 cannot be opened"),
    ):
        next(iter(source))
    assert capfd.readouterr() == ("", "")


def test_a_link_to_a_camera_is_followed_when_it_is_opened(tmp_path: Path) -> None:
    link = tmp_path / "by-id"
    link.symlink_to("/dev/video98")
    with (
        LiveSource("cam", DeviceSpec("v4l2", str(link))) as source,
        pytest.raises(SourceError, match=r"^cam: /dev/video98 cannot"),
    ):
        next(iter(source))


def test_a_path_that_is_no_camera() -> None:
    source = LiveSource("cam", DeviceSpec("v4l2", "/dev/null"))
    with source, pytest.raises(SourceError, match=r"^cam: /dev/null is no V4L2 camera"):
        next(iter(source))


def test_a_kind_of_device_that_breaks_is_a_line() -> None:
    with (
        LiveSource("odd", DeviceSpec("faulty", "repeat:no number")) as source,
        pytest.raises(SourceError, match=r"^odd: ValueError: "),
    ):
        next(iter(source))


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(), DeviceSpec("v4l2", "/dev/video2")),
        (Wish(size_wh=(640, 480)), DeviceSpec("v4l2", "/dev/video2", (640, 480))),
        (Wish(size_wh=(800, 600)), DeviceSpec("v4l2", "/dev/video2", (800, 600), 0.0, "MJPG")),
        (Wish(size_wh=(1280, 720), fps=15.0), DeviceSpec("v4l2", "/dev/video2", (1280, 720), 15.0, "MJPG")),
        (Wish(size_wh=(1280, 720), pixels="YUYV"), DeviceSpec("v4l2", "/dev/video2", (1280, 720), 0.0, "YUYV")),
    ],
)
def test_what_a_camera_is_asked_for(wish: Wish, expected: DeviceSpec) -> None:
    source = v4l2_source("/dev/video2", wish)
    assert source.name == "camera:2"
    assert source.live
    assert source._spec.device == expected


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(), Limits()),
        (Wish(timeout_s=8.0), Limits(reading=8.0)),
        (Wish(timeout_s=1.0), Limits(reading=1.0, stalled=0.5)),
        (Wish(frozen_s=0.0), Limits(frozen=0.0)),
        (Wish(timeout_s=2.0, frozen_s=60.0), Limits(reading=2.0, stalled=1.0, frozen=60.0)),
    ],
)
def test_limits_that_are_wished_for(wish: Wish, expected: Limits) -> None:
    assert wish.limits(Limits()) == expected
    assert stream_source("rtsp://host/x", wish)._limits == expected
    assert gstreamer_source("videotestsrc", wish)._limits == expected


def test_the_other_kinds() -> None:
    wish = Wish(size_wh=(1640, 1232), fps=10.0)
    assert picamera_source(1, wish).name == "picamera:1"
    assert picamera_source(1, wish)._spec.device == DeviceSpec("picamera", "1", (1640, 1232), 10.0)
    assert gstreamer_source("videotestsrc ! videoconvert", wish).name == "gst:videotestsrc ! videoconvert"
    assert gstreamer_source("a ! b", wish)._spec.device == DeviceSpec("gst", "a ! b")
    assert stream_source("rtsp://host/x", wish)._spec.device == DeviceSpec("stream", "rtsp://host/x")


@pytest.mark.parametrize("patient", [False, True])
def test_who_is_patient(patient: bool) -> None:
    """A server may come up later than we do; a camera that is not there is a mistake unless it is said otherwise."""
    wish = Wish(patient=patient)
    assert stream_source("rtsp://host/x", wish).patient
    for source in (v4l2_source("/dev/video0", wish), picamera_source(0, wish), gstreamer_source("a", wish)):
        assert source.patient is patient


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://user:secret@host/x", "rtsp://user:***@host/x"),
        ("http://host/x?apikey=secret&api_key=s&size=2", "http://host/x?apikey=***&api_key=***&size=2"),
        ("rtsp://user:secret@host:8554/x?a=b#c", "rtsp://user:***@host:8554/x?a=b#c"),
        ("rtsp://user:se@cret@host/x", "rtsp://user:***@host/x"),
        ("rtsp://:secret@host/x", "rtsp://:***@host/x"),
        ("rtsp://user@host/x", "rtsp://user@host/x"),
        ("rtsp://[::1]:8554/x", "rtsp://[::1]:8554/x"),
        ("http://host/x", "http://host/x"),
    ],
)
def test_a_password_is_not_in_the_name(url: str, name: str) -> None:
    source = open_source(url)
    assert isinstance(source, LiveSource)
    assert source.name == name
    assert source._spec.device == DeviceSpec("stream", url)


def test_a_url_without_a_host() -> None:
    with pytest.raises(UsageError, match=r"--source rtsp:///x: names no host; expected rtsp://HOST/PATH"):
        open_source("rtsp:///x")
    with pytest.raises(UsageError, match="names no host") as error:
        open_source("rtsp://user:secret@/x")
    assert "secret" not in str(error.value)
    with pytest.raises(UsageError, match=r"--source rtsp://\.\.\.: is no URL: Invalid IPv6 URL") as error:
        open_source("rtsp://user:secret@[host/x")
    assert "secret" not in str(error.value)


def test_a_password_in_a_pipeline_is_not_in_the_name() -> None:
    source = gstreamer_source("rtspsrc location=rtsp://user:secret@host:8554/x latency=0 ! decodebin", Wish())
    assert source.name == "gst:rtspsrc location=rtsp://user:***@host:8554/x latency=0 ! decodebin"
    assert "secret" in source._spec.device.address


# URIs


@pytest.mark.parametrize(
    ("uri", "kind", "name"),
    [
        ("demo", DemoSource, "demo"),
        ("camera:0", LiveSource, "camera:0"),
        ("camera:12", LiveSource, "camera:12"),
        ("/dev/video3", LiveSource, "camera:3"),
        ("/dev/v4l/by-id/usb-Maker_Cam-video-index0", LiveSource, "camera:by-id/usb-Maker_Cam-video-index0"),
        ("picamera:0", LiveSource, "picamera:0"),
        ("gst:videotestsrc is-live=true", LiveSource, "gst:videotestsrc is-live=true"),
        ('gst:filesrc location="a\nb" ! decodebin', LiveSource, 'gst:filesrc location="a\nb" ! decodebin'),
        *((f"{scheme}://host:1/x", LiveSource, f"{scheme}://host:1/x") for scheme in STREAMS),
    ],
)
def test_uris(uri: str, kind: type, name: str) -> None:
    source = open_source(uri)
    assert type(source) is kind
    assert source.name == name


def test_a_wish_reaches_the_camera() -> None:
    source = open_source("camera:1", Wish(size_wh=(320, 240), fps=5.0, timeout_s=9.0, patient=True))
    assert isinstance(source, LiveSource)
    assert source._spec.device == DeviceSpec("v4l2", "/dev/video1", (320, 240), 5.0)
    assert source._limits.reading == 9.0
    assert source.patient


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
        ("gopher://x", UsageError, "gopher:// is not known; there are rtsp, .*, gst: and file://"),
        ("rtsp://", UsageError, "names no host"),
        ("gst:", UsageError, "names no pipeline"),
        ("gst: ", UsageError, "names no pipeline"),
        ("picamera:", UsageError, "a camera is named by its number; --source picamera:0"),
        ("picamera:x", UsageError, "a camera is named by its number; --source picamera:0"),
        ("picamera:10", UsageError, "named by its number"),
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


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("rtsp://cam/stream?user=admin&password=geheim", "rtsp://cam/stream?user=admin&password=***"),
        ("gst:rtspsrc location=x user-pw=geheim ! decodebin", "gst:rtspsrc location=x user-pw=*** ! decodebin"),
    ],
)
def test_a_name_hides_what_sounds_secret(uri: str, name: str) -> None:
    assert open_source(uri).name == name
