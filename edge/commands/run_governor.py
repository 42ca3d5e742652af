"""The governor that edge-run's options ask for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from devices import Board, Sensors
from edge.commands.options import RunOptions
from edge.errors import UsageError
from edge.governor import Governor, Limits
from edge.motion import MotionGate
from edge.protocols import Source

COUNTERS_S = 0.05
"""Energy counters become watts between two looks."""
TRACKED_FPS = 0.5
"""Frames further apart than some seconds are another scene to a tracker (edge.tracking.GAP)."""


def governs(options: RunOptions) -> bool:
    """Whether anything is to be held."""
    asked = (options.max_temp, options.max_watts, options.target_fps, options.quiet_hours, options.min_battery)
    return any(one is not None for one in asked)


def governor_of(
    options: RunOptions,
    board: Board,
    sources: Sequence[Source],
    gates: Sequence[MotionGate],
    say: Callable[[str], None],
    root: Path = Path("/"),
) -> Governor | None:
    """The governor, or None where nothing is to be held. Raises UsageError where the sensor for it is missing."""
    if not governs(options):
        return None
    sensors = Sensors(board, root)
    reading = sensors.read()
    if options.max_watts is not None and reading.watts is None:
        time.sleep(COUNTERS_S)
        reading = sensors.read()
    limit_c = board.thermal.limit_c if options.max_temp == "auto" else options.max_temp
    if reading.temperature_c is None and options.max_temp == "auto":
        say(f"{board.title} has no temperature sensor here: --max-temp auto has no effect")
        limit_c = None
    for flag, value, sensor, read in (
        ("--max-temp", limit_c, "temperature sensor", reading.temperature_c),
        ("--max-watts", options.max_watts, "power sensor", reading.watts),
        ("--min-battery", options.min_battery, "battery", reading.battery),
    ):
        if value is not None and read is None:
            raise UsageError(f"{flag}: {board.title} has no {sensor} here, so it would have no effect; leave it out")
    if limit_c is not None and limit_c > board.thermal.throttle_c:
        say(f"--max-temp {limit_c:g}: {board.title} slows itself down from {board.thermal.throttle_c:g} °C on")
    limits = Limits(
        temperature_c=limit_c,
        watts=options.max_watts,
        target_fps=options.target_fps,
        quiet=options.quiet_hours,
        battery=None if options.min_battery is None else options.min_battery / 100,
    )
    return Governor(limits, sensors.read, sources, gates, least_fps=TRACKED_FPS if options.track else 0.0)
