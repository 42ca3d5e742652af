"""Files that are there whole or not at all, and places that are refused before minutes of work rather than after them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge.errors import UsageError

LONGEST_FILE_NAME = 240
"""In bytes; file systems allow 255, and some things are written beside their place first."""


def check_writable(path: Path, option: str, *, inside: bool = False) -> None:
    """Raise UsageError, under the option that names the path, where neither it nor folders above it can be made there.

    `inside`: a folder that is there is written into; without it, what is there is replaced from beside it.
    """
    refused = f"{option} {path}: cannot be written there"
    if any(len(os.fsencode(part)) > LONGEST_FILE_NAME for part in path.parts):
        raise UsageError(f"{refused}: a name is longer than {LONGEST_FILE_NAME} bytes; choose a shorter one")
    whole = path.absolute()
    above = whole.parents or (whole,)
    parent = next(folder for folder in ((whole, *above) if inside else above) if os.path.lexists(folder))
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent, prefix=".edge-"))  # asking for permission alone misses full disks
    except OSError as error:
        raise UsageError(f"{refused}: {parent}: {error.strerror or error}; choose another path") from None


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which stands at `path` once it is left and on the disk, or not at all. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
