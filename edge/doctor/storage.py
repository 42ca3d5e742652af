"""Checks of where events go: room, permission, and a root that is read-only or forgets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.doctor.check import Check

LITTLE_MB, TOO_LITTLE_MB = 500, 20
FORGETFUL = re.compile(r"(?:^|\s)(?:boot=overlay|overlayroot=(?!disabled)\S+)")
"""Kernel parameters of Raspberry Pi OS and of overlayroot."""


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """`folder` is where events are to go, `there` whether it is a folder; `mounts` is /proc/mounts, `cmdline` the kernel's.

    `writable` is what this user may do, and `read_only` the file system that lets nobody write.
    """

    folder: str
    there: bool
    writable: bool
    read_only: bool
    free_mb: int | None
    mounts: str
    cmdline: str


def storage_checks(facts: StorageFacts) -> list[Check]:
    """The folder of events, and the root file system."""
    return [_events(facts), _root(facts)]


def _events(facts: StorageFacts) -> Check:
    if not facts.there:
        return Check("events", "fail", f"{facts.folder} is no folder", f"mkdir -p {facts.folder}")
    if facts.read_only:
        text = f"{facts.folder} is on a read-only file system"
        return Check("events", "fail", text, "give a folder on another file system, as /var/lib on a partition of its own")
    if not facts.writable:
        mend = f"sudo chown $USER {facts.folder}, or give another folder"
        return Check("events", "fail", f"{facts.folder} cannot be written to", mend)
    if facts.free_mb is None:
        return Check("events", "warn", f"{facts.folder}: how much is free is unknown", f"df -h {facts.folder}")
    text = f"{facts.free_mb} MiB free in {facts.folder}"
    if facts.free_mb >= LITTLE_MB:
        return Check("events", "ok", text)
    mend = f"free some space: sudo du -xh {facts.folder} | sort -h | tail"
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
