"""Events in a database that others read, lock, fill up, and that survives a power cut."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.errors import UsageError
from edge.events import event_schema
from edge.sinks.queued import QueuedSink
from edge.sinks.store import VERSION, StoreSink
from edge.types import Change, Event, Frame, Notice
from tests.samples import event as old_event
from tests.samples import frame

NOW_S = time.time()
NOTICE = Notice("source-lost", "camera", "unplugged", NOW_S)


def event(*of: Frame, **more: Any) -> Event:
    """One of now: older ones are deleted."""
    return old_event(*of, **({"captured_at_s": NOW_S} | more))


def store(path: Path, **more: float) -> tuple[StoreSink, list[str]]:
    said: list[str] = []
    return StoreSink(str(path), said.append, **more), said  # type: ignore[arg-type]


def numbered(count: int, first: int = 0, at_s: float = NOW_S) -> list[Event]:
    return [event(frame(sequence=number), captured_at_s=at_s + number / 100) for number in range(first, first + count)]


def query(path: Path, question: str) -> list[tuple[object, ...]]:
    """As another program asks it, while the database is written."""
    with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True, timeout=0.1)) as connection:
        return connection.execute(question).fetchall()


def count(path: Path) -> object:
    return query(path, "SELECT count(*) FROM events")[0][0]


def eventually(condition: Callable[[], object], seconds: float = 2.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    sink, said = store(path)
    for one in (*numbered(2), NOTICE, event(revises=True, served_by="cloud")):
        sink.emit(one)
    sink.close()
    assert [item.name for item in tmp_path.iterdir()] == ["e.db"]  # no write-ahead log is left over
    rows = query(path, "SELECT kind, source, seq, revises, summary FROM events ORDER BY id")
    assert rows == [
        ("frame", "test", 0, 0, "class 0 75%"),
        ("frame", "test", 1, 0, "class 0 75%"),
        ("notice", "camera", None, 0, "source-lost: unplugged"),
        ("frame", "test", 0, 1, "class 0 75%"),
    ]
    validator = jsonschema.Draft202012Validator(event_schema())
    for at, body in query(path, "SELECT at, body FROM events"):
        record = json.loads(str(body))
        validator.validate(record)
        assert at == record.get("captured_at", record.get("at"))
    assert query(path, "SELECT json_extract(body, '$.decision.action') FROM events WHERE seq = 1") == [("accept",)]
    assert (sink.lost, said) == (0, [])


def test_every_person_that_entered_yesterday(tmp_path: Path) -> None:
    sink, _ = store(tmp_path / "e.db")
    day_s = 86400
    for at_s, track in ((NOW_S - 3 * day_s, 1), (NOW_S - day_s, 2), (NOW_S - day_s, 3), (NOW_S, 4)):
        changes = (Change("enter", track, "person"), Change("enter", track + 10, "dog"), Change("leave", track + 20, "person"))
        sink.emit(event(captured_at_s=at_s, changes=changes))
    sink.close()
    assert StoreSink.__doc__ is not None
    question = StoreSink.__doc__[StoreSink.__doc__.index("SELECT") :]
    assert [track for _, _, track in query(tmp_path / "e.db", question)] == [2, 3]
    plan = " ".join(str(row[3]) for row in query(tmp_path / "e.db", "EXPLAIN QUERY PLAN " + question))
    assert "SCAN" not in plan


def test_commits_are_grouped_by_number(tmp_path: Path) -> None:
    sink, _ = store(tmp_path / "e.db")
    for number, one in enumerate(numbered(250), start=1):
        sink.emit(one)
        if number in (99, 100, 199, 250):
            assert count(tmp_path / "e.db") == number // 100 * 100
    sink.close()
    assert count(tmp_path / "e.db") == 250


def test_commits_are_grouped_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.store.GROUP_S", 0.1)
    sink, _ = store(tmp_path / "e.db")
    sink.emit(event())
    sink.emit(event())
    assert count(tmp_path / "e.db") == 0
    time.sleep(0.12)
    sink.emit(event())
    assert count(tmp_path / "e.db") == 3
    sink.close()


def test_the_last_event_is_soon_seen_by_others(tmp_path: Path) -> None:
    said: list[str] = []
    sink = QueuedSink(StoreSink(str(tmp_path / "e.db"), said.append), "store", said.append, waits=False)
    for one in numbered(3):
        sink.emit(one)
    eventually(lambda: count(tmp_path / "e.db") == 3, seconds=1.0)
    sink.close()
    assert (sink.lost, said) == (0, [])


def test_a_second_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for first in (0, 5):
        sink, _ = store(tmp_path / "e.db")
        for one in numbered(5, first):
            sink.emit(one)
        sink.close()
    assert query(tmp_path / "e.db", "SELECT seq FROM events ORDER BY id") == [(number,) for number in range(10)]


def test_two_at_once(tmp_path: Path) -> None:
    sinks = [store(tmp_path / "e.db")[0] for _ in range(2)]
    for one in numbered(300):
        for sink in sinks:
            sink.emit(one)
    for sink in sinks:
        sink.close()
    assert count(tmp_path / "e.db") == 600
    assert [sink.lost for sink in sinks] == [0, 0]


# places


@pytest.mark.parametrize(
    "target", ["folder", "no/such/folder/e.db", "file/e.db", "fifo", "x" * 300, "other.db", "newer.db", "text"]
)
def test_places_that_cannot_be(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text").write_text("no database at all\n" * 100)
    for name, statement in (("other.db", "CREATE TABLE events (x)"), ("newer.db", f"PRAGMA user_version = {VERSION + 1}")):
        if name == "newer.db":
            store(tmp_path / name)[0].close()
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.execute(statement)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match=r"--store .*choose a") as error:
        store(tmp_path / target)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_an_empty_file_and_a_name_that_means_something_to_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.db").touch()
    for name in ("e.db", ":memory:", "file:x?mode=ro"):
        sink, _ = store(Path(name))
        sink.emit(event())
        sink.close()
        assert count(tmp_path / name) == 1


def test_the_connection_is_only_used_on_the_queue_s_thread(tmp_path: Path) -> None:
    said: list[str] = []
    sink = QueuedSink(StoreSink(str(tmp_path / "e.db"), said.append), "store", said.append, waits=True)
    for one in numbered(1000):
        sink.emit(one)
    sink.close()
    assert count(tmp_path / "e.db") == 1000
    assert (sink.lost, said) == (0, [])


# trouble


def test_a_locked_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.store.BUSY_S", 0.05)
    monkeypatch.setattr("edge.sinks.store.GROUP_S", 0.05)
    path = tmp_path / "e.db"
    sink, said = store(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for one in numbered(150):
            sink.emit(one)
        assert sink.idle()  # it wants to be asked again
        assert count(path) == 0
        other.execute("ROLLBACK")
    time.sleep(0.06)
    assert not sink.idle()
    assert count(path) == 150
    sink.close()
    assert sink.lost == 0
    assert said == [
        f"store: {path}: database is locked; the loop goes on, events are lost if it cannot be written soon",
        f"store: {path}: can be written again; 0 events were lost",
    ]


def test_what_does_not_fit_into_memory_while_it_is_locked_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.store.BUSY_S", 0.01)
    monkeypatch.setattr("edge.sinks.store.WAITING_EVENTS", 120)
    path = tmp_path / "e.db"
    sink, said = store(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for one in numbered(200):
            sink.emit(one)
        assert sink.lost == 80
        other.execute("ROLLBACK")
    sink.close()
    assert query(path, "SELECT min(seq), max(seq), count(*) FROM events") == [(80, 199, 120)]
    assert sink.lost == 80
    assert len(said) == 2
    assert "80 events were lost" in said[1]


def test_locked_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.store.BUSY_S", 0.01)
    path = tmp_path / "e.db"
    sink, said = store(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for one in numbered(7):
            sink.emit(one)
        sink.close()
        other.execute("ROLLBACK")
    assert (sink.lost, len(said)) == (7, 1)
    assert count(path) == 0


def test_a_full_disk(tmp_path: Path) -> None:
    """In a process with a limit on file size, which the kernel enforces as it does a full disk."""
    code = (
        "import resource, signal, sys; from edge.sinks.store import StoreSink; from tests.samples import event, frame\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); said = []\n"
        "def emit(first, last):\n"
        "    for n in range(first, last): sink.emit(event(frame(sequence=n), captured_at_s=float(sys.argv[2])))\n"
        "    sink._not_before_s = 0; sink.idle()\n"
        "sink = StoreSink(sys.argv[1], said.append); emit(0, 100)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY)); emit(100, 1300)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2); emit(1300, 1400); sink.close()\n"
        "print(sink.lost, len(said)); print(*said, sep='\\n')"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "e.db"), str(NOW_S)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    lost, said = done.stdout.split("\n", 1)[0].split()
    assert said == "2", done
    assert int(lost) == 300, done
    assert count(tmp_path / "e.db") == 1100
    assert query(tmp_path / "e.db", "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, said = store(tmp_path / "disk.db")
    sink.emit(event())
    sink.idle()

    def unplugged(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("edge.sinks.store._insert", unplugged)
        sink.emit(event())
        sink.idle()
    (tmp_path / "disk.db").unlink()
    sink.close()
    assert count(tmp_path / "disk.db") == 1
    assert (sink.lost, len(said)) == (0, 2)


def test_a_power_cut_leaves_whole_events(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    code = (
        "import sys; from edge.sinks.store import StoreSink; from edge.types import Change\n"
        "from tests.samples import event, frame\n"
        "sink = StoreSink(sys.argv[1], print); n = 0\n"
        "while True:\n"
        "    changes = (Change('enter', n, 'cat'), Change('leave', n, 'dog'))\n"
        "    sink.emit(event(frame(sequence=n), captured_at_s=float(sys.argv[2]) + n / 1000, changes=changes)); n += 1"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path), str(NOW_S)], stdout=subprocess.PIPE) as child:
        eventually(lambda: path.exists() and _stored(path) > 500, seconds=30)
        child.send_signal(signal.SIGKILL)
    assert (tmp_path / "e.db-wal").exists()  # it had no time to tidy up
    sink, said = store(path)
    sink.emit(event())
    sink.close()
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    frames = int(str(count(path))) - 1
    assert frames >= 500
    assert frames % 100 == 0  # whole groups
    assert query(path, "SELECT count(DISTINCT seq), max(seq) + 1 FROM events") == [(frames, frames)]
    assert query(path, "SELECT count(*), count(DISTINCT event_id) FROM changes") == [(2 * frames, frames)]
    assert (sink.lost, said) == (0, [])


def _stored(path: Path) -> int:
    try:
        return int(str(count(path)))
    except sqlite3.Error:  # it is just being made
        return 0


# retention


def retain(sink: StoreSink) -> None:
    """As after a minute."""
    sink._retention_s = 0.0
    while sink.idle():
        pass


def test_retention_by_rows(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    sink, _ = store(path, keep_rows=50)
    for number in range(130):
        sink.emit(event(frame(sequence=number), changes=(Change("enter", number, "cat"),)))
    retain(sink)
    assert query(path, "SELECT min(seq), max(seq), count(*) FROM events") == [(80, 129, 50)]
    assert query(path, "SELECT min(track), count(*) FROM changes") == [(80, 50)]
    sink.close()
    assert sink.lost == 0


def test_retention_by_age(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    sink, _ = store(path, keep_days=2)
    for days in (5, 3, 1, 0, 2.5):
        sink.emit(event(captured_at_s=NOW_S - days * 86400, changes=(Change("enter", round(10 * days), "cat"),)))
    retain(sink)
    assert query(path, "SELECT track FROM changes ORDER BY track") == [(0,), (10,)]
    assert count(path) == 2
    sink.close()


def test_retention_waits_a_minute_and_then_goes_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.store.BATCH_ROWS", 20)
    path = tmp_path / "e.db"
    sink, _ = store(path, keep_rows=10)
    for one in numbered(75):
        sink.emit(one)
    assert sink.idle()  # the first look, and a first batch
    assert count(path) == 55
    while sink.idle():
        pass
    assert count(path) == 10
    for one in numbered(30, first=75):
        sink.emit(one)
    assert not sink.idle()  # not yet again
    assert count(path) == 40
    sink.close()


def test_the_file_stops_growing_and_shrinks_after_a_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.store.SPARE_PAGES", 16)
    path = tmp_path / "e.db"
    sink, _ = store(path, keep_rows=3000)
    for one in numbered(3000):
        sink.emit(one)
    sink.close()
    full = path.stat().st_size
    sink, _ = store(path, keep_rows=300)
    for round_ in range(4):
        for one in numbered(300, first=3000 + 300 * round_):
            sink.emit(one)
        retain(sink)
    for _ in range(80):  # a few pages each time
        retain(sink)
    sink.close()
    assert count(path) == 300
    assert path.stat().st_size < full / 4
