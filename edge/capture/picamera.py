"""A Raspberry Pi camera through picamera2: frames are copied once, out of the buffer the camera wrote them to."""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

import numpy as np

from edge.errors import CaptureError, SourceError
from edge.types import UInt8

BUFFERS = 4


class Picamera2Device:
    """Camera number `index` of those that libcamera knows; a `Device` of the reader process.

    `size_wh` is what the camera made of the size that was asked for. A grabbed request holds one of the camera's few
    buffers until `retrieve`, the next `grab` or `close`. Raises SourceError.
    """

    def __init__(self, index: int, size_wh: tuple[int, int] = (640, 480), fps: float | None = None) -> None:
        self._name = f"picamera:{index}"
        self._request: Any = None
        self._camera: Any = None
        os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:FATAL")  # what concerns the user is in our one line
        try:
            self._module: Any = importlib.import_module("picamera2")
        except ImportError as error:
            raise SourceError(f"{self._name}: {_absence(error)}") from None
        try:
            self._open(index, size_wh, fps)
        except SourceError:
            raise
        except Exception as error:  # libcamera's bindings raise what they like
            self.close()
            raise SourceError(
                f"{self._name}: cannot be opened: {str(error) or type(error).__name__}; see rpicam-hello --list-cameras"
            ) from None

    def _open(self, index: int, size_wh: tuple[int, int], fps: float | None) -> None:
        there = len(self._module.Picamera2.global_camera_info())
        if index >= there:
            raise SourceError(f"{self._name}: no such camera, {there or 'none'} connected; see rpicam-hello --list-cameras")
        self._camera = self._module.Picamera2(index)
        configuration = self._camera.create_video_configuration(
            main={
                "format": "RGB888",
                "size": size_wh,
            },  # libcamera names the colours of a little-endian word: B, G, R in memory
            buffer_count=BUFFERS,
            controls={} if fps is None else {"FrameRate": fps},
        )
        self._camera.configure(configuration)
        chosen = self._camera.camera_configuration()
        if chosen["main"]["format"] != "RGB888":
            raise RuntimeError(f"it gives {chosen['main']['format']}, not RGB888")
        self.size_wh: tuple[int, int] = tuple(chosen["main"]["size"])
        self.fps = fps if fps is not None else _rate(chosen["controls"])
        self.text = f"{self.size_wh[0]}x{self.size_wh[1]} RGB888{f' {self.fps:g} frames/s' if self.fps else ''}"
        self._camera.start()

    def grab(self) -> float:
        """Wait for the next frame: when its first row was exposed, on time.monotonic(). Raises CaptureError."""
        self._release()
        try:
            self._request = self._camera.capture_request()
            exposed_ns: int | None = self._request.get_metadata().get("SensorTimestamp")
        except Exception as error:
            self._release()
            raise CaptureError(f"{self._name}: {str(error) or type(error).__name__}") from None
        now_s = time.monotonic()
        if exposed_ns is None:
            return now_s
        # the sensor's clock goes on while the machine is suspended, time.monotonic() does not
        age_s = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - exposed_ns
        return now_s - max(0, age_s) / 1e9

    def retrieve(self, into: UInt8) -> bool:
        """Copy the grabbed frame, BGR, into `into`, uint8 [height, width, 3]; False if its size is another."""
        if self._request is None:
            return False
        try:
            with self._module.MappedArray(self._request, "main") as mapped:
                if mapped.array.shape != into.shape:
                    return False
                np.copyto(into, mapped.array)  # its rows may be padded
            return True
        finally:
            self._release()

    def close(self) -> None:
        """Give the camera back; may be called twice."""
        camera, self._camera = self._camera, None
        self._release()
        if camera is not None:
            try:
                camera.stop()
            finally:
                camera.close()

    def _release(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.release()


def _rate(controls: dict[str, Any]) -> float | None:
    """Frames/s of a configuration whose frames have one length in microseconds."""
    shortest_us, longest_us = controls.get("FrameDurationLimits", (0, 0))
    return round(1e6 / shortest_us, 2) if shortest_us == longest_us and shortest_us else None


def _absence(error: ImportError) -> str:
    if error.name == "picamera2":
        return "picamera2 is not installed; apt install python3-picamera2 and make the environment with --system-site-packages"
    return f"picamera2 does not load: {error}; apt install --reinstall python3-picamera2"
