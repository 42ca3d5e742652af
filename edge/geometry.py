"""Pictures into model inputs and back: pure functions of arrays, the only resizing in the project."""

from __future__ import annotations

import cv2
import numpy as np

from edge.buffers import Pool
from edge.card import InputGeometry
from edge.types import Frame, Geometry, Tensor, UInt8

POOL = Pool()
"""Inputs of models: a tensor's memory comes back when the tensor is gone."""
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def crop_box(size_wh: tuple[int, int], target_wh: tuple[int, int], fraction: float) -> tuple[int, int, int, int]:
    """The centred rectangle x, y, width, height of `target_wh`'s shape, `fraction` of the largest that fits."""
    width, height = size_wh
    scale = fraction * min(width / target_wh[0], height / target_wh[1])
    crop_w = min(width, max(1, round(target_wh[0] * scale)))
    crop_h = min(height, max(1, round(target_wh[1] * scale)))
    return (width - crop_w) // 2, (height - crop_h) // 2, crop_w, crop_h


def prepare(frame: Frame, spec: InputGeometry) -> Tensor:
    """A frame as a model's input: fitted, in the card's colour order, uint8 [1, spec.height, spec.width, 3], leased."""
    data = POOL.take((1, spec.height, spec.width, 3))
    if spec.color == "bgr":
        return Tensor(data, fit(frame.image, spec, data[0])[1])
    picture, geometry = fit(frame.image, spec, POOL.take((spec.height, spec.width, 3)))
    cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=data[0])
    return Tensor(data, geometry)


def fit(image: UInt8, spec: InputGeometry, into: UInt8 | None = None) -> tuple[UInt8, Geometry]:
    """Resize a BGR picture [h, w, 3] as `spec` says; the picture [spec.height, spec.width, 3] still BGR, and its geometry.

    The picture is `into`, where that is given.
    """
    picture = np.empty((spec.height, spec.width, 3), np.uint8) if into is None else into
    if spec.resize == "letterbox":
        return picture, _letterbox(image, spec, picture)
    size_wh = (image.shape[1], image.shape[0])
    x, y, width, height = 0, 0, *size_wh
    if spec.resize == "crop":
        x, y, width, height = crop_box(size_wh, (spec.width, spec.height), spec.crop_fraction)
    scale = (spec.width / width, spec.height / height)
    _resize(image[y : y + height, x : x + width], picture, spec)
    return picture, Geometry(scale, (-x * scale[0], -y * scale[1]), size_wh)


def _letterbox(image: UInt8, spec: InputGeometry, into: UInt8) -> Geometry:
    height, width = image.shape[:2]
    ratio = min(spec.width / width, spec.height / height)
    new_w, new_h = max(1, round(width * ratio)), max(1, round(height * ratio))
    left, top = ((spec.width - new_w) // 2, (spec.height - new_h) // 2) if spec.letterbox_anchor == "center" else (0, 0)
    into[:top] = into[top + new_h :] = spec.pad_value
    into[top : top + new_h, :left] = into[top : top + new_h, left + new_w :] = spec.pad_value
    _resize(image, into[top : top + new_h, left : left + new_w], spec)
    return Geometry((new_w / width, new_h / height), (float(left), float(top)), (width, height))


def _resize(image: UInt8, into: UInt8, spec: InputGeometry) -> None:
    """Straight into `into`, which may be a part of a larger picture."""
    size_wh = (into.shape[1], into.shape[0])
    if (image.shape[1], image.shape[0]) == size_wh:
        np.copyto(into, image)
        return
    cv2.resize(image, size_wh, dst=into, interpolation=INTERPOLATIONS[spec.interpolation])
