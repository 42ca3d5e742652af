"""Where edge-quantize writes, refused before minutes of work rather than after them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edge.bundle import check_target
from edge.errors import BundleError, UsageError

LONGEST_FILE_NAME = 240
"""In bytes; file systems allow 255, and a bundle is written beside its place first."""


def check_out(out: Path) -> None:
    """Better refused now than after minutes of work. Raises UsageError or, for a folder of something else, BundleError."""
    if out.name in ("", "..") or out.suffix not in ("", ".edge"):
        raise UsageError(f"--out {out}: give NAME.edge, or the name of a folder, without a suffix")
    refused = f"--out {out}: cannot be written there"
    if out.suffix == ".edge":
        if out.is_dir():
            raise UsageError(f"{refused}: it is a folder; choose another path")
    else:
        try:
            check_target(out)
        except BundleError as error:
            raise UsageError(f"--out {error}") from None
        except OSError as error:
            raise UsageError(f"{refused}: {error.strerror or error}; choose another path") from None
    _check_writable(out, refused)


def _check_writable(path: Path, refused: str) -> None:
    if any(len(os.fsencode(part)) > LONGEST_FILE_NAME for part in path.parts):
        raise UsageError(f"{refused}: a name is longer than {LONGEST_FILE_NAME} bytes; choose a shorter one")
    parent = next(folder for folder in path.absolute().parents if os.path.exists(folder))
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent, prefix=".edge-quantize-"))  # asking for permission alone misses full disks
    except OSError as error:
        raise UsageError(f"{refused}: {parent}: {error.strerror or error}; choose another path") from None


def report_path(given: Path | None, out: Path) -> Path:
    """Where the report goes. Raises UsageError when it cannot."""
    path = given or out.with_name(f"{out.name.removesuffix('.edge')}.html")
    if path.suffix not in (".html", ".htm") or path.is_dir():
        raise UsageError(f"--report {path}: give NAME.html, which is no folder")
    if given is not None:
        _check_writable(path, f"--report {path}: cannot be written there")
    return path
