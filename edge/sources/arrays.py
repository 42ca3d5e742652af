"""Pictures that a program already has, as a source."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from edge.errors import CaptureError
from edge.sources.base import BaseSource
from edge.types import Frame


class ArraySource(BaseSource):
    """Frames from BGR pictures uint8 [height, width, 3], taken one after another as the loop wants them.

    Nobody may write into a picture that was given away. Raises CaptureError for anything else than such a picture.
    """

    def __init__(self, pictures: Iterable[Any], name: str = "arrays") -> None:
        super().__init__(name)
        self._pictures = pictures

    def frames(self) -> Iterator[Frame]:
        """A frame for each picture."""
        begun_s = time.monotonic()
        for sequence, picture in enumerate(self._pictures):
            if self.stopped:
                return
            if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise CaptureError(f"{self.name}: picture {sequence} is {_kind(picture)}; give BGR uint8 [height, width, 3]")
            if picture.size == 0:
                raise CaptureError(f"{self.name}: picture {sequence} is empty, {list(picture.shape)}")
            now_s = time.monotonic()
            yield Frame(picture, sequence, now_s, self.name, (now_s - begun_s) * 1e3)
            begun_s = time.monotonic()


def _kind(picture: object) -> str:
    return f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else f"a {type(picture).__name__}"
