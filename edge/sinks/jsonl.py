"""Events as JSON lines, to a file, rotated if need be, or standard output; each line whole or absent."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from edge.errors import UsageError
from edge.events import encode_event
from edge.types import Event, Notice


class ReaderGoneError(Exception):
    """Whoever read our standard output closed it, as `head` does."""


class JsonlSink:
    """Appends a line an event; while the disk refuses, lines are counted in `lost` and the first refusal is said.

    Before a line that would make a regular file longer than `rotate_bytes`, `target` becomes `target`.1, that becomes
    .2, and so on; at most `keep` of them are kept. 0 never rotates.
    """

    wants_images = False

    def __init__(self, target: str, say: Callable[[str], None], *, rotate_bytes: int = 0, keep: int = 5) -> None:
        self.lost = 0
        self._target = target
        self._say = say
        self._path = Path(os.path.realpath(target))  # a link keeps pointing at the newest file
        self._rotate_bytes = 0 if target.startswith(("/dev/", "/proc/")) or target == "-" else rotate_bytes
        self._keep = keep
        self._failing = False
        self._stuck = False
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

    def emit(self, event: Event | Notice) -> None:
        """Write one line. Raises ReaderGoneError when standard output has no reader any more."""
        line = encode_event(event)
        if self._rotate_bytes and not self._torn:
            self._make_room(len(line))
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

    def _make_room(self, count: int) -> None:
        """Begin a new file if `count` bytes more are too many for this one; where that fails, it goes on in this one."""
        try:
            now = os.fstat(self._descriptor)
            if not stat.S_ISREG(now.st_mode) or now.st_size == 0 or now.st_size + count <= self._rotate_bytes:
                return
            if _is_at(self._path, now):  # else someone else, logrotate say, has moved it, or we have and could not open anew
                _shift(self._path, self._keep)
            new = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            if not self._stuck:
                self._say(f"events: {self._target}: cannot be rotated: {error.strerror}; it goes on in the same file")
            self._stuck = True
            return
        os.close(self._descriptor)
        self._descriptor = new
        self._stuck = False

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


def _is_at(path: Path, found: os.stat_result) -> bool:
    """Whether `path` is the file whose stat is `found`."""
    try:
        return os.path.samestat(path.stat(), found)
    except FileNotFoundError:
        return False


def _shift(path: Path, keep: int) -> None:
    """Rename `path` to .1, and .1 to .2 before that, as far as they are in the way; what is beyond `keep` is deleted."""

    def numbered(number: int) -> Path:
        return path.with_name(f"{path.name}.{number}")

    beyond = keep + 1
    while numbered(beyond).exists():
        numbered(beyond).unlink()
        beyond += 1
    if not keep:
        path.unlink()
        return
    free = next((number for number in range(1, keep) if not numbered(number).exists()), keep)
    for number in range(free - 1, 0, -1):
        os.replace(numbered(number), numbered(number + 1))
    os.replace(path, numbered(1))


def _ends_inside_a_line(path: Path) -> bool:
    """Whether a power cut left the file without its last newline."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
