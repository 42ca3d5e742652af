"""A size as a person writes it."""

from __future__ import annotations

import pytest

from edge.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size_wh"),
    [
        ("640x480", (640, 480)),
        ("640X480", (640, 480)),
        ("1x16384", (1, 16384)),
        *(
            (text, None)
            for text in ("", "x", "224", "3x", "x3", "0x4", "4x0", "4x16385", "-1x4", "4 x 4", "²x3", "1x2x3", "9x9\n")
        ),
    ],
)
def test_a_size(text: str, size_wh: tuple[int, int] | None) -> None:
    assert parse_size(text) == size_wh
