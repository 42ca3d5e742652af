"""Pictures of classes for training: changed as a camera might, and resized as the device resizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import Tensor

from edge.card import InputGeometry
from edge.datasets import Sample
from edge.geometry import crop_box, prepare
from edge.types import Frame, UInt8
from train.augment import LUMA_BGR, Augment, coloured, troubled
from train.batches import Batches


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Normalized float32 `images` [n, 3, h, w], channels last in memory, and their `class_ids` int64 [n]."""

    images: Tensor
    class_ids: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        return Batch(self.images.to(device, non_blocking=True), self.class_ids.to(device, non_blocking=True))

    def parts(self, count: int) -> list[Batch]:
        """The batch in `count` parts, or as many as it has pictures, of nearly one size."""
        count = min(count, len(self))
        pairs = zip(self.images.tensor_split(count), self.class_ids.tensor_split(count), strict=True)
        return [Batch(images, class_ids) for images, class_ids in pairs]


class Pictures(Batches[Sample, int, Batch]):
    """Pictures of classes in batches."""

    def epoch(self, number: int, size: int, seed: int, augment: Augment) -> Iterator[Batch]:
        """All pictures shuffled and augmented; the last batch is filled up with the first pictures."""
        for _, batch in self.steps(number, size, seed, augment):
            yield batch

    def steps(
        self, epoch: int, size: int, seed: int, augment: Augment, *, first: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, Batch]]:
        """The batches of an epoch, augmented, with their numbers, from number `first` on, as process `rank` takes them."""

        def draw(index: int, random: np.random.Generator) -> tuple[UInt8, int] | None:
            found = self._frame(index)
            return None if found is None else (augmented(found[0], self._spec, augment, random), found[1].class_id)

        return self._steps(draw, epoch, size, seed, first, rank, world)

    def _plain(self, frame: Frame, sample: Sample) -> tuple[UInt8, int]:
        return prepare(frame, self._spec).data[0], sample.class_id

    def _labelled(self, images: Tensor, labels: Sequence[int]) -> Batch:
        return Batch(images, torch.tensor(labels))


def augmented(frame: Frame, spec: InputGeometry, augment: Augment, random: np.random.Generator) -> UInt8:
    """A frame as a model's input [spec.height, spec.width, 3], changed at random; the resize is the device's own."""
    image = _cut(frame.image, spec, augment, random)
    if augment.flip and random.random() < 0.5:
        image = image[:, ::-1]
    if spec.resize == "crop":  # the cut has chosen what is seen
        spec = msgspec.structs.replace(spec, resize="stretch")
    pixels = prepare(Frame(np.ascontiguousarray(image), frame.sequence, frame.captured_s, frame.source), spec).data[0]
    luma = LUMA_BGR if spec.color == "bgr" else LUMA_BGR[::-1]
    return troubled(coloured(pixels, augment, luma, random), augment, random)


def _cut(image: UInt8, spec: InputGeometry, augment: Augment, random: np.random.Generator) -> UInt8:
    height, width = image.shape[:2]
    target_wh = (spec.width, spec.height) if spec.resize == "crop" else (width, height)
    _, _, largest_w, largest_h = crop_box((width, height), target_wh, 1.0)
    side = np.sqrt(random.uniform(augment.least_area, 1))
    stretch = np.sqrt(augment.aspect) ** random.uniform(-1, 1)
    cut_w = int(np.clip(round(largest_w * side * stretch), 1, width))
    cut_h = int(np.clip(round(largest_h * side / stretch), 1, height))
    left, top = int(random.integers(width - cut_w + 1)), int(random.integers(height - cut_h + 1))
    return image[top : top + cut_h, left : left + cut_w]
