"""Pictures with boxes for training: moved, enlarged, shrunk and put together in fours, the boxes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import msgspec
import numpy as np
import torch
from torch import Tensor

from edge.boxes import box_areas
from edge.boxes_data import BoxSample
from edge.card import InputGeometry
from edge.datasets import labelled_frames
from edge.geometry import fit, prepare
from edge.types import Bools, Float32, Frame, Geometry, Int64, UInt8
from train.augment import LUMA_BGR, Augment, coloured, troubled
from train.pictures import _ahead, order_of, plain_order

LEAST_VISIBLE = 0.4
"""The share of an object that a cut must leave for it to be one; what less is left of is ignored."""
LEAST_SIDE = 2.0
"""In pixels of the model's input; smaller objects are ignored."""
_read_ahead = cast("Callable[..., Iterator[tuple[int, BoxBatch]]]", _ahead)  # it is of any batches


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


class BoxPictures:
    """Pictures with boxes in batches, as `spec` shapes them and (x - mean) / std normalizes them.

    What is drawn at random depends on the seed, the epoch and the picture's place in the epoch alone. Unreadable
    pictures are named to `bad` and left out.
    """

    def __init__(
        self,
        samples: Sequence[BoxSample],
        spec: InputGeometry,
        mean: Sequence[float],
        std: Sequence[float],
        bad: Callable[[str], None],
    ) -> None:
        self._samples = samples
        self._spec = spec
        self._mean = torch.tensor(mean, dtype=torch.float32).reshape(1, 3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).reshape(1, 3, 1, 1)
        self._bad = bad

    def batches_an_epoch(self, size: int) -> int:
        """How many batches of `size` an epoch has."""
        return -(-len(self._samples) // size)

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
        """The batches of an epoch with their numbers, from number `first` on; of each, what process `rank` of `world` takes.

        All pictures shuffled and augmented, the last batch filled up with the first ones. A batch none of whose pictures
        is readable is left out, or, where others wait for this process, other pictures take their places.
        """
        order = order_of(self._samples, epoch, seed)

        def load(number: int) -> BoxBatch | None:
            places = range(number * size + rank, (number + 1) * size, world)
            drawn = [
                self._drawn(int(order[place % len(order)]), augment, views, np.random.default_rng((seed, epoch, place)))
                for place in places
            ]
            loaded = [one for one in drawn if one is not None]
            if not loaded and world > 1:
                random = np.random.default_rng((seed, epoch, places[0]))
                stand_ins = (self._drawn(index, augment, views, random) for index in range(len(self._samples)))
                loaded = [one for one in stand_ins if one is not None][:1]
            return self._batch(loaded)

        yield from _read_ahead(load, range(first, self.batches_an_epoch(size)))

    def plain(self, size: int, limit: int | None = None) -> Iterator[BoxBatch]:
        """The pictures, or `limit` of them, as the device would see them, in a mixed order that is always the same."""
        samples = plain_order(self._samples, limit)

        def load(start: int) -> BoxBatch | None:
            seen = []
            for frame, sample in labelled_frames(samples[start : start + size], self._bad):
                tensor = prepare(frame, self._spec)
                seen.append((tensor.data[0], _boxes(sample).moved(tensor.geometry)))
            return self._batch(seen)

        for _, batch in _read_ahead(load, range(0, len(samples), size)):
            yield batch

    def _drawn(self, index: int, augment: Augment, views: Views, random: np.random.Generator) -> tuple[UInt8, Boxes] | None:
        """A picture's augmented input with its boxes, or, sometimes, four pictures'; None when it cannot be read."""
        first = self._load(index)
        if first is None:
            return None
        others: list[tuple[Frame, Boxes] | None] = []
        if random.random() < views.mosaic:
            others = [self._load(other) for other in random.integers(len(self._samples), size=3).tolist()]
        loaded = [first, *(found for found in others if found is not None)]
        looks = [_look(frame.image, boxes, self._spec, augment, views, random) for frame, boxes in loaded]
        pixels, boxes = _mosaic(looks, self._spec, random) if len(looks) == 4 else _fitted(*looks[0], self._spec)
        luma = LUMA_BGR if self._spec.color == "bgr" else LUMA_BGR[::-1]
        return troubled(coloured(pixels, augment, luma, random), augment, random), boxes

    def _load(self, index: int) -> tuple[Frame, Boxes] | None:
        return next(((frame, _boxes(sample)) for frame, sample in labelled_frames([self._samples[index]], self._bad)), None)

    def _batch(self, seen: Sequence[tuple[UInt8, Boxes]]) -> BoxBatch | None:
        if not seen:
            return None
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in seen])).permute(0, 3, 1, 2).float()
        most = max(1, *(len(boxes.class_ids) for _, boxes in seen))
        xyxy = np.zeros((len(seen), most, 4), np.float32)
        class_ids = np.full((len(seen), most), -1, np.int64)
        ignored = np.zeros((len(seen), most), np.bool_)
        for index, (_, boxes) in enumerate(seen):
            count = len(boxes.class_ids)
            xyxy[index, :count], class_ids[index, :count] = boxes.xyxy, boxes.class_ids
            small = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2] < LEAST_SIDE).any(1)
            ignored[index, :count] = boxes.ignored | small
        images = (pixels - self._mean) / self._std
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
