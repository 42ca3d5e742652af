"""The governor: what it holds, how often it steps, what it says; on a simulated Pi 4, and through the real loop."""

from __future__ import annotations

import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.heat import BOUNDS_S, HOUR_S, IN_THE_SUN, OTHERS, Board, clouds, fit, simulate
from devices import BOARDS, Reading, Sensors
from edge import governor as governor_module
from edge.bundle import open_bundle
from edge.commands.options import RunOptions
from edge.commands.run import main
from edge.commands.run_governor import governor_of
from edge.engines.fake import FakeEngine
from edge.errors import UsageError
from edge.events import notice_record
from edge.governor import BACK_S, COST_FRAMES, PERIOD_S, RUNGS, Governor, Limits, Quiet
from edge.loop import Scene, run
from edge.model import Model
from edge.motion import MotionGate
from edge.policies import LocalOnly, PerFrame, Threshold
from edge.protocols import Source
from edge.regulator import Gains, Ladder, Regulator
from edge.sources.base import BaseSource
from edge.sources.demo import DemoSource
from edge.sources.pictures import PictureSource
from edge.sources.video import VideoSource
from edge.tasks.classify import Classify
from edge.types import Event, Frame, Notice
from tests.conftest import Finished
from tests.devices.faked import machine
from tests.samples import frame, plain, video

Command = Callable[..., Finished]
COLD = Reading(temperature_c=25.0)
PI_4 = next(board for board in BOARDS if board.name == "raspberry-pi-4")


class Live(BaseSource):
    """A camera of so many frames a second, for so long."""

    live = True

    def __init__(self, fps: float = 15.0, seconds: float = 60.0, until: Callable[[], bool] = lambda: False) -> None:
        super().__init__("camera:9", fps)
        self._seconds, self._until = seconds, until

    def frames(self) -> Iterator[Frame]:
        begun_s, number = time.monotonic(), 0
        while not self.stopped and not self._until() and time.monotonic() - begun_s < self._seconds:
            yield frame(plain(200), number, captured_s=time.monotonic(), source=self.name)
            number += 1
            time.sleep(1 / (self.fps or 15.0))


class Machine:
    """A governor over readings that a test sets, its clocks, and what it said."""

    def __init__(self, limits: Limits, reading: Reading = COLD, source: Source | None = None, **more: Any) -> None:
        self.reading, self.now_s, self.wall_s = reading, 0.0, 0.0
        self.governor = Governor(limits, lambda: self.reading, [source or Live()], wall_clock=lambda: self.wall_s, **more)

    def passes(self, seconds: float) -> list[Notice]:
        """What is said in that time."""
        for _ in range(round(seconds / PERIOD_S)):
            self.governor.tick(self.now_s)
            self.now_s += PERIOD_S
        said = list(self.governor.notices)
        self.governor.notices.clear()
        return said

    def timed(self, cost_s: float) -> None:
        """Enough frames took the engine so long to count."""
        for _ in range(COST_FRAMES):
            self.governor.saw(cost_s)

    @property
    def fps(self) -> float:
        return 1 / self.governor.pace.intervals_s[0] if self.governor.pace.intervals_s[0] else math.inf


# a simulated Pi 4 in its case


def test_the_model_is_the_published_log() -> None:
    assert fit() < 0.5


def test_the_firmware_alone_lets_it_become_hot_and_slow() -> None:
    alone = simulate(lambda now_s: 35.0, 1.0, None, limit_c=80.0)
    assert alone.hottest_c > 84
    assert alone.throttled_s > 0.9 * HOUR_S
    assert alone.useful(BOUNDS_S[0]) < 0.05 * alone.useful(math.inf)


STEPPED = {"20": lambda now_s: 20.0, "27": lambda now_s: 27.0, "20 to 33": lambda now_s: 20.0 if now_s < HOUR_S else 33.0}


@pytest.mark.parametrize("limit_c", [75.0, 79.0])
@pytest.mark.parametrize("air", STEPPED)
def test_the_limit_is_held_in_few_steps(air: str, limit_c: float) -> None:
    held = simulate(STEPPED[air], 2.0, Limits(temperature_c=limit_c), limit_c=limit_c, seed=1)
    assert held.hottest_c <= limit_c
    assert held.throttled_s == 0
    assert held.most_steps() <= 15
    assert held.celsius[3599] > limit_c - 8  # nor is it colder than need be


@pytest.mark.parametrize("plant", [*list(OTHERS)[:1], *list(OTHERS)[3:5]])
def test_other_boards_need_no_other_gains(plant: str) -> None:
    held = simulate(lambda now_s: 15.0, 1.0, Limits(temperature_c=68.0), limit_c=68.0, plant=OTHERS[plant])
    assert held.hottest_c <= 68.0
    assert held.most_steps() <= 15


@pytest.mark.parametrize(("ahead_s", "held"), [(governor_module.TEMPERATURE.ahead_s, True), (0.0, False)])
def test_the_slope_is_what_holds_it_when_the_sun_comes_out(monkeypatch: pytest.MonkeyPatch, ahead_s: float, held: bool) -> None:
    monkeypatch.setattr(governor_module, "TEMPERATURE", replace(governor_module.TEMPERATURE, ahead_s=ahead_s))
    sunny = simulate(clouds, 2.0, Limits(temperature_c=75.0), limit_c=75.0, plant=IN_THE_SUN)
    assert (sunny.hottest_c <= 75.0) == held


def test_more_results_are_fresh_than_with_the_firmware_alone_and_fewer_in_all() -> None:
    alone = simulate(lambda now_s: 25.0, 2.0, None)
    held = simulate(lambda now_s: 25.0, 2.0, Limits(temperature_c=79.0))
    assert held.useful(BOUNDS_S[0]) > 4 * alone.useful(BOUNDS_S[0])
    assert held.useful(math.inf) < alone.useful(math.inf)


def test_it_does_not_swing() -> None:
    """Between two rungs of which one is too hot and one colder than need be, the higher one is tried ever less often."""
    held = simulate(lambda now_s: 20.0, 3.0, Limits(temperature_c=77.0))
    first, last = (sum(low <= at_s < low + 1.5 * HOUR_S for at_s in held.steps_s) for low in (0.0, 1.5 * HOUR_S))
    assert last <= 6 < first


def test_what_cannot_be_held_is_said_once() -> None:
    hot = simulate(lambda now_s: 50.0, 0.5, Limits(temperature_c=75.0))
    assert hot.rungs[-1] == 1
    assert [text for text in hot.texts if "nothing is left to save" in text] == hot.texts[-1:]
    assert len(hot.texts) <= 3


def test_frames_come_back_when_it_is_cooler() -> None:
    day = simulate(lambda now_s: 33.0 if now_s < HOUR_S else 5.0, 2.5, Limits(temperature_c=75.0))
    assert min(day.rungs) <= 2
    assert day.rungs[-1] >= RUNGS // 2


def test_the_simulated_firmware_throttles_and_recovers() -> None:
    board = Board(20.0)
    for _ in range(1200):
        board.pass_(1.0, board.watts(1.0), 20.0)
    assert board.clock > 0
    for _ in range(600):
        board.pass_(1.0, board.watts(0.0), 20.0)
    assert board.clock == 0


# what it reads, and what it does then


def test_a_hot_board_begins_with_less() -> None:
    machine = Machine(Limits(temperature_c=70.0), Reading(temperature_c=63.0))
    (notice,) = machine.passes(1)
    assert (notice.kind, notice.about, notice.text) == ("governor", "temperature", "63.0 °C of 70: 2/16 of all frames")
    assert machine.fps == pytest.approx(10 * 2 / RUNGS)  # what the engine can do is not known yet


def test_a_cold_board_begins_with_all_and_without_a_word() -> None:
    machine = Machine(Limits(temperature_c=70.0))
    assert not machine.governor.offloads  # nobody knows yet
    assert machine.passes(30) == []
    assert machine.governor.offloads
    assert machine.fps == math.inf


def test_it_looks_once_a_second() -> None:
    looks: list[int] = []

    def read() -> Reading:
        looks.append(1)
        return COLD

    governor = Governor(Limits(temperature_c=70.0), read, [Live()])
    for number in range(41):
        governor.tick(100 + number / 8)
    assert len(looks) == 6


def test_a_share_is_of_what_the_engine_can_do() -> None:
    machine = Machine(Limits(temperature_c=70.0), Reading(temperature_c=63.0))
    machine.passes(1)
    machine.timed(0.25)
    machine.passes(1)
    assert machine.fps == pytest.approx(4 * machine.governor.rung / RUNGS)


NIGHT = Limits(quiet=Quiet.parse("00:00-23:59"))


def rated(source: BaseSource, fps: float | None, live: bool = False) -> BaseSource:
    source.fps, source.live = fps, live
    return source


@pytest.mark.parametrize(
    ("source", "cost_s", "all_fps"),
    [
        (DemoSource(), 0.004, 15.0),
        (DemoSource(), 0.1, 10.0),
        (rated(VideoSource(Path("a.avi")), 25.0), 0.004, 25.0),
        (rated(VideoSource(Path("b.avi")), 25.0), 0.2, 5.0),
        (PictureSource(Path("c.jpg")), 0.004, 250.0),
        (Live(30.0), 0.004, 30.0),
    ],
    ids=["demo", "demo, slow engine", "video", "video, slow engine", "pictures", "camera"],
)
def test_all_frames_are_no_more_than_the_source_has(source: BaseSource, cost_s: float, all_fps: float) -> None:
    machine = Machine(NIGHT, source=source)
    machine.wall_s = EVENING_S
    (vague,) = machine.passes(3)
    assert (vague.about, vague.text) == ("quiet-hours", "00:00-23:59: 1/16 of all frames")
    assert machine.fps <= 10 / RUNGS
    machine.timed(cost_s)
    (corrected,) = machine.passes(10)
    assert (corrected.about, corrected.text) == ("quiet-hours", f"00:00-23:59: {all_fps / RUNGS:.3g} frames/s")
    assert machine.fps == pytest.approx(all_fps / RUNGS)


@pytest.mark.parametrize(
    ("said_fps", "all_fps"), [(None, 8.0), (25.0, 8.0), (8.5, 8.5), (4.0, 4.0)], ids=["nothing", "too much", "the same", "less"]
)
def test_the_rate_of_a_stream_that_does_not_say_is_measured(said_fps: float | None, all_fps: float) -> None:
    machine = Machine(NIGHT, source=rated(Live(), said_fps, live=True))
    machine.wall_s = EVENING_S
    said = []
    for number in range(80):
        said += [notice.text for notice in machine.passes(1)] if number % 8 == 0 else []
        if not machine.governor.pace.early_s(0, number / 8):
            machine.governor.saw(0.01)
    assert said == ["00:00-23:59: 1/16 of all frames", f"00:00-23:59: {all_fps / RUNGS:.3g} frames/s"]
    assert machine.fps == pytest.approx(all_fps / RUNGS)


def test_high_rates_are_plain_numbers() -> None:
    machine = Machine(NIGHT, source=PictureSource(Path("c.jpg")))
    machine.wall_s = EVENING_S
    machine.timed(1 / 20_000)
    assert machine.passes(1)[0].text == "00:00-23:59: 1250 frames/s"


def test_the_target_is_never_exceeded_and_given_back() -> None:
    machine = Machine(Limits(temperature_c=70.0, target_fps=5.0), Reading(temperature_c=71.0))
    machine.timed(0.01)
    assert machine.fps == 5.0
    machine.passes(60)
    assert machine.fps == pytest.approx(5 / RUNGS)
    machine.reading = COLD
    assert machine.passes(1200)[-1].text == "25.0 °C of 70: up to 5 frames/s"
    assert machine.fps == 5.0


def test_power_is_held() -> None:
    """A supply that sags: 2 W and 4 more at full rate."""
    machine = Machine(Limits(watts=4.0), Reading(watts=2.0))
    said = []
    watts = []
    for _ in range(1200):
        machine.reading = Reading(watts=2 + 4 * machine.governor.rung / RUNGS)
        said += machine.passes(1)
        watts.append(machine.reading.watts or 0.0)
    assert max(watts[60:]) <= 4.0
    assert watts[-1] > 3.4
    assert len(said) < 15
    assert said[0].about == "power"
    assert said[0].text.startswith("6.0 W of 4: ")


@pytest.mark.parametrize(
    ("limits", "flag", "heeded"),
    [
        (Limits(temperature_c=75.0), "throttled", True),
        (Limits(temperature_c=75.0), "soft-temperature-limit", True),
        (Limits(temperature_c=75.0), "under-voltage", False),
        (Limits(temperature_c=75.0), "frequency-capped", False),
        (Limits(watts=9.0), "under-voltage", True),
        (Limits(watts=9.0), "throttled", False),
        (Limits(target_fps=5.0), "throttled", False),
    ],
)
def test_the_firmware_knows_better(limits: Limits, flag: str, heeded: bool) -> None:
    machine = Machine(limits, Reading(temperature_c=25.0, watts=3.0, throttled=frozenset({flag})))
    said = machine.passes(120)
    assert (machine.governor.rung < RUNGS) == heeded
    assert bool(said) == heeded
    if heeded:
        assert (said[0].about, said[0].text.partition(":")[0]) == ("firmware", flag)
    machine.reading = replace(machine.reading, throttled=frozenset())
    machine.passes(1200)
    assert machine.governor.rung == RUNGS


def test_a_sensor_that_vanishes_raises_nothing() -> None:
    machine = Machine(Limits(temperature_c=70.0), Reading(temperature_c=66.0))
    machine.passes(1)
    rung = machine.governor.rung
    machine.reading = Reading()
    (notice,) = machine.passes(300)
    assert notice.text == "the sensor gives nothing any more; no step up until it does"
    assert machine.governor.rung == rung
    machine.reading = COLD
    machine.passes(600)
    assert machine.governor.rung == RUNGS


def test_a_sensor_that_flickers_is_said_once() -> None:
    machine = Machine(Limits(temperature_c=70.0))
    said = machine.passes(10)
    for _ in range(30):
        machine.reading = Reading()
        said += machine.passes(1)
        machine.reading = COLD
        said += machine.passes(BACK_S / 2)
    assert len(said) == 1
    machine.passes(BACK_S)
    machine.reading = Reading()
    assert len(machine.passes(10)) == 1


def test_a_busy_board_gets_no_more() -> None:
    machine = Machine(Limits(temperature_c=70.0), Reading(temperature_c=66.0, load=2.0))
    machine.passes(1)
    rung = machine.governor.rung
    machine.reading = replace(COLD, load=2.0)
    machine.passes(300)
    assert machine.governor.rung == rung
    machine.reading = replace(COLD, load=1.0)
    machine.passes(600)
    assert machine.governor.rung == RUNGS


def test_a_low_battery_does_the_least_until_it_is_charged() -> None:
    machine = Machine(Limits(battery=0.2), Reading(battery=0.21, on_battery=True))
    assert machine.passes(10) == []
    machine.timed(0.1)
    machine.reading = Reading(battery=0.19, on_battery=True)
    (low,) = machine.passes(10)
    assert (low.about, low.text) == ("battery", "19% of 20%: 0.625 frames/s")
    assert not machine.governor.offloads
    machine.reading = Reading(battery=0.22, on_battery=True)  # a cell recovers when it gives less
    assert machine.passes(10) == []
    machine.reading = Reading(battery=0.22, on_battery=False)
    (charging,) = machine.passes(10)
    assert (charging.about, charging.text) == ("battery", "22% of 20%: all frames")
    assert machine.governor.offloads


def test_a_battery_that_vanishes_is_no_full_one() -> None:
    machine = Machine(Limits(battery=0.2), Reading(battery=0.19, on_battery=True))
    machine.passes(10)
    machine.reading = Reading()
    (gone,) = machine.passes(300)
    assert (gone.about, gone.text) == ("battery", "the sensor gives nothing any more; no step up until it does")
    assert machine.governor.rung == 1
    machine.reading = Reading(battery=0.9, on_battery=True)
    machine.passes(10)
    assert machine.governor.rung == RUNGS


EVENING_S = time.mktime((2026, 11, 29, 22, 0, 0, 0, 0, -1))
NIGHT_S = 8.5 * 3600


@pytest.mark.parametrize(
    ("limits", "reading"),
    [(Limits(temperature_c=70.0), COLD), (Limits(watts=9.0), Reading(watts=5.0)), (Limits(battery=0.2), Reading(battery=0.9))],
)
def test_after_quiet_hours_it_stays_at_what_it_began_with(limits: Limits, reading: Reading) -> None:
    machine = Machine(replace(limits, quiet=Quiet.parse("22:00-06:30")), reading)
    machine.wall_s = EVENING_S
    machine.passes(300)
    machine.wall_s += NIGHT_S
    assert [notice.about for notice in machine.passes(300)] == ["quiet-hours"]
    assert machine.governor.rung == RUNGS


def test_after_quiet_hours_no_step_up_without_the_sensor() -> None:
    machine = Machine(Limits(temperature_c=70.0, quiet=Quiet.parse("22:00-06:30")))
    machine.wall_s = EVENING_S
    machine.passes(10)
    machine.reading = Reading()
    machine.wall_s += NIGHT_S
    assert [notice.about for notice in machine.passes(300)] == ["temperature"]
    assert machine.governor.rung == 1


def test_what_follows_quiet_hours_is_not_about_them() -> None:
    machine = Machine(Limits(temperature_c=70.0, quiet=Quiet.parse("22:00-06:30")), Reading(temperature_c=60.0))
    machine.wall_s = EVENING_S
    machine.passes(10)
    machine.wall_s += NIGHT_S
    abouts = [notice.about for notice in machine.passes(300)]
    assert abouts[0] == "quiet-hours"
    assert set(abouts[1:]) == {"temperature"}


@pytest.mark.parametrize("celsius", [(0.0, -5.0), (-5.0, 0.0)])
def test_the_hottest_may_be_freezing(celsius: tuple[float, float]) -> None:
    machine = Machine(Limits(temperature_c=70.0))
    for machine.reading in map(Reading, celsius):
        machine.passes(1)
    assert machine.governor.hottest_c == 0.0


def test_quiet_hours() -> None:
    quiet = Quiet.parse("22:00-06:30")
    machine = Machine(Limits(quiet=quiet))
    machine.timed(0.1)
    machine.wall_s = time.mktime((2026, 11, 29, 21, 59, 0, 0, 0, -1))
    assert machine.passes(10) == []
    machine.wall_s += 60
    (begun,) = machine.passes(10)
    assert (begun.about, begun.text) == ("quiet-hours", "22:00-06:30: 0.625 frames/s")
    machine.wall_s += 8.5 * 3600 - 1
    assert machine.passes(10) == []
    machine.wall_s += 1
    (over,) = machine.passes(10)
    assert (over.about, over.text) == ("quiet-hours", "22:00-06:30 is over: all frames")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("22:00-06:30", (1320, 390)),
        ("9:05-17:00", (545, 1020)),
        ("00:00-23:59", (0, 1439)),
        ("24:00-06:00", None),
        ("22:60-06:00", None),
        ("22:00", None),
        ("22:00-22:00", (1320, 1320)),
        ("22:00-06:00x", None),
        ("２２:00-06:00", None),
        ("", None),
    ],
)
def test_hours_are_parsed(text: str, minutes: tuple[int, int] | None) -> None:
    quiet = Quiet.parse(text)
    assert (quiet and (quiet.start, quiet.end)) == minutes


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_hours_and_the_others_are_a_day(start: int, end: int, minute: int) -> None:
    at_s = time.mktime((2026, 11, 29, minute // 60, minute % 60, 0, 0, 0, -1))
    one, other = Quiet(start, end, ""), Quiet(end, start, "")
    if start != end:
        assert one.now(at_s) != other.now(at_s)


def test_gates_become_more_tolerant() -> None:
    gate = MotionGate()
    machine = Machine(Limits(temperature_c=70.0), Reading(temperature_c=71.0), gates=[gate])
    machine.timed(0.1)
    assert machine.passes(60)[-1].text == "71.0 °C of 70: 0.625 frames/s, gate 1.9x"
    assert gate.tolerance == 1 + 15 / 16
    machine.reading = COLD
    machine.passes(1200)
    assert gate.tolerance == 1.0


def test_a_tolerant_gate_lets_small_changes_pass() -> None:
    small = plain(100, 96, 72)
    moved = small.copy()
    moved[10:13, 10:14] = 250
    strict, tolerant = MotionGate(refresh_s=1e9, calm_frames=1), MotionGate(refresh_s=1e9, calm_frames=1)
    tolerant.tolerance = 20.0
    seen = [[gate.moves(image, now_s) for now_s, image in enumerate((small, small, moved))] for gate in (strict, tolerant)]
    assert seen == [[True, False, True], [True, False, False]]


# the parts


def test_a_step_that_is_regretted_doubles_the_wait() -> None:
    ladder = Ladder(4, down_s=1.0, up_s=10.0, sure_s=2.0)
    ladder.start(2, 0.0)
    ups = []
    for second in range(1, 400):
        if ladder.rung == 2:
            ladder.step(1.0, second)
            ups += [second] * (ladder.rung == 3)
        else:
            ladder.step(0.5, second)
    assert np.diff(ups, n=1, prepend=0).tolist() == [10, 21, 41, 81, 161]
    ladder.step(1.0, 401, sure=True)
    assert ladder.rung == 3


def test_a_ladder_waits_before_each_step() -> None:
    ladder = Ladder(10, down_s=5.0, up_s=60.0, sure_s=15.0)
    ladder.step(0.4, 0.0)
    assert (ladder.rung, ladder.share) == (4, 0.4)
    ladder.step(0.1, 4.0)
    ladder.step(0.41, 100.0)
    assert ladder.rung == 4
    ladder.step(0.9, 100.0)
    assert ladder.rung == 5
    ladder.step(0.5, 106.0, urgent=True)
    assert ladder.rung == 4


def test_a_slope_counts_only_upwards_and_not_right_after_a_step() -> None:
    gains = Gains(
        margin=0.0, band=0.0, gain=0.01, integral=0.0, smooth_s=0.1, room=1.0, slope_s=10.0, ahead_s=10.0, settle_s=5.0
    )
    rising, falling, stepped = (Regulator(100.0, gains) for _ in range(3))
    for second in range(20):
        if second == 12:
            stepped.stepped()
        up = rising.update(100.0 + 0.1 * (second - 19), second)
        down = falling.update(100.0 - 0.1 * (second - 19), second)
        after = stepped.update(100.0 + 0.1 * (second - 19), second)
    assert up == pytest.approx(1 - 0.01 * 0.1 * 10, abs=1e-3)
    assert down == pytest.approx(1.0, abs=1e-3)
    assert after == pytest.approx(1.0, abs=1e-3)


# through the real loop


@pytest.fixture
def model(tiny_edge: Path) -> Model:
    card = open_bundle(tiny_edge).card
    return Model(
        "tiny", card.variants[0], FakeEngine(answer=lambda data: np.zeros(10, np.float32)), Classify(card, card.variants[0])
    )


ZONE = "sys/class/thermal/thermal_zone0"


def test_a_board_that_becomes_hot_and_cool_again(model: Model, tmp_path: Path) -> None:
    """The sensors are files, the loop is the real one, and its governor's time runs 400 times as fast."""

    def heat(celsius: float) -> None:
        machine(tmp_path, {f"{ZONE}/type": "cpu-thermal", f"{ZONE}/temp": round(celsius * 1000)})

    heat(25.0)
    source = Live(200.0, until=lambda: bool(phases) and phases[-1] == "done")
    governor = Governor(Limits(temperature_c=70.0), Sensors(PI_4, tmp_path).read, [source])
    begun_s = time.monotonic()
    phases: deque[str] = deque(["cold"])
    counts = {"cold": 0, "hot": 0, "cool": 0, "done": 0}
    spent_s: dict[str, float] = {}
    phase_s = begun_s
    texts: list[str] = []

    def to(phase: str) -> None:
        nonlocal phase_s
        now_s = time.monotonic()
        spent_s[phases[-1]], phase_s = now_s - phase_s, now_s
        phases.append(phase)

    for event in run(
        [source], model, [Scene(LocalOnly())], governor=governor, clock=lambda: (time.monotonic() - begun_s) * 400
    ):
        if isinstance(event, Notice):
            assert (event.kind, event.about) == ("governor", "temperature")
            texts.append(event.text)
        else:
            counts[phases[-1]] += 1
        since_s = time.monotonic() - phase_s
        if phases[-1] == "cold" and since_s > 0.2:
            heat(74.0)
            to("heating")
            counts.setdefault("heating", 0)
        elif phases[-1] == "heating" and governor.rung == 1:
            to("hot")
        elif phases[-1] == "hot" and since_s > 0.3:
            heat(25.0)
            to("cooling")
            counts.setdefault("cooling", 0)
        elif phases[-1] == "cooling" and governor.rung == RUNGS:
            to("cool")
        elif phases[-1] == "cool" and since_s > 0.2:
            to("done")
    rates = {phase: counts[phase] / spent_s[phase] for phase in ("cold", "hot", "cool")}
    assert rates["hot"] < 0.25 * min(rates["cold"], rates["cool"])
    assert texts[0].startswith("74.0 °C of 70: ")
    assert texts[-1] == "25.0 °C of 70: all frames"
    assert governor.hottest_c == 74.0
    assert governor.pace.paced[0] > 20
    assert governor.seconds[0] > 0
    assert governor.seconds[-1] > 0


class Eager:
    """An offloader that is always there."""

    def __init__(self) -> None:
        self.declined, self.submitted = 0, 0
        self.notices: deque[Notice] = deque()

    def available(self, now_s: float) -> bool:
        return True

    def see(self, event: Event) -> None:
        pass

    def submit(self, event: Event) -> None:
        self.submitted += 1

    def answers(self) -> list[Any]:
        return []

    def drain(self, seconds: float) -> list[Any]:
        return []


@pytest.mark.parametrize(("celsius", "asked"), [(25.0, True), (74.0, False)])
def test_the_lowest_rung_asks_no_endpoint(model: Model, celsius: float, asked: bool) -> None:
    source, offloader = Live(50.0, seconds=0.2), Eager()
    governor = Governor(Limits(temperature_c=70.0), lambda: Reading(temperature_c=celsius), [source])
    scenes = [Scene(PerFrame(Threshold(1.0)))]
    events = [one for one in run([source], model, scenes, offloader=offloader, governor=governor) if isinstance(one, Event)]  # type: ignore[arg-type]
    late = events[1:] or events
    assert late
    assert all((event.decision.action == "offload") == asked for event in late)
    assert bool(offloader.declined) != asked
    if not asked:
        assert late[-1].decision.reason.endswith("the governor spares the board")


def test_the_notice_has_a_record() -> None:
    record = notice_record(Notice("governor", "temperature", "61.2 °C of 70: 12 frames/s", 0.0))
    assert (record.notice, record.about) == ("governor", "temperature")


# the command


def options(**given: Any) -> RunOptions:
    fields = dict.fromkeys(RunOptions.__dataclass_fields__) | given
    return RunOptions(**fields)  # type: ignore[arg-type]


def governed(root: Path, said: list[str], **given: Any) -> Governor | None:
    return governor_of(options(**given), PI_4, [Live()], [], said.append, root)


def test_without_a_limit_there_is_none(tmp_path: Path) -> None:
    assert governed(tmp_path, []) is None


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"max_temp": 70.0}, "--max-temp: .* has no temperature sensor here, so it would have no effect; leave it out"),
        ({"max_watts": 5.0}, "--max-watts: .* has no power sensor here"),
        ({"min_battery": 20.0}, "--min-battery: .* has no battery here"),
    ],
)
def test_a_limit_needs_its_sensor(tmp_path: Path, given: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        governed(tmp_path, [], **given)


def test_the_boards_own_limit(tmp_path: Path) -> None:
    root, said = machine(tmp_path, {f"{ZONE}/type": "cpu-thermal", f"{ZONE}/temp": 72_000}), list[str]()
    governor = governed(root, said, max_temp="auto")
    assert governor is not None
    governor.tick(0.0)
    assert governor.notices[0].text.startswith("72.0 °C of 75: ")
    assert said == []


def test_the_boards_own_limit_without_a_sensor_is_a_line(tmp_path: Path) -> None:
    said: list[str] = []
    governor = governed(tmp_path, said, max_temp="auto")
    assert governor is not None  # offloading asks it
    assert not governor.holds
    assert said == ["Raspberry Pi 4 has no temperature sensor here: --max-temp auto has no effect"]


def test_a_limit_beyond_the_firmwares_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    governed(machine(tmp_path, {f"{ZONE}/type": "cpu-thermal", f"{ZONE}/temp": 40_000}), said, max_temp=84.0)
    assert said == ["--max-temp 84: Raspberry Pi 4 slows itself down from 80 °C on"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--max-temp", "cold"], "'cold': expected a number of °C, or auto"),
        (["--max-temp", "75C"], "'75C': expected a number of °C, or auto"),
        (["--max-temp", "130"], "130.0 is not in the range"),
        (["--max-watts", "5W"], "'5W': expected a number of watts"),
        (["--target-fps", "x"], "'x': expected a number of frames a second"),
        (["--min-battery", "25%"], "'25%': expected a percentage without the sign, as 25"),
        (["--rate", "x"], "'x': expected a number"),
        (["--max-temp", "nan"], "--max-temp"),
        (["--max-watts", "0"], "--max-watts"),
        (["--target-fps", "0"], "--target-fps"),
        (["--quiet-hours", "22-6"], "'22-6': expected HH:MM-HH:MM, as 22:00-06:30"),
        (["--quiet-hours", "9:5-7:00"], "expected HH:MM-HH:MM, as 22:00-06:30"),
        (["--quiet-hours", "24:00-07:00"], "expected HH:MM-HH:MM, as 22:00-06:30"),
        (["--quiet-hours", "9:00-09:00"], "'9:00-09:00': expected two different times"),
        (["--min-battery", "100"], "--min-battery"),
    ],
)
def test_wrong_options_are_one_line(command: Command, arguments: list[str], line: str) -> None:
    assert line in command(main, "--source", "demo", *arguments).refused(2)


def test_a_target_slows_a_file_which_loses_nothing(command: Command, tiny_edge: Path, tmp_path: Path) -> None:
    video(tmp_path / "a.avi", frames=6)
    begun_s = time.monotonic()
    done = command(
        main, "--model", tiny_edge, "--source", tmp_path / "a.avi", "--target-fps", 20, "--summary", tmp_path / "s.json"
    )
    assert done.code == 0, done.err
    assert time.monotonic() - begun_s > 4 / 20
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["frames"], summary["paced"], summary["dropped"]) == (6, 0, 0)
    assert summary["fps"] < 25
    assert summary["governor"] == {
        "steps": 0,
        "max_temperature_c": summary["governor"]["max_temperature_c"],
        "rungs": summary["governor"]["rungs"],
        "held_back": pytest.approx(6 / 7, abs=0.2),
    }
    assert re.search(r"governor: 0 steps, [5-9]\d% of frames let go or made to wait", done.err)


def test_with_nothing_to_hold_there_is_no_governor_to_speak_of(
    command: Command, tiny_edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sensors, "read", lambda self: Reading())
    video(tmp_path / "a.avi", frames=3)
    done = command(
        main, "--model", tiny_edge, "--source", tmp_path / "a.avi", "--max-temp", "auto", "--summary", tmp_path / "s.json"
    )
    assert done.code == 0, done.err
    assert "no effect" in done.err
    assert "governor" not in done.err
    assert json.loads((tmp_path / "s.json").read_text())["governor"] is None


def test_quiet_hours_keep_what_they_announce(command: Command, tiny_edge: Path) -> None:
    begun_s = time.monotonic()
    done = command(main, "--model", tiny_edge, "--source", "demo", "--quiet-hours", "00:00-23:59", "--max-frames", 2)
    assert done.code == 0, done.err
    assert time.monotonic() - begun_s > 0.9 * 16 / 15
    assert re.search(r"governor: 1 step, (50|67)% of frames let go or made to wait", done.err), done.err


def test_a_demo_that_is_slower_than_the_target_is_not_held_back(command: Command, tiny_edge: Path) -> None:
    done = command(main, "--model", tiny_edge, "--source", "demo", "--target-fps", 20, "--max-frames", 5)
    assert "governor: 0 steps, 0% of frames let go or made to wait" in done.err


def test_no_rung_is_too_slow_to_track() -> None:
    night = Limits(target_fps=1.0, quiet=Quiet.parse("00:00-23:59"))
    for least_fps, interval_s in ((0.0, 16.0), (0.5, 2.0), (3.0, 1.0)):
        machine = Machine(night, least_fps=least_fps)
        machine.passes(5)
        assert machine.governor.rung == 1
        assert machine.governor.pace.intervals_s == pytest.approx([interval_s])
