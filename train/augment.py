"""What changes between two looks of a camera at the same thing, as data and as functions of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge.types import UInt8

LUMA_BGR = np.array([0.114, 0.587, 0.299], np.float32)
"""Weights of blue, green and red in brightness (ITU-R BT.601)."""
SHORTEST_BLUR, LARGEST_BLUR = 3, 0.03
"""Pixels a blur spans at least, and the share of the picture's shorter side at most."""


@dataclass(frozen=True, slots=True)
class Augment:
    """What changes between two looks at the same thing, drawn anew for each picture.

    A rectangle of at least `least_area` of what could be seen is cut out, its aspect changed by a factor of up to
    `aspect`; `exposure` and `balance` (white balance, each colour its own) are stops, powers of two, and `saturation` a
    share; zero leaves things as they are. A camera's troubles come with a probability each: `blur` (out of focus),
    `motion` (blur along a line), `noise` (of a sensor in the dark: Gaussian of up to 20 levels, larger where it is
    brighter) and `jpeg` (compression of quality 20 to 80).
    """

    least_area: float = 0.35
    aspect: float = 4 / 3
    flip: bool = True
    exposure: float = 0.5
    balance: float = 0.1
    saturation: float = 0.4
    blur: float = 0.0
    motion: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0


STANDARD = Augment()
AUGMENTS: Mapping[str, Augment] = {
    "none": Augment(least_area=1.0, aspect=1.0, flip=False, exposure=0.0, balance=0.0, saturation=0.0),
    "light": Augment(least_area=0.5, exposure=0.25, balance=0.05, saturation=0.2),
    "standard": STANDARD,
    "camera": replace(STANDARD, exposure=1.0, balance=0.2, blur=0.15, motion=0.15, noise=0.25, jpeg=0.25),
    "night": replace(STANDARD, exposure=2.0, balance=0.3, saturation=0.8, blur=0.2, motion=0.3, noise=0.6, jpeg=0.3),
}
"""Presets by name: what a shop's or a yard's camera does to pictures is `camera`, what it does in the dark is `night`."""


def coloured(
    pixels: UInt8, augment: Augment, luma: np.ndarray[tuple[int], np.dtype[np.float32]], random: np.random.Generator
) -> UInt8:
    """A picture [h, w, 3] with another exposure, white balance and saturation; `luma` weighs its channels."""
    gain = 2 ** (random.uniform(-augment.exposure, augment.exposure) + random.uniform(-augment.balance, augment.balance, 3))
    saturation = 1 + random.uniform(-augment.saturation, augment.saturation)
    mix = saturation * np.eye(3) + (1 - saturation) * np.tile(luma, (3, 1))
    changed: UInt8 = cv2.transform(pixels, mix * gain)  # type: ignore[assignment]
    return changed


def troubled(pixels: UInt8, augment: Augment, random: np.random.Generator) -> UInt8:
    """A picture [h, w, 3] as a worse camera would have taken it, in the order in which light meets lens, sensor and codec."""
    drawn = random.random(4)
    if drawn[0] < augment.blur:
        pixels = _blurred(pixels, random)
    if drawn[1] < augment.motion:
        pixels = _moved(pixels, random)
    if drawn[2] < augment.noise:
        pixels = _noisy(pixels, random)
    if drawn[3] < augment.jpeg:
        pixels = _compressed(pixels, random)
    return pixels


def _blurred(pixels: UInt8, random: np.random.Generator) -> UInt8:
    sigma = random.uniform(0.5, max(1.0, LARGEST_BLUR * min(pixels.shape[:2]) / 3))
    blurred: UInt8 = cv2.GaussianBlur(pixels, (0, 0), sigma)  # type: ignore[assignment]
    return blurred


def _moved(pixels: UInt8, random: np.random.Generator) -> UInt8:
    longest = max(SHORTEST_BLUR, round(LARGEST_BLUR * min(pixels.shape[:2])))
    span = int(random.integers(SHORTEST_BLUR, longest + 1)) // 2 * 2 + 1
    angle = random.uniform(0, np.pi)
    middle = (span - 1) / 2
    along = np.array([np.cos(angle), np.sin(angle)]) * middle
    ends = [tuple(np.rint(middle + sign * along).astype(int).tolist()) for sign in (-1, 1)]
    line = cv2.line(np.zeros((span, span), np.float32), ends[0], ends[1], 1.0)
    moved: UInt8 = cv2.filter2D(pixels, -1, line / line.sum())  # type: ignore[assignment]
    return moved


def _noisy(pixels: UInt8, random: np.random.Generator) -> UInt8:
    """Read noise, and shot noise whose variance grows with the light."""
    sigma = random.uniform(2, 20)
    deviation = sigma * np.sqrt(0.5 + pixels.astype(np.float32) / 255)
    noise = random.standard_normal(pixels.shape, np.float32) * deviation
    noisy: UInt8 = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    return noisy


def _compressed(pixels: UInt8, random: np.random.Generator) -> UInt8:
    quality = int(random.integers(20, 81))
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded: UInt8 = cv2.imdecode(encoded, cv2.IMREAD_COLOR)  # type: ignore[assignment]
    return decoded
