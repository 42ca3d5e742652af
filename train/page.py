"""What a self-contained page needs: a script that sorts its tables, text that is safe to print, files whole or not there."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const order = (one, other) => {
        const [a, b] = [key(one), key(other)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
"""
"""Sorts a table by the column whose head is pressed; the page's own policy lets nothing else run."""


def script_hash() -> str:
    """What the page's content security policy names the script by."""
    return base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


def printable(value: Any) -> Any:
    """Nested plain values as JSON and a page can hold them.

    Control characters and undecodable bytes of names are replaced, NumPy's numbers plain, and what is not finite is None.
    """
    if isinstance(value, str):
        return printable_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {printable(str(key)): printable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(inner) for inner in value]
    return value


def plain_value(value: Any) -> Any:
    """What msgspec does not know: NumPy's numbers as Python's, anything else as its text."""
    return value.item() if hasattr(value, "item") else str(value)


def printable_text(text: str) -> str:
    """A name without control characters and undecodable bytes."""
    return "".join(map(_letter, text))


def _letter(letter: str) -> str:
    return letter if letter.isprintable() or letter == "\n" else " " if letter.isspace() else "\ufffd"


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write all files, each whole, or none. Raises OSError."""
    written: list[tuple[str, Path]] = []
    try:
        for target, data in files.items():
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
            written.append((temporary, target))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
        for temporary, target in written:
            os.replace(temporary, target)
    except BaseException:
        for temporary, _ in written:
            Path(temporary).unlink(missing_ok=True)
        raise
