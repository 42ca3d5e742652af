"""Watts and batteries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devices.files import number, read, scan
from devices.vcio import DEVICE, ask, rails_watts

WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""Rails through which all the others are fed; where a board has none of them its rails are summed."""

PARTS = ("VDDQ_VDD2_1V8AO",)
"""Rails that another one feeds, VIN_SYS_5V0 on the AGX Orin, and that would be counted twice."""

SHORTEST_S = 0.05
HIGHEST_WATTS = 1000.0
"""No processor takes more; what says so is a counter that was set back."""
SURE_WATTS = 250.0
"""What a counter that wraps is trusted to have counted at most."""


@dataclass(frozen=True, slots=True)
class Rail:
    """One rail's files: millivolts and milliamperes, or the one file in which `per_watt` are a watt."""

    name: str
    files: tuple[str, ...]
    per_watt: float

    def watts(self) -> float | None:
        """What flows now."""
        values = [number(path) for path in self.files]
        product = 1
        for value in values:
            if value is None:
                return None
            product *= value
        return product / self.per_watt


@dataclass(slots=True)
class Energy:
    """An energy counter in microjoules that wraps: watts are what it counted between two reads."""

    path: str
    wraps_at: int
    last: tuple[float, int] | None = None
    watts: float | None = None

    def read(self, now_s: float) -> float | None:
        """Watts since the read before, when that is neither too short ago nor so long that it may have wrapped twice."""
        counted = number(self.path)
        if counted is None or counted < 0:
            self.last = self.watts = None
            return None
        if self.last is None:
            self.last = (now_s, counted)
            return None
        elapsed_s, used = now_s - self.last[0], counted - self.last[1]
        if elapsed_s < SHORTEST_S:
            return self.watts
        self.last = (now_s, counted)
        if used < 0:
            used += self.wraps_at
        watts = used / 1e6 / elapsed_s
        self.watts = watts if 0 <= watts <= HIGHEST_WATTS and elapsed_s * SURE_WATTS < self.wraps_at / 1e6 else None
        return self.watts


def _ina3221(root: Path) -> list[Rail]:
    rails = []
    for chip in scan(root / "sys/class/hwmon", "hwmon"):
        if read(chip / "name", 64) == "ina3221":
            for label in (chip / f"in{channel}_label" for channel in (1, 2, 3)):
                channel = label.name[2]
                files = (str(chip / f"in{channel}_input"), str(chip / f"curr{channel}_input"))
                rails.append(Rail(read(label, 64), files, 1e6))
    for device in scan(root / "sys/bus/i2c/drivers/ina3221x"):  # NVIDIA's own driver, of the Jetson Nano
        for chip in scan(device, "iio:device"):
            rails += [
                Rail(read(chip / f"rail_name_{channel}", 64), (str(chip / f"in_power{channel}_input"),), 1e3)
                for channel in (0, 1, 2)
            ]
    return rails


def _ina2xx(root: Path) -> list[Rail]:
    chips = [chip for chip in scan(root / "sys/class/hwmon", "hwmon") if read(chip / "name", 64).startswith("ina2")]
    return [Rail(chip.name, (str(chip / "power1_input"),), 1e6) for chip in chips]


RAILS: Mapping[str, Callable[[Path], list[Rail]]] = {"ina3221": _ina3221, "ina2xx": _ina2xx}
"""Name of a sensor → what finds its rails."""


@dataclass(slots=True)
class Pmic:
    """The Raspberry Pi 5's power management chip, which is slow to answer and is asked once a second."""

    device: str
    asked_s: float = float("-inf")
    watts: float | None = None

    def read(self, now_s: float) -> float | None:
        """Watts as of the last second."""
        if now_s - self.asked_s >= 1.0:
            self.asked_s, self.watts = now_s, rails_watts(ask(self.device, "pmic_read_adc"))
        return self.watts


@dataclass(slots=True)
class Power:
    """The sensors of a board's power: the whole board's rail, or all rails, or else what tells of the processor."""

    rails: list[Rail] = field(default_factory=list)
    counters: list[Energy | Pmic] = field(default_factory=list)

    def find(self, root: Path, sensors: tuple[str, ...]) -> None:
        """Look for those sensors."""
        found = [rail for name in sensors if name in RAILS for rail in RAILS[name](root)]
        rails = [rail for rail in found if rail.watts() is not None]
        whole = [rail for rail in rails if rail.name in WHOLE_BOARD]
        self.rails = whole or [rail for rail in rails if rail.name not in PARTS]
        self.counters = [*_packages(root)] if "rapl" in sensors else []
        if "rpi-pmic" in sensors and rails_watts(ask(str(root / DEVICE), "pmic_read_adc")) is not None:
            self.counters.append(Pmic(str(root / DEVICE)))

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [
            *(path for rail in self.rails for path in rail.files),
            *(one.path for one in self.counters if isinstance(one, Energy)),
        ]

    def read(self, now_s: float) -> float | None:
        """Watts, or None where nothing measures them yet."""
        measured = [rail.watts() for rail in self.rails] or [counter.read(now_s) for counter in self.counters]
        known = [watts for watts in measured if watts is not None]
        return sum(known) if known and len(known) == len(measured) else None


def _packages(root: Path) -> list[Energy]:
    """The processor packages of RAPL; "psys", the whole machine, is on few and its parts are counted within the packages."""
    places = [place for place in scan(root / "sys/class/powercap", "intel-rapl:") if place.name.count(":") == 1]
    packages = [place for place in places if read(place / "name", 64).startswith("package")]
    counters = [Energy(str(place / "energy_uj"), number(place / "max_energy_range_uj") or 0) for place in packages]
    return [counter for counter in counters if counter.wraps_at > 0 and number(counter.path) is not None]


@dataclass(slots=True)
class Supplies:
    """Batteries and what feeds the board from outside."""

    batteries: list[Path] = field(default_factory=list)
    mains: list[str] = field(default_factory=list)

    def find(self, root: Path) -> None:
        """Look for them; the batteries of mice and the like do not count."""
        kinds = {place: read(place / "type", 64) for place in scan(root / "sys/class/power_supply")}
        own = {place: kind for place, kind in kinds.items() if read(place / "scope", 64) != "Device"}
        self.batteries = [place for place, kind in own.items() if kind == "Battery"]
        self.mains = [str(place / "online") for place, kind in own.items() if kind.startswith(("Mains", "USB"))]

    @property
    def files(self) -> list[str]:
        """One of each."""
        return [*(str(place / "status") for place in self.batteries), *self.mains]

    def read(self) -> tuple[float | None, bool | None]:
        """How full the batteries are, in [0, 1], and whether the board lives on them."""
        levels = [level for place in self.batteries if (level := number(place / "capacity")) is not None and 0 <= level <= 100]
        states = [state for place in self.batteries if (state := read(place / "status", 32))]
        online = [value for path in self.mains if (value := number(path)) is not None]
        battery = sum(levels) / len(levels) / 100 if levels else None
        if any(online):
            return battery, False
        if states:
            return battery, "Discharging" in states
        return battery, True if online and self.batteries else None
