"""Encoded pictures: what their headers declare, whether they are whole, and decoding them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

import edge.opencv  # noqa: F401 -- it keeps OpenCV quiet
from edge.errors import DataError
from edge.types import UInt8

JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
# Start-of-frame markers (ITU T.81, table B.1): 0xC0 to 0xCF without DHT, JPG and DAC
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_EXIF = 0xE1
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_picture(path: Path) -> UInt8:
    """Decode a picture file to BGR uint8 [h, w, 3]. Raises DataError when it is missing, truncated or no picture."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return decode_picture(raw, str(path))


def decode_picture(raw: bytes, where: str) -> UInt8:
    """Decode JPEG, PNG, ... bytes to BGR uint8 [h, w, 3], EXIF orientation applied. Raises DataError naming `where`."""
    image: UInt8 | None = None
    if is_whole(raw):
        try:
            image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)  # type: ignore[assignment]
        except cv2.error:  # no bytes, or absurd dimensions
            image = None
    if image is None:
        raise DataError(f"{where}: not a readable picture, or one cut short ({len(raw)} bytes); remove or replace it")
    return image


def is_whole(raw: bytes) -> bool:
    """Whether a JPEG or PNG reaches its end; True for other formats, whose decoders tell.

    OpenCV fills a JPEG that is cut short with grey and says nothing, libpng complains aloud, and OpenCV allocates what
    a PNG chunk's length field claims.
    """
    if raw.startswith(PNG_SIGNATURE):
        return png_chunks(raw) is not None
    if raw.startswith(JPEG_START):
        scan_at = next((at for marker, at in _jpeg_segments(raw) if marker == JPEG_SCAN), None)
        return scan_at is not None and raw.find(JPEG_END, scan_at) >= 0  # stuffed bytes keep markers out of a scan
    return True


def picture_size(raw: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG's or PNG's header declares; None when it is neither, or its header is damaged."""
    if raw.startswith(PNG_SIGNATURE):
        whole = png_chunks(raw) is not None
        return (int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")) if whole else None
    if raw.startswith(JPEG_START):
        for marker, at in _jpeg_segments(raw):
            if marker in JPEG_FRAMES and at + 9 <= len(raw):
                return int.from_bytes(raw[at + 7 : at + 9], "big"), int.from_bytes(raw[at + 5 : at + 7], "big")
    return None


def upright_size(raw: bytes) -> tuple[int, int] | None:
    """`picture_size` of a picture that no EXIF can turn; None when only decoding tells."""
    if raw.startswith(PNG_SIGNATURE):
        turned = b"eXIf" in (png_chunks(raw) or ())
    else:
        turned = any(marker == JPEG_EXIF and raw[at + 4 : at + 8] == b"Exif" for marker, at in _jpeg_segments(raw))
    return None if turned else picture_size(raw)


def png_chunks(raw: bytes) -> list[bytes] | None:
    """The kinds of a PNG's chunks up to IEND (PNG, 5.3); None when IHDR is not first or a chunk reaches beyond the end."""
    at, kinds = len(PNG_SIGNATURE), [b""]
    while kinds[-1] != b"IEND":
        length, kind = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
        at += 12 + length
        if at > len(raw) or (len(kinds) == 1) != (kind == b"IHDR" and length == 13):
            return None
        kinds.append(kind)
    return kinds[1:]


def _jpeg_segments(raw: bytes) -> Iterator[tuple[int, int]]:
    """Marker and position of each segment up to the first scan (ITU T.81, B.1.1); an EXIF thumbnail lies inside one."""
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        yield marker, at
        if marker == JPEG_SCAN:
            return
        at += 2 if marker in JPEG_STANDALONE else 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
