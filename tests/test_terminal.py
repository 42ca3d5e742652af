"""One line of a terminal: how wide texts are, how wide it is, and that it is rewritten without flicker."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from collections.abc import Iterator

import pytest

from edge.terminal import clipped, columns, display_width, has_colours, has_terminal, rewrite_line
from tests.screen import Screen


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, io.TextIOWrapper]]:
    """The outside of a terminal, as a descriptor, and its inside, as a stream."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    outside, inside = pty.openpty()
    with os.fdopen(inside, "w", encoding="utf-8") as stream:
        yield outside, stream
    os.close(outside)


def resize(stream: io.TextIOWrapper, width: int) -> None:
    fcntl.ioctl(stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("猫 75%", 6), ("e\u0301", 1), ("\uff21", 2), ("\U0001f431", 2), ("\u200b", 0)]
)
def test_how_wide_a_text_is(text: str, width: int) -> None:
    assert display_width(text) == width


@pytest.mark.parametrize(
    ("text", "width", "left"),
    [("abc", 3, "abc"), ("abc", 2, "ab"), ("猫猫", 3, "猫"), ("猫", 1, ""), ("e\u0301x", 1, "e\u0301")],
)
def test_a_wide_character_is_not_cut_in_half(text: str, width: int, left: str) -> None:
    assert clipped(text, width) == left


def test_the_width_is_that_of_the_stream_and_follows_the_window(
    terminal: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal[1]
    monkeypatch.setenv("COLUMNS", "33")
    resize(stream, 61)
    assert columns(stream) == 61
    resize(stream, 44)
    assert columns(stream) == 44
    resize(stream, 0)
    assert columns(stream) == 33
    monkeypatch.setenv("COLUMNS", "wide")
    assert columns(stream) == 80


def test_a_line_is_rewritten_in_one_row_and_written_over_before_the_rest_is_erased(
    terminal: tuple[int, io.TextIOWrapper],
) -> None:
    outside, stream = terminal
    resize(stream, 20)
    screen = Screen(20)
    for line in ("a line that is much too long for it", "short", "猫" * 20, "x"):
        rewrite_line(line, stream)
        raw = os.read(outside, 4096).decode()
        assert raw.startswith("\r")
        assert raw.index("\x1b[K") == len(raw) - 3
        screen.feed(raw)
    assert screen.lines == ["x"]
    assert screen.widest == 19
    rewrite_line("", stream)
    assert screen.feed(os.read(outside, 4096).decode()).lines == []


def test_what_is_a_terminal_and_wants_colours(terminal: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal[1]
    assert has_terminal(stream)
    assert has_colours(stream)
    monkeypatch.setenv("NO_COLOR", "1")
    assert has_terminal(stream)
    assert not has_colours(stream)
    monkeypatch.setenv("NO_COLOR", "")  # empty does not count
    assert has_colours(stream)
    monkeypatch.setenv("TERM", "dumb")
    assert not has_terminal(stream)
    assert not has_colours(stream)


def test_streams_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", None)
    assert not has_terminal()
    rewrite_line("x")
    closed = io.StringIO()
    closed.close()
    assert not has_terminal(closed)
    rewrite_line("x", closed)
