"""The bundle: a folder, or the same folder as one uncompressed zip `NAME.edge`, read without trusting it.

Nothing is extracted: entries are read into memory by the names that the card gives, within the sizes it gives, and
every byte that reaches an engine has been hashed first.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge.card import Card, Variant, decode_card, encode_card
from edge.errors import BundleError
from edge.places import whole_file
from edge.types import Float32, UInt8

CARD_FILE = "card.json"
CARD_LIMIT_BYTES = 8 << 20
GOLDEN_LIMIT_BYTES = 256 << 20
FILE_LIMIT_BYTES = 2 << 30
MODEL_FILES = frozenset({".onnx", ".tflite", ".pt", ".pth"})
COMPANIONS = frozenset({"LICENSE", "NOTICE", "README.md"})
"""Files that a bundle may carry for people, beside those that its card names."""


class _Store(Protocol):
    """Bytes by entry name, `limit` at most. Raises KeyError for an absent entry and BundleError for a bad one."""

    def names(self) -> list[str]: ...
    def read(self, name: str, limit: int) -> bytes: ...


class Bundle:
    """An opened bundle: its card, and its files on demand. Build one with `open_bundle`."""

    def __init__(self, where: str, store: _Store) -> None:
        self.where = where
        self._store = store
        self.card = decode_card(self._read(CARD_FILE, CARD_LIMIT_BYTES), where)
        self._check_entries()

    def model_bytes(self, variant: Variant) -> bytes:
        """The variant's file, checked against the card. Raises BundleError."""
        return self._checked(variant.file, variant.bytes, variant.sha256, FILE_LIMIT_BYTES)

    def golden(self, variant: Variant) -> tuple[UInt8, dict[str, Float32]]:
        """The golden input uint8 [1, h, w, 3] and this variant's expected outputs by role. Raises BundleError."""
        golden = self.card.golden
        raw = self._checked(golden.file, golden.bytes, golden.sha256, GOLDEN_LIMIT_BYTES)
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > GOLDEN_LIMIT_BYTES:
                    raise BundleError(f"{self.where}: {golden.file} unpacks to more than {GOLDEN_LIMIT_BYTES} bytes")
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                picture = arrays["input"]
                if not isinstance(picture, np.ndarray):
                    raise ValueError("its input is no array")
                expected: dict[str, Float32] = {role: _floats(arrays[f"{variant.name}/{role}"]) for role in variant.outputs}
        except BundleError:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on damaged bytes
            raise BundleError(
                f"{self.where}: {golden.file} holds no golden check for {variant.name} ({_reason(error)}); "
                "rebuild the bundle with edge-quantize"
            ) from None
        shape = (1, self.card.input.height, self.card.input.width, 3)
        if picture.shape != shape or picture.dtype != np.uint8:
            raise BundleError(f"{self.where}: golden input is {picture.dtype} {picture.shape}, expected uint8 {shape}")
        return picture, expected

    def _read(self, name: str, limit: int) -> bytes:
        try:
            return self._store.read(name, limit)
        except KeyError:
            raise BundleError(f"{self.where}: {name} is missing; rebuild the bundle with edge-quantize") from None
        except OSError as error:
            raise BundleError(f"{self.where}: cannot read {name}: {error.strerror or error}") from None

    def _checked(self, name: str, size: int, digest: str, limit: int) -> bytes:
        data = self._read(name, min(size, limit))
        if len(data) != size or sha256(data) != digest:
            how = "another sha256" if len(data) == size else f"{len(data)} bytes for {size}"
            raise BundleError(
                f"{self.where}: {name} differs from its card ({how}); copy the bundle again or rebuild it with edge-quantize"
            )
        return data

    def _check_entries(self) -> None:
        known = {CARD_FILE, self.card.golden.file, *(variant.file for variant in self.card.variants)} | COMPANIONS
        stray = sorted(set(self._store.names()) - known)
        if stray:
            raise BundleError(f"{self.where}: entry {stray[0]!r} is not named by the card; rebuild it with edge-quantize")


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle folder or `.edge` file and check its card. Raises BundleError."""
    path = Path(path)
    if os.path.isdir(path):  # unlike Path's, os.path's questions answer no to names that cannot be
        return Bundle(str(path), _Folder(path))
    if not os.path.exists(path):
        raise BundleError(f"{path}: no such bundle; give a folder or .edge file made by edge-quantize")
    if path.suffix in MODEL_FILES:
        raise BundleError(f"{path}: is a model file, not a bundle; make a bundle of the model with edge-quantize")
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory shows itself in many ways
        raise BundleError(f"{path}: not a bundle, or one cut short ({_reason(error)}); copy it again") from None
    return Bundle(str(path), _Zip(str(path), archive))


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        return []  # a folder may hold anything beside what the card names

    def read(self, name: str, limit: int) -> bytes:
        path = self._path / name
        if not path.exists():
            raise KeyError(name)
        if path.resolve().parent != self._path.resolve():
            raise BundleError(f"{self._path}: {name} is a link that leads outside the bundle; copy the file itself")
        if not path.is_file():
            raise BundleError(f"{self._path}: {name} is not a plain file")
        if path.stat().st_size > limit:
            raise BundleError(
                f"{self._path}: {name} is {path.stat().st_size} bytes, over the limit of {limit}; copy the bundle again"
            )
        return path.read_bytes()


class _Zip:
    def __init__(self, where: str, archive: zipfile.ZipFile) -> None:
        self._where = where
        self._archive = archive
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            self._check(entry)
            self._entries[entry.filename] = entry

    def names(self) -> list[str]:
        return list(self._entries)

    def read(self, name: str, limit: int) -> bytes:
        entry = self._entries[name]
        if entry.file_size > limit:
            raise BundleError(
                f"{self._where}: entry {name} is {entry.file_size} bytes, over the limit of {limit}; copy the bundle again"
            )
        try:
            return self._archive.read(entry)
        except Exception as error:  # see open_bundle
            raise BundleError(f"{self._where}: entry {name} is damaged ({_reason(error)}); copy the bundle again") from None

    def _check(self, entry: zipfile.ZipInfo) -> None:
        name, mode = entry.filename, entry.external_attr >> 16
        if "/" in name or "\\" in name or name in ("", ".", "..") or ":" in name or stat.S_ISLNK(mode):
            problem = "lies outside the bundle"
        elif entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            problem = "is compressed; a bundle is an uncompressed zip"
        elif entry.flag_bits & 0x1:
            problem = "is encrypted"
        elif entry.file_size > FILE_LIMIT_BYTES:
            problem = f"is {entry.file_size} bytes, over the limit of {FILE_LIMIT_BYTES}"
        elif name in self._entries:
            problem = "stands twice"
        else:
            return
        raise BundleError(f"{self._where}: entry {name!r} {problem}; rebuild the bundle with edge-quantize")


def _floats(array: object) -> Float32:
    if not isinstance(array, np.ndarray):
        raise ValueError("an expected output is no array")
    if array.dtype.kind != "f":
        raise ValueError(f"an array of {array.dtype}")
    return array.astype(np.float32)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def sha256(data: bytes) -> str:
    """The hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def pack_golden(picture: UInt8, expected: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]) -> bytes:
    """The bytes of golden.npz: the input uint8 [1, h, w, 3] and, by variant name and role, the expected outputs."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"input": picture}
    for variant, outputs in expected.items():
        arrays |= {f"{variant}/{role}": np.asarray(value, np.float32) for role, value in outputs.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def write_bundle(path: str | Path, card: Card, files: Mapping[str, bytes]) -> None:
    """Write a bundle whole or not at all: a zip when `path` ends in .edge, else a folder.

    `files` holds the golden file, every variant's file and any companions, by name. The same input gives the same
    bytes. Raises BundleError when a file does not match the card or `path` holds something that is not a bundle.
    """
    path = Path(path)
    for name, size, digest in [
        (card.golden.file, card.golden.bytes, card.golden.sha256),
        *((variant.file, variant.bytes, variant.sha256) for variant in card.variants),
    ]:
        if name not in files or len(files[name]) != size or sha256(files[name]) != digest:
            raise BundleError(f"{path}: {name} is missing or differs from its card")
    named = {card.golden.file, *(variant.file for variant in card.variants)}
    if stray := set(files) - named - COMPANIONS:
        raise BundleError(f"{path}: {min(stray)} is not named by the card")
    contents = {CARD_FILE: encode_card(card)} | dict(sorted(files.items()))
    decode_card(contents[CARD_FILE], str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".edge":
            _write_zip(path, contents)
        else:
            _write_folder(path, contents)
    except OSError as error:
        raise BundleError(f"{path}: cannot write the bundle: {error.strerror or error}") from None


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # the 1980 date: the same input, the same bytes


def _write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    check_target(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=path.name, suffix=".part"))
    old = temporary.with_suffix(".old")
    try:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        os.chmod(temporary, 0o755)
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_target(path: Path) -> None:
    """Raise BundleError when a bundle folder cannot be written at `path` without losing something else."""
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise BundleError(f"{path}: is a file; choose another --out, or one ending in .edge")
    held = {entry.name for entry in path.iterdir()}
    if not held:
        return
    try:
        card = open_bundle(path).card
    except BundleError:
        raise BundleError(f"{path}: exists and is not a bundle; choose another --out") from None
    stray = held - {CARD_FILE, card.golden.file, *(variant.file for variant in card.variants)} - COMPANIONS
    if stray:
        raise BundleError(f"{path}: holds {min(stray)!r}, which is no part of a bundle; choose another --out")
