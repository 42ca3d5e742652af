"""Encoded pictures from strangers: what a header asks for is known before anything is decoded."""

from __future__ import annotations

from edge.errors import DataError
from edge.pictures import PNG_SIGNATURE, decode_picture, picture_size, png_chunks
from edge.types import UInt8

PIXEL_LIMIT = 25_000_000
"""Pixels of one picture; decoded and turned upright it takes some 12 bytes a pixel for a moment, 300 MB."""
SCAN_LIMIT = 32
"""Scans of one progressive JPEG, each a pass over all pixels; encoders write about ten."""
ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
"""PNG chunks whose frames have sizes of their own; a picture has none."""


def decode_bounded(raw: bytes, where: str) -> UInt8:
    """A JPEG or PNG as BGR uint8 [h, w, 3], refused by its header when it would take too much. Raises DataError."""
    size_wh = picture_size(raw)
    is_png = raw.startswith(PNG_SIGNATURE)
    if size_wh is None or (is_png and not ANIMATION.isdisjoint(png_chunks(raw) or ())):
        raise DataError(f"{where}: neither a JPEG nor a PNG, or a damaged one ({len(raw)} bytes); send a whole one")
    if size_wh[0] * size_wh[1] > PIXEL_LIMIT:
        raise DataError(
            f"{where}: {size_wh[0]} x {size_wh[1]} pixels, more than the {PIXEL_LIMIT} that are accepted; make it smaller"
        )
    if not is_png and raw.count(b"\xff\xda") > SCAN_LIMIT:
        raise DataError(f"{where}: a JPEG of more than {SCAN_LIMIT} scans; save it as a baseline one")
    return decode_picture(raw, where)
