"""Pictures that are the same: byte for byte, or nearly so by a perceptual hash with a second look at a small copy.

The hash is the sign of the 64 lowest frequencies of a 32 x 32 grey copy against their median (Zauner, "Implementation and
benchmarking of perceptual image hash functions", 2010). Hashes collide for pictures of like composition, so a pair whose
hashes are near is compared once more, in colour at 16 x 16.

The thresholds were measured on the 3828 photographs of cats_dogs, imagenette, raccoon and coco128: of 7.3 million pairs
exactly the nine that are the same photograph pass, down to one with a caption written on it (hash 2 apart, correlation
0.93); the nearest that does not is the same animal a moment later (12 apart, 0.81). Copies made on purpose are found
again in 100% (JPEG quality 30, half the size, another aspect, 0.7 times as bright), 99.8% (2% cut off each side), 98%
(a line of text), 79% (in grey) and 57% (5% cut off).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from edge.errors import DataError
from edge.pictures import is_whole, picture_size
from edge.types import Bools, Float32, Int64, UInt8

HASH_BITS = 64
NEAR_BITS = 12
"""Hashes that differ in at most so many bits may be of the same picture."""
NEAR_CORRELATION = 0.88
"""And are, when their 16 x 16 copies correlate at least so much."""
FLAT = 3.0
"""Standard deviation, of 255, below which a picture has nothing to hash; such are compared by their mean colour."""
FLAT_DIFFERENCE = 3.0
THUMB = 16
REDUCED = ((1024, cv2.IMREAD_REDUCED_COLOR_4), (512, cv2.IMREAD_REDUCED_COLOR_2))
"""Shortest side in pixels from which a JPEG is decoded at a part of its size, which is faster; enough is left to hash."""
ROWS, COLUMNS, PAIRS = 1024, 8192, 1 << 15
"""Sizes of what is compared at a time."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """What tells a picture from others: `bits` bool [64] and `thumbnail`, BGR uint8 [16, 16, 3]."""

    bits: Bools
    thumbnail: UInt8


def content_key(raw: bytes) -> bytes:
    """32 bytes that are the same for the same file content alone."""
    return hashlib.sha256(raw).digest()


def fingerprint(image: UInt8) -> Fingerprint:
    """The fingerprint of a BGR uint8 picture [h, w, 3]."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].reshape(-1)
    bits = low > np.median(low[1:]) if small.std() >= FLAT else np.zeros(HASH_BITS, np.bool_)
    thumbnail = cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return Fingerprint(np.asarray(bits, np.bool_), np.asarray(thumbnail, np.uint8))


def decode_to_hash(raw: bytes, where: str) -> UInt8:
    """An encoded picture as BGR uint8, a large JPEG at a half or a quarter of its size.

    Raises DataError naming `where` for what `edge.pictures.decode_picture` does not decode either.
    """
    shortest = min(picture_size(raw) or (0, 0))
    flag = next((flag for side, flag in REDUCED if shortest >= side), cv2.IMREAD_COLOR)
    image: UInt8 | None = None
    if is_whole(raw):
        try:
            image = cv2.imdecode(np.frombuffer(raw, np.uint8), flag)  # type: ignore[assignment]
        except cv2.error:  # no bytes, or absurd dimensions
            image = None
    if image is None:
        raise DataError(f"{where}: not a readable picture, or one cut short ({len(raw)} bytes); remove or replace it")
    return image


def keys_and_fingerprints(paths: Sequence[Path]) -> list[tuple[bytes, Fingerprint | None]]:
    """Each file's content key and fingerprint, read by as many threads as there are cores; None for what is no picture.

    A file that is missing has its name for content.
    """

    def one(path: Path) -> tuple[bytes, Fingerprint | None]:
        try:
            raw = path.read_bytes()
        except OSError:
            return content_key(os.fsencode(path.name)), None
        try:
            return content_key(raw), fingerprint(decode_to_hash(raw, str(path)))
        except DataError:
            return content_key(raw), None

    return list(in_threads(one, paths))


def in_threads(one: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """`one` of each item, in order, by as many threads as there are cores."""
    readers = ThreadPoolExecutor(os.cpu_count() or 1, "pictures")
    try:
        yield from readers.map(one, items)
    finally:  # whoever stops listening, by Ctrl-C too, waits for none of the rest
        readers.shutdown(cancel_futures=True)


def exact_groups(keys: Sequence[bytes]) -> list[list[int]]:
    """The places of each key that is there more than once, in the order of their first."""
    places: dict[bytes, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [group for group in places.values() if len(group) > 1]


class Near:
    """Which of n fingerprints are of the same picture; None, of what could not be read, is near nothing."""

    def __init__(self, prints: Sequence[Fingerprint | None]) -> None:
        found = [place for place, item in enumerate(prints) if item is not None]
        known = [item for item in prints if item is not None]
        self._places = np.array(found, np.int64)
        self._rows = {place: row for row, place in enumerate(found)}
        self._signs: Float32 = np.array([item.bits for item in known], np.float32).reshape(-1, HASH_BITS) * 2 - 1
        self._thumbs: UInt8 = np.array([item.thumbnail for item in known], np.uint8).reshape(-1, THUMB * THUMB * 3)

    def pairs(self, known: Iterable[Sequence[int]] = ()) -> list[tuple[int, int]]:
        """Pairs of places that are near, enough of them to join all that are, and none within a group of `known`."""
        known = list(known)
        last = max((place for group in known for place in group), default=-1)  # what cannot be read may have copies, too
        parent = list(range(max(last, int(self._places.max(initial=-1))) + 1))
        for group in known:
            for other in group[1:]:
                _join(parent, group[0], other)
        pairs: list[tuple[int, int]] = []
        roots = _roots(parent)
        for left, right in self._candidates():
            a, b = self._places[left], self._places[right]
            apart = np.flatnonzero(roots[a] != roots[b])
            while len(apart):
                part, apart = apart[:PAIRS], apart[PAIRS:]
                same = part[self._same(left[part], right[part])].tolist()
                joined = [(int(a[i]), int(b[i])) for i in same if _join(parent, int(a[i]), int(b[i]))]
                if joined:
                    pairs += joined
                    roots = _roots(parent)
                    apart = apart[roots[a[apart]] != roots[b[apart]]]
        return pairs

    def near(self, place: int, others: Sequence[int]) -> list[int]:
        """Those of `others` that are near the one at `place`."""
        at = self._rows.get(place)
        rows = np.array([self._rows[other] for other in others if other in self._rows], np.int64)
        if at is None or not len(rows):
            return []
        close = rows[self._signs[rows] @ self._signs[at] >= HASH_BITS - 2 * NEAR_BITS]
        found = close[self._same(np.full(len(close), at), close)]
        return [int(other) for other in self._places[found]]

    def _candidates(self) -> Iterator[tuple[Int64, Int64]]:
        """Rows whose hashes are near, each pair once: a product of signs is 64 less twice the bits that differ."""
        count = len(self._signs)
        for top in range(0, count, ROWS):
            for left in range(top, count, COLUMNS):
                products = self._signs[top : top + ROWS] @ self._signs[left : left + COLUMNS].T
                a, b = np.nonzero(products >= HASH_BITS - 2 * NEAR_BITS)
                a, b = a + top, b + left
                yield a[a < b], b[a < b]

    def _same(self, a: Int64, b: Int64) -> Bools:
        """The second look: whether the small copies correlate, or both are of one and the same colour."""
        first, second = self._thumbs[a].astype(np.float32), self._thumbs[b].astype(np.float32)
        flat = (first.std(axis=1) < FLAT) & (second.std(axis=1) < FLAT)
        alike = np.abs(first - second).mean(axis=1) < FLAT_DIFFERENCE
        first, second = first - first.mean(axis=1, keepdims=True), second - second.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        correlated = (first * second).sum(axis=1) >= NEAR_CORRELATION * np.maximum(norms, 1e-6)
        return np.asarray(np.where(flat, alike, correlated), np.bool_)


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The places 0 to count - 1 in groups that the pairs join, each group and all of them in order of place."""
    parent = list(range(count))
    for a, b in pairs:
        _join(parent, a, b)
    members: dict[int, list[int]] = {}
    for place in range(count):
        members.setdefault(_root(parent, place), []).append(place)
    return list(members.values())


def _root(parent: list[int], place: int) -> int:
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place


def _roots(parent: Sequence[int]) -> Int64:
    roots = np.array(parent, np.int64)
    while (roots != roots[roots]).any():
        roots = roots[roots]
    return roots


def _join(parent: list[int], a: int, b: int) -> bool:
    """Join two places' groups under the lesser root; whether they were apart."""
    first, second = sorted((_root(parent, a), _root(parent, b)))
    parent[second] = first
    return first != second
