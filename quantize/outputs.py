"""Where edge-quantize writes, refused before minutes of work rather than after them."""

from __future__ import annotations

from pathlib import Path

from edge.bundle import check_target
from edge.errors import BundleError, UsageError
from edge.places import check_writable


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
    check_writable(out, "--out")


def report_path(given: Path | None, out: Path) -> Path:
    """Where the report goes. Raises UsageError when it cannot."""
    path = given or out.with_name(f"{out.name.removesuffix('.edge')}.html")
    if path.suffix not in (".html", ".htm") or path.is_dir():
        raise UsageError(f"--report {path}: give NAME.html, which is no folder")
    if given is not None:
        check_writable(path, "--report")
    return path
