"""Hard examples: what the endpoint was asked, with both opinions, kept in a folder within a quota.

A kept picture is two files, the picture as it came and `KEY.json` (edge.kept.Example), under the SHA-256 of its key.
`index.sqlite` holds what is needed to find doubles and the least valuable; it is made anew of the JSON files where it is
lost, or of another version. Several processes may keep into one folder; edge.kept reads it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from typing import Any

import msgspec

from cloud.metrics import Metrics
from cloud.opinions import disagreement, opinion, record_of
from cloud.served import Asked, Served
from edge.card import Card
from edge.errors import UsageError
from edge.kept import INDEX, Example
from edge.pictures import PNG_SIGNATURE
from edge.types import Classes, Detections, Result

INDEX_VERSION = 2
STEM_LETTERS = 32
OURS = re.compile(rf"\.?[0-9a-f]{{{STEM_LETTERS}}}\.(jpg|png|json)(\.part)?")
"""The names of what is kept; what else a folder holds is left alone."""
WAITING = 64
WAITING_BYTES = 64 << 20
"""Pictures on their way to the disk, and their bytes; more are not kept."""
PARAMETERS = ("local", "source", "captured_at", "key", "redacted")
OPINION_LETTERS = 64 << 10


class Store:
    """The folder. Used from one thread of a process; other processes are kept out by SQLite's lock."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(folder / INDEX, timeout=10, isolation_level=None, check_same_thread=False)
            self._prepare()
            self._reconcile()
        except OSError as error:
            why = "is no folder" if isinstance(error, FileExistsError) else f"cannot be used: {error.strerror}"
            raise UsageError(f"--keep {folder}: {why}; give a folder that can be written to") from None
        except sqlite3.Error as error:
            raise UsageError(f"--keep {folder / INDEX}: cannot be used: {error}; remove it, or give another folder") from None

    def close(self) -> None:
        """Let go of the index."""
        self._database.close()

    def add(self, stem: str, suffix: str, picture: bytes, example: Example) -> bool:
        """Keep a picture unless its stem is there already; the least valuable go when the quota is exceeded.

        A picture in which nothing was greyed out is worth more than one in which something was; among those of a kind,
        disagreement counts, then low confidence. Raises OSError and sqlite3.Error when it cannot be written.
        """
        raw = msgspec.json.format(msgspec.json.encode(example), indent=1) + b"\n"
        size = len(picture) + len(raw)
        if size > self._limit:
            return False
        with self._transaction():
            if self._database.execute("SELECT 1 FROM kept WHERE stem = ?", (stem,)).fetchone():
                return False
            try:
                self._write(stem + suffix, picture)
                self._write(f"{stem}.json", raw)
            except OSError:
                (self._folder / (stem + suffix)).unlink(missing_ok=True)  # without a record, no quota would count it
                raise
            self._insert(stem, stem + suffix, size, example)
            self._evict()
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _prepare(self) -> None:
        """The table, without what another version wrote, whose columns are others."""
        with self._transaction():
            if self._database.execute("PRAGMA user_version").fetchone() != (INDEX_VERSION,):
                self._database.execute("DROP TABLE IF EXISTS kept")
                self._database.execute(
                    "CREATE TABLE kept "
                    "(stem TEXT PRIMARY KEY, picture TEXT, bytes INT, redacted INT, disagreement REAL, doubt REAL)"
                )
                self._database.execute(f"PRAGMA user_version = {INDEX_VERSION}")

    def _insert(self, stem: str, picture: str, size: int, example: Example) -> None:
        row = (stem, picture, size, bool(example.redacted), example.disagreement, 1.0 - example.confidence)
        self._database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?)", row)

    def _evict(self) -> None:
        (total,) = self._database.execute("SELECT COALESCE(SUM(bytes), 0) FROM kept").fetchone()
        if total <= self._limit:
            return
        query = "SELECT stem, picture, bytes FROM kept ORDER BY redacted DESC, disagreement, doubt, stem"
        for stem, picture, size in self._database.execute(query).fetchall():
            if total <= self._limit:
                return
            self._database.execute("DELETE FROM kept WHERE stem = ?", (stem,))
            (self._folder / f"{stem}.json").unlink(missing_ok=True)
            (self._folder / picture).unlink(missing_ok=True)
            total -= size

    def _write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        temporary = self._folder / f".{name}.part"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _reconcile(self) -> None:
        """Bring the index to what is in the folder, after a crash or a lost index; pictures without a record go."""
        with self._transaction():
            found = [entry for entry in os.scandir(self._folder) if OURS.fullmatch(entry.name) and entry.is_file()]
            files = {entry.name: entry.stat().st_size for entry in found}
            stems = {row[0] for row in self._database.execute("SELECT stem FROM kept")}
            records = {name[:-5] for name in files if name.endswith(".json")}
            for stem in stems - records:
                self._database.execute("DELETE FROM kept WHERE stem = ?", (stem,))
            for stem in records - stems:
                with suppress(msgspec.MsgspecError):
                    example = msgspec.json.decode((self._folder / f"{stem}.json").read_bytes(), type=Example)
                    if example.picture in files and Path(example.picture).stem == stem:
                        self._insert(stem, example.picture, files[f"{stem}.json"] + files[example.picture], example)
            known = {row[0] for row in self._database.execute("SELECT picture FROM kept")}
            for name in files:
                if not name.endswith(".json") and name not in known:
                    (self._folder / name).unlink(missing_ok=True)
            self._evict()


@dataclass(frozen=True, slots=True, eq=False)
class _Offered:
    """A picture on its way; `name` is what makes it the same as another, `said` are the request's parameters."""

    name: str
    raw: bytes
    served: Served
    result: Result
    said: Mapping[str, Any]


class Keeper:
    """Keeps what inference requests brought, on a thread of its own; whoever is busy or fails loses examples, not requests."""

    def __init__(self, store: Store, metrics: Metrics, say: Callable[[str], None]) -> None:
        self._store, self._metrics, self._say = store, metrics, say
        self._queue: Queue[_Offered | None] = Queue(WAITING)
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def offer(self, served: Served, asked: Asked, results: Sequence[Result], key: str) -> None:
        """What a request asked and what was answered; returns at once. Only encoded pictures are kept."""
        image = asked.request.inputs.get("image")
        if image is None:
            return
        said = {name: asked.request.parameters.get(name) for name in PARAMETERS}
        key = key or _text(said["key"]) or ""
        for index, (raw, result) in enumerate(zip(image.data, results, strict=True)):
            name = f"{served.name}/{key}/{index}" if key else hashlib.sha256(raw).hexdigest()
            local = said["local"] if len(results) == 1 else None  # one opinion is of one picture
            texts = {**{one: _text(value) for one, value in said.items()}, "local": _short(local), "key": _text(key or None)}
            if not self._hand_over(_Offered(name, raw, served, result, texts)):
                self._metrics.add("edge_cloud_kept_total", outcome="dropped")

    def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self._thread.join()
        self._store.close()

    def _hand_over(self, offered: _Offered) -> bool:
        with self._lock:
            if self._waiting_bytes + len(offered.raw) > WAITING_BYTES:
                return False
            try:
                self._queue.put_nowait(offered)
            except Full:
                return False
            self._waiting_bytes += len(offered.raw)
            return True

    def _run(self) -> None:
        while (offered := self._queue.get()) is not None:
            with self._lock:
                self._waiting_bytes -= len(offered.raw)
            try:
                outcome = "kept" if self._keep(offered) else "double"
                self._failing = False
            except Exception as error:  # without this thread nothing would be kept any more, nor the end come
                outcome = "failed"
                if not self._failing:
                    known = str(error) if isinstance(error, (OSError, sqlite3.Error)) else f"{error!r:.200}"
                    why = getattr(error, "strerror", None) or known
                    self._say(f"examples are not kept for the moment: {why}")
                self._failing = True
            self._metrics.add("edge_cloud_kept_total", outcome=outcome)

    def _keep(self, offered: _Offered) -> bool:
        stem = hashlib.sha256(offered.name.encode("utf-8", "replace")).hexdigest()[:STEM_LETTERS]
        suffix = ".png" if offered.raw.startswith(PNG_SIGNATURE) else ".jpg"
        return self._store.add(stem, suffix, offered.raw, _example(offered, stem + suffix))


def _example(offered: _Offered, picture: str) -> Example:
    answer, local = record_of(offered.result), opinion(offered.said.get("local"))
    return Example(
        picture=picture,
        model=offered.served.name,
        variant=offered.served.variant,
        task=offered.served.card.task,
        answer=answer,
        label_ids=_label_ids(offered.served.card, offered.result),
        local=local,
        disagreement=0.0 if local is None else round(disagreement(answer, local), 6),
        confidence=round(float(offered.result.confidence), 6),
        source=_text(offered.said.get("source")),
        captured_at=_text(offered.said.get("captured_at")),
        key=_text(offered.said.get("key")),
        redacted=[name for name in map(str.strip, (offered.said.get("redacted") or "").split(",")) if name],
    )


def _label_ids(card: Card, result: Result) -> list[str]:
    assert isinstance(result, Classes | Detections)
    return [card.labels[index].id for index in result.class_ids.tolist()]


def _short(opinion: object) -> str | None:
    return opinion if isinstance(opinion, str) and len(opinion) <= OPINION_LETTERS else None


def _text(value: object) -> str | None:
    return value[:500] if isinstance(value, str) else None
