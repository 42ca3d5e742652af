"""A machine's files under a folder, as the kernel would have them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def machine(root: Path, files: Mapping[str, str | bytes | int]) -> Path:
    """Write the files, text with a line's end as sysfs has it, and return the root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    return root
