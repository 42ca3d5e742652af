"""The Picamera2 device against a picamera2 that keeps its contract and notes who does not."""

from __future__ import annotations

import sys
import time
import types
from typing import Any

import numpy as np
import pytest

from edge.capture.picamera import BUFFERS, Picamera2Device
from edge.errors import CaptureError, SourceError

SIZE_WH = (50, 6)
STRIDE = 192  # 50 * 3 bytes and the padding that the hardware wants
AGE_S = 0.040


class FakeRequest:
    """One of the camera's buffers, to be given back exactly once."""

    def __init__(self, camera: FakeCamera, number: int) -> None:
        self.camera, self.number, self.released = camera, number, False
        self.memory = np.full((SIZE_WH[1], STRIDE), 255, np.uint8)
        self.memory[:, : SIZE_WH[0] * 3] = number
        self.memory[0, :3] = (1, 2, 3)

    def get_metadata(self) -> dict[str, Any]:
        assert not self.released
        if self.camera.metadata is not None:
            return self.camera.metadata
        return {"SensorTimestamp": time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(AGE_S * 1e9), "ExposureTime": 9000}

    def release(self) -> None:
        assert not self.released, "released twice"
        self.released = True
        self.camera.held -= 1


class FakeMappedArray:
    """A view of the request's memory, valid inside the with only."""

    def __init__(self, request: FakeRequest, stream: str) -> None:
        assert stream == "main"
        self.request = request
        self.array: Any = None

    def __enter__(self) -> FakeMappedArray:
        assert not self.request.released, "mapped after its release"
        width, height = SIZE_WH
        self.array = self.request.memory[:, : width * 3].reshape(height, width, 3)
        if self.request.camera.fails_at == "map":
            raise OSError("the mapping failed")
        return self

    def __exit__(self, *_: object) -> None:
        assert not self.request.released, "released while it was mapped"
        self.array = None


class FakeCamera:
    """picamera2.Picamera2, for one camera that gives 50x6 whatever is asked for."""

    fails_at: str | None = None
    metadata: dict[str, Any] | None = None
    connected = 1
    last: FakeCamera

    def __init__(self, index: int) -> None:
        assert index == 0
        self.calls = ["open"]
        self.requests: list[FakeRequest] = []
        self.held = 0
        self.configuration: dict[str, Any] = {}
        FakeCamera.last = self
        if self.fails_at == "open":
            raise RuntimeError("Camera __init__ sequence did not complete.")

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return [{"Model": "imx708", "Num": number} for number in range(FakeCamera.connected)]

    def create_video_configuration(
        self, main: dict[str, Any], buffer_count: int, controls: dict[str, Any]
    ) -> dict[str, Any]:  # fmt: skip
        assert main["format"] == "RGB888"
        assert buffer_count == BUFFERS
        usual = {"NoiseReductionMode": 1, "FrameDurationLimits": (33333, 33333)}
        return {"main": dict(main), "buffer_count": buffer_count, "controls": usual | controls}

    def configure(self, configuration: dict[str, Any]) -> None:
        self.calls.append("configure")
        if self.fails_at == "configure":
            raise RuntimeError("Invalid camera configuration")
        self.configuration = configuration | {"main": configuration["main"] | {"size": SIZE_WH, "stride": STRIDE}}

    def camera_configuration(self) -> dict[str, Any]:
        return self.configuration

    def start(self) -> None:
        assert self.calls[-1] == "configure"
        self.calls.append("start")

    def capture_request(self) -> FakeRequest:
        assert self.calls[-1] == "start"
        if self.fails_at == "capture":
            raise RuntimeError("Camera frontend has timed out!")
        assert self.held < BUFFERS, "every buffer is held: a real camera would now hang"
        self.held += 1
        self.requests.append(FakeRequest(self, len(self.requests)))
        return self.requests[-1]

    def stop(self) -> None:
        assert self.held == 0, "a request outlives the camera"
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def picamera2(monkeypatch: pytest.MonkeyPatch) -> type[FakeCamera]:
    module = types.ModuleType("picamera2")
    vars(module).update(Picamera2=FakeCamera, MappedArray=FakeMappedArray)
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(FakeCamera, "fails_at", None)
    monkeypatch.setenv("LIBCAMERA_LOG_LEVELS", "*:FATAL")
    return FakeCamera


def picture() -> np.ndarray:
    return np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)


def test_frames_come_with_the_time_of_their_exposure_and_go_back_at_once() -> None:
    device = Picamera2Device(0)
    assert (device.size_wh, device.fps, device.text) == (SIZE_WH, 30.0, "50x6 RGB888 30 frames/s")
    camera, into = FakeCamera.last, picture()
    for number in range(3 * BUFFERS):
        captured_s = device.grab()
        assert time.monotonic() - captured_s == pytest.approx(AGE_S, abs=0.02)
        assert device.retrieve(into)
        assert camera.held == 0
        assert into[0, 0].tolist() == [1, 2, 3]
        assert (into[1:] == number).all(), "padding got into the picture"
    device.close()
    device.close()
    assert camera.calls == ["open", "configure", "start", "stop", "close"]
    assert all(request.released for request in camera.requests)


def test_size_and_rate_are_asked_for() -> None:
    device = Picamera2Device(0, (1280, 720), 12.5)
    assert FakeCamera.last.configuration["controls"]["FrameRate"] == 12.5
    assert (device.size_wh, device.fps) == (SIZE_WH, 12.5), "the camera's own size counts"
    device.close()


def test_frames_that_nobody_retrieves_go_back_too() -> None:
    device = Picamera2Device(0)
    for _ in range(3 * BUFFERS):
        device.grab()
    assert FakeCamera.last.held == 1
    device.close()
    assert FakeCamera.last.held == 0


def test_retrieve_needs_a_grab_and_the_right_size() -> None:
    device = Picamera2Device(0)
    assert not device.retrieve(picture())
    device.grab()
    assert not device.retrieve(np.zeros((7, 50, 3), np.uint8))
    assert FakeCamera.last.held == 0
    assert not device.retrieve(picture()), "one grab, one frame"
    device.close()


def test_a_request_is_released_when_retrieve_raises(picamera2: type[FakeCamera], monkeypatch: pytest.MonkeyPatch) -> None:
    device = Picamera2Device(0)
    device.grab()
    monkeypatch.setattr(picamera2, "fails_at", "map")
    with pytest.raises(OSError, match="mapping failed"):
        device.retrieve(picture())
    assert FakeCamera.last.held == 0
    device.close()


def test_a_camera_that_fails_while_capturing(picamera2: type[FakeCamera], monkeypatch: pytest.MonkeyPatch) -> None:
    device = Picamera2Device(0)
    device.grab()
    monkeypatch.setattr(picamera2, "fails_at", "capture")
    with pytest.raises(CaptureError, match=r"^picamera:0: Camera frontend has timed out!$"):
        device.grab()
    assert FakeCamera.last.held == 0
    device.close()


def test_a_frame_without_a_time_is_as_old_as_it_came(picamera2: type[FakeCamera], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picamera2, "metadata", {})
    device = Picamera2Device(0)
    before_s = time.monotonic()
    assert before_s <= device.grab() <= time.monotonic()
    monkeypatch.setattr(picamera2, "metadata", {"SensorTimestamp": time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**9})
    assert device.grab() <= time.monotonic(), "no frame is from the future"
    device.close()


@pytest.mark.parametrize(
    ("fails_at", "calls", "line"),
    [
        ("open", ["open"], "Camera __init__ sequence did not complete."),
        ("configure", ["open", "configure", "stop", "close"], "Invalid camera configuration"),
    ],
)
def test_a_camera_that_does_not_open_is_let_go_of(
    picamera2: type[FakeCamera], monkeypatch: pytest.MonkeyPatch, fails_at: str, calls: list[str], line: str
) -> None:
    monkeypatch.setattr(picamera2, "fails_at", fails_at)
    with pytest.raises(SourceError) as refused:
        Picamera2Device(0)
    assert str(refused.value) == f"picamera:0: cannot be opened: {line}; see rpicam-hello --list-cameras"
    assert FakeCamera.last.calls == calls


@pytest.mark.parametrize(("connected", "words"), [(0, "none connected"), (1, "1 connected")])
def test_a_camera_that_is_not_there(
    picamera2: type[FakeCamera], monkeypatch: pytest.MonkeyPatch, connected: int, words: str
) -> None:
    monkeypatch.setattr(picamera2, "connected", connected)
    with pytest.raises(SourceError, match=f"^picamera:1: no such camera, {words}; see rpicam-hello --list-cameras$"):
        Picamera2Device(1)


def test_without_picamera2_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError) as refused:
        Picamera2Device(0)
    assert str(refused.value) == (
        "picamera:0: picamera2 is not installed; apt install python3-picamera2 "
        "and make the environment with --system-site-packages"
    )
