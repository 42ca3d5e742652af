"""GStreamer pipelines as devices: against a gst-launch-1.0 that does as it is told, and against the real one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge.capture import gstreamer
from edge.capture.gstreamer import GstDevice
from edge.errors import CaptureError, SourceError

ROOT = Path(__file__).parent.parent
PRELUDE = f"""#!{sys.executable}
import os, sys, time
frames = int(sys.argv[-2].removeprefix("fd="))
IDENTITY = "/GstPipeline:pipeline0/GstIdentity:edge_frames"

def caps(width, height, rate="25/1"):
    words = f"video/x-raw, format=(string)BGR, width=(int){{width}}, height=(int){{height}}, framerate=(fraction){{rate}}"
    for plain in ",", " ", "=", "(", ")":
        words = words.replace(plain, chr(92) + plain)
    event = f'event   ******* (edge_frames:sink) E (type: caps (12814), GstEventCaps, caps=(GstCaps)"{{words}}";) 0x56'
    print(f"{{IDENTITY}}: last-message = {{event}}", flush=True)

def tell(size, pts="0:00:00.040000000"):
    told = f"chain   ******* (edge_frames:sink) ({{size}} bytes, dts: none, pts: {{pts}}, duration: none, offset: 0) 0x56"
    print(f"{{IDENTITY}}: last-message = {{told}}", flush=True)

def frame(number, width, height, pts="none"):
    row = (bytes([number]) * (width * 3)).ljust((width * 3 + 3) // 4 * 4, b"!")
    tell(len(row) * height, pts)
    os.write(frames, row * height)

"""


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the first gst-launch-1.0 on the PATH a script whose body is given."""
    program = tmp_path / "bin" / "gst-launch-1.0"
    program.parent.mkdir()

    def write(body: str) -> None:
        program.write_text(PRELUDE + textwrap.dedent(body))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return write


@pytest.fixture
def real() -> None:
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("gst-launch-1.0 is not installed; apt install gstreamer1.0-tools gstreamer1.0-plugins-base")


@pytest.mark.parametrize("width", [8, 5], ids=["whole rows", "padded rows"])
def test_frames_come_whole_and_in_order(launch: Callable[[str], None], width: int) -> None:
    launch(f"""
        print("Setting pipeline to PLAYING ...")
        caps({width}, 4)
        for number in range(5):
            frame(number, {width}, 4)
    """)
    into = np.empty((4, width, 3), np.uint8)
    with closing(GstDevice("any")) as device:
        assert (device.size_wh, device.fps, device.text) == ((width, 4), 25.0, f"{width}x4 BGR 25 frames/s")
        for number in range(5):
            assert device.grab() is not None
            if number == 2:
                continue  # nobody wants it
            assert device.retrieve(into)
            assert (into == number).all()
        assert device.grab() is None
        assert not device.retrieve(into)


def test_a_frame_larger_than_the_pipe(launch: Callable[[str], None]) -> None:
    launch("""
        caps(1280, 720, "0/1")
        frame(7, 1280, 720)
        frame(8, 1280, 720)
    """)
    into = np.empty((720, 1280, 3), np.uint8)
    with closing(GstDevice("any")) as device:
        assert (device.fps, device.text) == (None, "1280x720 BGR")
        for number in (7, 8):
            assert device.grab() is not None
            assert device.retrieve(into)
            assert (into == number).all()


def test_a_waiting_frame_does_not_look_new(launch: Callable[[str], None]) -> None:
    launch("""
        caps(8, 4)
        for number in range(3):
            frame(number, 8, 4, pts=f"0:00:00.{number * 2}00000000")
            time.sleep(0.2)
        time.sleep(60)
    """)
    into = np.empty((4, 8, 3), np.uint8)
    with closing(GstDevice("any")) as device:
        first_s = device.grab()
        assert first_s is not None
        assert time.monotonic() - first_s < 0.1
        assert device.retrieve(into)
        time.sleep(0.7)
        for age_s in (0.5, 0.3):
            captured_s = device.grab()
            assert captured_s is not None
            assert time.monotonic() - captured_s == pytest.approx(age_s, abs=0.12)
            assert device.retrieve(into)


def test_a_change_of_size_is_no_picture(launch: Callable[[str], None]) -> None:
    launch("""
        caps(8, 4)
        frame(0, 8, 4)
        caps(4, 8)
        frame(1, 4, 8)
        frame(2, 16, 8)
    """)
    into = np.empty((4, 8, 3), np.uint8)
    with closing(GstDevice("any")) as device:
        assert device.grab() is not None
        assert device.retrieve(into)
        for _ in range(2):
            assert device.grab() is not None
            assert not device.retrieve(into)
        assert device.grab() is None


def test_chatter_does_not_stop_the_frames(launch: Callable[[str], None]) -> None:
    launch("""
        caps(640, 480)
        for number in range(4):
            print("progressreport: " + "x" * 200_000, flush=True)
            print("WARNING: " + "y" * 200_000, file=sys.stderr, flush=True)
            frame(number, 640, 480)
    """)
    into = np.empty((480, 640, 3), np.uint8)
    with closing(GstDevice("any")) as device:
        for number in range(4):
            assert device.grab() is not None
            assert device.retrieve(into)
            assert (into == number).all()
        assert len(device._said) <= gstreamer.SAID_BYTES


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ('WARNING: erroneous pipeline: no element "nosuch"', 'no element "nosuch"'),
        ('erroneous pipeline: no element "nosuch"', 'no element "nosuch"'),
        (
            "ERROR: from element /GstPipeline:pipeline0/GstV4l2Src:v4l2src0: Cannot identify device '/dev/video9'.\n"
            "Additional debug info:\n../sys/v4l2/v4l2_calls.c(608)\nERROR: pipeline doesn't want to preroll.",
            "GstV4l2Src:v4l2src0: Cannot identify device '/dev/video9'.",
        ),
        ("Killed", "Killed"),
        ("", "gst-launch-1.0 ended with 1"),
    ],
)
def test_what_is_wrong_with_a_pipeline_is_one_line(launch: Callable[[str], None], stderr: str, line: str) -> None:
    launch(f"""
        print({stderr!r}, file=sys.stderr)
        sys.exit(1)
    """)
    with pytest.raises(SourceError) as refused:
        GstDevice("any")
    assert str(refused.value) == line


def test_a_pipeline_that_fails_later_says_why(launch: Callable[[str], None]) -> None:
    launch("""
        caps(8, 4)
        frame(0, 8, 4)
        print("ERROR: from element /GstPipeline:pipeline0/GstRTSPSrc:r: Could not read from resource.", file=sys.stderr)
        sys.exit(1)
    """)
    with closing(GstDevice("any")) as device:
        assert device.grab() is not None
        with pytest.raises(CaptureError, match=r"^GstRTSPSrc:r: Could not read from resource\.$"):
            device.grab()


def test_a_pipeline_without_a_picture(launch: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    launch("")
    with pytest.raises(SourceError, match=r"^the pipeline ended without a picture$"):
        GstDevice("any")
    launch("time.sleep(60)")
    monkeypatch.setattr(gstreamer, "OPEN_WITHIN_S", 0.3)
    with pytest.raises(SourceError, match=r"^no picture within 0 s"):
        GstDevice("any")


def test_one_that_does_not_end_is_ended(launch: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    launch("""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        caps(8, 4)
        time.sleep(60)
    """)
    monkeypatch.setattr(gstreamer, "CLOSE_WITHIN_S", 0.2)
    device = GstDevice("any")
    device.close()
    assert device._process.returncode == -9
    device.close()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv of util-linux is not installed")
def test_gst_launch_dies_with_its_reader(launch: Callable[[str], None]) -> None:
    launch("""
        caps(8, 4)
        time.sleep(60)
    """)
    code = "from edge.capture.gstreamer import GstDevice as D; d = D('any'); print(d._process.pid, flush=True); d.grab()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as reader:
        assert reader.stdout is not None
        status = Path(f"/proc/{int(reader.stdout.readline())}/stat")
        assert running(status)
        reader.kill()
    deadline_s = time.monotonic() + 5
    while running(status) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not running(status)


def running(status: Path) -> bool:
    """Whether the process is there and no zombie, which one may be where nobody reaps orphans."""
    try:
        return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("videotestsrc is-live=true", ["videotestsrc", "is-live=true"]),
        ("a ! b ! appsink", ["a", "!", "b"]),
        ("a ! b ! appsink drop=1 max-buffers=1 name='my sink'", ["a", "!", "b"]),
        ("a !", ["a"]),
        ('filesrc location="/a b/$HOME;rm.mp4" ! decodebin', ["filesrc", "location=/a b/$HOME;rm.mp4", "!", "decodebin"]),
        (
            "nvarguscamerasrc ! video/x-raw(memory:NVMM), width=(int)640 ! nvvidconv",
            ["nvarguscamerasrc", "!", "video/x-raw(memory:NVMM),", "width=(int)640", "!", "nvvidconv"],
        ),
        ("tee name=t ! queue ! fakesink t. ! queue", ["tee", "name=t", "!", "queue", "!", "fakesink", "t.", "!", "queue"]),
    ],
)
def test_the_words_of_a_pipeline(pipeline: str, words: list[str]) -> None:
    assert gstreamer._arguments(pipeline) == words


@pytest.mark.parametrize(
    ("pipeline", "line"),
    [
        ("", "the pipeline is empty; try 'gst:videotestsrc is-live=true'"),
        ("appsink", "the pipeline is empty; try 'gst:videotestsrc is-live=true'"),
        ("!", "the pipeline is empty; try 'gst:videotestsrc is-live=true'"),
        ("a ! fakesink", "the pipeline ends in fakesink; leave that out, the frames are taken from what is before it"),
        ("a ! fdsink fd=1", "the pipeline ends in fdsink; leave that out, the frames are taken from what is before it"),
        ("a location='b", "the pipeline has no closing quotation"),
    ],
)
def test_pipelines_that_cannot_be(pipeline: str, line: str) -> None:
    with pytest.raises(SourceError) as refused:
        GstDevice(pipeline)
    assert str(refused.value) == line


def test_without_gst_launch_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError) as refused:
        GstDevice("videotestsrc")
    assert str(refused.value) == ("gst-launch-1.0 is not installed; apt install gstreamer1.0-tools gstreamer1.0-plugins-base")


@pytest.fixture(params=[322, 640], ids=["padded rows", "whole rows"])
def bars(real: None, request: pytest.FixtureRequest) -> Iterator[GstDevice]:
    """SMPTE colour bars from the real GStreamer."""
    caps = f"video/x-raw,width={request.param},height=240,framerate=25/1"
    with closing(GstDevice(f"videotestsrc is-live=true ! {caps} ! videoconvert ! appsink drop=1")) as device:
        yield device


def test_the_real_one_paints_colour_bars_in_time(bars: GstDevice) -> None:
    width, height = bars.size_wh
    assert height == 240
    assert bars.fps == 25.0
    into = np.empty((height, width, 3), np.uint8)
    ages_s = []
    for _ in range(10):
        captured_s = bars.grab()
        assert captured_s is not None
        assert bars.retrieve(into)
        ages_s.append(time.monotonic() - captured_s)
    assert max(ages_s[1:]) < 0.2
    middles = into[80, width // 14 :: width // 7][:7]
    assert (middles > 128).astype(int).tolist() == [
        [1, 1, 1],
        [0, 1, 1],
        [1, 1, 0],
        [0, 1, 0],
        [1, 0, 1],
        [0, 0, 1],
        [1, 0, 0],
    ]


def test_the_real_one_keeps_the_newest_frame(bars: GstDevice) -> None:
    """Frames that waited say so, and after those that were in the pipe the next is new."""
    into = np.empty((bars.size_wh[1], bars.size_wh[0], 3), np.uint8)
    for _ in range(3):
        assert bars.grab() is not None
        assert bars.retrieve(into)
    time.sleep(1.0)
    ages_s = []
    for _ in range(12):
        captured_s = bars.grab()
        assert captured_s is not None
        ages_s.append(time.monotonic() - captured_s)
        assert bars.retrieve(into)
    assert 0.8 < ages_s[0] < 1.2
    assert ages_s[-1] < 0.2


@pytest.mark.parametrize(
    ("pipeline", "line"),
    [
        ("nosuchelement ! videoconvert", 'no element "nosuchelement"'),
        ("filesrc location=/nowhere ! decodebin", "Resource not found"),
    ],
)
def test_the_real_one_says_what_is_wrong(real: None, pipeline: str, line: str) -> None:
    with pytest.raises(SourceError) as refused:
        GstDevice(pipeline)
    assert line in str(refused.value)
