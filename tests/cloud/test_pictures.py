"""Encoded pictures: sizes are read from headers, and bombs are refused before they are decoded."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.pictures import SCAN_LIMIT, decode_bounded, picture_size
from edge.errors import DataError
from edge.types import UInt8


def encoded(extension: str, width: int = 37, height: int = 21, *flags: int) -> bytes:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(extension, picture, list(flags))[1].tobytes()


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of_size(raw: bytes, width: int, height: int) -> bytes:
    at = raw.index(b"\xff\xc0")
    return raw[: at + 5] + struct.pack(">HH", height, width) + raw[at + 9 :]


@pytest.mark.parametrize(
    "raw",
    [
        encoded(".jpg"),
        encoded(".jpg", 37, 21, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(".png"),
        encoded(".jpg").replace(b"\xff\xe0", b"\xff\xff\xff\xe0", 1),
    ],
    ids=["baseline", "progressive", "png", "fill bytes"],
)
def test_the_header_tells_the_size(raw: bytes) -> None:
    assert picture_size(raw) == (37, 21)
    assert decode_bounded(raw, "x").shape == (21, 37, 3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "neither a JPEG nor a PNG, or a damaged one (0 bytes)"),
        (b"\xff\xd8", "neither a JPEG nor a PNG"),
        (b"GIF89a" + bytes(20), "neither a JPEG nor a PNG"),
        (encoded(".webp"), "neither a JPEG nor a PNG"),
        (encoded(".jpg")[:100], "neither a JPEG nor a PNG"),
        (encoded(".jpg")[:-200], "not a readable picture, or one cut short"),
        (encoded(".png")[:20], "neither a JPEG nor a PNG"),
        (png(0, 7, b""), "not a readable picture"),
        (png(7, 7, b"nonsense"), "not a readable picture"),
        (encoded(".png")[:33] + b"\x7f" + encoded(".png")[34:], "neither a JPEG nor a PNG, or a damaged one"),
        (encoded(".png")[:-12], "neither a JPEG nor a PNG, or a damaged one"),
        (png(7, 7, b"").replace(b"IEND", b"acTL"), "neither a JPEG nor a PNG, or a damaged one"),
        (png(30_000, 30_000, zlib.compress(bytes(90_000_000), 1)), "30000 x 30000 pixels, more than the 25000000"),
        (png(0xFFFFFFFF, 0xFFFFFFFF, b""), "4294967295 x 4294967295 pixels"),
        (jpeg_of_size(encoded(".jpg"), 65_500, 65_500), "65500 x 65500 pixels, more than"),
        (encoded(".jpg")[:-2] + b"\xff\xda" * SCAN_LIMIT + b"\xff\xd9", "a JPEG of more than 32 scans"),
    ],
)
def test_a_bad_picture_is_one_line_and_little_memory(raw: bytes, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            decode_bounded(raw, "input image, element 0")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("input image, element 0: ")


@given(st.integers(0, 600), st.binary(max_size=4), st.sampled_from([".jpg", ".png"]))
def test_damage_gives_a_picture_or_a_data_error(at: int, noise: bytes, extension: str) -> None:
    raw = encoded(extension, 8, 8)
    picture: UInt8 | None = None
    try:
        picture = decode_bounded(raw[:at] + noise + raw[at + len(noise) :], "x")
    except DataError:
        return
    assert picture.ndim == 3
