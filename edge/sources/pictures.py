"""A picture, or those of a folder and the folders in it, in the order of their paths."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from edge.datasets import picture_files
from edge.errors import DataError, SourceError
from edge.pictures import read_picture
from edge.sources.base import BaseSource
from edge.types import Frame


class PictureSource(BaseSource):
    """Each picture once; one that cannot be read is put on `skipped` with the reason, and the rest go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._files: list[Path] = []

    def open(self) -> None:
        """List the pictures. Raises SourceError when there are none."""
        self._files = picture_files(self._path) if self._path.is_dir() else [self._path]
        if not self._files:
            raise SourceError(f"{self._path}: holds no pictures")

    def _name_of(self, path: Path) -> str:
        return path.name if path == self._path else str(path.relative_to(self._path))

    def frames(self) -> Iterator[Frame]:
        """Every readable picture. Raises SourceError at the end when none was."""
        readable = 0
        for path in self._files:
            if self.stopped:
                return
            started_s = time.monotonic()
            try:
                image = read_picture(path)
            except DataError as error:
                self.skipped.append(str(error))
                continue
            captured_s = time.monotonic()
            yield Frame(image, readable, captured_s, self.name, (captured_s - started_s) * 1e3, self._name_of(path))
            readable += 1
        if readable == 0:
            raise SourceError(self.skipped[0] if len(self._files) == 1 else f"{self._path}: no picture in it can be read")
