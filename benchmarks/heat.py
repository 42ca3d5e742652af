"""The governor on a simulated Raspberry Pi 4 in its case: does it hold the limit, does it rest, and what does it cost?

The board is three RC stages fitted to a published log and one for the case; the firmware throttles as documented. The
governor and the pace are the product's own, frame by frame. docs/heat.md has the sources, the fit and the table.

    python benchmarks/heat.py [--limit C] [--fit]
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from devices.sensors import Reading
from edge.governor import Governor, Limits
from edge.progress import Progress
from edge.sources.base import BaseSource
from edge.types import Frame

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A resistance and a capacitance side by side: `kelvin_per_watt` and the time constant."""

    kelvin_per_watt: float
    tau_s: float


BOARD = (Stage(3.83, 5.0), Stage(3.37, 35.0), Stage(5.92, 200.0))
"""Fitted to LOG, a step of STRESS_W: R and C are 3.83 K/W and 1.3 J/K, 3.37 K/W and 10 J/K, 5.92 K/W and 34 J/K."""
CASE = Stage(3.6, 600.0)
"""What is missing to 56 °C at 21 °C and IDLE_W; half an hour until it settles."""
IDLE_W = 2.1
STRESS_W = 2.1
INFERENCE_W = 2.7
"""On top of IDLE_W, three cores at 1500 MHz: what HPL draws on a Compute Module 4."""
CLOCKS_MHZ = (1500, 1000, 750, 600)
VOLTS = (0.8625, 0.83, 0.81, 0.80)
"""Assumed: nothing published says how far voltage follows. Less of a drop makes throttling look worse."""
THROTTLE_C = (80.0, 82.5, 85.0)
"""Between 80 and 85 °C the clock falls step by step. Where the steps are is assumed, and BACK_C, too."""
BACK_C = 1.0

CAMERA_FPS = 30.0
BOUNDS_S = (0.125, 0.2, 0.25)
"""How old a result may be to be of use. At full clock, one takes 80 ms and has waited for up to 33."""

LOG = (
    *((2, 51.0), (4, 52.0), (6, 54.0), (8, 55.0), (10, 56.0), (12, 57.0), (16, 58.0), (20, 59.0), (28, 60.0), (40, 62.0)),
    *((60, 63.5), (80, 65.3), (100, 66.7), (120, 67.0), (150, 68.5), (180, 69.3), (210, 70.2), (240, 71.0), (300, 71.7)),
    *((302, 68.0), (304, 66.0), (308, 64.0), (314, 61.0), (324, 58.0), (340, 56.4), (360, 55.3), (380, 54.2)),
    *((400, 53.3), (420, 52.7), (450, 51.0)),
)
"""Seconds from the beginning of 300 s of `stress` on a Pi 4 without a case, and °C, some of them means of neighbours."""
LOG_IDLE_C = 46.7


@dataclass(frozen=True, slots=True)
class Plant:
    """A board in its place, and what an inference takes of it at 1500 MHz; slower clocks take as much longer."""

    stages: tuple[Stage, ...] = (*BOARD, CASE)
    inference_w: float = INFERENCE_W
    infer_s: float = 0.08
    firmware: bool = True
    air_tau_s: float = 200.0
    """A change of the air's temperature comes through the case and the board; the board alone takes this long."""


IN_ITS_CASE = Plant()
IN_THE_SUN = Plant(air_tau_s=60.0)
OTHERS = {
    "without a case": Plant(BOARD),
    "a tighter case, 7 K/W": Plant((*BOARD, Stage(7.0, 600.0))),
    "a heavy case, settles in 90 minutes": Plant((*BOARD, Stage(3.6, 1800.0))),
    "a processor that heats up twice as much at once": Plant((Stage(7.7, 5.0), *BOARD[1:], CASE)),
    "an inference of 4.3 W": Plant(inference_w=4.3),
    "an inference of 400 ms": Plant(infer_s=0.4),
    "an inference of 20 ms": Plant(infer_s=0.02),
}
"""The governor knows none of this, and its gains are the same."""


class Board:
    """A board at `ambient_c`, idle for hours."""

    def __init__(self, ambient_c: float, plant: Plant = IN_ITS_CASE) -> None:
        self._plant = plant
        self._rises_c = [stage.kelvin_per_watt * IDLE_W for stage in plant.stages]
        self._ambient_c = ambient_c
        self.clock = 0

    @property
    def celsius(self) -> float:
        """Of the processor."""
        return self._ambient_c + sum(self._rises_c)

    @property
    def slower(self) -> float:
        """How many times as long as at full clock everything takes."""
        return CLOCKS_MHZ[0] / CLOCKS_MHZ[self.clock]

    def watts(self, busy: float) -> float:
        """Drawn at this clock, `busy` of the time."""
        return IDLE_W + busy * self._plant.inference_w / self.slower * (VOLTS[self.clock] / VOLTS[0]) ** 2

    def pass_(self, seconds: float, watts: float, ambient_c: float) -> None:
        """Let time pass at that power, then let the firmware look."""
        self._ambient_c += (ambient_c - self._ambient_c) * (1 - math.exp(-seconds / self._plant.air_tau_s))
        for number, stage in enumerate(self._plant.stages):
            settled_c = stage.kelvin_per_watt * watts
            self._rises_c[number] += (settled_c - self._rises_c[number]) * (1 - math.exp(-seconds / stage.tau_s))
        if self._plant.firmware:
            if self.clock < len(THROTTLE_C) and self.celsius >= THROTTLE_C[self.clock]:
                self.clock += 1
            elif self.clock and self.celsius < THROTTLE_C[self.clock - 1] - BACK_C:
                self.clock -= 1


class Camera(BaseSource):
    """A live source's name and rate; its frames are simulated."""

    live = True

    def __init__(self) -> None:
        super().__init__("camera:0", CAMERA_FPS)

    def frames(self) -> Iterator[Frame]:
        """None."""
        return iter(())


@dataclass(slots=True)
class Run:
    """What came of a simulated time; `steps_s` are when the governor stepped."""

    hours: float
    hottest_c: float = 0.0
    above_s: float = 0.0
    throttled_s: float = 0.0
    joules: float = 0.0
    ages_s: list[float] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rungs: list[int] = field(default_factory=list)
    celsius: list[float] = field(default_factory=list)

    def useful(self, bound_s: float) -> float:
        """Results an hour that are no older than that."""
        return sum(age_s <= bound_s for age_s in self.ages_s) / self.hours

    def most_steps(self, after_s: float = 0.0) -> int:
        """In any hour after that."""
        late = [at_s for at_s in self.steps_s if at_s >= after_s]
        return max((sum(start <= other < start + HOUR_S for other in late) for start in late), default=0)


def simulate(
    ambient: Callable[[float], float],
    hours: float,
    limits: Limits | None,
    *,
    limit_c: float = math.inf,
    plant: Plant = IN_ITS_CASE,
    seed: int = 0,
) -> Run:
    """A camera and a model on a board for that long, governed if there are `limits`; `ambient` is °C by the second.

    The sensor is off by a normal error of 0.5 °C and tells whole degrees.
    """
    chance = random.Random(seed)
    board, run = Board(ambient(0.0), plant), Run(hours)
    now_s, second = 0.0, 0

    def read() -> Reading:
        flags = frozenset({"throttled"}) if board.clock else frozenset()
        return Reading(float(round(board.celsius + chance.gauss(0, 0.5))), "cpu-thermal", flags, watts=watts)

    watts = IDLE_W
    governor = None if limits is None else Governor(limits, read, [Camera()], wall_clock=lambda: now_s)
    waiting_s: float | None = None
    free_s = busy_s = 0.0
    for number in range(int(hours * HOUR_S * CAMERA_FPS)):
        now_s = number / CAMERA_FPS
        while waiting_s is not None and free_s <= now_s:
            begun_s = max(free_s, waiting_s)
            free_s = begun_s + plant.infer_s * board.slower
            busy_s += plant.infer_s * board.slower
            run.ages_s.append(free_s - waiting_s)
            waiting_s = None
            if governor is not None:
                governor.saw(plant.infer_s * board.slower)
        if governor is None or not governor.pace.early_s(0, now_s):
            waiting_s = now_s
        if now_s >= second + 1:
            second += 1
            watts = board.watts(min(1.0, busy_s))
            busy_s = max(0.0, busy_s - 1.0)
            board.pass_(1.0, watts, ambient(now_s))
            run.joules += watts
            run.celsius.append(board.celsius)
            run.hottest_c = max(run.hottest_c, board.celsius)
            run.above_s += board.celsius > limit_c
            run.throttled_s += board.clock > 0
            if governor is not None:
                governor.tick(now_s)
                run.rungs.append(governor.rung)
                while governor.notices:
                    run.steps_s.append(now_s)
                    run.texts.append(governor.notices.popleft().text)
    return run


def _steps(now_s: float) -> float:
    return 35.0 if 2 * HOUR_S <= now_s < 4 * HOUR_S else 20.0


def _sun(now_s: float) -> float:
    return 20.0 + 15.0 * math.sin(math.pi * min(1.0, now_s / (6 * HOUR_S)))


AIR: dict[str, Callable[[float], float]] = {
    "20 °C, from idle": lambda now_s: 20.0,
    "20, 35, 20 °C, two hours each": _steps,
    "sun: 20 to 35 °C and back in six hours": _sun,
    "50 °C": lambda now_s: 50.0,
}
HOURS = 6.0


def clouds(now_s: float) -> float:
    """Each quarter of an hour the sun comes out, or goes."""
    return 15.0 + 12.0 * (now_s // 900 % 2)


def fit() -> float:
    """Print the model beside LOG; the root mean square of the difference in °C."""
    board = Board(0.0, Plant(BOARD, firmware=False))
    outside_c = LOG_IDLE_C - board.celsius
    squares, second = 0.0, 0
    for at_s, measured_c in LOG:
        while second < at_s:
            board.pass_(1.0, IDLE_W + (STRESS_W if second < 300 else 0.0), 0.0)
            second += 1
        squares += (board.celsius + outside_c - measured_c) ** 2
        print(f"{at_s:4d} s  measured {measured_c:5.1f}  model {board.celsius + outside_c:5.1f} °C")
    return math.sqrt(squares / len(LOG))


def main() -> None:
    """Print the table of docs/heat.md, or with --fit the model beside the log."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=float, default=75.0)
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    if options.fit:
        print(f"root mean square {fit():.2f} °C")
        return
    ways = {
        "firmware alone": None,
        f"--max-temp {options.limit:g}": Limits(temperature_c=options.limit),
        "--max-temp 79": Limits(temperature_c=79.0),
        "--target-fps 1": Limits(target_fps=1.0),
    }
    bounds = [f"≤ {bound_s * 1e3:.0f} ms" for bound_s in BOUNDS_S]
    print(_row("air", "", *HEAD, *bounds, "J/result"))
    print("|---|---|" + "---:|" * (len(HEAD) + len(bounds) + 1))
    for air, ambient in AIR.items():
        for way, limits in ways.items():
            with Progress("heat.py") as progress:
                progress(f"{air}, {way}")
                run = simulate(ambient, HOURS, limits, limit_c=_limit_c(limits))
            fresh = [f"{run.useful(bound_s):,.0f}" for bound_s in BOUNDS_S]
            print(_row(air, way, *_cells(run, limits), *fresh, f"{run.joules / len(run.ages_s):.2f}"))
    print()
    print(_row(f"--max-temp {options.limit:g}, 15 °C", *HEAD))
    print("|---|" + "---:|" * len(HEAD))
    limits = Limits(temperature_c=options.limit)
    for name, plant in OTHERS.items():
        with Progress("heat.py") as progress:
            progress(name)
            run = simulate(lambda now_s: 15.0, HOURS / 2, limits, limit_c=options.limit, plant=plant)
        print(_row(name, *_cells(run, limits)))
    with Progress("heat.py") as progress:
        progress("clouds")
        run = simulate(clouds, HOURS / 2, limits, limit_c=options.limit, plant=IN_THE_SUN)
    print(_row("clouds: 15 and 27 °C by quarters of an hour, felt within a minute", *_cells(run, limits)))


HEAD = ("hottest °C", "over its limit", "throttled", "steps, busiest hour", "after the first", "results/h")


def _limit_c(limits: Limits | None) -> float:
    return math.inf if limits is None or limits.temperature_c is None else limits.temperature_c


def _cells(run: Run, limits: Limits | None) -> list[str]:
    seconds = run.hours * HOUR_S
    return [
        f"{run.hottest_c:.1f}",
        "" if math.isinf(_limit_c(limits)) else f"{run.above_s / seconds:.0%}",
        f"{run.throttled_s / seconds:.0%}",
        f"{run.most_steps()}",
        f"{run.most_steps(HOUR_S)}",
        f"{len(run.ages_s) / run.hours:,.0f}",
    ]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
