"""A size as a person writes it: WIDTHxHEIGHT."""

from __future__ import annotations

import re

LARGEST = 16384
"""Pixels of a side beyond which a number is a slip."""


def parse_size(text: str) -> tuple[int, int] | None:
    """Width and height in pixels, each from 1 to LARGEST; None for what is no size."""
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text.lower())
    size_wh = (int(found[1]), int(found[2])) if found else (0, 0)
    return size_wh if all(0 < side <= LARGEST for side in size_wh) else None
