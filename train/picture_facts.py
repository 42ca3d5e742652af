"""What one picture file is: whether it can be read, its size as shown, and what about it deserves a second look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import DataError
from edge.pictures import JPEG_START, PNG_SIGNATURE, picture_size, png_chunks
from edge.types import UInt8
from train.duplicates import Fingerprint, content_key, decode_to_hash, fingerprint

MAGIC = {
    "jpeg": (b"\xff\xd8\xff",),
    "png": (PNG_SIGNATURE,),
    "bmp": (b"BM",),
    "webp": (b"RIFF",),
    "tiff": (b"II*\0", b"MM\0*"),
    "gif": (b"GIF8",),
}
SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".bmp": "bmp", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}
# Start-of-frame markers (ITU T.81, table B.1)
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
GREY = 128
"""What a decoder fills in where a JPEG's data ends or is damaged."""
GREY_SHARE = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """A picture file: its content's key, and where it can be read its size as shown and its fingerprint.

    `problem` says why it cannot be read, `format` what it is (of MAGIC). `odd` are kinds of oddity (ODD).
    """

    key: bytes
    problem: str = ""
    size_wh: tuple[int, int] = (0, 0)
    print: Fingerprint | None = None
    odd: tuple[str, ...] = ()
    format: str = ""


ODD = {
    "name": "of another format than its name says",
    "animated": "animated or of several pages: only the first picture is used",
    "cmyk": "CMYK, whose colours are converted and may be off",
    "depth": "16 bits a channel, of which 8 are used",
    "alpha": "with transparency, which is ignored",
    "turned": "turned by EXIF, which is heeded here and may not be elsewhere",
    "grey": "plain grey at the bottom, as a damaged JPEG is decoded",
}
"""Oddity → what a picture is that has it."""


def read_facts(path: Path) -> Facts:
    """The facts of a file; never raises."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        return Facts(b"", error.strerror or str(error))
    return facts_of(raw, path.suffix)


def facts_of(raw: bytes, suffix: str) -> Facts:
    """The facts of a picture's bytes under a name that ends in `suffix`; never raises."""
    key = content_key(raw)
    try:
        image = decode_to_hash(raw, suffix)
    except DataError:
        return Facts(key, _why(raw))
    height, width = image.shape[:2]
    orientation = exif_orientation(raw)
    declared = picture_size(raw)
    if declared is not None:
        width, height = declared[::-1] if orientation > 4 else declared
    kind = _kind(raw)
    odd = [*_oddities(raw, kind), *(["turned"] if orientation > 1 else []), *(["grey"] if _grey(image, kind) else [])]
    if kind and SUFFIXES.get(suffix.lower(), kind) != kind:
        odd.append("name")
    return Facts(key, "", (width, height), fingerprint(image), tuple(odd), kind)


def _why(raw: bytes) -> str:
    """What a file that cannot be decoded is."""
    if not raw:
        return "empty, 0 bytes"
    kind = _kind(raw)
    if not kind:
        return f"no picture: it begins with {raw[:12]!r}"
    if kind == "gif":
        return "a GIF, which is not read"
    return f"a {kind.upper()} that is cut short or damaged, {len(raw)} bytes"


def _kind(raw: bytes) -> str:
    kind = next((kind for kind, magics in MAGIC.items() if raw.startswith(magics)), "")
    return "" if kind == "webp" and raw[8:12] != b"WEBP" else kind


def _oddities(raw: bytes, kind: str) -> list[str]:
    if kind == "png":
        chunks = png_chunks(raw) or []
        depth, colour = raw[24], raw[25]  # PNG, 11.2.2: colour types 4 and 6 have alpha
        found = {"depth": depth == 16, "alpha": colour in (4, 6) or b"tRNS" in chunks, "animated": b"acTL" in chunks}
    elif kind == "jpeg":
        found = {"cmyk": _components(raw) == 4}
    elif kind == "webp":  # RFC 9649, 2.7: the flags of the extended format
        flags = raw[20] if raw[12:16] == b"VP8X" and len(raw) > 20 else 0
        found = {"animated": bool(flags & 0x02), "alpha": bool(flags & 0x10)}
    elif kind == "tiff":
        found = {"animated": _has_second_page(raw)}
    else:
        found = {"animated": kind == "gif" and _gif_frames(raw) > 1}
    return [name for name, there in found.items() if there]


def _components(raw: bytes) -> int:
    """How many colour components a JPEG's frame declares; 0 when it has none."""
    return next((raw[at + 9] for marker, at in _segments(raw) if marker in FRAMES and at + 9 < len(raw)), 0)


def exif_orientation(raw: bytes) -> int:
    """How a JPEG or PNG is to be turned to be shown, 1 (as it is) to 8 (Exif 2.32, tag 0x0112)."""
    if raw.startswith(JPEG_START):
        at = next((at + 10 for marker, at in _segments(raw) if marker == 0xE1 and raw[at + 4 : at + 8] == b"Exif"), None)
    elif raw.startswith(PNG_SIGNATURE) and b"eXIf" in (png_chunks(raw) or ()):
        at = raw.index(b"eXIf") + 4
    else:
        at = None
    if at is None:
        return 1
    order = "little" if raw[at : at + 2] == b"II" else "big"
    first = at + _number(raw, at + 4, 4, order)
    for entry in range(first + 2, first + 2 + 12 * _number(raw, first, 2, order), 12):
        if _number(raw, entry, 2, order) == 0x0112:
            value = _number(raw, entry + 8, 2, order)
            return value if 1 <= value <= 8 else 1
    return 1


def _has_second_page(raw: bytes) -> bool:
    """Whether a TIFF's first directory points to another (TIFF 6.0, section 2)."""
    order = "little" if raw[:2] == b"II" else "big"
    first = _number(raw, 4, 4, order)
    return _number(raw, first + 2 + 12 * _number(raw, first, 2, order), 4, order) != 0


def _gif_frames(raw: bytes) -> int:
    """How many pictures a GIF has, two at most being counted (GIF89a, 18 to 26)."""
    at, frames = 13 + _gif_colours(raw, 10), 0
    while at < len(raw) and frames < 2 and raw[at] in (0x21, 0x2C):
        frames += raw[at] == 0x2C
        at += 2 if raw[at] == 0x21 else 11 + _gif_colours(raw, at + 9)
        while at < len(raw) and raw[at]:  # sub-blocks, each with its length before it, up to one of none
            at += 1 + raw[at]
        at += 1
    return frames


def _gif_colours(raw: bytes, at: int) -> int:
    """The size in bytes of the colour table that the flags at a place announce."""
    flags = _number(raw, at, 1, "little")
    return 3 << (1 + (flags & 0x07)) if flags & 0x80 else 0


def _number(raw: bytes, at: int, size: int, order: str) -> int:
    return int.from_bytes(raw[at : at + size], "little" if order == "little" else "big")


def _segments(raw: bytes) -> list[tuple[int, int]]:
    """Marker and position of each JPEG segment before the first scan (ITU T.81, B.1.1)."""
    found, at = [], 2
    while at + 4 <= len(raw) and raw[at] == 0xFF and raw[at + 1] != 0xDA:
        marker = raw[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        found.append((marker, at))
        at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD7 else 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    return found


def _grey(image: UInt8, kind: str) -> bool:
    """Whether the lowest rows of a JPEG are what a decoder fills in, and those above are not."""
    rows = max(8, round(image.shape[0] * GREY_SHARE))
    if kind != "jpeg" or image.shape[0] <= rows:
        return False
    return bool(np.all(image[-rows:] == GREY)) and not bool(np.all(image == GREY))
