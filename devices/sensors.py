"""What a board feels now: heat, throttling, power, frequency and load, from sysfs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devices.board import Board
from devices.files import number, read
from devices.heat import Throttling, find_zones, hottest
from devices.power import Power, Supplies

FIND_AGAIN_S = 10.0
"""At most this often are vanished files looked for anew."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the sensors; None, or an empty name, where the board has none.

    `zone` names where `temperature_c` is measured, the hottest of those that count. `throttled` holds "under-voltage",
    "frequency-capped", "throttled" and "soft-temperature-limit". `watts` is of the whole board where a sensor has that,
    else of its rails or its processor. `battery` is in [0, 1]. `mhz` is of the first core, and `load` the minute's
    average by core.
    """

    temperature_c: float | None = None
    zone: str = ""
    throttled: frozenset[str] = frozenset()
    throttled_since_boot: frozenset[str] = frozenset()
    watts: float | None = None
    battery: float | None = None
    on_battery: bool | None = None
    governor: str = ""
    mhz: float | None = None
    load: float | None = None


class Sensors:
    """The sensors of a board under `root`: found once, and again when one vanishes. For one thread at a time."""

    def __init__(self, board: Board, root: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._board, self._root, self._clock = board, root, clock
        self._throttling, self._power, self._supplies = Throttling(), Power(), Supplies()
        cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
        self._governor, self._frequency = str(cpufreq / "scaling_governor"), str(cpufreq / "scaling_cur_freq")
        self._load = str(root / "proc/loadavg")
        self._find()

    def read(self) -> Reading:
        """One look; never raises."""
        now_s = self._clock()
        if now_s - self._found_s >= FIND_AGAIN_S and not all(map(os.path.exists, self._files)):
            self._find()
        temperature_c, zone = hottest(self._zones)
        throttled, since_boot = self._throttling.read()
        battery, on_battery = self._supplies.read()
        khz = number(self._frequency)
        return Reading(
            temperature_c=temperature_c,
            zone=zone,
            throttled=throttled,
            throttled_since_boot=since_boot,
            watts=self._power.read(now_s),
            battery=battery,
            on_battery=on_battery,
            governor=read(self._governor, 64),
            mhz=khz / 1000 if khz is not None and khz > 0 else None,
            load=self._load_by_core(),
        )

    def _find(self) -> None:
        self._found_s = self._clock()
        self._zones = find_zones(self._root, self._board.thermal)
        self._throttling.find(self._root)
        self._power.find(self._root, self._board.power)
        self._supplies.find(self._root)
        groups = (self._throttling.files, self._power.files, self._supplies.files)
        self._files = [*(zone.path for zone in self._zones), *(path for group in groups for path in group)]

    def _load_by_core(self) -> float | None:
        try:
            load = float(read(self._load, 128).split()[0])
        except (ValueError, IndexError):
            return None
        return load / max(1, self._board.cores) if 0 <= load < float("inf") else None
