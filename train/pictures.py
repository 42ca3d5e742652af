"""Pictures for training: read in a thread of their own, changed as a camera might, and resized as the device resizes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

import msgspec
import numpy as np
import torch
from torch import Tensor

from edge.card import InputGeometry
from edge.datasets import Sample, labelled_frames
from edge.geometry import crop_box, prepare
from edge.types import Frame, Int64, UInt8
from train.augment import LUMA_BGR, Augment, coloured, troubled

S = TypeVar("S")
READERS = max(1, min(8, (os.cpu_count() or 1) // 2))
"""Threads that read batches ahead; half of the cores are left to who trains on them."""


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


class Pictures:
    """Labelled pictures in batches, as `spec` shapes them and (x - mean) / std normalizes them.

    What is drawn at random depends on the seed, the epoch and the picture's place in the epoch alone. Unreadable
    pictures are named to `bad` and left out.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
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

    def epoch(self, number: int, size: int, seed: int, augment: Augment) -> Iterator[Batch]:
        """All pictures shuffled and augmented; the last batch is filled up with the first pictures."""
        for _, batch in self.steps(number, size, seed, augment):
            yield batch

    def steps(
        self, epoch: int, size: int, seed: int, augment: Augment, *, first: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, Batch]]:
        """The batches of an epoch with their numbers, from number `first` on; of each, what process `rank` of `world` takes.

        A batch none of whose pictures is readable is left out, or, where others wait for this process, other pictures
        take their places.
        """
        order = order_of(self._samples, epoch, seed)

        def load(number: int) -> Batch | None:
            places = range(number * size + rank, (number + 1) * size, world)

            def one(frame: Frame) -> UInt8:
                return augmented(frame, self._spec, augment, np.random.default_rng((seed, epoch, places[frame.sequence])))

            batch = self._load([self._samples[order[place % len(order)]] for place in places], one)
            return batch if batch is not None or world == 1 else self._stand_in(one)

        yield from _ahead(load, range(first, self.batches_an_epoch(size)))

    def _stand_in(self, one: Callable[[Frame], UInt8]) -> Batch | None:
        return next((batch for sample in self._samples if (batch := self._load([sample], one)) is not None), None)

    def plain(self, size: int, limit: int | None = None) -> Iterator[Batch]:
        """The pictures, or `limit` of them, as the device would see them, in a mixed order that is always the same."""
        samples = plain_order(self._samples, limit)

        def load(start: int) -> Batch | None:
            return self._load(samples[start : start + size], lambda frame: prepare(frame, self._spec).data[0])

        for _, batch in _ahead(load, range(0, len(samples), size)):
            yield batch

    def _load(self, samples: Sequence[Sample], picture: Callable[[Frame], UInt8]) -> Batch | None:
        loaded = [(picture(frame), sample.class_id) for frame, sample in labelled_frames(samples, self._bad)]
        if not loaded:
            return None
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in loaded])).permute(0, 3, 1, 2).float()
        return Batch((pixels - self._mean) / self._std, torch.tensor([class_id for _, class_id in loaded]))


@runtime_checkable
class Ordered(Protocol):
    """Samples that say in which order an epoch takes them, because any other would read them slowly."""

    def order(self, epoch: int, seed: int) -> Int64: ...


def order_of(samples: Sequence[Any], epoch: int, seed: int) -> Int64:
    """The places of all samples in the order of an epoch, which depends on the seed and the epoch alone."""
    if isinstance(samples, Ordered):
        return samples.order(epoch, seed)
    return np.random.default_rng((seed, epoch)).permutation(len(samples))


def plain_order(samples: Sequence[S], limit: int | None) -> Sequence[S]:
    """The samples, or `limit` of them, in a mixed order that is always the same."""
    order = samples.order(0, 0) if isinstance(samples, Ordered) else np.random.default_rng(0).permutation(len(samples))
    return Chosen(samples, order[:limit])


class Chosen(Sequence[S]):
    """Some of the samples, looked up when they are used."""

    def __init__(self, samples: Sequence[S], order: Int64) -> None:
        self._samples, self._order = samples, order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> S: ...
    @overload
    def __getitem__(self, at: slice) -> list[S]: ...
    def __getitem__(self, at: int | slice) -> S | list[S]:
        if isinstance(at, slice):
            return [self._samples[place] for place in self._order[at].tolist()]
        return self._samples[int(self._order[at])]


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


def _ahead(load: Callable[[int], Batch | None], numbers: range) -> Iterator[tuple[int, Batch]]:
    """What `load` gives for each number, in order, the next ones read while this one is used; None is left out."""
    with ThreadPoolExecutor(READERS, "pictures") as readers:
        coming = deque((number, readers.submit(load, number)) for number in numbers[: READERS + 1])
        later = iter(numbers[READERS + 1 :])
        while coming:
            number, future = coming.popleft()
            batch = future.result()
            if (following := next(later, None)) is not None:
                coming.append((following, readers.submit(load, following)))
            if batch is not None:
                yield number, batch
