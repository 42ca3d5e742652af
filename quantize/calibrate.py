"""Activation ranges: what interval of each tensor int8 should cover, from samples seen on calibration pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ranges: TypeAlias = dict[str, tuple[float, float]]
"""Tensor name → the smallest and largest value to represent; the interval holds zero."""

SAMPLES_PER_PICTURE = 8192
BINS = 2048
LEVELS = 255


class Observer:
    """Keeps a random sample of each tensor's values, and its extremes, whichever engine computed them."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._samples: dict[str, list[npt.NDArray[Any]]] = {}
        self._extremes: dict[str, tuple[float, float]] = {}

    def see(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in one picture's tensors by name."""
        for name, tensor in tensors.items():
            values = tensor.reshape(-1)
            low, high = self._extremes.get(name, (0.0, 0.0))
            self._extremes[name] = (min(low, float(values.min())), max(high, float(values.max())))
            if values.size > SAMPLES_PER_PICTURE:
                values = values[self._random.integers(0, values.size, SAMPLES_PER_PICTURE)]
            self._samples.setdefault(name, []).append(values.copy())

    def ranges(self) -> Ranges:
        """The interval of each tensor that loses least when rounded to int8."""
        return {name: best_range(np.concatenate(self._samples[name]), *self._extremes[name]) for name in self._samples}


def best_range(values: npt.NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """The share of [low, high] that 255 steps represent with the least squared error over `values`.

    `low` <= 0 <= `high` are the extremes seen; both ends shrink together, so zero keeps its place between them.
    """
    if high <= low:
        return low, low + 1e-6
    counts, edges = np.histogram(values, BINS, (low, high))
    centers = (edges[1:] + edges[:-1]) / 2

    def error(share: float) -> float:
        step = share * (high - low) / LEVELS
        rounded = np.clip(np.round(centers / step), np.round(share * low / step), np.round(share * high / step)) * step
        return float((counts * (rounded - centers) ** 2).sum())

    share = min(np.linspace(1.0, 0.2, 41), key=error)
    return float(share * low), float(share * high)
