"""What the operating system says of the machine; every function takes a `root` that tests can fake, and none raises."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devices.files import number, read, scan

INTEGER_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

CORAL_USB = (("1a6e", "089a"), ("18d1", "9302"))
"""Vendor and product of a Coral USB Accelerator: before its firmware is loaded, and after."""

ARM_PARTS = {
    "0xc07": "cortex-a7",
    "0xc09": "cortex-a9",
    "0xc0f": "cortex-a15",
    "0xd03": "cortex-a53",
    "0xd04": "cortex-a35",
    "0xd05": "cortex-a55",
    "0xd07": "cortex-a57",
    "0xd08": "cortex-a72",
    "0xd09": "cortex-a73",
    "0xd0a": "cortex-a75",
    "0xd0b": "cortex-a76",
    "0xd0c": "neoverse-n1",
    "0xd0d": "cortex-a77",
    "0xd40": "neoverse-v1",
    "0xd41": "cortex-a78",
    "0xd42": "cortex-a78ae",
    "0xd49": "neoverse-n2",
    "0xd4f": "neoverse-v2",
}
"""ARM's own cores by the "CPU part" of /proc/cpuinfo."""


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The processor's name, its cores, and its features as the kernel names them."""

    name: str
    cores: int
    features: frozenset[str]


def cpu(root: Path = Path("/")) -> CpuInfo:
    """The processor by /proc/cpuinfo."""
    fields = list(_cpuinfo(root))
    known = dict(fields)
    features = frozenset((known.get("flags") or known.get("Features") or "").split())
    cores = sum(1 for key, _ in fields if key == "processor") or os.cpu_count() or 1
    name = known.get("model name") or ARM_PARTS.get(known.get("CPU part", "")) or platform.machine()
    return CpuInfo(name, cores, features)


def core_kinds(root: Path = Path("/")) -> list[tuple[str, int]]:
    """Each core's name, empty where it has none, and its highest MHz, 0 where unknown."""
    cores: list[tuple[str, int]] = []
    for key, value in _cpuinfo(root):
        if key == "processor":
            khz = number(root / f"sys/devices/system/cpu/cpu{value}/cpufreq/cpuinfo_max_freq")
            cores.append(("", int(khz or 0) // 1000))
        elif key == "CPU part" and cores:
            cores[-1] = (ARM_PARTS.get(value, value), cores[-1][1])
        elif key == "model name" and cores:
            cores[-1] = (value, cores[-1][1])
    return cores


def processor() -> str:
    """The processor's name, its cores, and the features that matter to integer kernels, by the kernel's account."""
    known = cpu()
    features = " ".join(feature for feature in INTEGER_FEATURES if feature in known.features)
    return f"{known.name}, {os.cpu_count()} cores, {features or 'no features of note'}"


def memory(root: Path = Path("/")) -> tuple[int, int]:
    """Total and available memory in MiB; zeros where unknown."""
    found = _meminfo(root)
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)


def swap_mb(root: Path = Path("/")) -> int:
    """Swap in MiB; 0 where there is none, or nobody can say."""
    return _meminfo(root).get("SwapTotal", 0)


def os_release(root: Path = Path("/")) -> dict[str, str]:
    """The fields of os-release, such as PRETTY_NAME and VERSION_ID."""
    text = read(root / "etc/os-release") or read(root / "usr/lib/os-release")
    lines = (line.strip().partition("=") for line in text.splitlines())
    return {name: value.strip().strip("\"'") for name, equals, value in lines if equals and not name.startswith("#")}


def disk_free_mb(path: Path) -> int | None:
    """MiB that this user may still write where `path` is; None where nobody can say."""
    try:
        return shutil.disk_usage(path).free >> 20
    except (OSError, ValueError):
        return None


def coral_usb(root: Path = Path("/")) -> bool:
    """Whether a Coral USB Accelerator is plugged in."""
    places = scan(root / "sys/bus/usb/devices")
    return any((read(place / "idVendor"), read(place / "idProduct")) in CORAL_USB for place in places)


def coral_pci(root: Path = Path("/")) -> bool:
    """Whether there is an Edge TPU on PCIe whose driver is loaded, as on the Coral Dev Board."""
    return bool(scan(root / "sys/class/apex", "apex_"))


def _meminfo(root: Path) -> dict[str, int]:
    """What is a size there, in MiB."""
    found = {}
    for line in read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        word = (value.split() or [""])[0]
        if word.isascii() and word.isdigit() and len(word) < 20:
            found[name] = int(word) // 1024
    return found


def _cpuinfo(root: Path) -> Iterator[tuple[str, str]]:
    for line in read(root / "proc/cpuinfo", 1 << 20).splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()
