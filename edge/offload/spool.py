"""Frames that could not be delivered, on disk until they can be: an SQLite database that survives a power cut at any moment."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec

from edge.errors import UsageError

FILE = "spool.db"
LOCK = "spool.lock"
BUSY_S = 1.0
HOUR_S = 3600.0
DAY_S = 86400.0
SET_BY_S = 60.0
"""A clock that went by so much more or less than the time that passed was set."""
_T = TypeVar("_T")
SCHEMA = """
CREATE TABLE IF NOT EXISTS frames (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,    -- sent as Idempotency-Key
    captured_s REAL NOT NULL,    -- since 1970
    value REAL NOT NULL,         -- 1 - confidence: the lowest are given up first
    parameters TEXT NOT NULL,    -- JSON: the local result, source and time
    bytes INTEGER NOT NULL,      -- of the parameters and the picture
    picture BLOB NOT NULL        -- JPEG, as it may be sent
);
CREATE INDEX IF NOT EXISTS frames_value ON frames (value, id, bytes);
CREATE INDEX IF NOT EXISTS frames_captured ON frames (captured_s, bytes);
"""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A frame as it is kept: the JPEG that may be sent, the request's parameters, and how uncertain it was, in [0, 1]."""

    key: str
    captured_s: float
    value: float
    parameters: Mapping[str, str]
    picture: bytes


class _Held(NamedTuple):
    """How many frames the database holds, and their bytes."""

    frames: int
    bytes: int


class Spool:
    """Keeps frames in `folder` within `quota_bytes` and `days`, the most valuable of them; may be used from several threads.

    What `put` returned for is on the disk. When there are too many bytes the most certain frames go first, of equally
    certain ones the oldest; `lost` counts what was given up, and what could not be written. When the clock is set, what
    this process kept becomes no older by it; within an hour of that, or of the start, nothing is too old. `uptime` is a
    clock that nobody sets. A database that is damaged is moved aside, a disk that is full is said once: nothing here
    raises but the constructor, which raises UsageError for a folder that cannot be written or that another process uses.
    """

    def __init__(
        self,
        folder: str,
        say: Callable[[str], None],
        *,
        quota_bytes: int,
        days: float,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spooled = 0
        self.lost = 0
        self._folder = Path(folder)
        self._path = self._folder / FILE
        self._say = say
        self._quota_bytes, self._days = quota_bytes, days
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._held = _Held(0, 0)
        self._failing = False
        self._uptime = uptime
        self._began_s: float | None = None
        self._none_too_old_until_s = uptime() + HOUR_S
        self._first_id = sys.maxsize
        self._lock = self._claimed()
        with self._guard:
            self._attempt(lambda connection: None)

    def __len__(self) -> int:
        return self._held.frames

    def put(self, stored: Stored, now_s: float) -> bool:
        """Keep a frame; whether it is kept. `now_s` is in seconds since 1970."""
        with self._guard:
            kept = self._attempt(lambda connection: self._insert(connection, stored, now_s))
            if kept is None:
                self.lost += 1
            else:
                self._failing = False
            return bool(kept)

    def best(self, now_s: float) -> Stored | None:
        """The most valuable frame, of equally valuable ones the newest; None when there is none."""
        with self._guard:
            return self._attempt(lambda connection: self._best(connection, now_s))

    def remove(self, key: str) -> bool:
        """Forget a frame that was delivered; whether that could be written."""
        with self._guard:
            done = bool(self._attempt(lambda connection: self._delete(connection, key)))
            self._failing = self._failing and not done
            return done

    def give_up(self, key: str) -> bool:
        """Forget a frame that never can be delivered; whether that could be written."""
        done = self.remove(key)
        self.lost += done
        return done

    def close(self) -> None:
        """Close the database and let others have the folder."""
        with self._guard:
            self._disconnect()
            self._lock.close()

    def _claimed(self) -> BinaryIO:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _claim(self._folder / LOCK)
            self._path.touch(mode=0o600)
        except BlockingIOError:
            raise UsageError(f"--spool {self._folder}: another edge-run uses it; give each its own folder") from None
        except OSError as error:
            raise UsageError(f"--spool {self._folder}: {error.strerror}; choose a folder that can be written") from None
        return lock

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Do something with the database, a new one where it is damaged; None, and a line, where that fails."""
        for last in (False, True):
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return work(self._connection)
            except sqlite3.DatabaseError as error:
                self._disconnect()
                if _is_damage(error) and not last:
                    self._move_aside(error)
                elif not self._failing:
                    self._failing = True
                    self._say(f"spool: {self._path}: {error}; the loop goes on, what cannot be kept is lost")
                    return None
                else:
                    return None
        return None

    def _connect(self) -> sqlite3.Connection:
        with suppress(OSError):
            self._path.touch(mode=0o600)  # where it is new; SQLite gives its other files the same
        connection = sqlite3.connect(self._path.absolute(), timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")  # a commit returns when it is on the disk
            connection.execute("PRAGMA journal_size_limit = 4194304").fetchall()
            connection.executescript(SCHEMA)
            self._held = _Held(*connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM frames").fetchone())
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _insert(self, connection: sqlite3.Connection, stored: Stored, now_s: float) -> bool:
        parameters = msgspec.json.encode(stored.parameters).decode()
        size = len(stored.picture) + len(parameters)
        if size > self._quota_bytes:  # all others would go for nothing
            self.lost += 1
            return False
        row = (stored.key, stored.captured_s, stored.value, parameters, size, stored.picture)
        with _transaction(connection):
            before = self._held
            held = self._expire(connection, before, now_s)
            cursor = connection.execute(
                "INSERT OR IGNORE INTO frames (key, captured_s, value, parameters, bytes, picture) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            inserted = cursor.rowcount
            if inserted:  # ids grow, but begin anew when those of earlier runs are gone
                self._first_id = min(self._first_id, cursor.lastrowid or 0)
            held = _Held(held.frames + inserted, held.bytes + inserted * size)
            while held.bytes > self._quota_bytes:
                least, freed = connection.execute("SELECT id, bytes FROM frames ORDER BY value, id LIMIT 1").fetchone()
                connection.execute("DELETE FROM frames WHERE id = ?", (least,))
                held = _Held(held.frames - 1, held.bytes - freed)
            kept = connection.execute("SELECT 1 FROM frames WHERE key = ?", (stored.key,)).fetchone() is not None
        self._held = held
        self.lost += before.frames + inserted - held.frames
        self.spooled += inserted
        return kept

    def _expire(self, connection: sqlite3.Connection, held: _Held, now_s: float) -> _Held:
        """Delete what is too old; what is left."""
        uptime_s = self._uptime()
        self._follow_the_clock(connection, now_s - uptime_s, uptime_s)
        if uptime_s < self._none_too_old_until_s:
            return held
        since_s = now_s - self._days * DAY_S
        old = "FROM frames WHERE captured_s < ?"
        count, freed = connection.execute(f"SELECT count(*), coalesce(sum(bytes), 0) {old}", (since_s,)).fetchone()
        if count:
            connection.execute(f"DELETE {old}", (since_s,))
        return _Held(held.frames - count, held.bytes - freed)

    def _follow_the_clock(self, connection: sqlite3.Connection, began_s: float, uptime_s: float) -> None:
        """See whether the clock was set, by when `uptime` began on it, and if so what this process kept becomes no older."""
        if self._began_s is not None and abs(set_by_s := began_s - self._began_s) > SET_BY_S:
            connection.execute("UPDATE frames SET captured_s = captured_s + ? WHERE id >= ?", (set_by_s, self._first_id))
            self._none_too_old_until_s = uptime_s + HOUR_S
        self._began_s = began_s

    def _best(self, connection: sqlite3.Connection, now_s: float) -> Stored | None:
        with _transaction(connection):
            held = self._expire(connection, self._held, now_s)
        self.lost += self._held.frames - held.frames
        self._held = held
        row = connection.execute(
            "SELECT key, captured_s, value, parameters, picture FROM frames ORDER BY value DESC, id DESC LIMIT 1"
        ).fetchone()
        return Stored(row[0], row[1], row[2], msgspec.json.decode(row[3]), row[4]) if row is not None else None

    def _delete(self, connection: sqlite3.Connection, key: str) -> bool:
        with _transaction(connection):
            row = connection.execute("SELECT bytes FROM frames WHERE key = ?", (key,)).fetchone()
            connection.execute("DELETE FROM frames WHERE key = ?", (key,))
        if row is not None:
            self._held = _Held(self._held.frames - 1, self._held.bytes - row[0])
        return True

    def _move_aside(self, error: sqlite3.Error) -> None:
        """Keep a damaged database for whoever wants to look at it, and begin a new one."""
        aside = self._path.with_name(f"{FILE}.damaged-{int(time.time())}")
        with suppress(OSError):
            os.replace(self._path, aside)
        for ending in ("-wal", "-shm"):
            with suppress(OSError):
                os.remove(f"{self._path}{ending}")
        self._say(f"spool: {self._path}: {error}; moved to {aside.name}, a new one is begun")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK after an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _claim(path: Path) -> BinaryIO:
    """Hold a lock until the file is closed, or this process ends however it does. Raises BlockingIOError, OSError."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is bad, rather than locked, full or out of reach."""
    return type(error) is sqlite3.DatabaseError
