"""Which board this is, by the kernel's account of it."""

from __future__ import annotations

import os
import platform
from collections import Counter
from dataclasses import replace
from pathlib import Path

from devices import system
from devices.board import DOT_PRODUCTS, Board, Cluster, Thermal
from devices.coral import CORALS, EDGE_TPU
from devices.files import number, read, scan
from devices.generic import GENERIC, UNKNOWN
from devices.jetson import JETSONS
from devices.raspberry_pi import RASPBERRY_PIS

__all__ = ["BOARDS", "GENERIC", "MACHINE_ALIASES", "detect"]

BOARDS = (*RASPBERRY_PIS, *JETSONS, *CORALS)
"""Known boards. Thread counts leave one core to the camera."""

MACHINE_ALIASES = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}

DEVICE_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")


def detect(root: Path = Path("/"), machine: str | None = None, cores: int | None = None) -> Board:
    """The board this is, by device tree under `root`, else a generic one for the machine; never raises.

    `machine` and `cores` default to this computer's; a container's CPU limit counts as its cores where affinity shows it.
    An Edge TPU comes first of the engines of whichever board it is plugged into.
    """
    machine = (machine or platform.machine()).lower()
    machine = MACHINE_ALIASES.get(machine, machine)
    cores = cores or _available_cores()
    board = _by_device_tree(root, machine)
    found = replace(board, threads=max(1, min(board.threads, cores))) if board else _generic(root, machine, cores)
    if (system.coral_usb(root) or system.coral_pci(root)) and EDGE_TPU not in found.engines:
        found = replace(found, engines=(EDGE_TPU, *found.engines))
    return found


def _by_device_tree(root: Path, machine: str) -> Board | None:
    """By the longest model that fits, else by the first compatible string that a board has."""
    boards = [board for board in BOARDS if board.machine == machine]
    models = [read(root / tree / "model") for tree in DEVICE_TREES]
    fitting = [(prefix, board) for board in boards for prefix in board.models if any(m.startswith(prefix) for m in models)]
    if fitting:
        return max(fitting, key=lambda pair: len(pair[0]))[1]
    strings = [string for tree in DEVICE_TREES for string in read(root / tree / "compatible").split("\0")]
    return next((board for string in strings for board in boards if string in board.compatible), None)


def _generic(root: Path, machine: str, cores: int) -> Board:
    cpu = system.cpu(root)
    has_dot_products = not DOT_PRODUCTS.isdisjoint(cpu.features)
    alike = [board for board in GENERIC if board.machine == machine]
    board = max(alike, key=lambda board: board.dotprod == has_dot_products, default=None)
    if board is None:
        board = replace(UNKNOWN, name=f"{UNKNOWN.name}-{machine or 'unknown'}", machine=machine)
    total_mb, _ = system.memory(root)
    return replace(
        board,
        clusters=_clusters(root, cores),
        memory_mb=(total_mb,) if total_mb else (),
        features=cpu.features or board.features,
        threads=max(1, min(4, cores)),
        thermal=_thermal(root, board.thermal),
    )


def _clusters(root: Path, cores: int) -> tuple[Cluster, ...]:
    """Cores that are alike, fastest first; one cluster where this process may not use all of them."""
    kinds = system.core_kinds(root)
    top = max((mhz for _, mhz in kinds), default=0)
    if len(kinds) != cores:
        names = {name for name, _ in kinds}
        return (Cluster(names.pop() if len(names) == 1 else "", cores, top),)
    counted = sorted(Counter(kinds).items(), key=lambda item: (-item[0][1], item[0][0]))
    return tuple(Cluster(core, count, mhz) for (core, mhz), count in counted)


def _thermal(root: Path, assumed: Thermal) -> Thermal:
    """The lowest trip points of the zones that count, where they make sense."""
    passive: list[float] = []
    critical: list[float] = []
    for zone in scan(root / "sys/class/thermal", "thermal_zone"):
        if read(zone / "type").startswith(assumed.zones):
            for place in scan(zone, "trip_point_", "_type"):
                kind, trip = read(place), number(place.with_name(place.name.removesuffix("_type") + "_temp"))
                if trip is not None and 50_000 <= trip <= 125_000 and kind in ("passive", "critical"):
                    (passive if kind == "passive" else critical).append(trip / 1000)
    throttle_c = min(passive, default=assumed.throttle_c)
    critical_c = min(critical, default=max(assumed.critical_c, throttle_c + 5))
    if not throttle_c < critical_c:
        return assumed
    return replace(assumed, throttle_c=throttle_c, critical_c=critical_c, limit_c=min(assumed.limit_c, throttle_c - 5))


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
