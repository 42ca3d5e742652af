"""Class folders: names, hidden files and pictures that are none."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.card import Label
from edge.datasets import class_folders, evaluation_split, frames, picture_files
from edge.errors import DataError
from edge.pictures import decode_picture, read_picture
from edge.types import UInt8
from tests.samples import encoded, picture

LABELS = [Label(id="n01440764", name="tench"), Label(id="n02102040", name="English springer"), Label(id="c2", name="chain saw")]
JPEG = encoded(picture(80, 60))


def tree(root: Path, *files: str, data: bytes = JPEG) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    return root


# folders and labels


@pytest.mark.parametrize(
    ("folder", "class_id"),
    [
        ("n01440764", 0),
        ("N01440764", 0),
        ("tench", 0),
        ("Tench", 0),
        ("English springer", 1),
        ("english_springer", 1),
        ("ENGLISH__SPRINGER", 1),
        (" english springer", 1),
        ("chain_saw", 2),
        ("c2", 2),
    ],
)
def test_a_folder_matches_a_label(tmp_path: Path, folder: str, class_id: int) -> None:
    samples = class_folders(tree(tmp_path, f"{folder}/1.jpg"), LABELS)
    assert [(sample.path.name, sample.class_id) for sample in samples] == [("1.jpg", class_id)]


def test_an_id_wins_over_another_label_s_name(tmp_path: Path) -> None:
    labels = [Label(id="b", name="a"), Label(id="a", name="b")]
    assert [sample.class_id for sample in class_folders(tree(tmp_path, "a/1.jpg", "b/1.jpg"), labels)] == [1, 0]


def test_a_name_of_two_labels_is_ambiguous(tmp_path: Path) -> None:
    """ImageNet has two cranes and two maillots."""
    labels = [Label(id="n02012849", name="crane"), Label(id="n03126707", name="Crane")]
    with pytest.raises(DataError, match="crane") as error:
        class_folders(tree(tmp_path / "x", "crane/1.jpg"), labels)
    assert "n02012849" in str(error.value)
    assert [sample.class_id for sample in class_folders(tree(tmp_path / "y", "n03126707/1.jpg"), labels)] == [1]


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (["dog/1.jpg"], ["'dog' matches no label", "n01440764, n02102040, c2"]),
        (["dog/1.jpg", "cat/1.jpg", "tench/1.jpg"], ["'cat' matches no label", "1 other"]),
        (["tench/1.txt"], ["hold no pictures", ".jpg"]),
        (["tench/.hidden.jpg"], ["hold no pictures"]),
        (["1.jpg"], ["has no class folders", "CLASS/PICTURE.jpg"]),
        ([".hidden/1.jpg"], ["has no class folders"]),
        ([], ["has no class folders"]),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, files: list[str], parts: list[str]) -> None:
    with pytest.raises(DataError) as error:
        class_folders(tree(tmp_path, *files), LABELS)
    line = str(error.value)
    assert "\n" not in line
    assert str(tmp_path) in line
    assert error.value.exit_code == 2
    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", ["nothing", "file", "x" * 300])
def test_a_folder_that_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(JPEG)
    with pytest.raises(DataError, match="no such folder"):
        class_folders(evaluation_split(tmp_path / name), LABELS)


def test_picture_files_are_sorted_and_not_hidden(tmp_path: Path) -> None:
    tree(tmp_path, "b.JPG", "a.png", "c.txt", ".d.jpg", "sub/e.jpeg", ".git/f.jpg", "sub/.g/h.jpg", "z.webp", "i.tiff", "j.bmp")
    (tmp_path / "folder.jpg").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in picture_files(tmp_path)]
    assert found == ["a.png", "b.JPG", "i.tiff", "j.bmp", "sub/e.jpeg", "z.webp"]


def test_a_hidden_folder_above_hides_nothing(tmp_path: Path) -> None:
    assert len(picture_files(tree(tmp_path / ".data", "1.jpg"))) == 1


def test_the_evaluation_split(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    assert evaluation_split(tmp_path) == tmp_path
    (tmp_path / "train").mkdir()
    assert evaluation_split(tmp_path) == tmp_path / "val"
    (tmp_path / "val").rename(tmp_path / "valid")
    assert evaluation_split(tmp_path) == tmp_path / "valid"


def test_frames_name_what_they_leave_out(tmp_path: Path) -> None:
    tree(tmp_path, "tench/1.jpg", "tench/3.jpg")
    tree(tmp_path, "tench/2.jpg", data=JPEG[: len(JPEG) // 2])
    tree(tmp_path, "tench/4.jpg", data=b"")
    tree(tmp_path, "tench/5.png", data=b"text")
    bad: list[str] = []
    found = list(frames(class_folders(tmp_path, LABELS), bad.append))
    assert [(frame.name, class_id) for frame, class_id in found] == [("1.jpg", 0), ("3.jpg", 0)]
    assert all(frame.image.shape == (60, 80, 3) for frame, _ in found)
    assert len(bad) == 3
    for line, name in zip(bad, ("2.jpg", "4.jpg", "5.png"), strict=True):
        assert f"{tmp_path}/tench/{name}" in line
        assert "\n" not in line


# pictures


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_kinds_of_pictures(suffix: str) -> None:
    image = decode_picture(encoded(picture(80, 60), suffix), "here")
    assert image.shape == (60, 80, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture(80, 60)).mean() < 8


@pytest.mark.parametrize(
    "image",
    [
        np.full((20, 30), 77, np.uint8),
        np.full((20, 30, 4), 77, np.uint8),
        np.full((20, 30), 77 * 257, np.uint16),
        np.full((20, 30, 3), 77 * 257, np.uint16),
    ],
)
def test_grey_transparent_and_deep_pictures_become_bgr(image: UInt8) -> None:
    found = decode_picture(encoded(image, ".png"), "here")
    assert found.shape == (20, 30, 3)
    assert found.dtype == np.uint8
    assert (found == 77).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_picture_cut_short_is_named_and_nothing_else_is_said(
    suffix: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = encoded(picture(160, 120), suffix)
    with pytest.raises(DataError, match="here: not a readable picture, or one cut short") as error:
        decode_picture(whole[: int(len(whole) * share)], "here")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"text"]
)
def test_bytes_that_are_no_picture(raw: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=f"here: .*{len(raw)} bytes"):
        decode_picture(raw, "here")
    assert capfd.readouterr() == ("", "")


def test_a_picture_of_absurd_size() -> None:
    raw = bytearray(encoded(picture(16, 16), ".bmp"))
    struct.pack_into("<ii", raw, 18, 1 << 30, 1 << 30)
    with pytest.raises(DataError):
        decode_picture(bytes(raw), "here")


def app1(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def exif(orientation: int, thumbnail: bytes = b"") -> bytes:
    """An EXIF segment with an orientation, and perhaps a thumbnail."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    ifd0 = struct.pack("<H", 1) + entries
    second = 8 + len(ifd0) + 4
    ifd1 = struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, second + 2 + 24 + 4)
    ifd1 += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + struct.pack("<I", 0)
    tail = struct.pack("<I", second) + ifd1 + thumbnail if thumbnail else struct.pack("<I", 0)
    return app1(b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd0 + tail)


def with_segment(jpeg: bytes, segment: bytes) -> bytes:
    return jpeg[:2] + segment + jpeg[2:]


def test_a_thumbnail_has_an_end_of_its_own() -> None:
    thumbnail = encoded(picture(16, 12, seed=9))
    whole = with_segment(JPEG, exif(1, thumbnail))
    np.testing.assert_array_equal(decode_picture(whole, "here"), decode_picture(JPEG, "here"))
    for cut in (len(whole) - 2, len(whole) - len(JPEG) // 2, len(thumbnail) + 120):
        with pytest.raises(DataError):
            decode_picture(whole[:cut], "here")


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 1000, b"trailing text", b"\xff\xd8\xff", encoded(picture(16, 16))])
def test_bytes_behind_a_picture_do_not_matter(tail: bytes) -> None:
    np.testing.assert_array_equal(decode_picture(JPEG + tail, "here"), decode_picture(JPEG, "here"))


def test_padding_and_comments_in_the_header_do_not_matter() -> None:
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xda"  # a comment that looks like markers
    for segment in (comment, b"\xff\xff" + comment[1:], app1(b"x" * 60000)):
        np.testing.assert_array_equal(decode_picture(with_segment(JPEG, segment), "here"), decode_picture(JPEG, "here"))


def test_a_progressive_picture_has_many_scans() -> None:
    done, data = cv2.imencode(".jpg", picture(160, 120), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    raw = data.tobytes()
    assert raw.count(b"\xff\xda") > 3
    assert decode_picture(raw, "here").shape == (120, 160, 3)
    last_scan = raw.rfind(b"\xff\xda")
    for cut in (last_scan, last_scan + 40, len(raw) - 2):
        with pytest.raises(DataError):
            decode_picture(raw[:cut], "here")


def test_restart_markers_do_not_matter() -> None:
    done, data = cv2.imencode(".jpg", picture(160, 120), [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])
    assert done
    assert data.tobytes().count(b"\xff\xd0") > 0
    assert decode_picture(data.tobytes(), "here").shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: image[::-1, ::-1]),
        (4, lambda image: image[::-1]),
        (6, lambda image: np.rot90(image, -1)),
        (8, lambda image: np.rot90(image)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, turn: object) -> None:
    found = decode_picture(with_segment(JPEG, exif(orientation)), "here")
    np.testing.assert_array_equal(found, turn(decode_picture(JPEG, "here")))  # type: ignore[operator]


@settings(max_examples=150)
@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4))
def test_damaged_pictures_are_refused_or_pictures(cut: float, flips: list[tuple[float, int]]) -> None:
    raw = bytearray(JPEG)
    for place, mask in flips:
        raw[int(place * len(raw))] ^= mask
    try:
        image = decode_picture(bytes(raw[: int(cut * len(raw)) or None]), "here")
    except DataError:
        return
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.dtype == np.uint8


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_picture(tmp_path / "nothing.jpg")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_picture(tmp_path)


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    path.write_bytes(JPEG)
    assert read_picture(path).shape == (60, 80, 3)
    assert picture_files(tmp_path) == [path]


def test_the_truncated_picture_of_the_test_data(shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"truncated\.jpg: not a readable picture"):
        read_picture(shared_data / "bad" / "truncated.jpg")


@pytest.mark.parametrize("part", ["imagenette/val", "cats_dogs/val", "coco128/images", "raccoon/images"])
def test_real_pictures_are_all_read(shared_data: Path, part: str) -> None:
    """None of them is misjudged; a sample, for time."""
    files = picture_files(shared_data / part)
    assert len(files) > 100
    for path in files[:: len(files) // 25]:
        assert read_picture(path).ndim == 3
