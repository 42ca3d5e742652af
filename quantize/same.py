"""Which of an exported model's tensors is which node of the graph it was made of, told by what they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Marks: TypeAlias = npt.NDArray[np.float64]
NEAR = 1e-3
"""Of the largest value: what two engines' sums differ by."""


def matched(tensors: Mapping[str, npt.NDArray[Any]], nodes: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """Tensor → the node with as many values and the same extremes, mean and spread, whatever their order.

    Converters change names and layouts and leave values alone; a tensor that holds what no node does is left out.
    """
    known: dict[int, list[tuple[str, Marks]]] = defaultdict(list)
    for name, values in nodes.items():
        known[values.size].append((name, _marks(values)))
    found = {}
    for tensor, values in tensors.items():
        marks = _marks(values)
        near = [(float(np.abs(marks - other).max()), name) for name, other in known[values.size]]
        gap, name = min(near, default=(np.inf, ""))
        if gap <= NEAR * max(float(np.abs(marks).max()), 1e-6):
            found[tensor] = name
    return found


def _marks(values: npt.NDArray[Any]) -> Marks:
    exact = np.asarray(values, np.float64)
    return np.array([exact.min(), exact.max(), exact.mean(), exact.std()])
