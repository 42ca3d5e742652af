"""Frame-sized memory that is leased, not copied: it comes back by itself when nothing refers to the array any more."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable

import numpy as np

from edge.types import UInt8

KEPT = 8
"""Buffers of one shape that a pool keeps; more than these are under way at once only where a consumer is slow."""
SHAPES = 4


class _Lease:
    """The base of a leased array and of every view of it, so that its end is the end of the last of them."""

    def __init__(self, memory: UInt8, give_back: Callable[[], None]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory = memory
        self._give_back = give_back

    def __del__(self) -> None:
        self._give_back()


def leased(memory: UInt8, give_back: Callable[[], None]) -> UInt8:
    """An array over `memory`; `give_back` is called, from any thread, when it and all views of it are gone."""
    array: UInt8 = np.asarray(_Lease(memory, give_back))
    return array


class Pool:
    """uint8 arrays of a few shapes, used again and again; `allocated` counts those that were ever made."""

    def __init__(self) -> None:
        self.allocated = 0
        self._free: dict[tuple[int, ...], deque[UInt8]] = {}

    def take(self, shape: tuple[int, ...]) -> UInt8:
        """A leased array of `shape` with whatever was in it before. Never waits."""
        free = self._free.get(shape)
        if free is None:
            if len(self._free) >= SHAPES:
                self._free = {}
            free = self._free.setdefault(shape, deque(maxlen=KEPT))
        try:
            memory = free.pop()
        except IndexError:
            self.allocated += 1
            memory = np.empty(shape, np.uint8)
        return leased(memory, functools.partial(free.append, memory))
