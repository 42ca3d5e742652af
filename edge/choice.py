"""What edge-bench found fastest, kept for edge-run: by board, processor and bundle, for one version of the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from devices import Board, processor
from edge.bundle import Bundle, sha256
from edge.card import encode_card
from edge.errors import one_line
from edge.extras import DISTRIBUTIONS
from edge.places import whole_file

FILE = "choices.json"
LIMIT_BYTES = 1 << 20
KEPT = 100
"""Choices in the file, the newest; a bundle that is rebuilt each night must not make it grow for ever."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A variant and how to run it; `measured` is the date, `frame_ms` the median of prepare + infer + decode."""

    variant: str
    engine: str
    accelerator: str = "cpu"
    options: tuple[tuple[str, str], ...] = ()
    threads: Annotated[int, Meta(ge=1, le=64)]
    frame_ms: float
    measured: str

    @property
    def what(self) -> str:
        """The variant, with its accelerator where that is not the CPU."""
        return self.variant if self.accelerator == "cpu" else f"{self.variant} with {self.accelerator}"


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    choice: Choice
    engine_version: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int = 1
    choices: dict[str, _Kept] = {}


def cache_folder() -> Path | None:
    """Where edge-run may keep what it can find out again, by the XDG Base Directory specification; None without a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given.startswith("/"):  # the specification says to ignore others
        return Path(given) / "edge-run"
    try:
        return Path.home() / ".cache" / "edge-run"
    except RuntimeError:
        return None


def bundle_hash(bundle: Bundle) -> str:
    """The SHA-256 of the card, which holds those of all other files."""
    return sha256(encode_card(bundle.card))


def engine_version(engine: str) -> str:
    """The package that provides an engine, and its version; empty where nothing is known of it."""
    for name in DISTRIBUTIONS.get(engine, ()):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return ""


def remember(board: Board, bundle: Bundle, choice: Choice, path: Path | None = None) -> Path:
    """Keep a choice in `path`, by default the cache's file, and return where. Raises OSError."""
    place = path or _default_path()
    if place is None:
        raise OSError(None, "there is no home folder and no XDG_CACHE_HOME", "the cache")
    kept = _read(place, lambda line: None)
    key = _key(board, bundle)
    choices = {
        **{name: value for name, value in kept.items() if name != key},
        key: _Kept(choice, engine_version(choice.engine)),
    }
    newest = dict(list(choices.items())[-KEPT:])
    place.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(place) as file:
        file.write(msgspec.json.format(msgspec.json.encode(_File(choices=newest)), indent=1) + b"\n")
    return place


def remembered(board: Board, bundle: Bundle, say: Callable[[str], None], path: Path | None = None) -> Choice | None:
    """The choice for this board and bundle, where there is one that still holds; never raises.

    A file that cannot be understood, and a choice made with another version of its engine, are said in one line.
    """
    place = path or _default_path()
    if place is None or not os.path.exists(place):
        return None
    kept = _read(place, say).get(_key(board, bundle))
    if kept is None:
        return None
    now = engine_version(kept.choice.engine)
    if now != kept.engine_version:
        say(
            f"edge-bench chose {kept.choice.variant} with {kept.engine_version or 'another engine'}, here is "
            f"{now or 'none'}: not used; run edge-bench again"
        )
        return None
    return kept.choice


def _default_path() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / FILE


def _key(board: Board, bundle: Bundle) -> str:
    """The processor is in it for what no literal names: two boards that are both generic."""
    return f"{board.name} {sha256(processor().encode())[:12]} {bundle_hash(bundle)}"


def _read(place: Path, say: Callable[[str], None]) -> dict[str, _Kept]:
    """The choices of a file; none, with a line to `say`, where it cannot be understood."""
    try:
        if not os.path.lexists(place):
            return {}
        if not place.is_file():
            raise ValueError("not a plain file")
        with place.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
        if len(raw) > LIMIT_BYTES:
            raise ValueError(f"over {LIMIT_BYTES} bytes")
        found = msgspec.json.decode(raw, type=_File)
        if found.schema_version != 1:
            raise ValueError(f"schema version {found.schema_version}")
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        say(f"{place}: not understood, and ignored ({one_line(reason)}); run edge-bench to write it anew")
        return {}
    return found.choices
