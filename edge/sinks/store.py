"""Events in an SQLite database that other programs read while it is written, with a limit on its age and size."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec

from edge.errors import UsageError
from edge.events import event_record, notice_record
from edge.sinks.caption import caption
from edge.types import Change, Event, Notice

APPLICATION_ID = 0x65646765
"""'edge', which tells our files from those of other programs."""
VERSION = 1
SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,        -- UTC as in the JSON, 2026-01-31T12:00:00.000Z: compare with date('now', '-1 day')
    kind TEXT NOT NULL,      -- frame, or notice
    source TEXT NOT NULL,    -- the frame's source, or what the notice is about
    seq INTEGER,             -- the frame's number in its source since the start
    revises INTEGER NOT NULL,
    summary TEXT NOT NULL,   -- in words
    body TEXT NOT NULL       -- the line of --events: SELECT json_extract(body, '$.result')
);
CREATE INDEX events_at ON events (at);
CREATE TABLE changes (
    event_id INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,      -- enter, leave or change
    track INTEGER NOT NULL,
    label TEXT NOT NULL
);
CREATE INDEX changes_event ON changes (event_id);
CREATE INDEX changes_label ON changes (label, kind, event_id);
"""

GROUP_EVENTS, GROUP_S = 100, 1.0
WAITING_EVENTS = 1000
"""What is kept in memory while the database cannot be written."""
BUSY_S = 1.0
RETENTION_S = 60.0
BATCH_ROWS = 1000
SPARE_PAGES = 1024
"""Free pages that a file keeps for the next events; more than these are given back."""


class StoreSink:
    """Inserts events, at most a second or 100 of them later, and deletes those beyond `keep_days` or `keep_rows`.

    While the database cannot be written (another program has locked it, the disk is full), that is said once and the
    newest thousand events wait; older ones are counted in `lost`. A power cut leaves the file whole, without the last
    seconds that the system had not written out. Raises UsageError for a file that is not ours.

        SELECT at, source, track FROM changes JOIN events ON events.id = event_id
        WHERE label = 'person' AND changes.kind = 'enter' AND at >= date('now', '-1 day') AND at < date('now')
    """

    wants_images = False

    def __init__(self, path: str, say: Callable[[str], None], *, keep_days: float = 30, keep_rows: int = 1_000_000) -> None:
        self.lost = 0
        self._path = path
        self._say = say
        self._keep_days = keep_days
        self._keep_rows = keep_rows
        self._connection: sqlite3.Connection | None = None  # opened by the thread that uses it
        self._waiting: list[_Row] = []
        self._oldest_s = 0.0
        self._failing = False
        self._not_before_s = 0.0
        self._retention_s = 0.0
        self._prepare()

    def emit(self, event: Event | Notice) -> None:
        """Keep the event for the next commit, which may be now."""
        now_s = time.monotonic()
        if not self._waiting:
            self._oldest_s = now_s
        self._waiting.append(_row(event))
        if len(self._waiting) > WAITING_EVENTS:
            del self._waiting[0]
            self.lost += 1
        if len(self._waiting) >= GROUP_EVENTS or now_s - self._oldest_s >= GROUP_S:
            self._commit(now_s)

    def idle(self) -> bool:
        """Commit what waits: nothing else will for a while. Whether there is more to do."""
        self._commit(time.monotonic())
        return bool(self._waiting) or self._retention_s < time.monotonic()

    def close(self) -> None:
        """Commit what waits, and close the database."""
        self._not_before_s = 0.0
        self._commit(time.monotonic())
        self.lost += len(self._waiting)
        self._waiting.clear()
        self._disconnect()

    def _commit(self, now_s: float) -> None:
        if now_s < self._not_before_s:
            return  # a locked database is waited for; not with every event
        try:
            if self._connection is None:
                self._connection = _open(self._path)
            if self._waiting:
                _insert(self._connection, self._waiting)
                self._waiting.clear()
                if self._failing:
                    self._say(f"store: {self._path}: can be written again; {self.lost} events were lost")
                self._failing = False
            if now_s >= self._retention_s:
                done = self._delete_old(self._connection)
                self._retention_s = now_s + RETENTION_S if done else now_s
        except (sqlite3.Error, UsageError) as error:
            self._disconnect()  # it may be the file that has gone, and another that comes in its place
            self._not_before_s = time.monotonic() + GROUP_S
            if not self._failing:
                self._say(f"store: {self._path}: {error}; the loop goes on, events are lost if it cannot be written soon")
            self._failing = True

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _delete_old(self, connection: sqlite3.Connection) -> bool:
        """Delete a batch of the oldest events, and give back what is free for good; False when there is more to delete."""
        since = (datetime.now(timezone.utc) - timedelta(days=min(self._keep_days, 36500))).isoformat()
        deleted = 0
        with _Transaction(connection):
            for which, bound in (
                ("id <= (SELECT max(id) FROM events) - ? ORDER BY id", self._keep_rows),
                ("at < ? ORDER BY at", since),
            ):
                chosen = f"SELECT id FROM events WHERE {which} LIMIT {BATCH_ROWS}"
                deleted = max(deleted, connection.execute(f"DELETE FROM events WHERE id IN ({chosen})", (bound,)).rowcount)
        if deleted == BATCH_ROWS:
            return False
        free = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
        if free > SPARE_PAGES:
            # a script is stepped to its end; execute would stop after one page
            connection.executescript(f"PRAGMA incremental_vacuum({min(free - SPARE_PAGES, SPARE_PAGES)})")
        return True

    def _prepare(self) -> None:
        """Make the database if there is none. Raises UsageError where that cannot be."""
        path = Path(self._path)
        try:
            problem = "is no regular file" if path.exists() and not path.is_file() else None
            if problem is None:
                with closing(_open(self._path)) as connection, _Transaction(connection):
                    pass  # it can be written
        except OSError as error:
            problem = error.strerror
        except sqlite3.Error as error:
            problem = str(error)
        if problem is not None:
            raise UsageError(f"--store {self._path}: {problem}; choose a file that can be written")


_Row = tuple[tuple[str, str, str, int | None, bool, str, str], tuple[Change, ...]]


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK after an error: sqlite3's own context manager begins too late."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _open(path: str) -> sqlite3.Connection:
    """The database, made if there is none. Raises UsageError for one of another program or of another version."""
    connection = sqlite3.connect(Path(path).absolute(), timeout=BUSY_S, isolation_level=None)
    try:
        identity = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        if identity == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            _create(connection)
        elif identity[0] != APPLICATION_ID:
            raise UsageError(f"--store {path}: is another program's database; choose another file")
        elif identity[1] != VERSION:
            raise UsageError(f"--store {path}: has schema {identity[1]}, this edge-run writes {VERSION}; choose another file")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 8388608").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only before the first table
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    with _Transaction(connection):
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _row(event: Event | Notice) -> _Row:
    if isinstance(event, Notice):
        notice = notice_record(event)
        body = msgspec.json.encode(notice).decode()
        return (notice.at, "notice", notice.about, None, False, f"{notice.notice}: {notice.text}", body), ()
    record = event_record(event)
    body = msgspec.json.encode(record).decode()
    summary = caption(event.result)
    return (record.captured_at, "frame", record.source, record.seq, record.revises, summary, body), event.changes


def _insert(connection: sqlite3.Connection, rows: list[_Row]) -> None:
    """All rows, or none."""
    with _Transaction(connection):
        for values, changes in rows:
            number = connection.execute(
                "INSERT INTO events (at, kind, source, seq, revises, summary, body) VALUES (?, ?, ?, ?, ?, ?, ?)", values
            ).lastrowid
            became = [(number, change.kind, change.track, change.label) for change in changes]
            connection.executemany("INSERT INTO changes VALUES (?, ?, ?, ?)", became)
