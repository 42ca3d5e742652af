"""A real Monitor over sources, sensors and an endpoint of a test's making, for whatever shows its status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from devices import BOARDS, Reading
from edge.controls import Controls
from edge.engines.fake import FakeEngine
from edge.monitor import Monitor
from edge.motion import MotionGate
from edge.pace import Pace
from edge.policies import Threshold
from edge.sources.base import BaseSource
from edge.summary import Tally
from edge.types import Event, Frame, Notice, Timings
from tests.samples import event, frame

PI_4 = next(board for board in BOARDS if board.name == "raspberry-pi-4")
WARM = Reading(temperature_c=61.5, throttled=frozenset({"under-voltage"}), watts=4.25, battery=0.75, load=0.5)


class Silent(BaseSource):
    """A source of which only the name and the counts matter."""

    live = True

    def frames(self) -> Iterator[Frame]:
        """None."""
        return iter(())


@dataclass
class Endpoint:
    """What an Offloader tells of itself."""

    host: str = "cloud.example:8000"
    breaker: str = "closed"
    submitted: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def __getattr__(self, name: str) -> int:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.counts.get(name, 0)

    def breaker_state(self, now_s: float) -> str:
        """As set."""
        return self.breaker


def monitored(*names: str, offloader: Any = None, governor: Any = None, reading: Reading = WARM, **more: Any) -> Monitor:
    """A monitor of sources of these names, with a threshold, a score threshold and a motion gate to set."""
    sources = [Silent(name) for name in names or ("demo",)]
    controls = Controls(Pace(len(sources)), [Threshold(0.6)], [MotionGate()], score_threshold=0.25)
    model = SimpleNamespace(name="tiny", variant=SimpleNamespace(name="int8-arm"), engine=FakeEngine(threads=4))
    return Monitor(
        Tally(),
        lambda: cast(Any, model),
        sources,
        more.pop("controls", controls),
        PI_4,
        offloader=offloader,
        governor=governor,
        read=lambda: reading,
        **more,
    )


def everything(*names: str) -> Monitor:
    """One that has something to tell in every metric."""
    return monitored(*names, offloader=Endpoint(), governor=SimpleNamespace(rung=12))


def take(monitor: Monitor, events: Sequence[Event | Notice]) -> None:
    """Let events pass as the loop does."""
    for one in events:
        monitor.add(one)
        monitor.tally.add(one)


def seen(source: str = "demo", *, age_ms: float = 40.0, number: int = 0, **more: Any) -> Event:
    """An event of a frame that was captured a tenth of a second after the one before it."""
    captured_s = 100 + number / 10
    of = frame(sequence=number, captured_s=captured_s, source=source)
    timings = more.pop("timings", Timings(5.0, 2.0, 30.0, 0.5))
    return event(of, emitted_s=captured_s + age_ms / 1e3, timings=timings, **more)
