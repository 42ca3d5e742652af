"""Samples as batches for a network: which are in one, drawn anew in each epoch, and read while the one before is used."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, overload, runtime_checkable

import cv2
import numpy as np
import torch
from torch import Tensor

from edge.card import InputGeometry
from edge.datasets import HasPath, labelled_frames
from edge.types import Float32, Frame, Int64, UInt8

S = TypeVar("S")
P = TypeVar("P", bound=HasPath)
L = TypeVar("L")
B = TypeVar("B")
READERS = max(1, min(8, (os.cpu_count() or 1) // 2))
"""Threads that read batches ahead; half of the cores are left to who trains on them."""


class Batches(ABC, Generic[P, L, B]):
    """Labelled pictures in batches, as `spec` shapes them and (x - mean) / std normalizes them.

    What is drawn at random depends on the seed, the epoch and the picture's place in the epoch alone. Unreadable
    pictures are named to `bad` and left out.
    """

    def __init__(
        self,
        samples: Sequence[P],
        spec: InputGeometry,
        mean: Sequence[float],
        std: Sequence[float],
        bad: Callable[[str], None],
    ) -> None:
        self._samples = samples
        self._spec = spec
        levels = torch.arange(256, dtype=torch.float32).reshape(1, 256, 1)
        self._normalized: Float32 = ((levels - torch.tensor(mean)) / torch.tensor(std)).numpy()
        """What each of the 256 levels becomes in each channel [1, 256, 3]: torch would wake its threads for a subtraction."""
        self._bad = bad

    @abstractmethod
    def _plain(self, frame: Frame, sample: P) -> tuple[UInt8, L]:
        """A picture as the device would see it, and its label."""

    @abstractmethod
    def _labelled(self, images: Tensor, labels: Sequence[L]) -> B:
        """A batch of normalized images and their labels."""

    def batches_an_epoch(self, size: int) -> int:
        """How many batches of `size` an epoch has."""
        return -(-len(self._samples) // size)

    def plain(self, size: int, limit: int | None = None) -> Iterator[B]:
        """The pictures, or `limit` of them, as the device would see them, in a mixed order that is always the same."""
        samples = plain_order(self._samples, limit)

        def load(start: int) -> B | None:
            return self._batch([self._plain(*pair) for pair in labelled_frames(samples[start : start + size], self._bad)])

        for _, batch in ahead(load, range(0, len(samples), size)):
            yield batch

    def _steps(
        self,
        draw: Callable[[int, np.random.Generator], tuple[UInt8, L] | None],
        epoch: int,
        size: int,
        seed: int,
        first: int,
        rank: int,
        world: int,
    ) -> Iterator[tuple[int, B]]:
        """The batches of an epoch with their numbers, from number `first` on; of each, what process `rank` of `world` takes.

        All pictures shuffled, the last batch filled up with the first ones. `draw` makes of a sample's place, and of what
        is random for it, a picture and its label, or None. A batch none of whose pictures is readable is left out, or,
        where others wait for this process, another picture takes its place.
        """
        order = order_of(self._samples, epoch, seed)

        def load(number: int) -> B | None:
            places = range(number * size + rank, (number + 1) * size, world)
            drawn = (draw(int(order[place % len(order)]), np.random.default_rng((seed, epoch, place))) for place in places)
            loaded = [one for one in drawn if one is not None]
            if not loaded and world > 1:
                random = np.random.default_rng((seed, epoch, places[0]))  # nothing is drawn for what cannot be read
                stand_ins = (draw(index, random) for index in range(len(self._samples)))
                loaded = list(islice((one for one in stand_ins if one is not None), 1))
            return self._batch(loaded)

        yield from ahead(load, range(first, self.batches_an_epoch(size)))

    def _frame(self, index: int) -> tuple[Frame, P] | None:
        """A sample with its picture, or None where that cannot be read."""
        return next(labelled_frames([self._samples[index]], self._bad), None)

    def _batch(self, seen: Sequence[tuple[UInt8, L]]) -> B | None:
        if not seen:
            return None
        images = np.stack([cv2.LUT(pixels, self._normalized) for pixels, _ in seen])
        return self._labelled(torch.from_numpy(images).permute(0, 3, 1, 2), [label for _, label in seen])


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


def ahead(load: Callable[[int], B | None], numbers: range, readers: int = READERS) -> Iterator[tuple[int, B]]:
    """What `load` gives for each number, in order, the next ones read while this one is used; None is left out."""
    with ThreadPoolExecutor(readers, "pictures") as pool:
        coming = deque((number, pool.submit(load, number)) for number in numbers[: readers + 1])
        later = iter(numbers[readers + 1 :])
        while coming:
            number, future = coming.popleft()
            batch = future.result()
            if (following := next(later, None)) is not None:
                coming.append((following, pool.submit(load, following)))
            if batch is not None:
                yield number, batch
