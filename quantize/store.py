"""What a build made and measured so far, on disk, so that one that is interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Store:
    """Bytes and records by key in one folder; every entry is written whole or not at all.

    What cannot be written is made again next time: a full disk slows a build down, it does not end it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> bytes | None:
        """What was put under the key, if it is there and whole."""
        if self._folder is None:
            return None
        try:
            raw = (self._folder / key).read_bytes()
        except OSError:
            return None
        digest, data = raw[:32], raw[32:]
        return data if hashlib.sha256(data).digest() == digest else None

    def put(self, key: str, data: bytes) -> bytes:
        """Keep the data and give it back."""
        if self._folder is None:
            return data
        temporary = ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".part-")
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.replace(temporary, self._folder / key)
        except OSError:
            pass
        finally:
            with suppress(OSError):  # it is not there any more when all went well
                os.unlink(temporary)
        return data

    def bytes(self, key: str, make: Callable[[], bytes]) -> bytes:
        """What is under the key, made now if it is not there yet."""
        kept = self.get(key)
        return self.put(key, make()) if kept is None else kept

    def record(self, key: str, kind: type[T]) -> T | None:
        """A record put by `put_record`; None when it is absent or of another shape."""
        raw = self.get(key)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def put_record(self, key: str, record: object) -> None:
        """Keep a record."""
        self.put(key, msgspec.json.encode(record))


def digest(*parts: object) -> str:
    """A key of what these parts say."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part if isinstance(part, bytes) else repr(part).encode())
        state.update(b"\0")
    return state.hexdigest()[:20]
