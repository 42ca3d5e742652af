"""Picture lists: a text file that names which pictures of a data set to use, itself given wherever a data set is.

    # edge-run picture list of ../pictures
    # dropped train/cat/7.jpg: the same picture as train/cat/3.jpg
    train/cat/3.jpg

The first line names the data set's folder, relative to the list; every other one that is no comment is a picture, relative
to that folder, whose layout stays what it is. A name with a line break, or a space at an end, is a JSON string: "a\\nb.jpg".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge.errors import DataError, UsageError, one_line

HEADER = "# edge-run picture list of "


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a data set's pictures are: a folder, and the pictures that a list keeps; None keeps all."""

    folder: Path
    kept: frozenset[str] | None = None

    def keeps(self, picture: Path) -> bool:
        """Whether a picture below the folder is to be used."""
        return self.kept is None or os.path.normpath(picture) in self.kept


def place_of(data: Path) -> Place:
    """The folder that `data` is or is a list of; of a list LIST, LIST/train is its folder's `train`.

    Raises DataError when the file is no list, or the pictures that it names in that folder are not there.
    """
    if os.path.isdir(data):
        return Place(data)
    path = next((path for path in (data, *data.parents) if os.path.isfile(path)), None)
    if path is None:
        return Place(data)
    lines = _lines(path)
    root = os.path.normpath(path.parent / _read(lines[0][len(HEADER) :]))
    if not os.path.isdir(root):
        raise DataError(f"{path}: is a list of pictures in {root}, which is no folder; correct its first line")
    names = [line for line in lines[1:] if line and not line.startswith("#")]
    inner = os.path.normpath(os.path.join(root, data.relative_to(path)))
    kept = frozenset(os.path.normpath(os.path.join(root, _read(name))) for name in names)
    if not kept:
        raise DataError(f"{path}: lists no pictures; write it again with edge-train check --fix")
    return Place(Path(inner), kept)


def is_data_set(data: Path) -> bool:
    """Whether `data` is a folder or a list of pictures in one."""
    return os.path.isdir(data) or is_list(data)


def is_list(path: Path) -> bool:
    """Whether a file is a list of pictures."""
    try:
        with open(path, "rb") as file:
            return file.read(len(HEADER)) == HEADER.encode()
    except OSError:
        return False


def write_list(path: Path, folder: Path, kept: Iterable[Path], dropped: Iterable[tuple[Path, str]] = ()) -> None:
    """Write a list of pictures of `folder`; those `dropped` and why become comments.

    Raises UsageError when a file that is no list is there, and OSError.
    """
    if os.path.lexists(path) and not is_list(path):
        raise UsageError(f"{path}: is there and no picture list; give another name")
    lines = [HEADER + _written(os.path.relpath(folder, path.parent))]
    lines += [f"# dropped {one_line(_relative(picture, folder))}: {one_line(reason)}" for picture, reason in dropped]
    lines += [_written(_relative(picture, folder)) for picture in kept]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode("\n".join(lines) + "\n"))


def _written(name: str) -> str:
    """A name as it stands on a line."""
    if len(name.splitlines()) != 1 or name != name.strip() or name.startswith('"'):
        return json.dumps(name)  # in ASCII, whatever breaks lines elsewhere or is no UTF-8
    return f"./{name}" if name.startswith("#") else name


def _read(line: str) -> str:
    """The name that stands on a line; one that is no JSON string is as a person wrote it."""
    if line.startswith('"'):
        with suppress(ValueError):
            return str(json.loads(line))
    return line


def _relative(picture: Path, folder: Path) -> str:
    return Path(os.path.relpath(picture, folder)).as_posix()


def _lines(path: Path) -> list[str]:
    if not is_list(path):
        raise DataError(f"{path}: no such folder, nor a picture list, whose first line is '{HEADER}DIR'")
    try:
        return [line.strip() for line in os.fsdecode(path.read_bytes()).splitlines()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
