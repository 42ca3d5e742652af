"""Pictures with boxes for training: moved, enlarged, shrunk and put together in fours, the boxes with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import msgspec
import numpy as np
import torch
from torch import Tensor

from edge.boxes import box_areas
from edge.boxes_data import BoxSample
from edge.card import InputGeometry
from edge.geometry import fit, prepare
from edge.types import Bools, Float32, Frame, Geometry, Int64, UInt8
from train.augment import LUMA_BGR, Augment, coloured, troubled
from train.batches import Batches

LEAST_VISIBLE = 0.4
"""The share of an object that a cut must leave for it to be one; what less is left of is ignored."""
LEAST_SIDE = 2.0
"""In pixels of the model's input; smaller objects are ignored."""


@dataclass(frozen=True, slots=True)
class Views:
    """What changes where objects are, beside what `Augment` changes.

    A view is up to `shrink` times as wide and as high as the picture, the rest filled; with probability `mosaic` the input
    is made of views of four pictures (Bochkovskiy et al., 2020).
    """

    shrink: float = 1.6
    mosaic: float = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The n objects of a picture: corners [n, 4] in its pixels, class ids [n], and which are `ignored` [n]."""

    xyxy: Float32
    class_ids: Int64
    ignored: Bools

    def moved(self, geometry: Geometry) -> Boxes:
        """The same in the pixels that `geometry` maps to."""
        scale, offset = np.array(geometry.scale_xy * 2, np.float32), np.array(geometry.offset_xy * 2, np.float32)
        return Boxes(self.xyxy * scale + offset, self.class_ids, self.ignored)

    def flipped(self, width: int) -> Boxes:
        """The same in a picture `width` wide, seen in a mirror."""
        mirrored = self.xyxy.copy()
        mirrored[:, [0, 2]] = width - self.xyxy[:, [2, 0]]
        return Boxes(mirrored, self.class_ids, self.ignored)

    def clipped(self, left: float, top: float, right: float, bottom: float) -> Boxes:
        """What of the objects lies in a rectangle; those of which little does are ignored, those of which nothing does gone."""
        low, high = np.array((left, top) * 2, np.float32), np.array((right, bottom) * 2, np.float32)
        inside = np.clip(self.xyxy, low, high)
        share = box_areas(inside) / np.maximum(box_areas(self.xyxy), 1e-9)
        seen = share > 0
        return Boxes(inside[seen], self.class_ids[seen], (self.ignored | (share < LEAST_VISIBLE))[seen])


@dataclass(frozen=True, slots=True, eq=False)
class BoxBatch:
    """Normalized float32 `images` [n, 3, h, w], channels last in memory, and the objects of each, padded to m.

    `boxes_xyxy` float32 [n, m, 4] are in pixels of the input, `class_ids` int64 [n, m] are -1 where there is none, and
    `ignored` [n, m] are neither objects nor background.
    """

    images: Tensor
    boxes_xyxy: Tensor
    class_ids: Tensor
    ignored: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> BoxBatch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        return BoxBatch(*(tensor.to(device, non_blocking=True) for tensor in self._tensors()))

    def parts(self, count: int) -> list[BoxBatch]:
        """The batch in `count` parts, or as many as it has pictures, of nearly one size."""
        count = min(count, len(self))
        return [BoxBatch(*part) for part in zip(*(tensor.tensor_split(count) for tensor in self._tensors()), strict=True)]

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.images, self.boxes_xyxy, self.class_ids, self.ignored


class BoxPictures(Batches[BoxSample, Boxes, BoxBatch]):
    """Pictures with boxes in batches."""

    def steps(
        self,
        epoch: int,
        size: int,
        seed: int,
        augment: Augment,
        views: Views,
        *,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[tuple[int, BoxBatch]]:
        """The batches of an epoch, augmented, with their numbers, from number `first` on, as process `rank` takes them."""

        def draw(index: int, random: np.random.Generator) -> tuple[UInt8, Boxes] | None:
            return self._drawn(index, augment, views, random)

        return self._steps(draw, epoch, size, seed, first, rank, world)

    def _plain(self, frame: Frame, sample: BoxSample) -> tuple[UInt8, Boxes]:
        tensor = prepare(frame, self._spec)
        return tensor.data[0], _boxes(sample).moved(tensor.geometry)

    def _drawn(self, index: int, augment: Augment, views: Views, random: np.random.Generator) -> tuple[UInt8, Boxes] | None:
        """A picture's augmented input with its boxes, or, sometimes, four pictures'; None when it cannot be read."""
        first = self._frame(index)
        if first is None:
            return None
        others: list[tuple[Frame, BoxSample] | None] = []
        if random.random() < views.mosaic:
            others = [self._frame(other) for other in random.integers(len(self._samples), size=3).tolist()]
        loaded = [first, *(found for found in others if found is not None)]
        looks = [_look(frame.image, _boxes(sample), self._spec, augment, views, random) for frame, sample in loaded]
        pixels, boxes = _mosaic(looks, self._spec, random) if len(looks) == 4 else _fitted(*looks[0], self._spec)
        luma = LUMA_BGR if self._spec.color == "bgr" else LUMA_BGR[::-1]
        return troubled(coloured(pixels, augment, luma, random), augment, random), boxes

    def _labelled(self, images: Tensor, labels: Sequence[Boxes]) -> BoxBatch:
        most = max(1, *(len(boxes.class_ids) for boxes in labels))
        xyxy = np.zeros((len(labels), most, 4), np.float32)
        class_ids = np.full((len(labels), most), -1, np.int64)
        ignored = np.zeros((len(labels), most), np.bool_)
        for index, boxes in enumerate(labels):
            count = len(boxes.class_ids)
            xyxy[index, :count], class_ids[index, :count] = boxes.xyxy, boxes.class_ids
            small = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2] < LEAST_SIDE).any(1)
            ignored[index, :count] = boxes.ignored | small
        return BoxBatch(images, torch.from_numpy(xyxy), torch.from_numpy(class_ids), torch.from_numpy(ignored))


def _boxes(sample: BoxSample) -> Boxes:
    return Boxes(sample.boxes_xyxy, sample.class_ids, sample.ignored)


def _look(
    image: UInt8, boxes: Boxes, spec: InputGeometry, augment: Augment, views: Views, random: np.random.Generator
) -> tuple[UInt8, Boxes]:
    """A rectangle of the picture [h, w, 3], or one around it, filled up, and its boxes; perhaps in a mirror."""
    height, width = image.shape[:2]
    side = np.exp(random.uniform(np.log(np.sqrt(augment.least_area)), np.log(views.shrink)))
    stretch = np.sqrt(augment.aspect) ** random.uniform(-1, 1)
    view_w, view_h = max(1, round(width * side * stretch)), max(1, round(height * side / stretch))
    left, top = (int(random.integers(min(0, spare), max(0, spare) + 1)) for spare in (width - view_w, height - view_h))
    inside = image[max(top, 0) : top + view_h, max(left, 0) : left + view_w]
    boxes = boxes.moved(Geometry((1.0, 1.0), (-left, -top), (width, height))).clipped(
        max(-left, 0), max(-top, 0), max(-left, 0) + inside.shape[1], max(-top, 0) + inside.shape[0]
    )
    view = np.full((view_h, view_w, 3), spec.pad_value, np.uint8)
    view[max(-top, 0) : max(-top, 0) + inside.shape[0], max(-left, 0) : max(-left, 0) + inside.shape[1]] = inside
    if augment.flip and random.random() < 0.5:
        return np.ascontiguousarray(view[:, ::-1]), boxes.flipped(view_w)
    return view, boxes


def _fitted(view: UInt8, boxes: Boxes, spec: InputGeometry) -> tuple[UInt8, Boxes]:
    tensor = prepare(Frame(view, 0, 0.0, ""), spec)
    return tensor.data[0], boxes.moved(tensor.geometry)


def _mosaic(looks: Sequence[tuple[UInt8, Boxes]], spec: InputGeometry, random: np.random.Generator) -> tuple[UInt8, Boxes]:
    """Four views around a point near the middle of one input, in the card's colour order."""
    across, down = (round(side * random.uniform(0.35, 0.65)) for side in (spec.width, spec.height))
    picture = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
    found = []
    for index, (view, boxes) in enumerate(looks):
        left, right = (0, across) if index % 2 == 0 else (across, spec.width)
        top, bottom = (0, down) if index < 2 else (down, spec.height)
        part = msgspec.structs.replace(spec, width=right - left, height=bottom - top)
        pixels, geometry = fit(view, part)
        picture[top:bottom, left:right] = pixels
        boxes = boxes.moved(geometry)
        found.append(boxes.moved(Geometry((1.0, 1.0), (left, top), geometry.original_wh)))
    if spec.color == "rgb":
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
    parts = zip(*((boxes.xyxy, boxes.class_ids, boxes.ignored) for boxes in found), strict=True)
    return picture, Boxes(*(np.concatenate(part) for part in parts))
