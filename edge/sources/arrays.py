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

    Nobody may write into a picture that was given away; where the loop itself does, as for a mask, it is to be `copied`.
    Raises CaptureError for anything else than such a picture, and for what the pictures themselves raise.
    """

    def __init__(self, pictures: Iterable[Any], name: str = "arrays", *, copied: bool = False) -> None:
        super().__init__(name)
        self._pictures, self._copied = pictures, copied

    def frames(self) -> Iterator[Frame]:
        """A frame for each picture."""
        begun_s = time.monotonic()
        for sequence, picture in enumerate(self._given()):
            if self.stopped:
                return
            if (fault := picture_fault(picture)) is not None:
                raise CaptureError(f"{self.name}: picture {sequence} is {fault}")
            now_s = time.monotonic()
            yield Frame(picture.copy() if self._copied else picture, sequence, now_s, self.name, (now_s - begun_s) * 1e3)
            begun_s = time.monotonic()

    def _given(self) -> Iterator[Any]:
        try:
            yield from self._pictures
        except Exception as error:  # of the program's own
            raise CaptureError(f"{self.name}: your pictures raised {type(error).__name__}: {error}") from error


def picture_fault(picture: object) -> str | None:
    """What is wrong with it as a BGR picture uint8 [height, width, 3], and what to give; None for one that is right."""
    if not isinstance(picture, np.ndarray):
        kind = f"a {type(picture).__name__}"
    elif picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        kind = f"{picture.dtype} {list(picture.shape)}"
    else:
        return None
    return f"{kind}; give BGR uint8 [height, width, 3]"
