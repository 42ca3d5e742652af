"""What is refused before work, and what is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge import places
from edge.errors import UsageError
from edge.places import LONGEST_FILE_NAME, check_writable


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this user's in one that is not, as below /mnt; root, who may write anywhere, is told the same."""
    inside = tmp_path / "mount"
    inside.mkdir()
    made = places.tempfile.mkdtemp

    def mkdtemp(dir: Path, prefix: str) -> str:
        if dir == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return made(dir=dir, prefix=prefix)

    monkeypatch.setattr(places.tempfile, "mkdtemp", mkdtemp)
    return inside


def test_a_folder_that_is_written_into_needs_no_more_than_itself(mount: Path) -> None:
    check_writable(mount, "--cache", inside=True)
    check_writable(mount / "new" / "run", "--out", inside=True)
    assert list(mount.iterdir()) == []


def test_what_is_replaced_needs_the_folder_that_it_is_in(mount: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^--out .*mount: cannot be written there: .*: Permission denied; choose another path$"
    ):
        check_writable(mount, "--out")


@pytest.mark.parametrize("inside", [True, False])
def test_the_root_is_a_folder_like_others(inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def mkdtemp(dir: Path, prefix: str) -> str:
        asked.append(dir)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(places.tempfile, "mkdtemp", mkdtemp)
    with pytest.raises(UsageError, match=r"^--out /: cannot be written there: /: Read-only"):
        check_writable(Path("/"), "--out", inside=inside)
    assert asked == [Path("/")]


def test_a_file_on_the_way_and_a_name_too_long(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Not a directory"):
        check_writable(tmp_path / "file" / "run", "--out")
    with pytest.raises(UsageError, match="longer than 240 bytes"):
        check_writable(tmp_path / ("ü" * (LONGEST_FILE_NAME // 2 + 1)), "--out")
