"""What a build keeps on disk: whole entries or none, and never a reason to end."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.store import Store, digest


class Note(msgspec.Struct):
    """A record."""

    text: str
    count: int = 0


@given(st.binary(max_size=200))
def test_what_is_kept_is_what_was_put(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("store")
    assert Store(folder / "new").put("key", data) == data
    assert Store(folder / "new").get("key") == data
    assert Store(folder / "new").get("other") is None


def test_without_a_folder_nothing_is_kept() -> None:
    store = Store(None)
    assert store.put("key", b"data") == b"data"
    assert store.get("key") is None
    store.put_record("note", Note("hello"))
    assert store.record("note", Note) is None


def test_bytes_are_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return b"dear"

    assert [Store(tmp_path).bytes("key", make) for _ in range(3)] == [b"dear"] * 3
    assert len(made) == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: raw[:-1], id="cut short"),
        pytest.param(lambda raw: raw[:10], id="cut in its digest"),
        pytest.param(lambda raw: b"", id="empty"),
        pytest.param(lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:], id="a bit flipped"),
        pytest.param(lambda raw: raw + b"!", id="longer"),
    ],
)
def test_a_damaged_entry_is_absent_and_made_again(tmp_path: Path, damage: object) -> None:
    store = Store(tmp_path)
    store.put("key", b"something of some length")
    (tmp_path / "key").write_bytes(damage((tmp_path / "key").read_bytes()))  # type: ignore[operator]
    assert store.get("key") is None
    assert store.bytes("key", lambda: b"again") == b"again"
    assert store.get("key") == b"again"


def test_a_record_of_another_shape_is_absent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_record("note", Note("hello", 3))
    assert store.record("note", Note) == Note("hello", 3)
    assert store.record("note", dict[str, float]) is None
    store.put("note", b"\xff no JSON")
    assert store.record("note", Note) is None


@pytest.mark.parametrize("where", ["a file", "below a file", "/proc/absent"])
def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    folder = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "store"}.get(where, Path(where))
    store = Store(folder)
    assert store.put("key", b"data") == b"data"
    assert store.get("key") is None
    assert store.bytes("key", lambda: b"made") == b"made"
    store.put_record("note", Note("hello"))
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("failing", ["fdopen", "replace"])
def test_a_write_that_fails_half_way_leaves_the_old_entry_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store = Store(tmp_path)
    store.put("key", b"old")

    def full(*arguments: object) -> None:
        if failing == "fdopen":
            os.close(arguments[0])  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, full)
        assert store.put("key", b"new") == b"new"
    assert store.get("key") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_keys_tell_parts_apart() -> None:
    keys = [digest(*parts) for parts in ((b"a", b"b"), (b"ab",), (b"a\0b",), ("a", "b"), (1, 2), (12,), ((1, 2),), ())]
    assert len(set(keys)) == len(keys) - 1  # a zero byte inside is what stands between two
    assert digest(b"a", 1) == digest(b"a", 1)
    assert all(key.isalnum() for key in keys)
