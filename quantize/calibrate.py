"""Activation ranges: what interval of each tensor int8 should cover, from samples seen on calibration pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[Any]
Range: TypeAlias = tuple[float, float]
Ranges: TypeAlias = dict[str, Range]
"""Tensor name → the smallest and largest value to represent; the interval holds zero."""

SAMPLES_PER_PICTURE = 8192
BINS = 2048
LEVELS = 255
SHARES = np.geomspace(1.0, 0.02, 48)
NARROWEST = 1e-6
"""What a tensor that is always zero, or as good as that, is given."""
PERCENT = 0.01
"""The `percentile` calibrator leaves out this much of the values at either end."""


def identity(values: Values) -> Values:
    """What most tensors are read as."""
    return values


def sigmoid(values: Values) -> Values:
    """1 / (1 + exp(-x))."""
    result: Values = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return result


def silu(values: Values) -> Values:
    """x * sigmoid(x)."""
    return values * sigmoid(values)


Function: TypeAlias = Callable[[Values], Values]


class Observer:
    """Keeps a random sample of each tensor's values, and its extremes, whichever engine computed them."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._samples: dict[str, list[Values]] = {}
        self._extremes: Ranges = {}

    def see(self, tensors: Mapping[str, Values]) -> None:
        """Take in one picture's tensors by name."""
        for name, tensor in tensors.items():
            values = tensor.reshape(-1)
            low, high = self._extremes.get(name, (0.0, 0.0))
            self._extremes[name] = (min(low, float(values.min())), max(high, float(values.max())))
            if values.size > SAMPLES_PER_PICTURE:
                values = values[self._random.integers(0, values.size, SAMPLES_PER_PICTURE)]
            self._samples.setdefault(name, []).append(values.copy())

    def ranges(self, calibrator: str = "error", functions: Mapping[str, Function] = {}) -> Ranges:
        """The interval of each tensor by one of `CALIBRATORS`; `functions` say what a tensor is read through."""
        choose = CALIBRATORS[calibrator]
        return {
            name: choose(np.concatenate(self._samples[name]), *self._extremes[name], functions.get(name, identity))
            for name in self._samples
        }


def least_error(values: Values, low: float, high: float, function: Function = identity) -> Range:
    """The interval within [low, high] that 255 steps represent with the least squared error of `function`(values).

    `low` <= 0 <= `high` are the extremes seen. The ends move one after the other, so that a tail on one side costs the
    other nothing: what a SiLU reads may end at -120, where it gives 0 like at -8.
    """
    if high - low <= NARROWEST:
        return low, low + NARROWEST
    counts, edges = np.histogram(values, BINS, (low, high))
    seen = counts > 0
    centers, counts = ((edges[1:] + edges[:-1]) / 2)[seen], counts[seen]
    wanted = function(centers)

    def error(bottom: float, top: float) -> float:
        step = (top - bottom) / LEVELS
        zero = np.round(-bottom / step)
        close = (np.clip(np.round(centers / step) + zero, 0, LEVELS) - zero) * step
        return float((counts * (function(close) - wanted) ** 2).sum())

    bottom, top = low, high
    for _ in range(2):
        top = min((share * high for share in SHARES), key=lambda end: error(bottom, end)) if high > 0 else 0.0
        bottom = min((share * low for share in SHARES), key=lambda end: error(end, top)) if low < 0 else 0.0
    return float(bottom), float(top)


def whole(values: Values, low: float, high: float, function: Function = identity) -> Range:
    """From the smallest to the largest value seen."""
    return (low, high) if high - low > NARROWEST else (low, low + NARROWEST)


def percentile(values: Values, low: float, high: float, function: Function = identity) -> Range:
    """All but the outermost 0.01% of the values at either end, zero included."""
    bottom, top = np.percentile(values, [PERCENT, 100 - PERCENT])
    return whole(values, min(float(bottom), 0.0), max(float(top), 0.0))


def entropy(values: Values, low: float, high: float, function: Function = identity) -> Range:
    """The share of [low, high] whose 255 steps lose the least information about the values' distribution.

    Kullback-Leibler divergence of the clipped histogram from its quantized version (Migacz, 8-bit Inference with
    TensorRT, GTC 2017), both ends shrinking together, so zero keeps its place.
    """
    if high - low <= NARROWEST:
        return low, low + NARROWEST
    counts, edges = np.histogram(values, BINS, (low, high))
    centers = (edges[1:] + edges[:-1]) / 2

    def divergence(share: float) -> float:
        inside = (centers >= share * low) & (centers <= share * high)
        kept = counts[inside].astype(np.float64)
        if not kept.sum():
            return float("inf")
        kept[0] += counts[centers < share * low].sum()  # what is clipped lands in the outermost bins
        kept[-1] += counts[centers > share * high].sum()
        step = np.minimum((np.arange(len(kept)) * LEVELS) // len(kept), LEVELS - 1)
        filled = (counts[inside] > 0).astype(np.float64)
        mass = np.bincount(step, counts[inside], minlength=LEVELS)
        places = np.bincount(step, filled, minlength=LEVELS)
        spread = np.where(filled > 0, (mass / np.maximum(places, 1))[step], 0.0)
        p, q = kept / kept.sum(), spread / max(spread.sum(), 1e-12)
        seen = p > 0
        return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-10))).sum())

    share = min(np.linspace(1.0, 0.2, 41), key=divergence)
    return float(share * low), float(share * high)


CALIBRATORS: dict[str, Callable[[Values, float, float, Function], Range]] = {
    "error": least_error,
    "minmax": whole,
    "percentile": percentile,
    "entropy": entropy,
}
"""In the order in which they are tried."""
