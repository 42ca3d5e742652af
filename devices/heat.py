"""Temperatures, and whether something slows the board down."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from devices.board import Thermal
from devices.files import number, read, scan
from devices.vcio import DEVICE, ask, throttled_word

PLAUSIBLE = range(-40_000, 150_001)
"""Thousandths of a degree; a sensor that is switched off says other things."""

PI_FLAGS = ("under-voltage", "frequency-capped", "throttled", "soft-temperature-limit")
"""Bits 0 to 3 of the firmware's word, now; bits 16 to 19, since boot."""

SLOWING = ("cpufreq-", "thermal-cpufreq-", "devfreq-", "thermal-devfreq-", "cpu-balanced", "gpu-balanced", "Processor")
"""Starts of the `type` of cooling devices that cool by slowing a processor down; the others are fans, say.

Of those of one type, as x86 has one a core, one is read: they are set together."""


@dataclass(frozen=True, slots=True)
class Zone:
    """Where a temperature is read."""

    name: str
    path: str


def find_zones(root: Path, thermal: Thermal) -> list[Zone]:
    """The thermal zones that count and the like-named hwmon sensors; all zones where none of them counts."""
    zones = [Zone(read(place / "type", 64), str(place / "temp")) for place in scan(root / "sys/class/thermal", "thermal_zone")]
    chips = [Zone(read(place / "name", 64), str(place / "temp1_input")) for place in scan(root / "sys/class/hwmon", "hwmon")]
    there = [zone for zone in (*zones, *chips) if os.path.exists(zone.path)]
    return [zone for zone in there if zone.name.startswith(thermal.zones)] or [zone for zone in there if zone in zones]


def hottest(zones: list[Zone]) -> tuple[float | None, str]:
    """The highest temperature and the name of its zone."""
    measured = [(value, zone.name) for zone in zones if (value := number(zone.path)) is not None and value in PLAUSIBLE]
    if not measured:
        return None, ""
    value, name = max(measured)
    return value / 1000, name


@dataclass(slots=True)
class Throttling:
    """The files that tell of throttling, what was seen of it, and how often their counters have counted."""

    firmware: list[str] = field(default_factory=list)
    mailbox: str = ""
    alarms: list[str] = field(default_factory=list)
    cooling: list[str] = field(default_factory=list)
    counters: list[tuple[str, str]] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def find(self, root: Path) -> None:
        """Look for the files; what was counted and seen is kept."""
        socs = scan(root / "sys/devices/platform", "soc")
        chips = {place: read(place / "name", 64) for place in scan(root / "sys/class/hwmon", "hwmon")}
        cooling = {read(place / "type", 64): place for place in scan(root / "sys/class/thermal", "cooling_device")}
        cores = scan(root / "sys/devices/system/cpu", "cpu")
        packages = {read(core / "topology/physical_package_id", 16): core for core in cores}
        mailbox = str(root / DEVICE)
        self.mailbox = "" if throttled_word(ask(mailbox, "get_throttled")) is None else mailbox
        # the file remembers no more than the last seconds, and kernels mean to drop it; but all users may read it
        firmware = [place / "get_throttled" for soc in socs for place in scan(soc, "soc", ":firmware")]
        self.firmware = [str(path) for path in firmware if not self.mailbox and number(path, 16) is not None]
        self.alarms = [str(place / "in0_lcrit_alarm") for place, name in chips.items() if name == "rpi_volt"]
        self.cooling = [str(place / "cur_state") for kind, place in cooling.items() if kind.startswith(SLOWING)]
        events = [path for place, name in chips.items() if name == "soctherm_oc" for path in scan(place, "oc", "_event_cnt")]
        throttles = [core / "thermal_throttle/package_throttle_count" for core in packages.values()]
        self.counters = [  # the first over-current event of an Orin is its under-voltage
            *((str(path), "under-voltage" if path.name == "oc1_event_cnt" else "throttled") for path in events),
            *((str(path), "throttled") for path in throttles if number(path) is not None),
        ]

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [*self.firmware, *self.alarms, *self.cooling, *(path for path, _ in self.counters)]

    def read(self) -> tuple[frozenset[str], frozenset[str]]:
        """What throttles now, and what has since boot, as far as the board remembers it and this process saw it."""
        words = [max(0, number(path, 16) or 0) for path in self.firmware]
        if self.mailbox:
            words.append(throttled_word(ask(self.mailbox, "get_throttled")) or 0)
        now = {flag for word in words for bit, flag in enumerate(PI_FLAGS) if word >> bit & 1}
        self.seen |= {flag for word in words for bit, flag in enumerate(PI_FLAGS) if word >> (bit + 16) & 1}
        if any((number(path) or 0) > 0 for path in self.alarms):
            now.add("under-voltage")
        if any((number(path) or 0) > 0 for path in self.cooling):
            now.add("throttled")
        for path, flag in self.counters:
            count = number(path) or 0
            if count > self.counted.get(path, count):
                now.add(flag)
            if count > 0:
                self.seen.add(flag)
            self.counted[path] = count
        self.seen |= now
        return frozenset(now), frozenset(self.seen)
