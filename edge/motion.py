"""The motion gate: whether a frame differs enough from what the model saw last to be worth an inference."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge.types import Float32, UInt8

SMALL = 96
"""About the longer side that pictures are compared at: sensor noise averages out, and what a detector can find still
covers several pixels."""
ROWS = 4
"""About as many rows of a picture are averaged to one; reading every row of a large one takes longer and shows no more."""
FLAT = 4.0
"""A variance of grey levels below which a picture has no contrast to measure a gain by."""
GAINS = (0.5, 2.0)
"""The changes of gain that count as light; beyond them the camera has been covered or turned."""

TICK_S = 1e-6
"""Less than this is rounding: every tenth frame of ten a second is due after one second."""


class MotionGate:
    """Notices changes in the pictures of one source; the caller infers when `moves` says so, and else carries the result.

    A picture is shrunk to a small grey one and compared, after the least-squares gain and offset between the two are
    taken out (light and exposure), with two others: a background that follows with a time constant of `adapt_s`, so that
    something new keeps the gate open for a while, and the picture of the last inference, so that what moves slowly adds up
    until it counts. A pixel has changed when it differs by more than `pixel` of 255 grey levels. The gate opens at
    a share `start_share` of changed pixels, and closes after `calm_frames` frames in a row below `stop_share`; closed,
    it still lets a frame through every `refresh_s` seconds.

    `tolerance` multiplies both shares, and may change at any time: a board that must do less lets smaller changes pass.
    While it is not `enabled`, everything moves.

    The defaults lost no object in benchmarks/motion.py: 0.1% of the pixels, 7 of 96 x 72, is about the smallest object that
    a detector of 416 x 416 finds. A slower background only saves less there.
    """

    def __init__(
        self,
        *,
        pixel: float = 12.0,
        start_share: float = 0.001,
        stop_share: float = 0.0005,
        calm_frames: int = 5,
        refresh_s: float = 2.0,
        adapt_s: float = 0.5,
    ) -> None:
        self._pixel, self._start_share, self._stop_share = pixel, start_share, stop_share
        self._calm_frames, self._refresh_s, self._adapt_s = calm_frames, refresh_s, adapt_s
        self._size: tuple[int, ...] = ()
        self._background = self._inferred = np.empty((0, 0), np.float32)
        self._seen_s = self._inferred_s = 0.0
        self._open = False
        self._calm = 0
        self.inferred = 0
        self.skipped = 0
        self.share = 0.0
        self.tolerance = 1.0
        self.enabled = True

    def moves(self, image: UInt8, now_s: float) -> bool:
        """Whether to infer on this BGR picture [height, width, 3], captured at `now_s`; `share` is what it saw."""
        if not self.enabled:
            self._size = ()  # switched on again, it begins anew
            return True
        small = _shrunk(image)
        if image.shape != self._size:  # the first, or the source changed its mode
            self._size, self._background, self._seen_s = image.shape, small.copy(), now_s
            self._open, self._calm = True, 0
            return self._infer(small, now_s)
        self.share = max(self._changed(small, self._background), self._changed(small, self._inferred))
        passed_s, self._seen_s = max(0.0, now_s - self._seen_s), now_s
        cv2.accumulateWeighted(small, self._background, 1 - math.exp(-passed_s / self._adapt_s))
        if self.share >= self._start_share * self.tolerance:
            self._open, self._calm = True, 0
        elif self._open:
            self._calm = self._calm + 1 if self.share < self._stop_share * self.tolerance else 0
            self._open = self._calm < self._calm_frames
        if self._open or now_s - self._inferred_s >= self._refresh_s - TICK_S:
            return self._infer(small, now_s)
        self.skipped += 1
        return False

    def _infer(self, small: Float32, now_s: float) -> bool:
        self._inferred, self._inferred_s = small, now_s
        self.inferred += 1
        return True

    def _changed(self, small: Float32, other: Float32) -> float:
        """The share of pixels that differ, whatever the light."""
        gain, offset = _light(small, other)
        expected = cv2.addWeighted(other, gain, other, 0.0, offset)
        apart = cv2.absdiff(small, expected)
        return int(np.count_nonzero(apart > self._pixel)) / apart.size


def _shrunk(image: UInt8) -> Float32:
    """A small grey picture float32, about 96 x 72 of 4:3, without the noise.

    Both factors are whole numbers, with which OpenCV averages three to five times as fast, so a few pixels at the right and
    the bottom are left out; and grey comes last, since that of all the pixels costs more.
    """
    height, width = image.shape[:2]
    factor = max(1, round(max(width, height) / SMALL))
    step = max(1, factor // ROWS)
    together = max(1, round(factor / step))  # rows, every step-th of them
    size = (max(1, width // factor), max(1, height // (step * together)))
    part = image[: size[1] * together * step : step, : size[0] * factor]  # a view, which OpenCV reads as it is
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    blurred: Float32 = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (3, 3), 0).astype(np.float32)
    return blurred


def _light(small: Float32, other: Float32) -> tuple[float, float]:
    """The gain and offset that best explain `small` by `other` (least squares)."""
    mean, mean_other = float(small.mean()), float(other.mean())
    variance = float(np.vdot(other, other)) / other.size - mean_other**2
    gain = 1.0
    if variance > FLAT:
        gain = (float(np.vdot(small, other)) / other.size - mean * mean_other) / variance
        gain = min(max(gain, GAINS[0]), GAINS[1])
    return gain, mean - gain * mean_other
