"""Watches the loop as its events pass, so that anybody may ask at any time, from any thread, how it is."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devices import Board, Reading, Sensors
from edge.controls import Controls
from edge.errors import CaptureError
from edge.events import iso_8601, utf8
from edge.governor import RUNGS, Governor
from edge.model import Model
from edge.protocols import Sink, Source
from edge.sinks.caption import best_label, caption
from edge.sinks.queued import without_picture
from edge.status import (
    Answered,
    BoardStatus,
    ControlsStatus,
    GovernorStatus,
    History,
    ModelStatus,
    OffloadStatus,
    SourceState,
    SourceStatus,
    StageTimes,
    Status,
)
from edge.summary import Tally, cpu_seconds, resident_bytes
from edge.types import Event, Notice

if TYPE_CHECKING:  # it brings an HTTP client
    from edge.offload import Offloader

HISTORY_S = 120
RECENT_S = 5
SENSORS_S = 1.0
"""Sensors are read at most this often, however many ask."""
STATES: dict[str, SourceState] = {
    "source-open": "open",
    "source-stalled": "stalled",
    "source-lost": "lost",
    "source-ended": "ended",
    "source-done": "ended",
}


@dataclass(slots=True)
class _Second:
    """The events of one second, added up."""

    at_s: int
    by_source: list[int]
    inferred: int = 0
    frames: int = 0
    offloaded: int = 0
    confidence: float = 0.0
    age_ms: float = 0.0
    stages_ms: list[float] = field(default_factory=lambda: [0.0] * 4)


@dataclass(slots=True)
class _Watched:
    """A source as its events and notices have it."""

    state: SourceState = "starting"
    trouble: str = ""
    last_s: float | None = None
    result: Event | None = None
    cloud: Event | None = None


class Monitor:
    """Takes in every event and notice (`add`, on the loop's thread, some microseconds) and tells `status` to any thread.

    It keeps no picture. `tally` counts the same events; `model` gives what runs now.
    """

    def __init__(
        self,
        tally: Tally,
        model: Callable[[], Model],
        sources: Sequence[Source],
        controls: Controls,
        board: Board,
        *,
        offloader: Offloader | None = None,
        governor: Governor | None = None,
        read: Callable[[], Reading] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.tally = tally
        self.controls = controls
        self.offloader = offloader
        self.sinks: Sequence[Sink] = ()
        self.sources = sources
        self._model, self._governor, self._board = model, governor, board
        self._read = read
        self._clock, self._wall_clock = clock, wall_clock
        self._begun_s = clock()
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._numbers = {source.name: number for number, source in enumerate(sources)}
        self._watched = [_Watched() for _ in sources]
        self._seconds: deque[_Second] = deque(maxlen=HISTORY_S + 1)
        self._governed = ""
        self._reading: Reading | None = None
        self._read_s = 0.0
        self._cpu = (self._begun_s, cpu_seconds())
        self._cpu_share: float | None = None

    def add(self, event: Event | Notice) -> None:
        """Take in what has happened. Raises CaptureError for a frame of no source."""
        with self._lock:
            if isinstance(event, Notice):
                self._add_notice(event)
            else:
                self._add_event(event)

    def status(self) -> Status:
        """How it is now."""
        now_s = self._clock()
        board = self._board_now(now_s)
        with self._lock:
            seconds = self._history(int(now_s))
            recent = seconds[-RECENT_S:]
            span_s = min(RECENT_S, max(1.0, now_s - self._begun_s))
            sources = [self._source(number, recent, span_s, now_s) for number in range(len(self.sources))]
        controls = self.controls
        model = self._model()
        return Status(
            at=iso_8601(self._wall_clock()),
            seconds=round(now_s - self._begun_s, 3),
            model=ModelStatus(model.name, model.variant.name, model.engine.name, model.engine.threads * model.engine.lanes),
            sources=sources,
            fps=round(sum(second.frames for second in recent) / span_s, 2),
            stages_ms=_stages(recent),
            history=_told(seconds, int(now_s) - int(self._begun_s)),
            offload=self._offload(now_s),
            governor=self._governor_now(),
            board=board,
            controls=ControlsStatus(
                controls.paused, controls.threshold, controls.score_threshold, controls.gate, controls.paused_by
            ),
            notices=sum(dict(self.tally.notices).values()),
            events_lost=sum(sink.lost for sink in self.sinks),
        )

    def _add_notice(self, notice: Notice) -> None:
        if notice.kind == "governor":
            self._governed = notice.text
        number = self._numbers.get(notice.about)
        state = STATES.get(notice.kind)
        if number is not None and state is not None:
            watched = self._watched[number]
            watched.state, watched.trouble = state, "" if state == "open" else utf8(notice.text)

    def _add_event(self, event: Event) -> None:
        number = self._numbers.get(event.frame.source)
        if number is None:
            raise CaptureError(f"a frame of {event.frame.source!r}: no Source here has that name; give both the same")
        watched = self._watched[number]
        kept = without_picture(event)
        if event.revises:
            watched.cloud = kept
            return
        if watched.state != "ended":
            watched.state, watched.trouble = "open", ""
        watched.last_s, watched.result = event.emitted_s, kept
        second = int(event.emitted_s)
        if not self._seconds or self._seconds[-1].at_s < second:
            self._seconds.append(_Second(second, [0] * len(self.sources)))
        now = self._seconds[-1]
        now.frames += 1
        now.by_source[number] += 1
        now.age_ms += event.age_ms
        now.confidence += event.decision.confidence
        now.offloaded += event.decision.action == "offload"
        if event.decision.action != "skip":
            now.inferred += 1
            timings = event.timings
            for place, ms in enumerate((timings.capture, timings.prepare, timings.infer, timings.decode)):
                now.stages_ms[place] += ms

    def _history(self, now_s: int) -> list[_Second]:
        """One for each of the last seconds that are over, also where nothing came."""
        by_second = {second.at_s: second for second in self._seconds}
        first = max(now_s - HISTORY_S, int(self._begun_s))
        empty = [0] * len(self.sources)
        return [by_second.get(at_s) or _Second(at_s, empty) for at_s in range(first, now_s)]

    def _source(self, number: int, recent: Sequence[_Second], span_s: float, now_s: float) -> SourceStatus:
        source, watched = self.sources[number], self._watched[number]
        return SourceStatus(
            number=number + 1,
            name=utf8(source.name),
            live=source.live,
            state=watched.state,
            trouble=watched.trouble,
            quiet_s=None if watched.last_s is None else round(max(0.0, now_s - watched.last_s), 3),
            fps=round(sum(second.by_source[number] for second in recent) / span_s, 2),
            frames=self.tally.by_source[source.name],
            dropped=source.dropped,
            skipped=len(source.skipped),
            paced=self.controls.pace.paced[number],
            result=None if watched.result is None else answered(watched.result),
            cloud=None if watched.cloud is None else answered(watched.cloud),
        )

    def _offload(self, now_s: float) -> OffloadStatus | None:
        offloader = self.offloader
        if offloader is None:
            return None
        return OffloadStatus(
            endpoint=offloader.host,
            breaker=offloader.breaker_state(now_s),
            asking=offloader.asking,
            submitted=offloader.submitted,
            revised=self.tally.revised,
            failed=offloader.failed,
            late=offloader.late,
            given_up=offloader.given_up,
            withheld=offloader.withheld,
            declined=offloader.declined,
            spool_waiting=offloader.spool_waiting,
            sent_bytes=offloader.sent_bytes,
        )

    def _governor_now(self) -> GovernorStatus | None:
        governor = self._governor
        return None if governor is None else GovernorStatus(governor.rung, RUNGS, utf8(self._governed))

    def _board_now(self, now_s: float) -> BoardStatus:
        with self._looking:
            if self._reading is None or now_s - self._read_s >= SENSORS_S:
                self._read = self._read or Sensors(self._board).read  # found when somebody asks
                self._reading, self._read_s = self._read(), now_s
                spent_s = cpu_seconds()
                passed_s = now_s - self._cpu[0]
                if passed_s > 0:
                    self._cpu_share = (spent_s - self._cpu[1]) / passed_s
                self._cpu = (now_s, spent_s)
            reading = self._reading
        return BoardStatus(
            title=self._board.title,
            temperature_c=reading.temperature_c,
            limit_c=self._board.thermal.limit_c,
            throttled=sorted(reading.throttled),
            watts=reading.watts,
            battery=reading.battery,
            load=reading.load,
            memory_bytes=resident_bytes(),
            cpu_share=None if self._cpu_share is None else round(self._cpu_share, 3),
        )


def answered(event: Event) -> Answered:
    """An event in short."""
    return Answered(
        seq=event.frame.sequence,
        caption=utf8(caption(event.result)),
        label=best_label(event.result),
        confidence=round(event.result.confidence if event.revises else event.decision.confidence, 6),
        action=event.decision.action,
        served_by=event.served_by,
        captured_at=iso_8601(event.captured_at_s),
        shown_age_ms=round(event.age_ms, 1),
    )


def _stages(seconds: Sequence[_Second]) -> StageTimes | None:
    """Means over all frames of these seconds; None where there were none."""
    frames = sum(second.frames for second in seconds)
    if not frames:
        return None
    inferred = max(1, sum(second.inferred for second in seconds))
    means = [round(sum(second.stages_ms[place] for second in seconds) / inferred, 3) for place in range(4)]
    age = round(sum(second.age_ms for second in seconds) / frames, 3)
    return StageTimes(means[0], means[1], means[2], means[3], age)


def _told(seconds: Sequence[_Second], end: int) -> History:
    def mean(total: float, count: int, digits: int) -> float | None:
        return round(total / count, digits) if count else None

    return History(
        end=end,
        fps=[second.frames for second in seconds],
        age_ms=[mean(second.age_ms, second.frames, 1) for second in seconds],
        infer_ms=[mean(second.stages_ms[2], second.inferred, 2) for second in seconds],
        confidence=[mean(second.confidence, second.frames, 3) for second in seconds],
        offloaded=[second.offloaded for second in seconds],
    )
