"""Live sources: whatever happens to a device, its driver or its reader, the loop goes on and the source comes back."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.capture import reader as reader_module
from edge.capture.devices import DEVICES, DeviceSpec, StreamClock
from edge.capture.faulty import FaultyDevice
from edge.capture.forkserver import FORK_SERVER, ForkServer
from edge.capture.reader import FRAME, FRAME_KIND, STARVED, STARVED_KIND, Failed, Opened, ReaderSpec, read, slot_pictures
from edge.errors import SourceError
from edge.sources.live import SLOTS, Limits, LiveSource
from edge.types import Frame, UInt8
from tests.endpoint import until

PATIENCE_S = 20.0
QUICK = Limits(stalled=0.15, opening=5.0, reading=0.4, frozen=0.4, pause=(0.02, 0.05))
"""Short enough for a test; a machine that is busy only makes more outages of it."""


def source_of(fault: str, *, limits: Limits = QUICK, patient: bool = False) -> LiveSource:
    return LiveSource("cam", DeviceSpec("faulty", fault), limits=limits, patient=patient)


def kinds(source: LiveSource) -> list[str]:
    return [notice.kind for notice in source.notices]


def processes() -> dict[int, tuple[str, int]]:
    """State and parent of every process that there is."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            found[int(entry.name)] = state, int(parent)
    return found


def server_pid() -> int:
    assert FORK_SERVER._process is not None
    return FORK_SERVER._process.pid


def readers(server: int | None = None) -> list[int]:
    """The reader processes that live."""
    parent = server or server_pid()
    return [process for process, (state, of) in processes().items() if of == parent and state != "Z"]


def lives(process: int) -> bool:
    return processes().get(process, ("Z", 0))[0] != "Z"


# every fault ends in the right notices

FAULTS = {
    "end:5": "stopped delivering after 5 frames",
    "hang:5": "no frame for",
    "spin:5": "no frame for",
    "segfault:5": "its reader died",
    "freeze:5": "the same picture for 0.4 s",
    "resize:5": "its size changed",
    "end:1": "stopped delivering after 1 frames",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_comes_back_after(fault: str) -> None:
    """Two outages: said once each, and the frames' numbers go on rising."""
    found: list[tuple[int, float]] = []
    with source_of(fault) as source:
        for frame in source:
            found.append((frame.sequence, frame.captured_s))
            del frame
            if kinds(source).count("source-open") == 3:
                break
        said = [notice for notice in source.notices if notice.kind != "source-stalled"]
    assert [notice.kind for notice in said] == ["source-open", "source-lost", "source-open", "source-lost", "source-open"]
    assert {notice.about for notice in said} == {"cam"}
    assert said[0].text == f"{fault.partition(':')[0]} after {fault.partition(':')[2]} frames"
    for lost in said[1::2]:
        assert FAULTS[fault] in lost.text
        assert lost.text.endswith("; trying again until it is back")
    for back in said[2::2]:
        assert ", back after " in back.text
    assert [sequence for sequence, _ in found] == list(range(len(found)))
    assert found == sorted(found, key=lambda one: one[1])


def test_a_device_that_hangs_is_said_to_stall_before_it_is_given_up() -> None:
    with source_of("hang:3") as source:
        list(islice(source, 4))
    assert kinds(source) == ["source-open", "source-stalled", "source-lost", "source-open"]
    assert source.notices[1].text.startswith("no frame for 0.")


def test_a_slow_device_stalls_and_is_not_given_up() -> None:
    limits = Limits(stalled=0.3, reading=PATIENCE_S)
    with source_of("slow:3", limits=limits) as source:
        found = list(islice(source, 5))
    assert [frame.sequence for frame in found] == [0, 1, 2, 3, 4]
    told = [notice.text for notice in source.notices]
    assert kinds(source) == ["source-open", *["source-stalled", "source-open"] * (len(told) // 2)]
    assert len(told) > 1
    assert all(re.fullmatch(r"frames again after \d\.\d s", text) for text in told[2::2])


def test_a_picture_that_froze_is_not_shown_again_after_it_was_noticed() -> None:
    """Neither by the reader that froze nor by the one in its place, should the device still be frozen."""
    shown: list[tuple[float, int]] = []
    with source_of("freeze:5") as source:
        frames = iter(source)
        while "source-lost" not in kinds(source):
            image = next(frames).image
            shown.append((time.monotonic(), int(image[20, 20, 0])))
            del image
    froze_s = next(at_s for at_s, value in shown if value == 5)
    last_s = max(at_s for at_s, value in shown if value == 5)
    assert last_s - froze_s < 2.0
    assert shown[-1][1] == 1  # what came after the notice is a picture of the next reader's
    assert [value for _, value in shown][:5] == [1, 2, 3, 4, 5]


def test_a_device_that_stays_frozen_shows_nothing_for_as_long() -> None:
    """`freeze:0` gives the same picture from its first frame on, each time it is opened."""
    with source_of("freeze:0") as source:
        threading.Timer(1.5, source.stop).start()
        before, after = [], []
        for frame in source:
            (after if "source-lost" in kinds(source) else before).append(frame.sequence)
    assert before
    assert after == []
    assert [kind for kind in kinds(source) if kind != "source-stalled"] == ["source-open", "source-lost"]


def test_the_same_picture_for_ever_may_be_wanted() -> None:
    limits = Limits(stalled=0.3, reading=5.0, frozen=0.0)
    with source_of("freeze:0", limits=limits) as source:
        assert [frame.sequence for frame in islice(source, 40)] == list(range(40))
    assert kinds(source) == ["source-open"]


# one that is not there


def test_one_that_never_was_there_is_an_error() -> None:
    with source_of("absent") as source, pytest.raises(SourceError, match=r"^cam: is not there$") as error:
        next(iter(source))
    assert error.value.exit_code == 2
    assert kinds(source) == []


@pytest.mark.parametrize(
    ("fault", "reason"), [("end:0", "after 0 frames"), ("segfault:0", "its reader died"), ("hang:0", "no frame")]
)
def test_one_that_never_gave_a_frame_is_an_error(fault: str, reason: str) -> None:
    limits = Limits(stalled=0.1, opening=1.0)
    with source_of(fault, limits=limits) as source, pytest.raises(SourceError, match=f"^cam: .*{reason}"):
        next(iter(source))


def test_one_that_is_waited_for() -> None:
    with source_of("absent", patient=True) as source:
        threading.Timer(0.5, source.stop).start()
        assert list(source) == []
    assert kinds(source) == ["source-lost"]  # once, not once an attempt
    assert source.notices[0].text == "is not there; trying again until it is there"


def test_one_that_goes_and_is_plugged_in_again() -> None:
    gone = threading.Event()
    source = LiveSource(
        "cam", DeviceSpec("faulty", "end:3"), limits=QUICK, missing=lambda: "it is unplugged" if gone.is_set() else None
    )
    with source:
        frames = iter(source)
        for _ in range(3):
            next(frames)
        gone.set()
        threading.Timer(0.3, gone.clear).start()
        assert next(frames).sequence == 3
    assert kinds(source) == ["source-open", "source-lost", "source-open"]


def test_pauses_grow_and_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    limits = Limits(pause=(0.1, 1.5))
    with source_of("absent", limits=limits, patient=True) as source:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            source.stopped = len(pauses) == 9

        monkeypatch.setattr(source, "_pause", pause)
        assert list(source) == []
    for pause_s, full_s in zip(pauses, [0.2, 0.4, 0.8, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5], strict=True):
        assert full_s / 2 <= pause_s <= full_s


# the end

STUCK = ("none", "hang:3", "spin:3", "slow:3", "hang:0", "absent", "freeze:0")


@pytest.mark.parametrize("fault", STUCK)
def test_stop_ends_it_soon_whatever_the_reader_does(fault: str) -> None:
    limits = Limits(stalled=0.1, opening=PATIENCE_S, reading=PATIENCE_S, frozen=0.2, pause=(PATIENCE_S, PATIENCE_S))
    stopped_s: list[float] = []

    def stop() -> None:
        stopped_s.append(time.monotonic())
        source.stop()

    with source_of(fault, limits=limits, patient=True) as source:
        threading.Timer(0.4, stop).start()
        for frame in source:
            del frame
        assert time.monotonic() - stopped_s[0] < 0.5 + 1.0  # the second for a busy machine
    assert until(lambda: readers() == [])


@pytest.mark.parametrize("fault", ["none", "hang:2", "spin:2"])
def test_leaving_the_iteration_kills_the_reader(fault: str) -> None:
    with source_of(fault) as source:
        frames = iter(source)
        next(frames)
        assert len(readers()) == 1
        frames.close()  # type: ignore[attr-defined]
        assert until(lambda: readers() == [])


def test_restarts_leave_nothing_behind() -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def maps() -> int:
        return Path("/proc/self/maps").read_text().count("edge-frames")

    limits = Limits(pause=(0.0, 0.0))
    with source_of("end:1", limits=limits) as source:
        frames = iter(source)
        next(frames)
        before, server = held(), server_pid()
        for frame in islice(frames, 20):
            del frame
        assert kinds(source).count("source-lost") >= 20
        assert until(lambda: held() == before)
        assert maps() <= 2
        frames.close()  # type: ignore[attr-defined]
        assert server_pid() == server
        assert until(lambda: [process for process, (_, of) in processes().items() if of == server] == [])  # nor zombies
        descriptors = os.listdir(f"/proc/{server}/fd")
    assert len(descriptors) <= 8, descriptors
    assert until(lambda: maps() == 0)


# the fork server


def test_a_fork_server_that_died_is_started_again() -> None:
    with source_of("none") as source:
        frames = iter(source)
        first = next(frames)
        server, (reader,) = server_pid(), readers()
        os.kill(server, signal.SIGKILL)
        assert until(lambda: not lives(reader))  # they do not outlive it
        while "source-lost" not in kinds(source):
            last = next(frames)
        assert server_pid() != server
        assert last.sequence > first.sequence
        assert "its reader died" in next(notice.text for notice in source.notices if notice.kind == "source-lost")
        assert kinds(source)[-1] == "source-open"


def test_a_fork_server_that_died_before_the_first_frame_is_no_matter() -> None:
    with source_of("none") as source:
        server = server_pid()
        os.kill(server, signal.SIGKILL)
        assert until(lambda: not lives(server))
        assert next(iter(source)).sequence == 0


def test_two_sources_share_a_fork_server_and_fail_apart() -> None:
    with source_of("none") as well, source_of("segfault:2") as ill:
        one, other = iter(well), iter(ill)
        for _ in range(5):
            next(one)
            next(other)
        assert len(readers()) == 2
        one.close()  # type: ignore[attr-defined]
        other.close()  # type: ignore[attr-defined]
    assert kinds(well) == ["source-open"]
    assert "source-lost" in kinds(ill)


def test_closing_a_fork_server_ends_its_readers() -> None:
    server = ForkServer()
    _, link = server.open(ReaderSpec(DeviceSpec("faulty", "hang:0"), 2))
    with link:
        assert server._process is not None
        process = server._process.pid
        assert until(lambda: len(readers(process)) == 1)
        (reader,) = readers(process)
        server.close()
        assert until(lambda: not lives(process) and not lives(reader))
        server.kill(1)  # it has gone


def test_killing_readers_that_are_not_there() -> None:
    FORK_SERVER.start()
    FORK_SERVER.kill(10_000_000)
    with source_of("none") as source:
        assert next(iter(source)).sequence == 0


LOOP = """
import sys
from edge.capture.devices import DeviceSpec
from edge.capture.forkserver import FORK_SERVER
from edge.sources.live import LiveSource
with LiveSource("cam", DeviceSpec("faulty", sys.argv[1])) as source:
    for frame in source:
        print(frame.sequence, FORK_SERVER._process.pid, flush=True)
"""


@contextmanager
def looping(fault: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Another process that reads a source: it, its fork server and its reader, after its second frame."""
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, fault],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            server = int(process.stdout.readline().split()[1])
            (reader,) = readers(server)
            yield process, server, reader
        finally:
            process.kill()


@pytest.mark.parametrize("fault", ["none", "spin:3", "hang:3"])
def test_nothing_outlives_a_loop_that_was_killed(fault: str) -> None:
    with looping(fault) as (process, server, reader):
        assert lives(server)
        time.sleep(0.1)  # by now it spins or hangs
        process.kill()
        assert until(lambda: not lives(server) and not lives(reader), 2.0 + 2.0)


def test_ctrl_c_is_for_the_loop_alone() -> None:
    with looping("none") as (process, server, reader):
        assert os.getsid(reader) == os.getsid(server) == server != os.getsid(process.pid)
        for _ in range(40):  # Python drops one that comes in the middle of a finalizer
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
        assert process.poll() is not None
        assert until(lambda: not lives(server) and not lives(reader))
    with looping("none") as (process, server, reader):
        for of in (signal.SIGINT, signal.SIGTERM):  # a service manager's, to every process of the unit
            os.kill(server, of)
        os.kill(reader, signal.SIGINT)
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
        assert lives(server)
        assert lives(reader)


# memory


def test_slots_that_are_held_do_not_stop_the_others() -> None:
    with source_of("none") as source:
        frames = iter(source)
        held = [next(frames) for _ in range(SLOTS - 2)]
        kept = [frame.image.copy() for frame in held]
        for _ in range(3 * SLOTS):
            frame = next(frames)
            assert not any(np.shares_memory(frame.image, other.image) for other in held)
            del frame
        for frame, image in zip(held, kept, strict=True):
            np.testing.assert_array_equal(frame.image, image)
        del frame
    assert kinds(source) == ["source-open"]


def test_with_all_slots_held_frames_are_dropped_and_counted() -> None:
    """And the device is not called lost, however long that takes: it is well."""
    limits = Limits(stalled=0.4, reading=0.8, frozen=10.0)
    with source_of("none", limits=limits) as source:
        frames = iter(source)
        held = [next(frames) for _ in range(SLOTS)]
        values = [int(frame.image[20, 20, 0]) for frame in held]
        assert values == list(range(1, SLOTS + 1))
        taken: list[Frame] = []
        taker = threading.Thread(target=lambda: taken.append(next(frames)))
        taker.start()
        assert until(lambda: source.dropped > 50)  # a second and more
        assert taken == []
        assert [int(frame.image[20, 20, 0]) for frame in held] == values
        held.clear()
        taker.join(PATIENCE_S)
        assert taken[0].sequence == SLOTS
        assert int(taken[0].image[20, 20, 0]) == SLOTS + source.dropped + 1
        assert next(frames).sequence == SLOTS + 1
    assert kinds(source) == ["source-open"]


def test_a_frame_that_is_held_outlives_its_reader_and_its_source() -> None:
    with source_of("end:3") as source:
        frames = iter(source)
        held = [next(frames) for _ in range(3)]
        kept = [frame.image.copy() for frame in held]
        for _ in range(6):
            next(frames)
        assert kinds(source).count("source-lost") >= 2
        part = held[0].image[10:20]
    for frame, image in zip(held, kept, strict=True):
        np.testing.assert_array_equal(frame.image, image)
    held.clear()
    del frame, frames
    np.testing.assert_array_equal(part, kept[0][10:20])


def test_a_picture_may_be_painted_over() -> None:
    """As the privacy mask does; neither the reader nor another frame minds."""
    with source_of("none") as source:
        for frame in islice(source, 3 * SLOTS):
            assert len(np.unique(frame.image[1:])) == 1
            frame.image[10:20] = 255
            del frame
    assert kinds(source) == ["source-open"]


# the reader, in this process


class Scripted:
    """A device that does what each of `steps` says: True for a frame, False for one that cannot be had, or a call."""

    fps: float | None = 10.0
    text = "scripted"

    def __init__(self, steps: Iterator[bool | Callable[[], object]], size_wh: tuple[int, int] = (8, 6)) -> None:
        self.size_wh = size_wh
        self.grabbed = 0
        self.closed = False
        self._steps = steps
        self._good = True

    def grab(self) -> float | None:
        for step in self._steps:
            if callable(step):
                step()
                continue
            self.grabbed += 1
            self._good = step
            return 100.0 + self.grabbed
        return None

    def retrieve(self, into: UInt8) -> bool:
        into[:] = self.grabbed
        return self._good

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def linked() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The loop's end of a link and the reader's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def opened(ours: socket.socket, slots: int) -> tuple[Opened, list[UInt8]]:
    message, descriptors, _, _ = socket.recv_fds(ours, 65536, 1)
    said = msgspec.json.decode(message, type=Opened)
    memory = mmap.mmap(descriptors[0], said.size_wh[0] * said.size_wh[1] * 3 * slots)
    os.close(descriptors[0])
    return said, slot_pictures(memory, said.size_wh)


def waiting(ours: socket.socket) -> list[bytes]:
    messages = []
    while True:
        try:
            messages.append(ours.recv(65536, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return messages


Linked = tuple[socket.socket, socket.socket]


def test_what_a_reader_says(linked: Linked) -> None:
    ours, theirs = linked
    failed = reader_module._deliver(Scripted(iter([True] * 3)), 4, theirs)
    assert failed == Failed("stopped delivering after 3 frames")
    said, pictures = opened(ours, 4)
    assert said == Opened((8, 6), 10.0, "scripted")
    assert [picture.shape for picture in pictures] == [(6, 8, 3)] * 4
    for number, message in enumerate(waiting(ours), start=1):
        kind, slot, captured_s, capture_ms, dropped, checksum = FRAME.unpack(message)
        assert (kind, captured_s, dropped) == (FRAME_KIND, 100.0 + number, 0)
        assert capture_ms >= 0
        assert (pictures[slot] == number).all()
        assert checksum == zlib.crc32(bytes([number]) * 8 * 3)
    assert number == 3


def test_frames_without_a_slot_are_dropped_and_counted(linked: Linked) -> None:
    """A slot that came back is used for the next frame, whose message tells how many went missing."""
    ours, theirs = linked
    steps = iter(
        [True, True, True, True, lambda: ours.send(bytes([1])), True, True, lambda: ours.send(bytes([0, 1])), True, True]
    )
    failed = reader_module._deliver(Scripted(steps), 2, theirs)
    assert failed.reason == "stopped delivering after 5 frames"
    _, pictures = opened(ours, 2)
    messages = waiting(ours)
    told = [FRAME.unpack(message) for message in messages if message[0] == FRAME_KIND]
    assert [(slot, captured_s - 100, dropped) for _, slot, captured_s, _, dropped, _ in told] == [
        (0, 1, 0),
        (1, 2, 0),
        (1, 5, 2),
        (1, 7, 3),
        (0, 8, 3),
    ]
    assert [int(picture[0, 0, 0]) for picture in pictures] == [8, 7]
    starved = [STARVED.unpack(message) for message in messages if message[0] == STARVED_KIND]
    assert starved[0] == (STARVED_KIND, 1)
    assert len(starved) + len(told) == len(messages)


def test_a_starved_reader_does_not_wait_for_a_loop_that_does_not_read(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = linked
    monkeypatch.setattr(reader_module, "STARVED_EVERY_S", 0.0)
    device = Scripted(iter([True] * 5000))
    assert reader_module._deliver(device, 1, theirs).reason == "stopped delivering after 1 frames"
    assert device.grabbed == 5000
    opened(ours, 1)
    assert len(waiting(ours)) < 5000


@pytest.mark.parametrize(("steps", "at_once"), [([False], False), ([True, False], True)])
def test_a_size_that_changed_is_read_anew_at_once(linked: Linked, steps: list[bool], at_once: bool) -> None:
    failed = reader_module._deliver(Scripted(iter(steps)), 2, linked[1])
    assert failed == Failed("a frame could not be decoded, or its size changed", at_once)


def test_a_reader_that_grows_ends_itself(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_mb = iter([100.0, 150.0, 356.0, 357.0])
    monkeypatch.setattr(reader_module, "MEMORY_CHECK_S", -1.0)
    monkeypatch.setattr(reader_module, "_memory_mb", lambda: next(memory_mb))
    failed = reader_module._deliver(Scripted(iter([True] * 9)), 9, linked[1])
    assert failed == Failed("the reader has grown by 257 MB", at_once=True)


def test_a_leak_is_measured(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    with suppress(AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)  # memory that earlier tests left to this process would hide the growth
    monkeypatch.setattr(reader_module, "MEMORY_CHECK_S", 0.01)
    monkeypatch.setattr(reader_module, "LEAK_MB", 24)
    device = FaultyDevice(DeviceSpec("faulty", "leak:2"))
    failed = reader_module._deliver(device, 50, linked[1])
    assert failed.at_once
    assert failed.reason.startswith("the reader has grown by ")
    assert 5 <= len(device._hoard) <= 20


def test_shared_pictures_are_no_leak(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MEMORY_CHECK_S", -1.0)
    monkeypatch.setattr(reader_module, "LEAK_MB", 24)
    device = Scripted(iter([True] * 12), size_wh=(1920, 1080))  # 71 MB
    assert reader_module._deliver(device, 12, linked[1]).reason == "stopped delivering after 12 frames"


@pytest.mark.parametrize("size_wh", [(0, 0), (0, 480), (-1, 480)])
def test_a_device_without_a_size(linked: Linked, size_wh: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    device = Scripted(iter([]), size_wh=size_wh)
    monkeypatch.setitem(DEVICES, "scripted", lambda spec: device)
    read(ReaderSpec(DeviceSpec("scripted", ""), 2), linked[1])
    assert "its pictures are" in msgspec.json.decode(linked[0].recv(65536), type=Failed).reason
    assert device.closed


def broken(spec: DeviceSpec) -> Scripted:
    raise RuntimeError("two\nlines")


def refused(spec: DeviceSpec) -> Scripted:
    raise SourceError("another program holds it")


@pytest.mark.parametrize(("opens", "reason"), [(broken, "RuntimeError: two lines"), (refused, "another program holds it")])
def test_a_device_that_does_not_open(
    linked: Linked, opens: Callable[[DeviceSpec], Scripted], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEVICES, "scripted", opens)
    read(ReaderSpec(DeviceSpec("scripted", ""), 2), linked[1])
    assert msgspec.json.decode(linked[0].recv(65536), type=Failed) == Failed(reason)


def test_a_driver_that_raises_among_frames(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    device = Scripted(iter([True, fail]))
    monkeypatch.setitem(DEVICES, "scripted", lambda spec: device)
    read(ReaderSpec(DeviceSpec("scripted", ""), 2), linked[1])
    opened(linked[0], 2)
    assert waiting(linked[0])[-1] == msgspec.json.encode(Failed("OSError: [Errno 5] Input/output error"))
    assert device.closed


def test_a_reader_ends_when_the_loop_has_gone(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = linked
    device = Scripted(step for _ in iter(int, 1) for step in (True, ours.close))
    monkeypatch.setitem(DEVICES, "scripted", lambda spec: device)
    read(ReaderSpec(DeviceSpec("scripted", ""), 2), theirs)
    assert device.grabbed == 2
    assert device.closed


def test_messages_are_told_apart_by_their_first_byte() -> None:
    first = {FRAME_KIND, STARVED_KIND}
    assert not first & {msgspec.json.encode(said)[0] for said in (Opened((1, 1), None, ""), Failed(""))}
    assert struct.calcsize(STARVED.format) != FRAME.size


# when a frame of a stream was captured


def ages(clock: StreamClock, frames: list[tuple[float, float]]) -> list[float]:
    """How old each frame is on arrival, of (time in the stream, arrival)."""
    return [arrived_s - clock.captured_s(stream_s, arrived_s) for stream_s, arrived_s in frames]


STREAM_CLOCK = {
    "a steady delay": ([(n / 10, 1000.2 + n / 10) for n in range(5)], [0, 0, 0, 0, 0]),
    "jitter": ([(0.0, 1000.0), (0.1, 1000.13), (0.2, 1000.2), (0.3, 1000.35)], [0, 0.03, 0, 0.05]),
    "a stall, then its backlog": (
        [(0.0, 1000.0), (0.1, 1002.1), (0.2, 1002.1), (0.3, 1002.1), (2.1, 1002.1)],
        [0, 2, 1.9, 1.8, 0],
    ),
    "a burst of old frames at first": ([(0.0, 1002.0), (1.0, 1002.0), (2.0, 1002.0), (2.1, 1002.1)], [0, 0, 0, 0]),
    "a stream that begins anew": ([(50.0, 1000.0), (50.1, 1000.1), (0.0, 1003.0), (0.1, 1003.2)], [0, 0, 0, 0.1]),
    "no times": ([(0.0, 1000.0), (0.0, 1000.1), (0.0, 1005.0)], [0, 0, 0]),
    "a leap ahead": ([(0.0, 1000.0), (3600.0, 1000.1), (3600.1, 1000.3)], [0, 0, 0.1]),
    "times since 1970": ([(1.7e9, 1000.0), (1.7e9 + 0.1, 1000.3)], [0, 0.2]),
}


@pytest.mark.parametrize("name", STREAM_CLOCK)
def test_ages_of_a_streams_frames(name: str) -> None:
    frames, expected = STREAM_CLOCK[name]
    assert ages(StreamClock(), frames) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("drift", [100e-6, -100e-6])
def test_clocks_that_drift_for_an_hour(drift: float) -> None:
    """A camera's clock may be off by 0.36 s by then; within a window that is 3 ms."""
    frames = [(n / 10, 1000 + n / 10 * (1 + drift)) for n in range(36_000)]
    found = ages(StreamClock(window_s=30.0), frames)
    assert min(found) >= 0
    assert max(found) < 0.0035


def test_a_delay_that_has_grown_for_good_is_the_networks_in_the_end() -> None:
    clock = StreamClock(window_s=30.0)
    frames = [(n / 10, 1000 + n / 10 + (0.5 if n > 100 else 0.0)) for n in range(1000)]
    found = ages(clock, frames)
    assert found[101] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.0, abs=1e-6)


def test_no_frame_is_from_the_future() -> None:
    random, clock = np.random.default_rng(0), StreamClock(window_s=1.0)
    frames = [(float(random.choice([n / 10, 0.0, n])), 1000 + n / 10 + float(random.random())) for n in range(2000)]
    assert min(ages(clock, frames)) >= 0


def test_a_silent_device_whose_node_has_gone_is_given_up_at_once() -> None:
    """A reader that holds the old node would make the device come back under another name."""
    gone: list[str] = []
    limits = Limits(stalled=20.0, reading=30.0)
    spec = DeviceSpec("faulty", "hang:3")
    source = LiveSource("x", spec, limits=limits, missing=lambda: gone[0] if gone else None)
    with source:
        frames = iter(source)
        for _ in range(3):
            next(frames)
        gone.append("its node is gone")
        threading.Timer(1.5, source.stop).start()
        assert list(frames) == []
    assert [notice.kind for notice in source.notices] == ["source-open", "source-lost"]
    assert "its node is gone" in source.notices[-1].text


def test_a_device_that_says_its_name_is_not_named_twice() -> None:
    source = LiveSource("picamera:0", DeviceSpec("faulty", "absent"))
    with pytest.raises(SourceError) as error:
        source._note_lost("picamera:0: no such camera", ever=False)
    assert str(error.value) == "picamera:0: no such camera"
