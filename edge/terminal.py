"""Standard error, or another stream, as a terminal on which one line can be rewritten in place."""

from __future__ import annotations

import os
import sys
import unicodedata
from contextlib import suppress
from typing import TextIO

COLUMNS = 80
"""Where a terminal does not tell how wide it is."""
CLEAR = "\r\x1b[K"


def has_terminal(stream: TextIO | None = None) -> bool:
    """Whether the stream, standard error by default, is a terminal that can rewrite a line."""
    stream = sys.stderr if stream is None else stream
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    except ValueError:  # it is closed
        return False


def has_colours(stream: TextIO | None = None) -> bool:
    """Whether it is a terminal that wants colours: https://no-color.org."""
    return has_terminal(stream) and not os.environ.get("NO_COLOR")


def columns(stream: TextIO | None = None) -> int:
    """The terminal's width now. Of this very stream: another may be a pipe, and COLUMNS older than the window."""
    stream = sys.stderr if stream is None else stream
    with suppress(AttributeError, OSError, ValueError):
        found = os.get_terminal_size(stream.fileno()).columns
        if found > 0:  # some serial consoles say 0
            return found
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isascii() and told.isdigit() and int(told) > 0 else COLUMNS


def rewrite_line(line: str, stream: TextIO | None = None) -> None:
    """Let a line, clipped to the width, stand in the place of the last one; "" clears it.

    What is the same is written over rather than erased first, which would flicker.
    """
    stream = sys.stderr if stream is None else stream
    with suppress(AttributeError, OSError, ValueError):  # nobody listens any more: that ends nothing
        stream.write(f"\r{clipped(line, columns(stream) - 1)}\x1b[K")  # a full row would wrap
        stream.flush()


def clipped(text: str, width: int) -> str:
    """As much of the text as so many columns hold."""
    taken = 0
    for place, letter in enumerate(text):
        taken += _columns_of(letter)
        if taken > width:
            return text[:place]
    return text


def display_width(text: str) -> int:
    """Columns that a terminal takes for a text: two for wide characters, none for combining ones (Unicode annex 11)."""
    return sum(map(_columns_of, text))


def _columns_of(letter: str) -> int:
    if letter.isascii():
        return 1
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
