"""Bundles: written and read back byte for byte, and refused in one line whenever something about them is wrong."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle import Bundle, open_bundle, pack_golden, sha256, write_bundle
from edge.card import Accuracy, card_schema, decode_card, encode_card
from edge.errors import BundleError, EdgeError
from tests.samples import encoded, entries_of, golden_arrays, with_card, with_file, write_entries

Entries = dict[str, bytes]


@pytest.fixture(scope="session")
def good(tiny_edge: Path) -> Entries:
    return entries_of(tiny_edge)


def read_all(path: Path) -> tuple[bytes, list[bytes], list[Any]]:
    """All that a device ever reads of a bundle."""
    bundle = open_bundle(path)
    golden = [bundle.golden(variant) for variant in bundle.card.variants]
    return (
        encode_card(bundle.card),
        [bundle.model_bytes(variant) for variant in bundle.card.variants],
        [(picture.tobytes(), {role: value.tobytes() for role, value in expected.items()}) for picture, expected in golden],
    )


def refusal(path: Path) -> str:
    """The line with which a bundle is refused, wherever on the way that is."""
    with pytest.raises(BundleError) as error:
        read_all(path)
    line = str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in line
    assert line.isprintable()
    assert str(path) in line
    return line


# written and read back


@pytest.mark.parametrize("name", ["again.edge", "again"])
def test_rewriting_gives_the_same_bytes(tmp_path: Path, tiny_edge: Path, good: Entries, name: str) -> None:
    files = {key: data for key, data in good.items() if key != "card.json"}
    card = open_bundle(tiny_edge).card
    write_bundle(tmp_path / name, card, files)
    assert entries_of(tmp_path / name) == good
    assert read_all(tmp_path / name) == read_all(tiny_edge)
    if name.endswith(".edge"):
        assert (tmp_path / name).read_bytes() == tiny_edge.read_bytes()
    write_bundle(tmp_path / name, card, files)  # over itself
    assert entries_of(tmp_path / name) == good
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_the_order_of_the_files_does_not_change_the_bytes(tmp_path: Path, tiny_edge: Path, good: Entries) -> None:
    files = {key: good[key] for key in reversed(good) if key != "card.json"}
    write_bundle(tmp_path / "other.edge", open_bundle(tiny_edge).card, files)
    assert (tmp_path / "other.edge").read_bytes() == tiny_edge.read_bytes()


def test_companions_are_carried(tmp_path: Path, tiny_edge: Path, good: Entries) -> None:
    files = {key: data for key, data in good.items() if key != "card.json"} | {"LICENSE": b"Apache-2.0"}
    write_bundle(tmp_path / "x.edge", open_bundle(tiny_edge).card, files)
    assert read_all(tmp_path / "x.edge") == read_all(tiny_edge)
    assert entries_of(tmp_path / "x.edge")["LICENSE"] == b"Apache-2.0"


def test_anyone_may_read_what_was_written(tmp_path: Path, tiny_edge: Path, good: Entries) -> None:
    files = {key: data for key, data in good.items() if key != "card.json"}
    for name, mode in (("x.edge", 0o644), ("x", 0o755)):
        write_bundle(tmp_path / name, open_bundle(tiny_edge).card, files)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


@pytest.mark.parametrize(
    ("name", "damage", "part"),
    [
        ("x.edge", {"float32.onnx": b"something else"}, "float32.onnx"),
        ("x", {"float32.onnx": b"something else"}, "float32.onnx"),
        ("x.edge", {"golden.npz": b""}, "golden.npz"),
        ("x", {"golden.npz": b""}, "golden.npz"),
        ("x.edge", {"notes.txt": b"a name that the card does not know"}, "notes.txt"),
        ("x.edge", {"../evil": b"x"}, "evil"),
        ("x", {"../evil": b"x"}, "evil"),
    ],
)
def test_a_failed_write_leaves_the_old_bundle(
    tmp_path: Path, tiny_edge: Path, good: Entries, name: str, damage: Entries, part: str
) -> None:
    path = write_entries(tmp_path / "sub" / name, good) if name == "x" else tmp_path / "sub" / name
    if name == "x.edge":
        path.parent.mkdir()
        path.write_bytes(tiny_edge.read_bytes())
    files = {key: data for key, data in good.items() if key != "card.json"} | damage
    with pytest.raises(BundleError, match=part):
        write_bundle(path, open_bundle(tiny_edge).card, files)
    assert entries_of(path) == good
    assert [found.name for found in path.parent.iterdir()] == [name]
    assert [found.name for found in tmp_path.iterdir()] == ["sub"]


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path, tiny_edge: Path, good: Entries) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"dear to me")
    files = {key: data for key, data in good.items() if key != "card.json"}
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(tmp_path / "photos", open_bundle(tiny_edge).card, files)
    assert (tmp_path / "photos" / "mine.jpg").read_bytes() == b"dear to me"


@pytest.mark.parametrize("target", ["file/x.edge", "file/x", "folder.edge"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, tiny_edge: Path, good: Entries, target: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.edge").mkdir()
    files = {key: data for key, data in good.items() if key != "card.json"}
    with pytest.raises(BundleError, match="cannot write") as error:
        write_bundle(tmp_path / target, open_bundle(tiny_edge).card, files)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.edge"]


# entries of a zip


@dataclass
class Central:
    """The central directory record of one entry, where a zip's lies are told."""

    raw: bytearray
    at: int

    def put(self, offset: int, form: str, value: int) -> None:
        struct.pack_into(form, self.raw, self.at + offset, value)


def lie(path: Path, entries: Entries, name: str, tell: Callable[[Central], None]) -> None:
    raw = bytearray(write_entries(path, entries).read_bytes())
    at = raw.find(b"PK\x01\x02")
    while raw[at + 46 : at + 46 + len(name)] != name.encode():
        at = raw.find(b"PK\x01\x02", at + 1)
        assert at > 0, name
    tell(Central(raw, at))
    path.write_bytes(raw)


def sizes(value: int) -> Callable[[Central], None]:
    def tell(record: Central) -> None:
        record.put(20, "<I", value)
        record.put(24, "<I", value)

    return tell


@pytest.mark.parametrize(
    ("tell", "part"),
    [
        (lambda record: record.put(8, "<H", 0x1), "encrypted"),
        (lambda record: record.put(8, "<H", 0x21), "encrypted"),
        (lambda record: record.put(8, "<H", 0x20), ""),  # "compressed patched data"
        (lambda record: record.put(6, "<H", 99), ""),  # needs a newer unzip than there is
        (lambda record: record.put(10, "<H", 8), "compressed"),
        (lambda record: record.put(10, "<H", 12), "compressed"),
        (lambda record: record.put(10, "<H", 999), "compressed"),
        (sizes(0x8000_0001), "over the limit"),
        (sizes(0x7FFF_FFFF), ""),
        (sizes(3 << 20), ""),
        (sizes(0), ""),
        (lambda record: record.put(24, "<I", 1), "compressed"),
        (lambda record: record.put(42, "<I", 0x7FFF_FFFF), ""),  # an entry that starts beyond the file
        (lambda record: record.put(42, "<I", 7), ""),
        (lambda record: record.put(16, "<I", 0), "damaged"),  # another checksum
        (lambda record: record.put(38, "<I", (stat.S_IFLNK | 0o777) << 16), "outside the bundle"),
        (lambda record: record.put(28, "<H", 0xFFFF), ""),
        (lambda record: record.put(30, "<H", 0xFFFF), ""),
    ],
)
@pytest.mark.parametrize("name", ["card.json", "float32.onnx", "golden.npz"])
def test_lies_in_the_directory(tmp_path: Path, good: Entries, name: str, tell: Callable[[Central], None], part: str) -> None:
    path = tmp_path / "x.edge"
    lie(path, good, name, tell)
    assert part in refusal(path)


def test_an_offset_beyond_64_bits(tmp_path: Path, good: Entries) -> None:
    path = tmp_path / "x.edge"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in good.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.filelist[0].header_offset = 2**64 - 1
    refusal(path)


def test_a_card_beyond_its_limit(tmp_path: Path, good: Entries) -> None:
    padded = dict(good) | {"card.json": good["card.json"] + b" " * (8 << 20)}
    assert "over the limit" in refusal(write_entries(tmp_path / "x.edge", padded))
    assert "over the limit" in refusal(write_entries(tmp_path / "x", padded))


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "../../etc/passwd",
        "/etc/passwd",
        "sub/float32.onnx",
        "sub/",
        "..\\evil",
        "C:evil",
        ".",
        "..",
        "",
        "\\\\server\\share",
    ],
)
def test_entry_names_that_lead_outside(tmp_path: Path, good: Entries, name: str) -> None:
    path = write_entries(tmp_path / "x.edge", good | {name: b"x"})
    line = refusal(path)
    assert "outside the bundle" in line
    assert repr(name) in line


@pytest.mark.parametrize("name", ["notes.txt", "evil.py", "card.json.bak", "\x1b[2J", "two\nlines"])
def test_entries_that_the_card_does_not_name(tmp_path: Path, good: Entries, name: str) -> None:
    line = refusal(write_entries(tmp_path / "x.edge", good | {name: b"x"}))
    assert f"{name!r} is not named by the card" in line


@pytest.mark.parametrize("again", ["card.json", "float32.onnx", "golden.npz"])
def test_an_entry_that_stands_twice(tmp_path: Path, good: Entries, again: str) -> None:
    path = write_entries(tmp_path / "x.edge", good)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(again), good[again])
    assert "stands twice" in refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb(tmp_path: Path, good: Entries, method: int) -> None:
    path = write_entries(tmp_path / "x.edge", {key: data for key, data in good.items() if key != "float32.onnx"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("float32.onnx"), bytes(8 << 20), method)
    tracemalloc.start()
    try:
        assert "compressed" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_truncated_anywhere(tmp_path: Path, tiny_edge: Path) -> None:
    whole = tiny_edge.read_bytes()
    path = tmp_path / "x.edge"
    for length in {0, 1, 21, 22, len(whole) // 2, len(whole) - 1, len(whole) - 22, *range(0, len(whole), 211)}:
        path.write_bytes(whole[:length])
        refusal(path)
    path.write_bytes(whole[: len(whole) // 3])
    assert "copy it again" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", encoded(), b"PK\x05\x06" + bytes(18), bytes(1000)])
def test_files_that_are_no_bundle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.edge"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("name", ["nothing.edge", "no/such/folder", "x" * 300])
def test_a_bundle_that_is_not_there(tmp_path: Path, name: str) -> None:
    refusal(tmp_path / name)


# files beside their card


@pytest.mark.parametrize("kind", ["x.edge", "x"])
@pytest.mark.parametrize("name", ["float32.onnx", "golden.npz"])
@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (None, "is missing"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "differs from its card"),
        (lambda data: data[:-1], "differs from its card"),
        (lambda data: data + b"\0", ""),
        (lambda data: b"", "differs from its card"),
    ],
)
def test_files_that_differ_from_the_card(
    tmp_path: Path, good: Entries, kind: str, name: str, damage: Callable[[bytes], bytes] | None, part: str
) -> None:
    entries = {key: data for key, data in good.items() if key != name}
    if damage is not None:
        entries[name] = damage(good[name])
    line = refusal(write_entries(tmp_path / kind, entries))
    assert name in line
    assert part in line


@pytest.mark.parametrize("kind", ["x.edge", "x"])
def test_a_bundle_without_a_card(tmp_path: Path, good: Entries, kind: str) -> None:
    entries = {key: data for key, data in good.items() if key != "card.json"}
    assert "card.json is missing" in refusal(write_entries(tmp_path / kind, entries))


def test_a_file_far_larger_than_its_card_says_is_not_read(tmp_path: Path, good: Entries) -> None:
    path = write_entries(tmp_path / "x", good)
    os.truncate(path / "float32.onnx", 256 << 20)  # sparse
    tracemalloc.start()
    try:
        assert "float32.onnx" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["card.json", "float32.onnx", "golden.npz"])
def test_links_that_lead_out_of_a_folder(tmp_path: Path, good: Entries, name: str) -> None:
    path = write_entries(tmp_path / "x", good)
    (path / name).rename(tmp_path / "outside")
    (path / name).symlink_to(tmp_path / "outside")
    assert "leads outside the bundle" in refusal(path)


def test_links_inside_a_folder_and_to_it_are_fine(tmp_path: Path, good: Entries, tiny_edge: Path) -> None:
    path = write_entries(tmp_path / "x", good)
    (path / "float32.onnx").rename(path / "model")
    (path / "float32.onnx").symlink_to("model")
    (tmp_path / "link").symlink_to(path)
    assert read_all(tmp_path / "link") == read_all(tiny_edge)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda path: path.mkdir(), "not a plain file"),
        (lambda path: os.mkfifo(path), "not a plain file"),
        (lambda path: path.symlink_to(path), "missing"),
        (lambda path: path.symlink_to("nowhere"), "missing"),
    ],
)
def test_things_in_a_folder_that_are_no_files(tmp_path: Path, good: Entries, make: Callable[[Path], None], part: str) -> None:
    path = write_entries(tmp_path / "x", good)
    (path / "float32.onnx").unlink()
    make(path / "float32.onnx")
    assert part in refusal(path)


# the card


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(card: Any) -> None:
        for key in path[:-1]:
            card = card[key]
        card[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(card: Any) -> None:
        for key in path[:-1]:
            card = card[key]
        del card[path[-1]]

    return change


CARDS = [
    (put("schema_version", value=2), "schema version 2"),
    (put("schema_version", value=0), "schema version 0"),
    (put("schema_version", value=-1), "schema version -1"),
    (put("schema_version", value="1"), "schema version '1'"),
    (put("schema_version", value=[1]), "schema version [1]"),
    (put("schema_version", value=True), ""),
    (put("schema_version", value=None), "lacks schema_version"),
    (drop("schema_version"), "lacks schema_version"),
    *((drop(name), f"`{name}`") for name in ("name", "task", "head", "labels", "input", "variants", "golden", "provenance")),
    (drop("input", "width"), "`width`"),
    (drop("variants", 0, "sha256"), "`sha256`"),
    (drop("variants", 1, "input", "name"), "$.variants[1].input"),
    (drop("golden", "bytes"), "`bytes`"),
    (drop("labels", 0, "id"), "`id`"),
    (put("extra", value=1), "`extra`"),
    (put("input", "extra", value=1), "$.input"),
    (put("variants", 0, "extra", value=1), "$.variants[0]"),
    (put("variants", 0, "input", "extra", value=1), "$.variants[0].input"),
    (put("golden", "extra", value=1), "$.golden"),
    (put("labels", 0, "extra", value=1), "$.labels[0]"),
    (put("provenance", "extra", value=1), "$.provenance"),
    (put("two\nlines\x1b[2J", value=1), "two"),
    (put("name", value=7), "$.name"),
    (put("name", value="../evil"), "$.name"),
    (put("name", value=""), "$.name"),
    (put("name", value="x" * 200), "$.name"),
    (put("task", value="depth"), "$.task"),
    (put("task", value="segment"), "task segment has no head 'softmax'"),
    (put("task", value="detect"), "task detect has no head 'softmax'"),
    (put("head", value="maskrcnn"), "$.head"),
    (put("head", value="yolox"), "task classify has no head 'yolox'"),
    (put("detect", value={}), "task classify has no 'detect'"),
    (put("variants", 0, "class_temperatures", value={"c9": 1.5}), "a temperature for classes, task classify has none"),
    (put("variants", 0, "class_temperatures", value={"z": 1.5}), "a temperature for 'z'"),
    (put("variants", 0, "selections", value=[{"unit": "frame"}]), "$.variants[0].selections[0]"),
    (put("labels", value="cat"), "$.labels"),
    (put("labels", 3, "id", value="c2"), "label id 'c2' twice"),
    (put("input", "width", value=0), "$.input.width"),
    (put("input", "width", value=8193), "$.input.width"),
    (put("input", "width", value=32.5), "$.input.width"),
    (put("input", "width", value="32"), "$.input.width"),
    (put("input", "color", value="grey"), "$.input.color"),
    (put("input", "crop_fraction", value=0), "$.input.crop_fraction"),
    (put("input", "crop_fraction", value=1.01), "$.input.crop_fraction"),
    (put("input", "pad_value", value=256), "$.input.pad_value"),
    (put("variants", value=[]), "$.variants"),
    (put("variants", value={}), "$.variants"),
    (put("variants", 1, "name", value="float32"), "variant name 'float32' twice"),
    (put("variants", 1, "file", value="float32.onnx"), "variant file 'float32.onnx' twice"),
    (put("variants", 0, "file", value="../evil"), "$.variants[0].file"),
    (put("variants", 0, "file", value="/etc/passwd"), "$.variants[0].file"),
    (put("variants", 0, "file", value="a\\b"), "$.variants[0].file"),
    (put("variants", 0, "file", value=".."), "$.variants[0].file"),
    (put("variants", 0, "file", value="float32.onnx\n"), "$.variants[0].file"),
    (put("variants", 0, "name", value="float32\n"), "$.variants[0].name"),
    (put("name", value="tiny\n"), "$.name"),
    (put("variants", 0, "file", value="card.json"), "card.json"),
    (put("variants", 0, "file", value="golden.npz"), "golden.npz"),
    (put("variants", 0, "engine", value="tensorrt"), "$.variants[0].engine"),
    (put("variants", 0, "precision", value="int4"), "$.variants[0].precision"),
    (put("variants", 0, "weight_bits", value=4), "$.variants[0].weight_bits"),
    (put("variants", 0, "sha256", value="0" * 63), "$.variants[0].sha256"),
    (put("variants", 0, "sha256", value="G" * 64), "$.variants[0].sha256"),
    (put("variants", 0, "sha256", value="0" * 64), "differs from its card"),
    (put("variants", 0, "bytes", value=0), "$.variants[0].bytes"),
    (put("variants", 0, "bytes", value=-5), "$.variants[0].bytes"),
    (put("variants", 0, "bytes", value=7), "float32.onnx"),
    (put("variants", 0, "bytes", value=10**30), "bytes"),
    (put("variants", 0, "temperature", value=0), "$.variants[0].temperature"),
    (put("variants", 0, "temperature", value=-1), "$.variants[0].temperature"),
    (put("variants", 0, "tolerance", value=-0.1), "$.variants[0].tolerance"),
    (put("variants", 0, "outputs", value={}), "names no output for 'logits'"),
    (put("variants", 0, "outputs", value={"boxes": "x"}), "names no output for 'logits'"),
    (put("variants", 0, "outputs", value={"logits": "y", "boxes": "x"}), "names an output for 'boxes'"),
    (put("variants", 0, "accuracy", value={"data": "d", "images": 1, "top1": 1, "ece": 0}), "lacks 'top5'"),
    (put("variants", 0, "accuracy", value={"data": "d", "images": 1, "top1": 1, "top5": 1, "ap": 1, "ece": 0}), "has 'ap'"),
    (put("variants", 0, "speedup", value=0), "$.variants[0].speedup"),
    (put("variants", 0, "outputs", value=["logits"]), "$.variants[0].outputs"),
    (put("variants", 0, "input", "mean", value=[0, 0]), "$.variants[0].input.mean"),
    (put("variants", 0, "input", "layout", value="chw"), "$.variants[0].input.layout"),
    (put("variants", 0, "machines", value="x86_64"), "$.variants[0].machines"),
    (put("variants", 0, "accuracy", value={"data": "d", "images": 0, "top1": 1, "top5": 1, "ece": 0}), "accuracy"),
    (put("golden", "file", value="other.npz"), "$.golden.file"),
    (put("golden", "sha256", value="0" * 64), "differs from its card"),
    (put("provenance", "tools", value={"onnx": 1}), "$.provenance.tools"),
]


DETECTOR_CARDS = [
    (drop("detect"), "task detect lacks 'detect'"),
    (put("head", value="softmax"), "task detect has no head 'softmax'"),
    (put("head", value="ssd"), "names no output for 'boxes'"),
    (put("detect", "strides", value=[]), "$.detect.strides"),
    (put("detect", "strides", value=[0]), "$.detect.strides"),
    (put("detect", "score_threshold", value=1.5), "$.detect.score_threshold"),
    (put("detect", "max_detections", value=0), "$.detect.max_detections"),
    (put("detect", "extra", value=1), "$.detect"),
    (put("input", "letterbox_anchor", value="bottom"), "$.input.letterbox_anchor"),
    (put("variants", 0, "accuracy", value={"data": "d", "images": 1, "ap50": 1, "ece": 0}), "lacks 'ap'"),
    (put("variants", 0, "accuracy", value={"data": "d", "images": 1, "top1": 1, "top5": 1, "ece": 0}), "has 'top1'"),
]


@pytest.mark.parametrize(("change", "part"), DETECTOR_CARDS)
def test_detector_cards_that_are_refused(
    tmp_path: Path, tiny_detector: Path, change: Callable[[dict[str, Any]], None], part: str
) -> None:
    assert part in refusal(write_entries(tmp_path / "x", with_card(entries_of(tiny_detector), change)))


def test_a_detector_s_card_survives_and_a_classifier_s_says_nothing_of_it(tiny_detector: Path, tiny_edge: Path) -> None:
    card = open_bundle(tiny_detector).card
    figures = Accuracy(data="d", images=1, ap50=0.5, ap=0.25, ece=0.1)
    card = msgspec.structs.replace(card, variants=(msgspec.structs.replace(card.variants[0], accuracy=figures, speedup=1.5),))
    assert decode_card(encode_card(card), "x") == card
    written = json.loads(encode_card(open_bundle(tiny_edge).card))
    assert "detect" not in written
    assert not {"speedup", "accuracy"} & set(written["variants"][0])


@pytest.mark.parametrize(("change", "part"), CARDS)
@pytest.mark.parametrize("kind", ["x.edge", "x"])
def test_cards_that_are_refused(
    tmp_path: Path, good: Entries, kind: str, change: Callable[[dict[str, Any]], None], part: str
) -> None:
    line = refusal(write_entries(tmp_path / kind, with_card(good, change)))
    assert part in line
    assert "card" in line


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"card"',
        b"\xff\xfe{",
        b'{"schema_version": 1, "name": "caf\xe9"}',
        b'{"schema_version": 1, "name": "\\ud800"}',
        b'{"schema_version": 1' + b" " * 1000,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"schema_version": 1, "provenance": ' + b"[" * 200_000,
        b'{"schema_version": ' + b"9" * 5000 + b"}",
        b'{"schema_version": 1e400}',
        b'{"schema_version": NaN}',
        bytes(100),
    ],
)
def test_cards_that_are_no_json(tmp_path: Path, good: Entries, raw: bytes) -> None:
    assert "card.json" in refusal(write_entries(tmp_path / "x", good | {"card.json": raw}))


def test_a_line_stays_a_line_however_long_the_card_s_lies(tmp_path: Path, good: Entries) -> None:
    path = write_entries(tmp_path / "x", with_card(good, put("schema_version", value="x" * 1_000_000)))
    assert len(refusal(path)) < 2000


def test_a_card_reads_as_it_was_written(tiny_edge: Path) -> None:
    card = open_bundle(tiny_edge).card
    assert encode_card(decode_card(encode_card(card), "here")) == encode_card(card)
    assert card.schema_version == 1
    assert json.loads(encode_card(card))["schema_version"] == 1


def test_the_published_schema_of_a_card(tiny_edge: Path) -> None:
    import jsonschema

    card = json.loads(entries_of(tiny_edge)["card.json"])
    validator = jsonschema.Draft202012Validator(card_schema())
    validator.check_schema(card_schema())
    validator.validate(card)
    for change in (
        put("extra", value=1),
        drop("labels"),
        put("variants", 0, "engine", value="x"),
        put("schema_version", value=2),
    ):
        damaged = json.loads(entries_of(tiny_edge)["card.json"])
        change(damaged)
        assert not validator.is_valid(damaged)


def test_a_variant_by_name(tiny_edge: Path) -> None:
    card = open_bundle(tiny_edge).card
    assert card.variant("int8-x86") is card.variants[1]
    with pytest.raises(BundleError, match="no variant named 'gold'; it has float32, int8-x86"):
        card.variant("gold")


# the golden check's file


def npy(header: bytes, data: bytes = b"") -> bytes:
    padded = header + b" " * (118 - len(header) - 1) + b"\n" if len(header) < 118 else header + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data


def shaped(shape: bytes) -> bytes:
    """An array file that claims a shape, and holds nothing."""
    return npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + b"}")


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data, method)
    return buffer.getvalue()


def saved(array: Any, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def lied(raw: bytes, offset: int, form: str, value: int) -> bytes:
    """The zip with one field of the first central directory record replaced."""
    changed = bytearray(raw)
    struct.pack_into(form, changed, raw.find(b"PK\x01\x02") + offset, value)
    return bytes(changed)


def corrupted(raw: bytes) -> bytes:
    """The zip with the first member's deflated data overwritten."""
    start = 30 + len("input.npy")
    return raw[:start] + b"\xff" * 40 + raw[start + 40 :]


LOGITS = saved(np.zeros((1, 10), np.float32))
IMAGE = saved(np.zeros((1, 32, 32, 3), np.uint8))
BOTH = {"float32/logits": LOGITS, "int8-x86/logits": LOGITS}
WHOLE = npz({"input": IMAGE} | BOTH)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


GOLDENS = {
    "no zip": b"golden",
    "one array": saved(np.zeros(3)),
    "empty zip": npz({}),
    "no input": npz(BOTH),
    "no variant": npz({"input": IMAGE}),
    "input of another size": npz({"input": saved(np.zeros((1, 32, 31, 3), np.uint8))} | BOTH),
    "input without its first axis": npz({"input": saved(np.zeros((32, 32, 3), np.uint8))} | BOTH),
    "input of another type": npz({"input": saved(np.zeros((1, 32, 32, 3), np.float32))} | BOTH),
    "pickled input": npz({"input": saved(np.array([Evil()], object), pickled=True)} | BOTH),
    "pickled logits": npz({"input": IMAGE} | BOTH | {"float32/logits": saved(np.array([Evil()], object), pickled=True)}),
    "a pickle instead of an array": npz({"input": b"\x80\x04cos\nsystem\n."} | BOTH),
    "text instead of numbers": npz({"input": IMAGE} | BOTH | {"float32/logits": saved(np.array([["a"]]))}),
    "complex numbers": npz({"input": IMAGE} | BOTH | {"float32/logits": saved(np.zeros((1, 10), complex))}),
    "dates": npz({"input": IMAGE} | BOTH | {"float32/logits": saved(np.zeros((1, 10), "M8[s]"))}),
    "records": npz({"input": IMAGE} | BOTH | {"float32/logits": saved(np.zeros((1, 10), [("a", "f4"), ("b", "f4")]))}),
    "an array cut short": npz({"input": IMAGE[:-1]} | BOTH),
    "a header cut short": npz({"input": IMAGE[:20]} | BOTH),
    "an empty member": npz({"input": b""} | BOTH),
    "an array of a petabyte": npz({"input": shaped(b"(1125899906842624,)")} | BOTH),
    "a size beyond 64 bits": npz({"input": shaped(b"(99999999999999999999,)")} | BOTH),
    "a negative size": npz({"input": shaped(b"(-1,)")} | BOTH),
    "a header that is no dict": npz({"input": npy(b"[1, 2]")} | BOTH),
    "a header that is no Python": npz({"input": npy(b"{'descr': '")} | BOTH),
    "a header of brackets": npz({"input": npy(b"(" * 9000)} | BOTH),
    "a header without end": npz({"input": npy(b"{'shape': (1,), 'x': '''")} | BOTH),
    "a version from the future": npz({"input": b"\x93NUMPY\x09\x00" + IMAGE[8:]} | BOTH),
    "a bomb": npz({"input": IMAGE, "rest": bytes(257 << 20)} | BOTH),
    "damaged deflate": corrupted(WHOLE),
    "an encrypted member": lied(WHOLE, 8, "<H", 1),
    "an unknown method": lied(WHOLE, 10, "<H", 99),
    "a newer zip": lied(WHOLE, 6, "<H", 99),
    "a member beyond the file": lied(WHOLE, 42, "<I", 0x7FFF_FFFF),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_refused(tmp_path: Path, good: Entries, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    line = refusal(write_entries(tmp_path / "x.edge", with_file(good, "golden.npz", GOLDENS[name])))
    assert "golden" in line
    assert capfd.readouterr() == ("", "")


def test_golden_as_it_was_packed() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    logits = np.linspace(-1, 1, 10, dtype=np.float32)[np.newaxis]
    raw = pack_golden(image, {"a": {"logits": logits}})
    assert raw == pack_golden(image, {"a": {"logits": logits}})
    arrays = golden_arrays({"golden.npz": raw})
    assert arrays.keys() == {"input", "a/logits"}
    np.testing.assert_array_equal(arrays["input"], image)
    np.testing.assert_array_equal(arrays["a/logits"], logits)


# anything at all

Damage = Callable[[bytes], bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Flip some bytes, in the last part (where a zip keeps its directory) as often as anywhere; perhaps cut the end off."""
    flips = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6))
    tail = draw(st.booleans())
    cut = draw(st.none() | st.floats(0, 1))

    def damage(raw: bytes) -> bytes:
        changed = bytearray(raw)
        reach = min(len(raw), 400) if tail else len(raw)
        for place, mask in flips:
            changed[len(raw) - reach + int(place * reach)] ^= mask
        return bytes(changed if cut is None else changed[: int(cut * len(changed))])

    return damage


@settings(max_examples=400)
@given(damage=damages())
def test_a_damaged_bundle_is_refused_or_equal(
    tmp_path_factory: pytest.TempPathFactory, tiny_edge: Path, damage: Damage
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.edge"
    path.write_bytes(damage(tiny_edge.read_bytes()))
    try:
        found = read_all(path)
    except EdgeError as error:
        line = str(error)
    else:
        assert found == read_all(tiny_edge)
        return
    assert "\n" not in line


@settings(max_examples=300)
@given(damage=damages())
def test_a_damaged_card_is_refused_or_a_card(good: Entries, damage: Damage) -> None:
    try:
        card = decode_card(damage(good["card.json"]), "here")
    except BundleError as error:
        line = str(error)
    else:
        assert decode_card(encode_card(card), "here") == card
        return
    assert "\n" not in line
    assert line.startswith("here: ")


class OneFile:
    """A store that holds a card and a golden file."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def names(self) -> list[str]:
        return list(self._entries)

    def read(self, name: str, limit: int) -> bytes:
        return self._entries[name]


@settings(max_examples=300)
@given(damage=damages())
def test_a_damaged_golden_file_with_a_right_hash_is_refused_or_read(good: Entries, damage: Damage) -> None:
    raw = damage(good["golden.npz"])
    if not raw:
        return
    bundle = Bundle("here", OneFile(with_file(good, "golden.npz", raw)))
    try:
        picture, expected = bundle.golden(bundle.card.variants[0])
    except BundleError as error:
        line = str(error)
    else:
        assert (picture.dtype, picture.shape) == (np.uint8, (1, 32, 32, 3))
        assert expected["logits"].dtype == np.float32
        return
    assert "\n" not in line


def test_sha256_is_the_standard_s() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
