"""Where the windows of a convolution or pooling lie, as ONNX says it, and how torch can be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantize.onnx_module import Array

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Sizes in rows and columns; `begin` and `end` are the padding before and behind the image."""

    size: Pair
    kernel: Pair
    strides: Pair
    dilations: Pair
    begin: Pair
    end: Pair
    ceil: bool

    @classmethod
    def of(
        cls,
        size: Pair,
        kernel: Pair,
        *,
        auto_pad: str,
        pads: Sequence[int] | None,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        ceil: bool = False,
    ) -> Window:
        """The window of a node with these attributes, None where it has none of that name."""
        step = strides or (1, 1)
        spread = dilations or (1, 1)
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            begin, end = halves(
                [max((-(-size[i] // step[i]) - 1) * step[i] + spread[i] * (kernel[i] - 1) + 1 - size[i], 0) for i in (0, 1)],
                at_end=auto_pad == "SAME_UPPER",
            )
        else:
            top, left, bottom, right = (0,) * 4 if auto_pad == "VALID" or pads is None else pads
            begin, end = (top, left), (bottom, right)
        return cls(size, kernel, (step[0], step[1]), (spread[0], spread[1]), begin, end, ceil)

    def torch_ceil(self) -> bool | None:
        """The ceil_mode in which torch, padding `begin` on both sides, has windows in the same places; None in neither."""
        if any(self.begin[i] > self.kernel[i] // 2 for i in (0, 1)):
            return None
        wanted = self._count(self.end, self.ceil)
        return next((ceil for ceil in (False, True) if self._count(self.begin, ceil) == wanted), None)

    def reach(self) -> tuple[int, int, int, int]:
        """What torch.nn.functional.pad pads so that the windows fit exactly: left, right, top, bottom."""
        count = self._count(self.end, self.ceil)
        bottom, right = (
            (count[i] - 1) * self.strides[i] + self.dilations[i] * (self.kernel[i] - 1) + 1 - self.size[i] - self.begin[i]
            for i in (0, 1)
        )
        return self.begin[1], right, self.begin[0], bottom

    def share(self, counts_pads: bool) -> Array:
        """How much larger a mean is over the elements that count than over the whole window: float32 for each window."""
        left, right, top, bottom = self.reach()
        counts = np.zeros((self.size[0] + top + max(bottom, 0), self.size[1] + left + max(right, 0)))
        if counts_pads:
            counts[: self.size[0] + top + self.end[0], : self.size[1] + left + self.end[1]] = 1
        else:
            counts[top : top + self.size[0], left : left + self.size[1]] = 1
        counts = counts[: self.size[0] + top + bottom, : self.size[1] + left + right]
        windows = np.lib.stride_tricks.sliding_window_view(counts, self.kernel)[:: self.strides[0], :: self.strides[1]]
        share: Array = (math.prod(self.kernel) / windows.sum((2, 3))).astype(np.float32)
        return share

    def _count(self, end: Pair, ceil: bool) -> Pair:
        """How many windows there are; with `ceil`, none that would begin in the padding behind the image."""
        rows, columns = (self._count_along(i, end[i], ceil) for i in (0, 1))
        return rows, columns

    def _count_along(self, i: int, end: int, ceil: bool) -> int:
        room = self.size[i] + self.begin[i] + end - self.dilations[i] * (self.kernel[i] - 1) - 1
        if not ceil:
            return room // self.strides[i] + 1
        count = -(-room // self.strides[i]) + 1
        return count - 1 if (count - 1) * self.strides[i] >= self.size[i] + self.begin[i] else count


def halves(total: Sequence[int], at_end: bool) -> tuple[Pair, Pair]:
    """Padding split in two, before and behind; the odd one behind or, else, before."""
    small, large = (total[0] // 2, total[1] // 2), (total[0] - total[0] // 2, total[1] - total[1] // 2)
    return (small, large) if at_end else (large, small)
