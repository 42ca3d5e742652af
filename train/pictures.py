"""Pictures for training: read in a thread of their own, changed as a camera might, and resized as the device resizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import Tensor

from edge.card import InputGeometry
from edge.datasets import Sample, labelled_frames
from edge.geometry import crop_box, prepare
from edge.types import Frame, UInt8

LUMA_BGR = np.array([0.114, 0.587, 0.299], np.float32)
"""Weights of blue, green and red in brightness (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True)
class Augment:
    """What changes between two looks at the same thing, drawn anew for each picture.

    A rectangle of at least `least_area` of what could be seen is cut out, its aspect changed by a factor of up to
    `aspect`; `exposure` and `balance` (white balance, each colour its own) are stops, powers of two, and `saturation` a
    share; zero leaves things as they are.
    """

    least_area: float = 0.35
    aspect: float = 4 / 3
    flip: bool = True
    exposure: float = 0.5
    balance: float = 0.1
    saturation: float = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Normalized float32 `images` [n, 3, h, w], channels last in memory, and their `class_ids` int64 [n]."""

    images: Tensor
    class_ids: Tensor


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
        order = np.random.default_rng((seed, number)).permutation(len(self._samples))
        places = np.arange(self.batches_an_epoch(size) * size)

        def load(start: int) -> Batch | None:
            def one(frame: Frame) -> UInt8:
                return augmented(frame, self._spec, augment, np.random.default_rng((seed, number, start + frame.sequence)))

            return self._load([self._samples[order[i % len(order)]] for i in places[start : start + size]], one)

        yield from _ahead(load, range(0, len(places), size))

    def plain(self, size: int, limit: int | None = None) -> Iterator[Batch]:
        """The pictures, or `limit` of them, as the device would see them, in a mixed order that is always the same."""
        samples = [self._samples[i] for i in np.random.default_rng(0).permutation(len(self._samples))[:limit]]

        def load(start: int) -> Batch | None:
            return self._load(samples[start : start + size], lambda frame: prepare(frame, self._spec).data[0])

        yield from _ahead(load, range(0, len(samples), size))

    def _load(self, samples: Sequence[Sample], picture: Callable[[Frame], UInt8]) -> Batch | None:
        loaded = [(picture(frame), sample.class_id) for frame, sample in labelled_frames(samples, self._bad)]
        if not loaded:
            return None
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in loaded])).permute(0, 3, 1, 2).float()
        return Batch((pixels - self._mean) / self._std, torch.tensor([class_id for _, class_id in loaded]))


def augmented(frame: Frame, spec: InputGeometry, augment: Augment, random: np.random.Generator) -> UInt8:
    """A frame as a model's input [spec.height, spec.width, 3], changed at random; the resize is the device's own."""
    image = _cut(frame.image, spec, augment, random)
    if augment.flip and random.random() < 0.5:
        image = image[:, ::-1]
    if spec.resize == "crop":  # the cut has chosen what is seen
        spec = msgspec.structs.replace(spec, resize="stretch")
    pixels = prepare(Frame(np.ascontiguousarray(image), frame.sequence, frame.captured_s, frame.source), spec).data[0]
    return _coloured(pixels, spec, augment, random)


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


def _coloured(pixels: UInt8, spec: InputGeometry, augment: Augment, random: np.random.Generator) -> UInt8:
    gain = 2 ** (random.uniform(-augment.exposure, augment.exposure) + random.uniform(-augment.balance, augment.balance, 3))
    colours = pixels * gain.astype(np.float32)
    grey = colours @ (LUMA_BGR if spec.color == "bgr" else LUMA_BGR[::-1])
    colours = grey[..., np.newaxis] + (colours - grey[..., np.newaxis]) * np.float32(
        1 + random.uniform(-augment.saturation, augment.saturation)
    )
    coloured: UInt8 = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    return coloured


def _ahead(load: Callable[[int], Batch | None], starts: range) -> Iterator[Batch]:
    """What `load` gives for each start, the next one read while this one is used; nothing is left out."""
    with ThreadPoolExecutor(1, "pictures") as reader:
        coming = [reader.submit(load, start) for start in starts[:2]]
        for start in [*starts[2:], None, None][: len(starts)]:
            batch = coming.pop(0).result()
            if start is not None:
                coming.append(reader.submit(load, start))
            if batch is not None:
                yield batch
