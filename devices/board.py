"""A board is data, never a branch: its literal says what the rest of the project would otherwise ask with an `if`."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Board:
    """What the runtime needs to know of a machine.

    `models` are prefixes of the device tree's model string. `threads` is how many the engine gets. `spin` keeps them
    hot between the operators of one inference, never between frames (docs/decisions/0006-spinning.md).
    """

    name: str
    machine: str
    cores: int
    threads: int
    spin: bool
    dotprod: bool = False
    models: tuple[str, ...] = ()


BOARDS = (
    Board("raspberry-pi-zero-2w", "aarch64", 4, 3, False, models=("Raspberry Pi Zero 2 W",)),
    Board("raspberry-pi-3", "aarch64", 4, 3, False, models=("Raspberry Pi 3",)),
    Board("raspberry-pi-4", "aarch64", 4, 3, False, models=("Raspberry Pi 4", "Raspberry Pi Compute Module 4")),
    Board("raspberry-pi-5", "aarch64", 4, 3, True, dotprod=True, models=("Raspberry Pi 5", "Raspberry Pi Compute Module 5")),
    Board("jetson-nano", "aarch64", 4, 3, False, models=("NVIDIA Jetson Nano",)),
    Board("jetson-orin-nano", "aarch64", 6, 4, True, dotprod=True, models=("NVIDIA Jetson Orin Nano", "NVIDIA Orin Nano")),
    Board("jetson-agx-orin", "aarch64", 12, 4, True, dotprod=True, models=("NVIDIA Jetson AGX Orin", "Jetson AGX Orin")),
)
"""Known boards. Thread counts leave one core to the camera."""

GENERIC = {
    "aarch64": Board("generic-arm64", "aarch64", 0, 0, False),
    "armv7l": Board("generic-armv7", "armv7l", 0, 0, False),
    "x86_64": Board("generic-x86-64", "x86_64", 0, 0, True),
}
"""Machine → what to assume of a board that no literal names; cores and threads are filled in from the machine."""

INTEGER_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

MACHINE_ALIASES = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}


def detect(root: Path = Path("/"), machine: str | None = None, cores: int | None = None) -> Board:
    """The board this is, by device tree under `root`, else a generic one for the machine; never raises.

    `machine` and `cores` default to this computer's; a container's CPU limit counts as its cores where affinity shows it.
    """
    machine = (machine or platform.machine()).lower()
    machine = MACHINE_ALIASES.get(machine, machine)
    cores = cores or _available_cores()
    model = _device_tree_model(root)
    for board in BOARDS:
        if board.machine == machine and model.startswith(board.models):
            return replace(board, threads=max(1, min(board.threads, cores)))
    generic = GENERIC.get(machine, Board(f"generic-{machine or 'unknown'}", machine, 0, 0, False))
    return replace(generic, cores=cores, threads=max(1, min(4, cores)))


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device_tree_model(root: Path) -> str:
    for path in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        try:
            return (root / path).read_bytes().rstrip(b"\0\n").decode("utf-8", "replace")
        except OSError:
            continue
    return ""


def processor() -> str:
    """The processor's name, its cores, and the features that matter to integer kernels, by the kernel's account."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set((known.get("flags") or known.get("Features") or "").split())
    features = " ".join(feature for feature in INTEGER_FEATURES if feature in flags)
    return f"{known.get('model name') or platform.machine()}, {os.cpu_count()} cores, {features or 'no features of note'}"
