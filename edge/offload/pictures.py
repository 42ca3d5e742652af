"""A frame's copy for the network: what is private filled, a part cut out, and JPEG without metadata."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from edge.errors import OffloadError
from edge.offload.uplink import Rung
from edge.privacy import grown
from edge.types import Detections, Geometry, Result, UInt8

FILL = 128
"""The grey that stands for what is private: nothing of what was there can be got back from it."""

Rectangle = tuple[int, int, int, int]


class RedactionError(OffloadError):
    """What must not be seen could not be filled: the frame may not be sent."""


def redacted(image: UInt8, result: Result) -> UInt8:
    """The picture [h, w, 3] with all that `result` says is private filled, a copy where there is any.

    Raises RedactionError for a result that does not say what is private.
    """
    if not isinstance(result, Detections) or result.private_xyxy is None:
        raise RedactionError("nobody looked for what is private")
    if not len(result.private_xyxy):
        return image
    copy: UInt8 = image.copy()
    size_wh = (image.shape[1], image.shape[0])
    for box in result.private_xyxy.tolist():
        left, top, right, bottom = whole_pixels(box, size_wh)
        copy[top:bottom, left:right] = FILL
    return copy


def around(result: Result, about: Sequence[int], size_wh: tuple[int, int]) -> Rectangle:
    """The rectangle of whole pixels around some of the objects, grown by a tenth on each side; of none, the whole picture."""
    if not isinstance(result, Detections) or not about:
        return 0, 0, *size_wh
    boxes = result.boxes_xyxy[list(about)]
    bounds = np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))[None]
    return whole_pixels(grown(bounds.astype(np.float32))[0].tolist(), size_wh)


def whole_pixels(box_xyxy: Sequence[float], size_wh: tuple[int, int]) -> Rectangle:
    """All pixels that a box touches, within the picture; at least one."""
    left, top, right, bottom = box_xyxy
    width, height = size_wh
    left_px, top_px = (min(max(0, math.floor(low)), limit - 1) for low, limit in ((left, width), (top, height)))
    right_px, bottom_px = (min(math.ceil(high), limit) for high, limit in ((right, width), (bottom, height)))
    return left_px, top_px, max(right_px, left_px + 1), max(bottom_px, top_px + 1)


def encode_part(image: UInt8, part: Rectangle, rung: Rung) -> tuple[bytes, Geometry]:
    """A part of a BGR picture as JPEG, its longest side as the rung says at most, and the map from the picture to it.

    Raises OffloadError.
    """
    left, top, right, bottom = part
    image_wh = (image.shape[1], image.shape[0])
    cut = image[top:bottom, left:right]
    width, height = sent_size(right - left, bottom - top, rung.longest_side)
    scale = (width / (right - left), height / (bottom - top))
    if (width, height) != (right - left, bottom - top):
        cut = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    done, encoded = cv2.imencode(".jpg", cut, [cv2.IMWRITE_JPEG_QUALITY, rung.quality])
    if not done:
        raise OffloadError("the frame could not be encoded as JPEG")
    return encoded.tobytes(), Geometry(scale, (-left * scale[0], -top * scale[1]), image_wh)


def sent_size(width: int, height: int, longest_side: int) -> tuple[int, int]:
    """The width and height of a picture that is shrunk, if need be, to a longest side."""
    ratio = min(1.0, longest_side / max(width, height))
    return max(1, round(width * ratio)), max(1, round(height * ratio))
