"""Checks of the machine itself: board, system, Python, heat, power, memory and clock; pure functions of facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from devices import Board, Cluster
from devices.sensors import Reading
from devices.system import CpuInfo
from edge.doctor.check import Check, Status

SIXTY_FOUR_BITS = ("aarch64", "x86_64", "arm64", "amd64")
LITTLE_MB, TOO_LITTLE_MB = 256, 96
SWAPLESS_MB = 1024
"""With less memory than this, and no swap, an upgrade or a second program can end edge-run."""
DYNAMIC_POWERSAVE = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
"""Drivers whose powersave follows the load."""
SANE_YEARS = range(2026, 2100)


@dataclass(frozen=True, slots=True)
class PythonFacts:
    """The running Python: version, bits of a pointer, the kernel's machine, whether it is in a virtual environment."""

    version: tuple[int, int, int]
    bits: int
    machine: str
    virtual: bool


def board_check(board: Board, cpu: CpuInfo, memory_mb: int) -> Check:
    """Which profile was chosen, and what the kernel says of the machine."""
    clusters = ", ".join(_cluster(cluster) for cluster in board.clusters if cluster.core)
    cores = f"{cpu.cores} core{'s' if cpu.cores != 1 else ''}"
    memory = f", {memory_mb} MiB" if memory_mb else ""
    profile = "no profile of its own" if board.generic else f"profile {board.name}"
    return Check("board", "ok", f"{board.title}, {clusters or cores}{memory}; {profile}")


def _cluster(cluster: Cluster) -> str:
    name = cluster.core.title() if cluster.core.startswith("cortex") else cluster.core
    return f"{cluster.count} {name}" + (f" at {cluster.mhz} MHz" if cluster.mhz else "")


def system_check(release: Mapping[str, str], kernel: str, machine: str, tegra: str = "") -> Check:
    """Distribution and kernel; `tegra` is /etc/nv_tegra_release, which has the version of a Jetson's Linux for Tegra."""
    name = release.get("PRETTY_NAME") or release.get("NAME") or ""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", tegra)
    l4t = f", L4T {found[1]}.{found[2]}" if found else ""
    if not name:
        return Check("system", "warn", f"unknown, /etc/os-release says nothing{l4t}; Linux {kernel} {machine}", "see uname -a")
    return Check("system", "ok", f"{name}{l4t}, Linux {kernel} {machine}")


def pages_check(page_bytes: int) -> Check:
    """The kernel's page size: what is built for smaller pages does not load, which the engines' own checks would show."""
    size = f"{page_bytes // 1024} kB"
    if page_bytes <= 4096:
        return Check("pages", "ok", size)
    return Check("pages", "ok", f"{size}; libraries built for 4 kB do not load, kernel=kernel8.img in config.txt has 4 kB")


def python_check(facts: PythonFacts) -> Check:
    """Version, and whether it has the machine's bits."""
    version = ".".join(map(str, facts.version))
    where = "in a virtual environment" if facts.virtual else "of the system"
    text = f"{version}, {facts.bits}-bit, {where}"
    if facts.bits == 32 and facts.machine.lower() in SIXTY_FOUR_BITS:
        text += f" on a 64-bit kernel ({facts.machine}): pip finds wheels for 32 bits only, of which there are few"
        return Check("python", "warn", text, "install the 64-bit system, as Raspberry Pi OS (64-bit)")
    return Check("python", "ok", text)


def power_check(reading: Reading, board: Board) -> Check:
    """Under-voltage and throttling, now and since the machine started."""
    now, since = sorted(reading.throttled), sorted(reading.throttled_since_boot - reading.throttled)
    watts = "" if reading.watts is None else f"; {reading.watts:.1f} W"
    battery = "" if reading.battery is None else f"; battery {reading.battery:.0%}"
    earlier = f"; since boot {', '.join(since)}" if since else ""
    if "under-voltage" in now:
        return Check("power", "fail", f"now {', '.join(now)}{earlier}{watts}{battery}", board.supply)
    if now:
        return Check("power", "warn", f"now {', '.join(now)}{earlier}{watts}{battery}", _cooling())
    if since:
        mend = board.supply if "under-voltage" in since else _cooling()
        return Check("power", "warn", f"since boot {', '.join(since)}{watts}{battery}", mend)
    if reading.on_battery:
        return Check("power", "warn", f"on battery{watts}{battery}", "plug it in, or hold it with edge-run --max-watts")
    return Check("power", "ok", f"no throttling known{watts}{battery}")


def temperature_check(reading: Reading, board: Board) -> Check:
    """The hottest zone against the profile's limit."""
    celsius, thermal = reading.temperature_c, board.thermal
    if celsius is None:
        return Check("temperature", "ok", "no sensor that counts")
    text = f"{celsius:.0f} °C ({reading.zone or 'a zone without a name'}), limit {thermal.limit_c:.0f}"
    if celsius >= thermal.critical_c:
        return Check("temperature", "fail", f"{text}, critical from {thermal.critical_c:.0f}", _cooling())
    if celsius >= thermal.throttle_c:
        return Check("temperature", "warn", f"{text}, slowed down from {thermal.throttle_c:.0f}", _cooling())
    if celsius >= thermal.limit_c:
        return Check("temperature", "warn", text, _cooling())
    return Check("temperature", "ok", text)


def governor_check(reading: Reading, driver: str) -> Check:
    """Whether the clock follows the load."""
    if not reading.governor:
        return Check("governor", "ok", "none, the clock is not the system's to change")
    mhz = "" if reading.mhz is None else f", core 0 at {reading.mhz:.0f} MHz"
    if reading.governor == "powersave" and driver not in DYNAMIC_POWERSAVE:
        mend = "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        return Check("governor", "warn", f"powersave holds the lowest clock{mhz}", mend)
    return Check("governor", "ok", f"{reading.governor}{mhz}")


def memory_check(total_mb: int, available_mb: int, swap_mb: int) -> Check:
    """Whether edge-run fits beside what runs; the default bundle takes up to 160 MB."""
    if not total_mb:
        return Check(
            "memory", "warn", "unknown, /proc/meminfo says nothing", "mount /proc, as in sudo mount -t proc proc /proc"
        )
    text = f"{available_mb} of {total_mb} MiB available, {swap_mb or 'no'}{' MiB' if swap_mb else ''} swap"
    if available_mb < LITTLE_MB:
        end = "edge-run will hardly fit" if available_mb < TOO_LITTLE_MB else "edge-run may not fit"
        status: Status = "fail" if available_mb < TOO_LITTLE_MB and not swap_mb else "warn"
        return Check("memory", status, f"{text}; {end}", "end what is not needed: ps -eo pid,rss,comm --sort=-rss | head")
    if not swap_mb and total_mb < SWAPLESS_MB:
        return Check("memory", "warn", text, "sudo apt install zram-tools")
    return Check("memory", "ok", text)


def clock_check(year: int, synchronized: bool | None, has_rtc: bool) -> Check:
    """Whether events will have the right time; `synchronized` is None where nobody can say."""
    without = "" if has_rtc else "; without a battery-backed clock it is wrong after each start until the network is there"
    mend = "sudo timedatectl set-ntp true"
    if year not in SANE_YEARS:
        return Check("clock", "fail", f"says it is {year}{without}", mend)
    if synchronized is None:
        return Check("clock", "warn", f"{year}; whether it is set by the network is unknown{without}", mend)
    if not synchronized:
        return Check("clock", "warn", f"{year}, not set by the network{without}", mend)
    return Check("clock", "ok", f"{year}, set by the network{without}")


def _cooling() -> str:
    return "give it a heat sink or a fan, or hold it with edge-run --max-temp"
