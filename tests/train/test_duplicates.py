"""Which pictures are the same: copies that people make are found, others are not, and nothing depends on the order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.datasets import picture_files
from edge.errors import DataError
from edge.types import UInt8
from tests.train.pictured import jpeg, put, scene
from train import duplicates
from train.duplicates import Near, decode_to_hash, exact_groups, fingerprint, groups, keys_and_fingerprints


def halved(image: UInt8) -> UInt8:
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def recoded(image: UInt8) -> UInt8:
    return cv2.imdecode(np.frombuffer(jpeg(image, 30), np.uint8), cv2.IMREAD_COLOR)


COPIES: dict[str, Callable[[UInt8], UInt8]] = {
    "same": lambda image: image,
    "half": halved,
    "jpeg": recoded,
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "stretched": lambda image: cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA),
    "cropped": lambda image: image[1:-1, 1:-1],
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_near(copy: str) -> None:
    for seed in range(30):
        image = scene(seed, 160, 120)
        assert Near([fingerprint(image), fingerprint(COPIES[copy](image))]).pairs() == [(0, 1)], seed


def test_other_pictures_are_not() -> None:
    assert Near([fingerprint(scene(seed)) for seed in range(200)]).pairs() == []


def test_one_composition_in_other_colours_is_another_picture() -> None:
    cup = np.full((90, 120, 3), 200, np.uint8)
    red, blue = cup.copy(), cup.copy()
    red[20:70, 40:80] = (40, 40, 220)
    blue[20:70, 40:80] = (220, 40, 40)
    assert Near([fingerprint(red), fingerprint(blue)]).pairs() == []


def test_plain_pictures_are_told_apart_by_their_colour() -> None:
    plain = [
        np.full((30, 40, 3), colour, np.uint8) for colour in ((0, 0, 0), (1, 1, 1), (90, 0, 0), (0, 90, 0), (255, 255, 255))
    ]
    assert Near([fingerprint(image) for image in plain]).pairs() == [(0, 1)]


def test_groups_of_many_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same groups, however the comparison is cut up, with unreadable pictures between."""
    prints = [fingerprint(COPIES[copy](scene(seed))) for copy in ("same", "jpeg", "darker") for seed in range(12)]
    mixed = [None, *prints, None]
    whole = groups(len(mixed), Near(mixed).pairs())
    monkeypatch.setattr(duplicates, "ROWS", 5)
    monkeypatch.setattr(duplicates, "COLUMNS", 7)
    monkeypatch.setattr(duplicates, "PAIRS", 2)
    assert groups(len(mixed), Near(mixed).pairs()) == whole
    assert whole == [[0], *([1 + i, 13 + i, 25 + i] for i in range(12)), [37]]


def test_known_groups_are_not_looked_for_again() -> None:
    prints = [fingerprint(scene(0)), fingerprint(recoded(scene(0))), fingerprint(scene(1))]
    assert Near(prints).pairs([[0, 1]]) == []
    assert Near(prints).near(0, [1, 2]) == [1]
    assert Near([*prints, None]).near(3, [0]) == []
    assert Near([]).pairs() == []
    assert Near([None]).near(0, [0]) == []


def test_exact_groups() -> None:
    assert exact_groups([b"a", b"b", b"a", b"c", b"b", b"a"]) == [[0, 2, 5], [1, 4]]


def test_large_jpegs_are_decoded_small(tmp_path: Path) -> None:
    image = scene(3, 1600, 1200)
    raw = jpeg(image)
    assert decode_to_hash(raw, "x").shape == (300, 400, 3)
    assert Near([fingerprint(decode_to_hash(raw, "x")), fingerprint(image)]).pairs() == [(0, 1)]
    with pytest.raises(DataError, match="x: not a readable picture"):
        decode_to_hash(raw[:-1000], "x")
    with pytest.raises(DataError, match="x: not a readable picture"):
        decode_to_hash(b"", "x")


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    put(tmp_path / "b.jpg", b"no")
    (_, nothing), (key, none), (same, _) = keys_and_fingerprints([tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "b.jpg"])
    assert nothing is None
    assert none is None
    assert key == same


@pytest.mark.slow
def test_photographs(shared_data: Path) -> None:
    """The nine pairs of photographs that are the same, seven groups of them, and no other, among 1700."""
    files = [path for name in ("raccoon", "cats_dogs") for path in picture_files(shared_data / name)]
    content = keys_and_fingerprints(files)
    exact = exact_groups([key for key, _ in content])
    found = groups(len(files), Near([print for _, print in content]).pairs())
    assert {frozenset(files[place].stem for place in group) for group in exact} == {
        frozenset({"raccoon-65", "raccoon-98"}),
        frozenset({"raccoon-11", "raccoon-116"}),
        frozenset({"raccoon-120", "raccoon-83"}),
        frozenset({"raccoon-52", "raccoon-74"}),
    }
    assert {frozenset(files[place].stem for place in group) for group in found if len(group) > 1} == {
        frozenset({"raccoon-65", "raccoon-98"}),
        frozenset({"raccoon-11", "raccoon-116"}),
        frozenset({"raccoon-120", "raccoon-83"}),
        frozenset({"raccoon-50", "raccoon-52", "raccoon-74"}),
        frozenset({"raccoon-21", "raccoon-45"}),
        frozenset({"raccoon-51", "raccoon-85"}),
        frozenset({"dog.0074", "dog.0180"}),
    }


def test_copies_of_what_cannot_be_read_are_no_trouble() -> None:
    assert Near([None, None, None]).pairs([[0, 1], [2]]) == []
    one = fingerprint(np.zeros((32, 32, 3), np.uint8))
    assert Near([one, None, None, one]).pairs([[1, 2]]) == [(0, 3)]
