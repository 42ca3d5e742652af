"""A command and everything it starts, seen from outside: when its lines come, CPU time, peak memory.

Only the standard library is imported here: the kernel counts the memory of the process that starts a child as the
child's own until it has its own image, so whoever imports this must stay the smaller.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36
SAMPLE_S = 0.1
LINGER_S = 2.0
"""How long descendants may outlive the command."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A command that has ended: its lines with the seconds after the start at which each was whole, and what it took."""

    lines: tuple[tuple[float, bytes], ...]
    whole_s: float
    cpu_s: float
    peak_mb: float


def watch(command: Sequence[str]) -> Watched:
    """Run a command that writes lines on standard output. Raises SystemExit with what it said when it fails."""
    adopt_orphans()
    strangers = children(os.getpid())
    with tempfile.TemporaryFile() as said, _MemorySampler(strangers) as sampler:
        started_s = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said)
        assert process.stdout is not None
        chunks: list[bytes] = []
        whole_at: list[int] = []  # bytes that had come ...
        came_s: list[float] = []  # ... by then
        while chunk := os.read(process.stdout.fileno(), 1 << 20):
            came_s.append(time.monotonic() - started_s)
            chunks.append(chunk)
            whole_at.append(len(chunk) + (whole_at[-1] if whole_at else 0))
        _, status, usage = os.wait4(process.pid, 0)
        whole_s = time.monotonic() - started_s
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        # The kernel's account of a process has the CPU time of those of its children that it waited for, and of no
        # others. Those that it left behind are ours now (adopt_orphans), so that waiting for them completes the sum.
        cpu_s = usage.ru_utime + usage.ru_stime + _wait_for_orphans(strangers)
        if process.returncode:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise SystemExit(f"{command[0]} exited {process.returncode}")
    # Two views, and the larger one counts. The kernel's high-water mark misses nothing, but is that of the largest single
    # process; the sum of the proportional shares (PSS) of the whole tree has the helpers with it, every shared page once,
    # but only sees an instant in 100 ms.
    high_water_mb = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    lines, end = [], 0
    for line in b"".join(chunks).splitlines(keepends=True):
        end += len(line)
        lines.append((came_s[bisect_left(whole_at, end)], line))
    return Watched(tuple(lines), whole_s, cpu_s, max(high_water_mb, sampler.peak_mb))


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (Linux; elsewhere they are not accounted for)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for_orphans(strangers: set[int]) -> float:
    """The CPU seconds of descendants that outlived the command. Raises SystemExit for one that does not end."""
    cpu_s, until_s = 0.0, time.monotonic() + LINGER_S
    while orphans := children(os.getpid()) - strangers:
        for pid in orphans:
            ended, _, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                cpu_s += usage.ru_utime + usage.ru_stime
            elif time.monotonic() > until_s:
                raise SystemExit(f"process {pid} outlived the command that started it by {LINGER_S} s")
        time.sleep(0.01)
    return cpu_s


def children(parent: int) -> set[int]:
    """The process ids of a process's children; none where there is no /proc."""
    return {pid for pid, its_parent in _parents().items() if its_parent == parent}


def descendants(ancestor: int, strangers: AbstractSet[int] = frozenset()) -> set[int]:
    """The process ids of its children, of theirs and so on, but for `strangers` and what came of them."""
    parents = _parents()
    family: set[int] = set()
    generation = {ancestor}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation} - strangers - family
        family |= generation
    return family


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:  # it has ended
                continue
    return parents


def _pss_mb(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Pss:")) / 1024
    except (OSError, StopIteration):  # it has ended, or the kernel has no such file
        return 0.0


class _MemorySampler:
    """The largest sum of the PSS of all our descendants, but for `strangers` and theirs, on a thread."""

    def __init__(self, strangers: set[int]) -> None:
        self.peak_mb = 0.0
        self._strangers = strangers
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._end.wait(SAMPLE_S):
            family = descendants(os.getpid(), self._strangers)
            self.peak_mb = max(self.peak_mb, sum(_pss_mb(pid) for pid in family))
