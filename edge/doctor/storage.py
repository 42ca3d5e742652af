"""Checks of where events go: room, permission, and a root that is read-only or forgets."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from devices import system
from edge.doctor.check import Check

LITTLE_MB, TOO_LITTLE_MB = 500, 20
FORGETFUL = re.compile(r"(?:^|\s)(?:boot=overlay|overlayroot=(?!disabled)\S+)")
"""Kernel parameters of Raspberry Pi OS and of overlayroot."""


KERNELS = frozenset(
    {"bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "mqueue", "proc", "pstore", "securityfs", "sysfs", "tracefs"}
)
"""File systems that keep no files, whoever asks."""


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """`folder` is where events are to go, `there` whether it is a folder; `mounts` is /proc/mounts, `cmdline` the kernel's.

    `writable` is what `user` may do, and `read_only` the file system that lets nobody write. `denied`: the user may not even
    look. `device` is what was given instead of a folder, `file` a file there that cannot be written. `yours`: it is below
    the user's home. `makeable`: the user may make the folder; `blocked` is a file where one of its parents should be.
    """

    folder: Path
    there: bool
    writable: bool
    read_only: bool
    free_mb: int | None
    mounts: str
    cmdline: str
    user: str = "this user"
    denied: bool = False
    device: str = ""
    file: str = ""
    yours: bool = False
    makeable: bool = True
    blocked: str = ""


def storage_facts(given: Path, mounts: str, cmdline: str) -> StorageFacts:
    """The facts of a folder, of the one that holds a file, or will hold one with a name such as events.jsonl."""
    path = given.absolute()
    try:
        denied, mode = False, os.stat(path).st_mode
    except PermissionError:
        denied, mode = True, 0
    except (OSError, ValueError):
        denied, mode = False, 0
    is_folder = stat.S_ISDIR(mode)
    is_file = stat.S_ISREG(mode) or (not mode and bool(path.suffix))
    folder = path.parent if is_file else path
    ancestor = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    return StorageFacts(
        folder=folder,
        there=os.path.isdir(folder),
        writable=os.access(folder, os.W_OK | os.X_OK),
        read_only=_read_only(folder),
        free_mb=system.disk_free_mb(folder),
        mounts=mounts,
        cmdline=cmdline,
        user=_user(),
        denied=denied,
        device=str(path) if mode and not is_folder and not is_file else "",
        file=str(path) if stat.S_ISREG(mode) and not os.access(path, os.W_OK) else "",
        yours=folder.is_relative_to(os.path.expanduser("~")) and os.path.expanduser("~") != "/",
        makeable=os.access(ancestor, os.W_OK | os.X_OK),
        blocked="" if os.path.isdir(ancestor) else str(ancestor),
    )


def storage_checks(facts: StorageFacts) -> list[Check]:
    """The folder of events, and the root file system."""
    return [_events(facts), _root(facts)]


def _events(facts: StorageFacts) -> Check:
    folder = shlex.quote(str(facts.folder))
    kernel = _file_system(facts.folder, facts.mounts)
    if facts.denied:
        text = f"{folder} cannot be looked into by {facts.user}"
        return Check("events", "fail", text, "run it as the account that edge-run has")
    if facts.device:
        return Check(
            "events", "warn", f"{shlex.quote(facts.device)} is a device, which keeps nothing", "give --events a folder"
        )
    if kernel in KERNELS:
        text = f"{folder} cannot be written to: it is the kernel's own ({kernel})"
        return Check("events", "fail", text, "give --events a folder on a disk")
    if facts.blocked:
        return Check("events", "fail", f"{shlex.quote(facts.blocked)} is no folder", "give --events another folder")
    if not facts.there:
        mend = f"mkdir -p {folder}" if facts.makeable else f"sudo install -d -o $USER {folder}"
        return Check("events", "fail", f"{folder} is no folder", mend)
    if facts.read_only:
        text = f"{folder} is on a read-only file system"
        return Check("events", "fail", text, "give a folder on another file system, as /var/lib on a partition of its own")
    if facts.file and facts.writable:
        text = f"{shlex.quote(facts.file)} cannot be written to by {facts.user}"
        return Check("events", "fail", text, "give --events another file, or run it as the account that edge-run has")
    if not facts.writable:
        new = shlex.quote(str(facts.folder / "edge-run"))
        own, other = (
            f"sudo chown $USER {folder}, or give another",
            f"give --events a folder of yours, or sudo install -d -o $USER {new}",
        )
        mend = own if facts.yours else other
        return Check("events", "fail", f"{folder} cannot be written to by {facts.user}", mend)
    if facts.free_mb is None:
        return Check("events", "warn", f"{folder}: how much is free is unknown", f"df -h {folder}")
    text = f"{facts.free_mb} MiB free in {folder}"
    if facts.free_mb >= LITTLE_MB:
        return Check("events", "ok", text)
    mend = f"free some space: sudo du -xh {folder} | sort -h | tail"
    return Check("events", "fail" if facts.free_mb < TOO_LITTLE_MB else "warn", text, mend)


def _root(facts: StorageFacts) -> Check:
    rows = [row for row in (line.split() for line in facts.mounts.splitlines()) if len(row) > 3 and row[1] == "/"]
    if not rows:
        return Check("root", "warn", "unknown, /proc/mounts names no root", "findmnt /")
    kind, options = rows[-1][2], rows[-1][3].split(",")
    if FORGETFUL.search(facts.cmdline):
        text = f"{kind}, an overlay in memory: what is written is lost at the next start"
        return Check(
            "root", "warn", text, "let --events lie on another file system, or sudo raspi-config nonint disable_overlayfs"
        )
    if "ro" in options:
        return Check("root", "ok", f"{kind}, read-only: events and spool need a file system of their own")
    return Check("root", "ok", f"{kind}, writable")


def _read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (OSError, ValueError):
        return False


def _file_system(folder: Path, mounts: str) -> str:
    """What is mounted where the folder is, as /proc/mounts calls it; empty where it does not tell."""
    rows = [row for row in map(str.split, mounts.splitlines()) if len(row) > 2 and folder.is_relative_to(row[1])]
    return max(rows, key=lambda row: len(row[1]))[2] if rows else ""


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
