"""Cameras by V4L2's ioctls, told by a driver that a test makes up."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from devices import detect
from edge.doctor.cameras import PicameraFacts, camera_checks, node_check, picamera_check
from edge.doctor.v4l2 import ENUM_FMT, ENUM_FRAMESIZES, QUERYCAP, Node, nodes

CAPTURE, META, M2M, STREAMING, DEVICE_CAPS = 0x1, 0x800000, 0x8000, 0x4000000, 0x80000000
WEBCAM = {"MJPG": [(640, 480), (1920, 1080), (1280, 720)], "YUYV": [(640, 480)]}


class Driver:
    """One answer to every open device: as linux/videodev2.h lays the structures out."""

    def __init__(
        self, name: str, driver: str, caps: int, formats: Mapping[str, Sequence[tuple[int, int]]], *, stepwise: bool = False
    ) -> None:
        self.name, self.driver, self.caps, self.formats, self.stepwise = name, driver, caps, formats, stepwise

    def __call__(self, descriptor: int, request: int, buffer: bytearray) -> None:
        if request == QUERYCAP:
            struct.pack_into("16s32s", buffer, 0, self.driver.encode(), self.name.encode())
            struct.pack_into("II", buffer, 84, 0xFFFFFFFF, self.caps)
            return
        index, second = struct.unpack_from("II", buffer)
        if request == ENUM_FMT:
            codes = list(self.formats) if second == 1 else []
            if index >= len(codes):
                raise OSError(errno.EINVAL, "no more")
            struct.pack_into("4s", buffer, 44, codes[index].encode())
        elif request == ENUM_FRAMESIZES:
            sizes = self.formats[second.to_bytes(4, "little").decode()]
            if index >= (1 if self.stepwise else len(sizes)):
                raise OSError(errno.EINVAL, "no more")
            if self.stepwise:
                struct.pack_into("I6I", buffer, 8, 3, 32, sizes[0][0], 2, 32, sizes[0][1], 2)
            else:
                struct.pack_into("III", buffer, 8, 1, *sizes[index])
        else:
            raise OSError(errno.ENOTTY, "what?")


def device(root: Path, *numbers: int) -> Path:
    (root / "dev").mkdir(exist_ok=True)
    for number in numbers:
        (root / "dev" / f"video{number}").touch()
    return root


def test_a_webcam_and_its_largest_pictures(tmp_path: Path) -> None:
    found = nodes(device(tmp_path, 10, 2), Driver("HD Webcam", "uvcvideo", CAPTURE | STREAMING, WEBCAM))
    assert [node.path for node in found] == ["/dev/video2", "/dev/video10"]
    assert found[0].formats == (("MJPG", (1920, 1080)), ("YUYV", (640, 480)))
    checks = camera_checks(found[:1], None)
    assert [check.text for check in checks] == ["/dev/video2, HD Webcam (uvcvideo): MJPG to 1920x1080, YUYV to 640x480"]
    assert checks[0].status == "ok"


def test_sizes_in_steps(tmp_path: Path) -> None:
    found = nodes(device(tmp_path, 0), Driver("mmal service", "bm2835 mmal", CAPTURE, {"YU12": [(3280, 2464)]}, stepwise=True))
    assert found[0].formats == (("YU12", (3280, 2464)),)


@pytest.mark.parametrize(
    ("driver", "caps"), [("uvcvideo", META), ("bcm2835-codec", CAPTURE | M2M), ("bcm2835-isp", CAPTURE), ("pispbe", CAPTURE)]
)
def test_what_is_no_camera_is_passed_over(driver: str, caps: int, tmp_path: Path) -> None:
    found = nodes(device(tmp_path, 0), Driver("x", driver, caps, WEBCAM))
    assert [check.status for check in camera_checks(found, None)] == ["warn"]
    assert camera_checks(found, None)[0].text == "none"
    assert camera_checks(found, None, raw_elsewhere=True) == []
    assert camera_checks(found, "/dev/video0")[0].status == "fail"


def test_a_raw_sensor_leads_to_picamera() -> None:
    check = node_check(Node("/dev/video0", "unicam-image", "unicam", True, False, (("pRAA", (0, 0)),)))
    assert check is not None
    assert "--source picamera:0" in check.text


@pytest.mark.parametrize(
    ("error", "status", "mend"),
    [
        (errno.EACCES, "fail", "sudo usermod -aG video $USER"),
        (errno.EBUSY, "warn", "sudo fuser -v /dev/video0"),
        (errno.ENODEV, "warn", "unplug it"),
        (errno.EIO, "fail", "unplug it"),
    ],
)
def test_a_camera_that_cannot_be_asked(error: int, status: str, mend: str) -> None:
    check = node_check(Node("/dev/video0", error=error))
    assert check is not None
    assert check.status == status
    assert check.mend.startswith(mend)


def test_a_file_that_is_no_device(tmp_path: Path) -> None:
    assert nodes(tmp_path) == []
    assert nodes(device(tmp_path, 0))[0].error == errno.ENOTTY
    (tmp_path / "dev/video1").mkdir()
    assert [node.error for node in nodes(tmp_path)] == [errno.ENOTTY, errno.EISDIR]


def test_a_driver_that_never_ends(tmp_path: Path) -> None:
    def endless(descriptor: int, request: int, buffer: bytearray) -> None:
        if request == QUERYCAP:
            struct.pack_into("II", buffer, 84, CAPTURE, CAPTURE)

    assert len(nodes(device(tmp_path, 0), endless)[0].formats) == 64


def test_the_camera_that_is_asked_for() -> None:
    webcam = Node("/dev/video2", "Cam", "uvcvideo", True, False, (("MJPG", (640, 480)),))
    assert camera_checks([webcam], "/dev/video2")[0].status == "ok"
    absent = camera_checks([webcam], "/dev/video0")[0]
    assert (absent.status, absent.text) == ("fail", "/dev/video0 is not there; cameras here: /dev/video2")
    assert camera_checks([], "/dev/video7")[0].text == "/dev/video7 is not there; cameras here: none"
    no_camera = camera_checks([webcam], "/dev/null", there=True)[0]
    assert (no_camera.status, no_camera.text) == ("fail", "/dev/null is no camera; cameras here: /dev/video2")


def test_picamera(tmp_path: Path) -> None:
    board = detect(tmp_path)
    assert "apt install python3-picamera2" in picamera_check(PicameraFacts(False), board).mend
    assert picamera_check(PicameraFacts(False), board, others=True).status == "ok"
    assert picamera_check(PicameraFacts(True, 1), board).text == "loads; 1 camera on the ribbon"
    assert picamera_check(PicameraFacts(True, 0), board).status == "ok"
    assert picamera_check(PicameraFacts(True, error="picamera2 fails: ImportError: x"), board).status == "fail"
