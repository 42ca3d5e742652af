"""What could not be delivered is kept on disk, survives a kill at any moment, and is sent when the endpoint is back."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from edge.errors import UsageError
from edge.offload import Offloader
from edge.offload.client import STORED_PAUSE_S
from edge.offload.spool import DAY_S, FILE, HOUR_S, Spool, Stored
from edge.oip import decode_request
from tests.endpoint import METADATA, Endpoint, Reply, fixed, good, hangs, serving, until
from tests.samples import event, frame, plain
from tests.spooling import content

NOW_S = 1.7e9
ROOT = Path(__file__).parent.parent


class Opened:
    """A spool and what it said."""

    made: ClassVar[list[Spool]] = []

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.said: list[str] = []
        self.spool = Spool(str(folder), self.said.append, **({"quota_bytes": 10_000_000, "days": 7.0} | limits))
        self.made.append(self.spool)


class Clock:
    """The time since 1970, which may be set, and the time for which the machine has run."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s
        self._uptime_s = 10.0

    def run(self, seconds: float) -> None:
        self.now_s += seconds
        self._uptime_s += seconds

    def uptime(self) -> float:
        return self._uptime_s


def keeping_all(spool: Spool) -> None:
    """Nothing can be deleted any more."""
    assert spool._connection is not None
    connect = spool._connect

    def stuck() -> sqlite3.Connection:
        connection = connect()
        connection.execute(
            "CREATE TEMP TRIGGER stuck BEFORE DELETE ON main.frames BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
        return connection

    spool._connect = stuck  # type: ignore[method-assign]
    spool._disconnect()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while Opened.made:
        Opened.made.pop().close()


def stored(number: int, value: float = 0.5, size: int = 1000, captured_s: float = NOW_S) -> Stored:
    return Stored(f"key-{number}", captured_s, value, {"source": "test"}, bytes([number % 256]) * size)


def keys(spool: Spool, now_s: float = NOW_S) -> list[str]:
    """Those it holds, taken out in the order in which they would be sent."""
    taken = []
    while (best := spool.best(now_s)) is not None:
        taken.append(best.key)
        spool.remove(best.key)
    return taken


def test_the_most_uncertain_and_newest_come_first(tmp_path: Path) -> None:
    spool = Opened(tmp_path).spool
    for number, value in enumerate((0.5, 0.9, 0.1, 0.9, 0.5)):
        assert spool.put(stored(number, value), NOW_S)
    assert (len(spool), spool.spooled, spool.lost) == (5, 5, 0)
    best = spool.best(NOW_S)
    assert best is not None
    assert (best.parameters, best.picture) == ({"source": "test"}, bytes([3]) * 1000)
    assert keys(spool) == ["key-3", "key-1", "key-4", "key-0", "key-2"]
    assert len(spool) == 0


def test_it_is_there_after_it_was_closed(tmp_path: Path) -> None:
    spool = Opened(tmp_path).spool
    spool.put(stored(1), NOW_S)
    spool.close()
    again = Opened(tmp_path).spool
    assert len(again) == 1
    assert keys(again) == ["key-1"]


def test_a_key_is_kept_once(tmp_path: Path) -> None:
    spool = Opened(tmp_path).spool
    assert spool.put(stored(1), NOW_S)
    assert spool.put(stored(1), NOW_S)
    assert (len(spool), spool.spooled, spool.lost) == (1, 1, 0)


def test_the_quota_gives_up_the_most_certain_then_the_oldest(tmp_path: Path) -> None:
    opened = Opened(tmp_path, quota_bytes=5200)
    for number, value in enumerate((0.5, 0.9, 0.1, 0.5, 0.5)):
        opened.spool.put(stored(number, value), NOW_S)
    assert opened.spool.put(stored(5, 0.6), NOW_S)
    assert not opened.spool.put(stored(6, 0.2), NOW_S)  # it is itself the least valuable
    assert opened.spool.put(stored(7, 0.7), NOW_S)
    assert keys(opened.spool) == ["key-1", "key-7", "key-5", "key-4", "key-3"]
    assert (opened.spool.spooled, opened.spool.lost) == (8, 3)
    assert opened.said == []


def test_a_frame_larger_than_the_quota_is_refused(tmp_path: Path) -> None:
    spool = Opened(tmp_path, quota_bytes=5000).spool
    for number in range(4):
        assert spool.put(stored(number, value=0.1), NOW_S)
    assert not spool.put(stored(9, value=0.9, size=6000), NOW_S)
    assert (len(spool), spool.spooled, spool.lost) == (4, 4, 1)  # and takes none of the others with it


def test_the_file_stays_about_as_large_as_the_quota(tmp_path: Path) -> None:
    spool = Opened(tmp_path, quota_bytes=2_000_000).spool
    for number in range(200):
        spool.put(stored(number, value=random.random(), size=random.randint(10_000, 100_000)), NOW_S)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_400_000 + 4_500_000  # and SQLite's log


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    clock = Clock()
    spool = Opened(tmp_path, days=2.0, uptime=clock.uptime).spool
    spool.put(stored(1, captured_s=clock.now_s - 1.5 * DAY_S), clock.now_s)
    spool.put(stored(2, captured_s=clock.now_s), clock.now_s)
    clock.run(DAY_S)
    spool.put(stored(3, captured_s=clock.now_s - DAY_S), clock.now_s)
    assert (len(spool), spool.lost) == (2, 1)
    clock.run(1.5 * DAY_S)
    assert keys(spool, clock.now_s) == []
    assert spool.lost == 3


def test_a_clock_that_is_set_makes_nothing_old(tmp_path: Path) -> None:
    """A board without a clock of its own begins in the past, and learns the time with the network."""
    clock = Clock(now_s=0.0)
    spool = Opened(tmp_path, days=2.0, uptime=clock.uptime).spool
    spool.put(stored(0, captured_s=clock.now_s), clock.now_s)
    spool.remove("key-0")  # so that ids begin anew
    assert spool.put(stored(1, captured_s=clock.now_s), clock.now_s)
    clock.now_s = NOW_S
    assert spool.put(stored(2, captured_s=clock.now_s), clock.now_s)
    clock.run(1.9 * DAY_S)
    assert spool.best(clock.now_s) is not None
    assert (len(spool), spool.lost) == (2, 0)
    clock.run(0.2 * DAY_S)
    assert spool.best(clock.now_s) is None
    assert spool.lost == 2


def test_what_an_earlier_run_left_gets_an_hour_after_the_clock_was_set(tmp_path: Path) -> None:
    clock = Clock(now_s=0.0)
    spool = Opened(tmp_path, days=2.0, uptime=clock.uptime).spool
    spool.put(stored(1, captured_s=clock.now_s), clock.now_s)
    spool.close()
    clock.now_s = NOW_S
    spool = Opened(tmp_path, days=2.0, uptime=clock.uptime).spool
    for _ in range(2):  # after it was opened, and after the clock was set once more
        assert spool.best(clock.now_s) is not None
        clock.run(0.9 * HOUR_S)
        assert spool.best(clock.now_s) is not None
        clock.now_s += 3 * DAY_S
    assert spool.best(clock.now_s) is not None
    clock.run(1.1 * HOUR_S)
    assert spool.best(clock.now_s) is None
    assert spool.lost == 1


def test_only_we_may_read_what_we_made(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "spool")
    assert opened.spool.put(stored(1), NOW_S)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "spool").glob(f"{FILE}*")} == {0o600}
    opened.spool.close()
    (tmp_path / "spool" / FILE).write_bytes(b"no database" * 1000)
    again = Opened(tmp_path / "spool")
    assert again.spool.put(stored(1), NOW_S)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "spool").glob(f"{FILE}*")} == {0o600}


def test_who_may_read_a_folder_that_was_there_is_its_owner_s_choice(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    (tmp_path / FILE).touch()
    (tmp_path / FILE).chmod(0o640)
    assert Opened(tmp_path).spool.put(stored(1), NOW_S)
    assert (tmp_path.stat().st_mode & 0o777, (tmp_path / FILE).stat().st_mode & 0o777) == (0o750, 0o640)


def test_what_cannot_be_removed_is_not_counted(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    opened.spool.put(stored(1), NOW_S)
    keeping_all(opened.spool)
    for _ in range(3):
        assert opened.spool.best(NOW_S) is not None
        assert not opened.spool.remove("key-1")
        assert not opened.spool.give_up("key-1")
    assert (len(opened.spool), opened.spool.lost, len(opened.said)) == (1, 0, 1)


@pytest.mark.parametrize("damage", ["garbage", "zeroed inside", "cut short"])
def test_a_damaged_database_is_moved_aside(tmp_path: Path, damage: str) -> None:
    spool = Opened(tmp_path).spool
    for number in range(50):
        spool.put(stored(number), NOW_S)
    spool.close()
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(
        {"garbage": b"no database" * 1000, "zeroed inside": whole[:100] + bytes(len(whole) - 100), "cut short": whole[:5000]}[
            damage
        ]
    )
    opened = Opened(tmp_path)
    assert opened.spool.put(stored(100), NOW_S)
    assert len(opened.said) == 1
    assert "a new one is begun" in opened.said[0]
    assert "\n" not in opened.said[0]
    assert keys(opened.spool) == ["key-100"]
    assert [other.name for other in tmp_path.glob("*.damaged-*")]


def test_damage_that_is_found_while_it_runs(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    opened.spool.put(stored(1), NOW_S)
    assert opened.spool._connection is not None
    opened.spool._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with (tmp_path / FILE).open("r+b") as file:
        file.write(b"damaged!" * 2000)
    opened.spool._disconnect()
    assert opened.spool.put(stored(2), NOW_S)
    assert len(opened.said) == 1


def test_a_full_disk_is_said_once_and_counted(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    spool = opened.spool
    spool.put(stored(1), NOW_S)
    connect = spool._connect

    def small() -> sqlite3.Connection:
        connection = connect()
        connection.execute("PRAGMA max_page_count = 12").fetchall()
        return connection

    spool._connect = small  # type: ignore[method-assign]
    spool._disconnect()
    for number in range(2, 7):
        assert not spool.put(stored(number, size=100_000), NOW_S)
    assert spool.lost == 5
    assert len(opened.said) == 1
    assert "full" in opened.said[0]
    spool._connect = connect  # type: ignore[method-assign]
    assert spool.put(stored(9, size=100_000), NOW_S)  # there is room again
    assert len(opened.said) == 1
    assert len(spool) == 2


@pytest.mark.parametrize("make", ["a file", "below a file"])
def test_folders_that_cannot_be(tmp_path: Path, make: str) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" if make == "a file" else tmp_path / "file" / "spool"
    with pytest.raises(UsageError, match="choose a folder that can be written"):
        Opened(folder)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    first = Opened(tmp_path).spool
    with pytest.raises(UsageError, match="another edge-run uses it"):
        Opened(tmp_path)
    first.close()
    Opened(tmp_path)


# a power cut


def survives(folder: Path, kills: int) -> None:
    command = [sys.executable, "-m", "tests.spooling", folder, str(kills)]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=True)
    assert done.stderr == b""
    numbers = [int(line) for line in done.stdout.split()]
    acknowledged, removed = {number for number in numbers if number > 0}, {-number for number in numbers if number < 0}
    found: dict[int, bytes] = {}
    said: list[str] = []
    spool = Spool(str(folder), said.append, quota_bytes=10**10, days=1)
    while (best := spool.best(time.time())) is not None:
        found[int(best.key.removeprefix("key-"))] = best.picture
        spool.remove(best.key)
    spool.close()
    assert said == []
    assert len(acknowledged) > kills
    assert acknowledged - removed <= set(found)
    assert all(picture == content(number) for number, picture in found.items())


def test_nothing_acknowledged_is_lost_to_a_kill(tmp_path: Path) -> None:
    survives(tmp_path, 20)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_two_hundred_kills(tmp_path: Path) -> None:
    survives(tmp_path, 200)


# through an endpoint


@pytest.fixture
def offloaders() -> Iterator[list[Offloader]]:
    made: list[Offloader] = []
    yield made
    for offloader in made:
        offloader.close()


def opened_with(offloaders: list[Offloader], url: str, folder: Path, **options: Any) -> tuple[Offloader, list[str]]:
    said: list[str] = []
    spool = Spool(str(folder), said.append, quota_bytes=10_000_000, days=7)
    offloaders.append(Offloader(url, "tiny", spool=spool, say=said.append, **options))
    return offloaders[-1], said


def submit(offloader: Offloader, *numbers: int, scores: tuple[float, ...] = (0.25,)) -> None:
    for number in numbers:
        given = frame(plain(10 * number), number, time.monotonic())
        offloader.submit(event(given, action="offload", scores=scores, captured_at_s=time.time()))
        assert until(lambda: offloader.idle)


class Deduping:
    """Keeps what came under each key, and counts what came again."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}
        self.again = 0
        self.parameters: list[dict[str, Any]] = []

    def __call__(self, endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        request = decode_request(body, headers)
        image = cv2.imdecode(np.frombuffer(request.inputs["image"].data[0], np.uint8), cv2.IMREAD_COLOR)
        key = headers["Idempotency-Key"]
        self.again += key in self.kept
        self.kept[key] = round(image.mean())
        self.parameters.append(dict(request.parameters))
        return good(endpoint, body, headers)


def test_what_could_not_be_sent_is_sent_when_the_endpoint_is_back(tmp_path: Path, offloaders: list[Offloader]) -> None:
    server = Deduping()
    with serving(fixed(b"", 500)) as endpoint:
        offloader, said = opened_with(offloaders, endpoint.url, tmp_path)
        submit(offloader, *range(6))
        assert (offloader.submitted, offloader.failed, offloader.spooled) == (6, 6, 6)
        assert offloader.available(time.monotonic())  # for the spool takes it
        endpoint.answer = server
        assert until(lambda: offloader.spool_sent == 6)
        assert offloader.answers() == []  # for labels, not answers
        assert sorted(server.kept.values()) == [0, 10, 20, 30, 40, 50]
        assert server.again == 0
        for told in server.parameters:
            assert set(told) == {"local", "source", "captured_at", "key"}
            assert json.loads(told["local"]) == {"classes": [{"label": "class 0", "score": 0.25}]}
        assert offloader.spool_lost == 0
        assert until(lambda: len(said) == 2)
        assert "frames wait in the spool" in said[0]
        assert "answers again" in said[1]


def test_keys_stay_the_same_over_a_retry_the_spool_and_a_restart(tmp_path: Path, offloaders: list[Offloader]) -> None:
    """A server that has processed what it never answered sees the key again, and the content once."""
    with serving(hangs) as endpoint:
        offloader, _ = opened_with(offloaders, endpoint.url, tmp_path, deadline_s=0.3)
        submit(offloader, 1)
        assert until(lambda: offloader.late == 1)
        assert offloader.spooled == 1
        key = endpoint.headers[0]["Idempotency-Key"]
        offloader.close()
    server = Deduping()
    with serving(server) as endpoint:
        again, _ = opened_with(offloaders, endpoint.url, tmp_path)
        assert until(lambda: again.spool_sent == 1)
    assert server.kept == {key: 10}


def test_live_frames_go_first_and_stored_ones_at_a_modest_rate(tmp_path: Path, offloaders: list[Offloader]) -> None:
    spool = Opened(tmp_path).spool
    jpeg = cv2.imencode(".jpg", plain(200))[1].tobytes()
    for number in range(20):
        spool.put(replace(stored(number, captured_s=time.time()), picture=jpeg), time.time())
    spool.close()
    with serving() as endpoint:
        offloader, _ = opened_with(offloaders, endpoint.url, tmp_path)
        begun_s = time.monotonic()
        for number in range(10):
            submit(offloader, number)
            assert len(offloader.answers()) == 1
            time.sleep(0.05)
        elapsed_s = time.monotonic() - begun_s
        assert 1 <= offloader.spool_sent <= elapsed_s / STORED_PAUSE_S + 2


def test_a_stored_frame_that_is_refused_is_given_up(tmp_path: Path, offloaders: list[Offloader]) -> None:
    with serving(fixed(b"", 500)) as endpoint:
        offloader, said = opened_with(offloaders, endpoint.url, tmp_path)
        submit(offloader, 1, 2, 3)
        endpoint.answer = fixed(b'{"error": "unknown parameter"}', 400)
        assert until(lambda: offloader.spool_lost == 3)
        assert (offloader.spool_sent, offloader.spooled) == (0, 3)
        assert sum("such frames are given up" in line for line in said) == 1


TENSORS_ONLY: Reply = (
    200,
    json.dumps(METADATA | {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3]}]}).encode(),
    {},
)


def test_a_server_of_another_kind_gets_no_stored_frame(tmp_path: Path, offloaders: list[Offloader]) -> None:
    spool = Opened(tmp_path).spool
    for number in range(3):
        spool.put(stored(number, captured_s=time.time()), time.time())
    spool.close()
    with serving(fixed(b"", 400), TENSORS_ONLY) as endpoint:
        offloader, said = opened_with(offloaders, endpoint.url, tmp_path)
        assert until(lambda: said)
        assert "model tiny takes no encoded 'image'" in said[0]
        assert endpoint.headers == []
        assert offloader.spool_lost == 0
        endpoint.metadata = (200, json.dumps(METADATA).encode(), {})
        endpoint.answer = fixed(b"{}")
        assert until(lambda: offloader.spool_sent == 3)


def test_a_server_of_another_kind_that_came_in_its_place_gives_up_no_stored_frame(
    tmp_path: Path, offloaders: list[Offloader]
) -> None:
    """It refuses what the server that was asked before would have taken."""

    def once(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        endpoint.metadata, endpoint.answer = TENSORS_ONLY, fixed(b"", 400)
        return 200, b"{}", {}

    spool = Opened(tmp_path).spool
    for number in range(3):
        spool.put(stored(number, captured_s=time.time()), time.time())
    spool.close()
    with serving(once) as endpoint:
        offloader, said = opened_with(offloaders, endpoint.url, tmp_path)
        assert until(lambda: said)
        assert "takes no encoded 'image'" in said[0]
        assert (offloader.spool_sent, offloader.spool_lost) == (1, 0)


@pytest.mark.parametrize("status", [405, 406, 409, 410, 415])
def test_a_status_that_is_not_about_the_picture_gives_nothing_up(
    tmp_path: Path, offloaders: list[Offloader], status: int
) -> None:
    with serving(fixed(b"", status)) as endpoint:
        offloader, said = opened_with(offloaders, endpoint.url, tmp_path)
        submit(offloader, 1)
        assert offloader.spooled == 1
        assert until(lambda: said)  # the breaker has opened
        assert (offloader.spool_sent, offloader.spool_lost) == (0, 0)


def test_a_frame_that_cannot_be_forgotten_is_not_sent_on_and_on(tmp_path: Path, offloaders: list[Offloader]) -> None:
    spool = Opened(tmp_path).spool
    spool.put(stored(1, captured_s=time.time()), time.time())
    spool.close()
    said: list[str] = []
    spool = Opened(tmp_path).spool
    keeping_all(spool)
    with serving(fixed(b"{}")) as endpoint:
        offloaders.append(Offloader(endpoint.url, "tiny", spool=spool, say=said.append))
        assert until(lambda: endpoint.headers)
        time.sleep(3 * STORED_PAUSE_S)
        assert (len(endpoint.headers), offloaders[-1].spool_sent, len(said)) == (1, 0, 1)
        assert "was sent and cannot be removed" in said[0]


def test_a_live_frame_that_is_refused_is_not_kept(tmp_path: Path, offloaders: list[Offloader]) -> None:
    with serving(fixed(b"", 400)) as endpoint:
        offloader, _ = opened_with(offloaders, endpoint.url, tmp_path)
        submit(offloader, 1)
        assert (offloader.failed, offloader.spooled) == (1, 0)


def test_what_is_left_in_the_end_is_kept(tmp_path: Path, offloaders: list[Offloader]) -> None:
    with serving(hangs) as endpoint:
        offloader, _ = opened_with(offloaders, endpoint.url, tmp_path, deadline_s=30.0)
        for number in range(5):  # two are under way, three wait
            offloader.submit(event(frame(plain(number), number, time.monotonic()), captured_at_s=time.time()))
            assert until(lambda number=number: len(endpoint.headers) == min(2, number + 1))
        assert offloader.drain(0.1) == []
        assert (offloader.failed, offloader.spooled) == (5, 5)
        offloader.close()
        endpoint.released.set()
    assert len(Opened(tmp_path).spool) == 5
