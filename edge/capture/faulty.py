"""A device that fails on purpose: for tests of everything that must survive one."""

from __future__ import annotations

import ctypes
import os
import time

from edge.capture.devices import DeviceSpec
from edge.errors import SourceError
from edge.types import UInt8

SIZE_WH = (64, 48)


class FaultyDevice:
    """`address` is `FAULT` or `FAULT:AFTER`: 50 small frames a second, and after AFTER frames (default 5) the fault.

    none, end, hang (grab never returns), spin (nor does it let go of the interpreter), segfault, leak (4 MB a frame),
    freeze (the same picture for ever), resize, slow (a frame a second) and absent (cannot be opened).
    """

    def __init__(self, spec: DeviceSpec) -> None:
        self._fault, _, after = spec.address.partition(":")
        self._after = int(after or 5)
        if self._fault == "absent":
            raise SourceError("is not there")
        self.size_wh = SIZE_WH
        self.fps: float | None = 50.0
        self.text = f"{self._fault} after {self._after} frames"
        self._frames = 0
        self._hoard: list[bytes] = []

    def grab(self) -> float | None:
        """Wait for 20 ms, or do what the fault says."""
        time.sleep(0.02)
        self._frames += 1
        if self._frames > self._after:
            if self._fault == "end":
                return None
            if self._fault == "hang":
                time.sleep(1e6)
            if self._fault == "spin":
                ctypes.PyDLL(None).pause()
            if self._fault == "segfault":
                ctypes.string_at(8)
            if self._fault == "leak":
                self._hoard.append(os.urandom(4 << 20))
            if self._fault == "slow":
                time.sleep(1.0)
        return time.monotonic()

    def retrieve(self, into: UInt8) -> bool:
        """A picture that is another one each time."""
        number = self._after if self._fault == "freeze" and self._frames > self._after else self._frames
        into[:] = number % 251
        into[0, 0] = number // 251 % 251
        return not (self._fault == "resize" and self._frames > self._after)

    def close(self) -> None:
        """Nothing is held."""
