"""What headers say of a picture: its size as shown, how it is turned, and what about it is odd; damage ends in words."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_boxes_data import turned
from tests.train.pictured import jpeg, put, scene
from train.picture_facts import ODD, exif_orientation, facts_of, read_facts


def test_facts_of_headers(tmp_path: Path) -> None:
    raw = turned(scene(0, 64, 48), 6)
    assert exif_orientation(raw) == 6
    assert read_facts(put(tmp_path / "a.jpg", raw)).size_wh == (48, 64)
    assert exif_orientation(jpeg(scene(0))) == 1
    assert exif_orientation(raw[:24]) == 1
    large = put(tmp_path / "b.jpg", turned(scene(1, 1400, 1100), 8))
    assert read_facts(large).size_wh == (1100, 1400)
    animated = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x12" + bytes(9)
    assert read_facts(put(tmp_path / "c.webp", animated)).problem.startswith("a WEBP that is cut short")
    assert read_facts(tmp_path / "gone.jpg").problem == "No such file or directory"
    pages = cv2.imencodemulti(".tiff", [scene(2), scene(3)])[1].tobytes()
    assert read_facts(put(tmp_path / "d.tiff", pages)).odd == ("animated",)
    one = cv2.imencode(".tiff", scene(2))[1].tobytes()
    assert read_facts(put(tmp_path / "e.tiff", one)).odd == ()


WHOLE = (
    turned(scene(0, 16, 12), 6),
    cv2.imencode(".png", scene(1, 16, 12))[1].tobytes(),
    cv2.imencode(".webp", scene(2, 16, 12))[1].tobytes(),
    cv2.imencode(".tiff", scene(3, 16, 12))[1].tobytes(),
    cv2.imencode(".bmp", scene(4, 16, 12))[1].tobytes(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(raw=st.sampled_from(WHOLE), changes=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4))
def test_damaged_headers_end_in_facts(tmp_path: Path, raw: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(raw)
    for at, value in changes:
        damaged[at % len(raw)] = value
    facts = read_facts(put(tmp_path / "x.jpg", bytes(damaged)))
    assert bool(facts.problem) != (facts.print is not None)
    assert set(facts.odd) <= set(ODD)


def test_a_jpeg_of_four_colours(tmp_path: Path) -> None:
    """Made of a grey one by hand: four components that share its tables, and its scan four times."""
    raw = cv2.imencode(".jpg", scene(0, 8, 8)[..., 0])[1].tobytes()
    frame, scan = raw.index(b"\xff\xc0"), raw.index(b"\xff\xda")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3, 4))
    head = raw[frame : frame + 2] + (8 + 12).to_bytes(2, "big") + raw[frame + 4 : frame + 9] + b"\x04" + components
    frame_end = frame + 2 + int.from_bytes(raw[frame + 2 : frame + 4], "big")
    scans = b"".join(b"\xff\xda\x00\x08\x01" + bytes([number]) + raw[scan + 6 : -2] for number in (1, 2, 3, 4))
    four = raw[:frame] + head + raw[frame_end:scan] + scans + b"\xff\xd9"
    assert read_facts(put(tmp_path / "four.jpg", four)).odd == ("cmyk",)


@pytest.mark.skipif(not cv2.haveImageWriter("x.gif"), reason="an OpenCV without GIF")
def test_pictures_by_another_name_are_called_what_they_are() -> None:
    """A GIF of one picture is not animated, nor is a WebP or PNG for being called a JPEG."""
    for suffix in (".gif", ".png", ".webp"):
        facts = facts_of(cv2.imencode(suffix, scene(2))[1].tobytes(), ".jpg")
        assert (facts.odd, facts.format) == (("name",), suffix[1:])
    moving = cv2.imencodemulti(".gif", [scene(2), scene(3)])[1].tobytes()
    assert facts_of(moving, ".gif").odd == ("animated",)
