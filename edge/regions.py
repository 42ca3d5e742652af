"""Regions of the picture that a user draws: what is blacked out, where objects count, and which objects count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from difflib import get_close_matches

import cv2
import numpy as np

from edge.errors import UsageError
from edge.protocols import Task
from edge.types import Bools, Box, Classes, Float32, Frame, Geometry, Int64, Mask, Outputs, Result, Tensor, UInt8

MOST_POINTS = 1000
SUBPIXEL_BITS = 6
SUBPIXEL = 1 << SUBPIXEL_BITS
MARGIN = 2
"""Pixels around the picture in which edges are drawn, too, so that what they touch beside them is the same at the border."""
ROUNDING = 1e-3
"""Of a pixel: 0.7 of 100 is a little more than 70."""
EXAMPLE = "for example 0.1,0.5,0.9,0.5,0.5,1"


@dataclass(frozen=True, slots=True)
class Region:
    """A polygon of at least three points (x, y) in parts of the picture's width and height, from its top left."""

    points: tuple[tuple[float, float], ...]

    def pixels(self, size_wh: tuple[int, int]) -> Float32:
        """The points [n, 2] in pixels of a picture of that size."""
        return np.array(self.points, np.float32) * np.array(size_wh, np.float32)

    def bounds(self, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
        """The smallest rectangle of whole pixels around it: left, top, right, bottom; at least a pixel either way."""
        points = np.array(self.points) * size_wh
        limit = np.array(size_wh)
        low = np.minimum(np.floor(points.min(axis=0) + ROUNDING), limit - 1).astype(int)
        high = np.maximum(np.ceil(points.max(axis=0) - ROUNDING), low + 1).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def contains(self, points_xy: Float32, size_wh: tuple[int, int]) -> Bools:
        """Which of the points [n, 2] in pixels are inside or on its edge: the even-odd rule (Shimrat, 1962)."""
        contour = self.pixels(size_wh)
        inside = [cv2.pointPolygonTest(contour, (x, y), False) >= 0 for x, y in points_xy.tolist()]
        return np.array(inside, np.bool_)

    def cells(self, area_xyxy: Box, cells_wh: tuple[int, int], size_wh: tuple[int, int]) -> Bools:
        """Which cells [h, w] of a grid over `area_xyxy` of a picture have their centre inside, by the same rule."""
        width, height = cells_wh
        low, high = np.array(area_xyxy[:2]), np.array(area_xyxy[2:])
        corners = (np.array(self.points) * size_wh - low) / (high - low) * cells_wh - 0.5  # centres are whole numbers
        rows = np.arange(height)
        crossings = np.zeros((height, width + 1), np.int64)  # of edges, where the next centre to their right is
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            crossed = rows[(y1 > rows) != (y2 > rows)]
            columns = np.ceil(x1 + (crossed - y1) / (y2 - y1) * (x2 - x1))
            crossings[crossed, np.clip(columns, 0, width).astype(np.int64)] += 1
        inside: Bools = crossings[:, :width].cumsum(axis=1) % 2 == 1
        return inside


def parse_region(text: str) -> Region:
    """A region from "x1,y1,x2,y2,x3,y3...", each from 0 to 1; two points are a rectangle's corners. Raises UsageError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"region {text!r:.80}: expected numbers between commas, {EXAMPLE}") from None
    if len(numbers) % 2 or not 4 <= len(numbers) <= 2 * MOST_POINTS:
        raise UsageError(f"region {text!r:.80}: {_count(numbers)}; expected x,y of at least two points, {EXAMPLE}")
    stray = next((number for number in numbers if not 0 <= number <= 1), None)  # not a number is not, either
    if stray is not None:
        raise UsageError(f"region {text!r:.80}: {stray:g} is not in parts of the picture, from 0 to 1; {EXAMPLE}")
    points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    if len(points) == 2:
        (left, top), (right, bottom) = points
        points = ((left, top), (right, top), (right, bottom), (left, bottom))
    if not _area(points) > 0:
        raise UsageError(f"region {text!r:.80}: it has no area; {EXAMPLE}")
    return Region(points)


def _count(numbers: Sequence[float]) -> str:
    if len(numbers) > 2 * MOST_POINTS:
        return f"{len(numbers)} numbers, more than {2 * MOST_POINTS}"
    odd = " and no y for the last x" if len(numbers) % 2 else ""
    return f"only {len(numbers)} number{'s' * (len(numbers) > 1)}" if len(numbers) < 4 else f"{len(numbers)} numbers{odd}"


def _area(points: tuple[tuple[float, float], ...]) -> float:
    """The area that the edges enclose: Gauss's shoelace of the convex hull, so that a figure of eight has one, too."""
    hull = cv2.convexHull(np.array(points, np.float32))
    area = float(cv2.contourArea(hull))
    return area if math.isfinite(area) else 0.0


class PrivacyMask:
    """Blacks regions out before anything else sees the frame; every pixel that a region touches goes."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self._regions = tuple(regions)
        self._seen: dict[tuple[int, int], UInt8] = {}

    def apply(self, image: UInt8) -> None:
        """Paint the regions of a BGR picture [height, width, 3] black, in place."""
        if not self._regions:
            return
        size_wh = (image.shape[1], image.shape[0])
        if size_wh not in self._seen:
            self._seen = {size_wh: self._visible(size_wh)}  # one at a time: a source changes its size rarely
        cv2.bitwise_and(image, self._seen[size_wh], dst=image)

    def _visible(self, size_wh: tuple[int, int]) -> UInt8:
        """255 for what may be seen, 0 for the rest: [height, width, 3]."""
        hidden = np.zeros((size_wh[1] + 2 * MARGIN, size_wh[0] + 2 * MARGIN), np.uint8)
        for region in self._regions:
            points = (region.pixels(size_wh) + MARGIN - 0.5) * SUBPIXEL  # a pixel's centre is a whole number for OpenCV
            cv2.fillPoly(hidden, [np.rint(points).astype(np.int32)], (255,), shift=SUBPIXEL_BITS)
        cv2.dilate(hidden, np.ones((3, 3), np.uint8), dst=hidden)  # those that an edge only touches
        visible = np.invert(hidden[MARGIN:-MARGIN, MARGIN:-MARGIN])
        return np.repeat(visible[:, :, np.newaxis], 3, axis=2)


class Focus:
    """A task that looks at a region only: it is given the rectangle around it, and finds what has its centre inside.

    That is an object, or a cell of a mask; a classifier sees all of the rectangle. `frame.image` is not copied. A tensor's
    geometry maps the whole picture to the model's, so that it alone says where in the picture the rectangle was.
    """

    def __init__(self, task: Task, region: Region) -> None:
        self._task, self._region = task, region

    def prepare(self, frame: Frame) -> Tensor:
        """The task's input for the part of the frame, with the geometry of the whole."""
        left, top, right, bottom = self._region.bounds(frame.size_wh)
        tensor = self._task.prepare(replace(frame, image=frame.image[top:bottom, left:right]))
        return replace(tensor, geometry=_moved(tensor.geometry, (-left, -top), frame.size_wh))

    def decode(self, outputs: Outputs, tensor: Tensor) -> Result:
        """The task's result for the part, its boxes in pixels of the whole picture."""
        size_wh = tensor.geometry.original_wh
        left, top, right, bottom = self._region.bounds(size_wh)
        part = _moved(tensor.geometry, (left, top), (right - left, bottom - top))
        result = self._task.decode(outputs, replace(tensor, geometry=part))  # which clips to what the model has seen
        if isinstance(result, Classes):
            return result
        if isinstance(result, Mask):
            mask = result.moved((left, top))
            height, width = mask.class_ids.shape
            return mask.only(self._region.cells(mask.area_xyxy, (width, height), size_wh))
        objects = result.moved((left, top))
        if objects.private_xyxy is not None:
            unseen = outside((left, top, right, bottom), size_wh)
            objects = replace(objects, private_xyxy=np.concatenate((objects.private_xyxy, unseen)))
        centres: Float32 = (objects.boxes_xyxy[:, :2] + objects.boxes_xyxy[:, 2:]) * np.float32(0.5)
        return objects[self._region.contains(centres, size_wh)]


def outside(shown_xyxy: Box, size_wh: tuple[int, int]) -> Float32:
    """The rectangles [n, 4] that cover all of a picture but one part of it; those thinner than a pixel are left out."""
    left, top, right, bottom = shown_xyxy
    width, height = size_wh
    strips = ((0, 0, width, top), (0, bottom, width, height), (0, top, left, bottom), (right, top, width, bottom))
    thick = [strip for strip in strips if min(strip[2] - strip[0], strip[3] - strip[1]) >= 1]
    return np.array(thick, np.float32).reshape(-1, 4)


def _moved(geometry: Geometry, by_xy: tuple[int, int], original_wh: tuple[int, int]) -> Geometry:
    """The same map from a picture whose origin lies at `by_xy` of the old one."""
    offset_x, offset_y = (o + s * by for o, s, by in zip(geometry.offset_xy, geometry.scale_xy, by_xy, strict=True))
    return Geometry(geometry.scale_xy, (offset_x, offset_y), original_wh)


class Chosen:
    """A task that reports some classes only, and an object only from its class's own threshold.

    `labels` are the card's. A threshold below the detector's own does nothing: the detector reports nothing from there.
    Of a classifier's best classes those of `classes` remain, which may be none, and of a mask their cells; thresholds are
    for detections.
    """

    def __init__(
        self, task: Task, classes: frozenset[str] | None, thresholds: Mapping[str, float], *, labels: Sequence[str]
    ) -> None:
        check_classes((classes or frozenset()) | set(thresholds), labels)
        for name, threshold in thresholds.items():
            if not 0 <= threshold <= 1:
                raise UsageError(f"threshold {threshold:g} of {name!r}: expected a number from 0 to 1")
        self._task, self._classes, self._thresholds = task, classes, dict(thresholds)

    def prepare(self, frame: Frame) -> Tensor:
        """The task's input."""
        return self._task.prepare(frame)

    def decode(self, outputs: Outputs, tensor: Tensor) -> Result:
        """What remains of the task's result."""
        result = self._task.decode(outputs, tensor)
        if isinstance(result, Classes):
            kept = self._kept(result.labels, np.ones(len(result), np.float32))
            return Classes(result.class_ids[kept], result.scores[kept], tuple(result.labels[i] for i in kept.tolist()))
        if isinstance(result, Mask):
            ids = self._kept(result.labels, np.ones(len(result.labels), np.float32))
            return result.only(np.isin(result.class_ids, ids))
        return result[self._kept(result.labels, result.scores)]

    def _kept(self, labels: tuple[str, ...], scores: Float32) -> Int64:
        pairs = enumerate(zip(labels, scores.tolist(), strict=True))
        return np.array([i for i, (label, score) in pairs if self._wanted(label, score)], np.int64)

    def _wanted(self, label: str, score: float) -> bool:
        return (self._classes is None or label in self._classes) and score >= self._thresholds.get(label, 0.0)


def check_classes(names: Set[str], labels: Sequence[str]) -> None:
    """Raise UsageError for a name that is no label, suggesting those that look like it."""
    unknown = next(iter(sorted(names - set(labels))), None)
    if unknown is not None:
        raise UsageError(_unknown(unknown, labels))


def _unknown(name: str, labels: Sequence[str]) -> str:
    lower = {label.lower(): label for label in labels}
    close = [lower[match] for match in get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    if close:
        return f"class {name!r:.80}: the model does not know it; did you mean {' or '.join(close)}?"
    few = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
    return f"class {name!r:.80}: the model does not know it; it knows {few}"
