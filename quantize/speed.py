"""How fast variants run here, as ratios of one interleaved run: milliseconds alone say more of the machine's other work."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from edge.card import Variant
from edge.engines import EngineOptions, open_engine
from edge.types import Geometry, Tensor, UInt8

ROUNDS = 25
FEWEST_ROUNDS = 7
ENOUGH = 0.01
"""Interquartile range of every ratio, relative to its median, at which more rounds would say nothing new."""

SLICE_S = 0.02
"""What one file runs for before the next has its turn; longer than a scheduler's time slice, shorter than a change of load."""

MOST_REPETITIONS = 50


@dataclass(frozen=True, slots=True)
class Speed:
    """One inference in `ms`, and how many times as fast as the first file it is: the median and the quartiles of the rounds."""

    ms: float
    ratio: float
    low: float
    high: float


def paired(
    files: Sequence[tuple[bytes, Variant]], picture: UInt8, *, threads: int = 1, rounds: int = ROUNDS, exact: bool = False
) -> list[Speed]:
    """The speed of each file on `picture`, uint8 [1, h, w, 3], against the first; they take turns, A B C A B C ...

    There are at most `rounds` rounds. On one thread it is CPU time, on which other processes weigh little; on more it is
    wall time. Raises EngineError.
    """
    options = EngineOptions(threads, exact=exact)
    tensor = Tensor(picture, Geometry((1.0, 1.0), (0.0, 0.0), (picture.shape[2], picture.shape[1])))
    with ExitStack() as opened:
        engines = [opened.enter_context(closing(open_engine(data, variant, options))) for data, variant in files]
        clock = time.process_time if threads == 1 else time.perf_counter
        return interleaved([partial(engine.infer, tensor) for engine in engines], clock, rounds)


def interleaved(calls: Sequence[Callable[[], object]], clock: Callable[[], float], rounds: int) -> list[Speed]:
    """The speed of each call against the first by `clock`, in seconds, from at most `rounds` rounds of one slice a call.

    A slice is one call that refills the caches, then as many as last SLICE_S, of which the median counts. It ends after
    FEWEST_ROUNDS when every ratio's spread is within ENOUGH.
    """
    repetitions = [_repetitions(call, clock) for call in calls]
    times: list[list[float]] = []
    while len(times) < rounds and not (len(times) >= FEWEST_ROUNDS and _settled(times)):
        times.append([_slice(call, clock, count) for call, count in zip(calls, repetitions, strict=True)])
    return _speeds(times)


def _repetitions(call: Callable[[], object], clock: Callable[[], float]) -> int:
    """How many calls fill a slice, by the quicker of two after one to warm up."""
    call()
    quicker = min(_seconds(call, clock) for _ in range(2))
    return max(1, min(MOST_REPETITIONS, math.ceil(SLICE_S / max(quicker, 1e-9))))


def _slice(call: Callable[[], object], clock: Callable[[], float], repetitions: int) -> float:
    call()
    return statistics.median(_seconds(call, clock) for _ in range(repetitions))


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    call()
    return clock() - started


def _settled(times: list[list[float]]) -> bool:
    return all(speed.high - speed.low <= ENOUGH * speed.ratio for speed in _speeds(times))


def _speeds(times: list[list[float]]) -> list[Speed]:
    """From seconds [round][file]; a clock that did not move counts as one nanosecond."""
    seconds = np.maximum(np.array(times), 1e-9)
    low, ratio, high = np.percentile(seconds[:, :1] / seconds, (25, 50, 75), axis=0)
    return [Speed(*map(float, figures)) for figures in zip(np.median(seconds, axis=0) * 1e3, ratio, low, high, strict=True)]
