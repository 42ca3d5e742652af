"""What a terminal shows of what was written to it: enough of one for lines that are rewritten."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import unicodedata

TOKEN = re.compile(r"\x1b\[(?P<number>\d*)(?P<kind>[A-Za-z])|(?P<one>.)", re.DOTALL)


class Screen:
    """Rows of so many columns: carriage return, line feed, colours and the erasing to the right are known, nothing else is."""

    def __init__(self, columns: int = 80) -> None:
        self.columns = columns
        self.rows: list[list[str]] = [[]]
        self.column = 0
        self.widest = 0

    def feed(self, text: str) -> Screen:
        """Write a text to it. Raises ValueError for what a calm line does not do."""
        for found in TOKEN.finditer(text):
            if found["kind"] == "K" and not found["number"]:
                del self.rows[-1][self.column :]
            elif found["kind"] == "m":
                continue
            elif found["one"] == "\r":
                self.column = 0
            elif found["one"] == "\n":
                self.rows.append([])
                self.column = 0
            elif found["one"] is not None and found["one"].isprintable():
                self._put(found["one"])
            else:
                raise ValueError(f"unexpected {found[0]!r}")
        return self

    def _put(self, letter: str) -> None:
        width = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if self.column + width > self.columns:
            self.rows.append([])
            self.column = 0
        row = self.rows[-1]
        row += [" "] * (self.column - len(row))
        row[self.column : self.column + width] = [letter, *[""] * (width - 1)]
        self.column += width
        self.widest = max(self.widest, self.column)

    @property
    def lines(self) -> list[str]:
        """The rows as texts, without what was erased at the end."""
        texts = ["".join(row).rstrip() for row in self.rows]
        while texts and not texts[-1]:
            texts.pop()
        return texts


def written_to_terminal(code: str, **environment: str) -> str:
    """What a child with a terminal as standard error writes there."""
    outside, inside = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=inside,
        env=kept | {"TERM": "xterm"} | environment,
    )  # fmt: skip
    os.close(inside)
    seen = b""
    while True:
        try:
            piece = os.read(outside, 4096)
        except OSError:  # the last writer has closed it
            break
        if not piece:
            break
        seen += piece
    os.close(outside)
    child.communicate(timeout=60)
    return seen.decode()
