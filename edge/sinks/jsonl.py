"""Events as JSON lines, to a file or standard output, each line whole or absent."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from edge.errors import UsageError
from edge.events import encode_event
from edge.types import Event


class ReaderGoneError(Exception):
    """Whoever read our standard output closed it, as `head` does."""


class JsonlSink:
    """Appends a line an event; while the disk refuses, lines are counted in `lost` and the first refusal is said."""

    def __init__(self, target: str, say: Callable[[str], None]) -> None:
        self.lost = 0
        self._target = target
        self._say = say
        self._failing = False
        self._torn = False
        self._owned = target != "-"
        if self._owned:
            path = Path(target)
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                self._torn = _ends_inside_a_line(path)
            except OSError as error:
                raise UsageError(f"--events {target}: {error.strerror}; choose a file that can be written") from None
        elif sys.stdout is None:
            raise UsageError("--events -: standard output is closed; give a file")
        else:
            self._descriptor = sys.stdout.fileno()

    def emit(self, event: Event) -> None:
        """Write one line. Raises ReaderGoneError when standard output has no reader any more."""
        line = encode_event(event)
        try:
            self._write(b"\n" + line if self._torn else line)
        except BrokenPipeError:
            raise ReaderGoneError from None
        except OSError as error:
            self.lost += 1
            if not self._failing:
                self._say(
                    f"events: {self._target}: {error.strerror}; the loop goes on, events are lost until it can be written"
                )
            self._failing = True
        else:
            if self._failing:
                self._say(f"events: {self._target}: can be written again; {self.lost} events were lost")
            self._failing = False

    def close(self) -> None:
        """Close the file; standard output is left open."""
        if self._owned:
            os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        """Write all of `data` or, where the file lets us take it back, nothing; `_torn`: it ends inside a line."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            written = len(data) - len(view)
            if written:
                self._torn = not self._take_back(written)
            raise
        self._torn = False

    def _take_back(self, count: int) -> bool:
        """Cut the last `count` bytes, ours, off a regular file."""
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                return False
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - count)
        except OSError:
            return False
        return True


def _ends_inside_a_line(path: Path) -> bool:
    """Whether a power cut left the file without its last newline."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
