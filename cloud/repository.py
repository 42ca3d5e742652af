"""The models that are served: those named at the start, and those of a folder that is watched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from cloud.errors import RefusedError
from cloud.served import Served
from edge.bundle import CARD_FILE
from edge.errors import EdgeError, InputError, UsageError

POLL_S = 1.0
SUFFIX = ".edge"
UNFINISHED = frozenset({".part", ".old"})
"""What edge.bundle.write_bundle calls a folder that it is not done with."""
Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, modification time in ns, size and inode of each file of a bundle: another one has another signature."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What was last tried at a path: the name it serves, or why it does not."""

    signature: Signature
    name: str
    problem: str = ""


class Repository:
    """Models by name. `load` makes one of a bundle's path; `watch` keeps up with a folder, on a thread of its own."""

    def __init__(
        self, load: Callable[[Path], Served], folder: Path | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._load, self._folder, self._say = load, folder, say
        self._models: Mapping[str, Served] = {}
        self._places: dict[Path, _Place] = {}
        self._seen: dict[Path, Signature] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def models(self) -> Mapping[str, Served]:
        """Those that are served now, by name."""
        return self._models

    def add(self, served: Served) -> None:
        """Serve a model until the end. Raises UsageError when there is one of its name."""
        if served.name in self._models:
            served.retire()
            raise UsageError(f"two models are named {served.name}; leave one out, or serve it by another edge-cloud")
        self._models = {**self._models, served.name: served}

    def get(self, name: str, version: str | None = None) -> Served:
        """The model of that name. Raises RefusedError 404 naming those there are."""
        served = self._models.get(name)
        if served is None:
            known = ", ".join(sorted(self._models)[:20]) or "none yet"
            raise RefusedError(404, f"unknown model {name[:80]!a}; this endpoint serves {known}")
        if version not in (None, served.version):
            raise RefusedError(404, f"{name} has no version {version[:80]!a}; it has {served.version}")
        return served

    def index(self) -> list[dict[str, str]]:
        """Each model's name, version and state, as the protocol's repository extension has them."""
        rows = [
            {"name": served.name, "version": served.version, "state": "READY", "reason": ""} for served in self._models.values()
        ]
        for path, place in sorted(self._places.items()):
            if place.problem and place.name not in self._models:
                rows.append({"name": path.stem, "version": "", "state": "UNAVAILABLE", "reason": place.problem})
        return rows

    def watch(self) -> None:
        """Load what is in the folder now, and from then on what changes; a bundle is loaded once it stays as it is."""
        if self._folder is None:
            return
        self._seen = self._scan()
        self.poll()
        self._thread = threading.Thread(target=self._run, name="repository", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Compare the folder with what is served: load what is new or replaced and was the same at the last look."""
        found = self._scan()
        for path in [path for path in self._places if path not in found]:
            self._remove(path)
        for path in sorted(found, key=lambda path: (max(file[1] for file in found[path]), path)):  # the older has the name
            place = self._places.get(path)
            if self._seen.get(path) == found[path] and (place is None or place.signature != found[path]):
                self._replace(path, found[path], place)
        self._seen = found

    def close(self) -> None:
        """Stop watching and retire every model."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        for served in self._models.values():
            served.retire()

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self.poll()
            except Exception as error:
                self._say(f"{self._folder}: cannot be watched for the moment: {error!r:.200}")

    def _replace(self, path: Path, signature: Signature, before: _Place | None) -> None:
        old = before.name if before is not None else ""
        try:
            served = self._load(path)
            taken = served.name in self._models and served.name != old
            if taken:
                served.retire()
                raise EdgeError(f"{path}: another bundle serves the name {served.name}; remove one of the two")
        except Exception as error:  # whatever a stranger's bundle does, the others are served on
            error = error if isinstance(error, EdgeError) else EdgeError(f"{path}: cannot be loaded: {error!r:.200}")
            goes_on = f"; {old} goes on as it was" if old in self._models else ""
            self._say(f"{error}{goes_on}")
            self._places[path] = _Place(signature, old, str(error))
            return
        kept = {name: model for name, model in self._models.items() if name != old}
        replaced = self._models.get(old)
        self._models = {**kept, served.name: served}
        self._places[path] = _Place(signature, served.name)
        if old not in ("", served.name):
            self._try_refused_again()
        if replaced is not None:
            replaced.retire()
        self._say(f"{'replaced' if replaced else 'added'} {served.name}, variant {served.variant}, from {path}")

    def _remove(self, path: Path) -> None:
        place = self._places.pop(path)
        served = self._models.get(place.name) if place.name else None
        if served is not None:
            self._models = {name: model for name, model in self._models.items() if name != place.name}
            served.retire()
            self._say(f"removed {place.name}: {path} is gone")
        self._try_refused_again()

    def _try_refused_again(self) -> None:
        """A name is free: it may be the turn of a bundle that could not have it."""
        for other, refused in self._places.items():
            if refused.problem:
                self._places[other] = replace(refused, signature=())

    def _scan(self) -> dict[Path, Signature]:
        """The bundles of the folder and their signatures. Raises InputError when it cannot be read."""
        assert self._folder is not None
        try:
            paths = [path for path in self._folder.iterdir() if path.name[0] != "." and path.suffix not in UNFINISHED]
        except OSError as error:
            raise InputError(f"--models {self._folder}: cannot be read: {error.strerror}; give a folder of bundles") from None
        found = {path: _signature(path) for path in paths}
        return {path: signature for path, signature in found.items() if signature}


def _signature(path: Path) -> Signature:
    """Of a bundle's files; empty for what is no bundle, or vanishes while it is looked at."""
    try:
        if path.suffix == SUFFIX and path.is_file():
            files = [path]
        elif (path / CARD_FILE).is_file():
            files = sorted(file for file in path.iterdir() if file.is_file())
        else:
            return ()
        return tuple(
            (file.name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for file, stat in ((f, os.stat(f)) for f in files)
        )
    except OSError:
        return ()
