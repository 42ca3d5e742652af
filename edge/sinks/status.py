"""One calm line on a terminal that is rewritten in place: how the loop is, and what it sees."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

from edge.errors import one_line
from edge.sinks.caption import caption
from edge.sinks.queued import without_picture
from edge.terminal import columns, display_width, has_terminal, rewrite_line
from edge.types import Classes, Event, Notice

PERIOD_S = 0.25
WINDOW_S = 3.0
"""Frames a second are of so long."""
DROPS_S = 5.0
TURN_S = 3.0
"""Of several sources each has its turn for so long."""
SILENT_S = 2.0
UNANSWERED_S = 10.0
"""A frame about which the cloud has not answered by then is not waited for."""
ASKING_S = 1.0
ROOM = 24
"""Columns left for the result at least, before other fields go."""


def status_stream(events_to_stdout: bool) -> TextIO | None:
    """Where a status line can stand: standard error or else standard output, if that is a terminal that nobody else writes to.

    Not where events go into a pipe: its reader may well print on the same terminal.
    """
    if events_to_stdout and not _is_file(sys.stdout):
        return None
    return next((stream for stream in (sys.stderr, sys.stdout) if has_terminal(stream)), None)


def _is_file(stream: TextIO | None) -> bool:
    """Whether what is written there is seen by nobody now."""
    if stream is None:
        return False
    with suppress(OSError, ValueError):
        found = os.fstat(stream.fileno())
        return stat.S_ISREG(found.st_mode) or (stat.S_ISCHR(found.st_mode) and not stream.isatty())
    return False


@dataclass(slots=True)
class _Watched:
    """A source as its events and notices have it; `trouble` is a word for why no frames come, since `trouble_s`."""

    newest: Event | None = None
    seen_s: float | None = None
    trouble: str = ""
    trouble_s: float = 0.0


class StatusSink:
    """Shows, at most four times a second, what it is told, and what it is not told any more: a line never stands stale.

    `sources` are their names, `dropped` counts what they let go, `stream` is a terminal, standard error by default. Numbers
    have a fixed width and stand before what varies. `clock` is that of `Event.emitted_s`.
    """

    wants_images = False

    def __init__(
        self,
        sources: Sequence[str] = (),
        *,
        dropped: Callable[[], int] = lambda: 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost = 0
        self._stream, self._clock = stream, clock
        self._watched = {name: _Watched() for name in sources}
        self._rates = _Rates(dropped, clock())
        self._cloud = _Cloud()
        self._governed = ""
        self._paused = False
        self._shown_s = float("-inf")

    def emit(self, event: Event | Notice) -> None:
        """Take it in, and rewrite the line when that is due."""
        now_s = self._clock()
        if isinstance(event, Notice):
            self._heard(event, now_s)
        else:
            self._saw(event)
        if now_s - self._shown_s >= PERIOD_S:
            self._show(now_s)

    def idle(self) -> bool:
        """Nothing has come for half a second: say so."""
        self._show(self._clock())
        return True

    def close(self) -> None:
        """Clear the line."""
        rewrite_line("", self._stream)

    def line(self, now_s: float, width: int) -> str:
        """What stands there, in so many columns."""
        several = len(self._watched) > 1
        alive = sum(not watched.trouble for watched in self._watched.values())
        digits = len(str(len(self._watched)))
        cloud = self._cloud.text(now_s)
        rates = self._rates
        fields = [  # from left to right; the higher the number, the sooner it goes where the room is short
            (1, "paused" if self._paused else ""),
            (2, f"{alive:{digits}d} of {len(self._watched)} alive" if several else ""),
            (0, f"{rates.fps(now_s):5.1f} frames/s"),
            (6, "" if rates.age_ms is None else f"{min(rates.age_ms, 99999):5.0f} ms"),
            (5, rates.drops(now_s)),
            (3, f"{cloud:<18}" if cloud else ""),
            (4, f"governor: {self._governed}" if self._governed else ""),
        ]
        fields = [(place, text) for place, text in fields if text]
        while sum(display_width(text) + 2 for _, text in fields) > width - ROOM and max(fields)[0] > 1:
            fields.remove(max(fields))
        return "  ".join([*(text for _, text in fields), self._current(now_s)])

    def _show(self, now_s: float) -> None:
        self._shown_s = now_s
        rewrite_line(self.line(now_s, columns(self._stream) - 1), self._stream)

    def _saw(self, event: Event) -> None:
        watched = self._watched.setdefault(event.frame.source, _Watched())
        self._cloud.saw(event)
        if event.revises:
            if watched.newest is not None and watched.newest.frame.sequence == event.frame.sequence:
                watched.newest = without_picture(event)
            return
        if event.frame.captured_s > watched.trouble_s:
            watched.trouble = ""
        watched.newest, watched.seen_s = without_picture(event), event.emitted_s
        self._rates.saw(event)

    def _heard(self, notice: Notice, now_s: float) -> None:
        watched = self._watched.get(notice.about)
        if notice.kind == "source-open" and watched is not None:
            watched.trouble = ""
        elif notice.kind in ("source-lost", "source-stalled") and watched is not None:
            if watched.trouble != "away":  # for how long is counted from the first that was heard of it
                watched.trouble, watched.trouble_s = "away", now_s
        elif notice.kind in ("source-ended", "source-done") and watched is not None:
            watched.trouble, watched.trouble_s = "ended", now_s
        elif notice.kind == "endpoint-lost":
            self._cloud.away_s = now_s
        elif notice.kind == "endpoint-back":
            self._cloud.away_s = None
        elif notice.kind == "governor":
            doing = notice.text.rpartition(": ")[2]
            self._governed = "" if doing.startswith(("all frames", "up to")) else one_line(doing)
        elif notice.kind == "control" and notice.text in ("paused", "goes on"):
            self._paused = notice.text == "paused"

    def _current(self, now_s: float) -> str:
        """What one source sees, or what is wrong with it; each has its turn."""
        if not self._watched:
            return "waiting for the first frame"
        names = list(self._watched)
        name = names[int(now_s / TURN_S) % len(names)]
        watched = self._watched[name]
        label = f"{one_line(name)}: " if len(names) > 1 else ""
        if watched.trouble == "ended":
            return f"{one_line(name)} has ended"
        if watched.trouble:
            return f"{one_line(name)} {watched.trouble} {_span(now_s - watched.trouble_s)}"
        if watched.newest is None or watched.seen_s is None:
            return f"{label}waiting for the first frame"
        if now_s - watched.seen_s > SILENT_S and not self._paused:
            return f"{label}no frame for {_span(now_s - watched.seen_s)}"
        result = watched.newest.result
        if isinstance(result, Classes) and len(result):
            return f"{label}{result.confidence:4.0%} {one_line(result.labels[0])}"
        return label + one_line(caption(result))


class _Rates:
    """How fast frames come, how old they are when their result is there, and how many were dropped, of the last seconds."""

    def __init__(self, dropped: Callable[[], int], now_s: float) -> None:
        self.age_ms: float | None = None
        self._dropped = dropped
        self._first_s: float | None = None
        self._emitted: deque[float] = deque()
        self._counts: deque[tuple[float, int]] = deque([(now_s, 0)])

    def saw(self, event: Event) -> None:
        self.age_ms = event.age_ms
        self._emitted.append(event.emitted_s)
        self._first_s = event.emitted_s if self._first_s is None else self._first_s
        while event.emitted_s - self._emitted[0] > WINDOW_S:
            self._emitted.popleft()

    def fps(self, now_s: float) -> float:
        while self._emitted and now_s - self._emitted[0] > WINDOW_S:
            self._emitted.popleft()
        since_s = WINDOW_S if self._first_s is None else now_s - self._first_s
        return len(self._emitted) / min(WINDOW_S, max(1.0, since_s))

    def drops(self, now_s: float) -> str:
        """Of the last five seconds; nothing as long as none was ever dropped."""
        count = self._dropped()
        self._counts.append((now_s, count))
        while len(self._counts) > 1 and now_s - self._counts[1][0] >= DROPS_S:
            self._counts.popleft()
        return f"{count - self._counts[0][1]:4d} dropped" if count else ""


class _Cloud:
    """What is known of the endpoint: frames it was asked about, its answers, and since when it is away."""

    def __init__(self) -> None:
        self.answers = 0
        self.away_s: float | None = None
        self._asked: dict[tuple[str, int], float] = {}

    def saw(self, event: Event) -> None:
        frame = (event.frame.source, event.frame.sequence)
        if event.revises:
            self.answers += 1
            self._asked.pop(frame, None)
        elif event.decision.action == "offload":
            self._asked[frame] = event.emitted_s
            self._forget(event.emitted_s)

    def text(self, now_s: float) -> str:
        """Asking is told only when the answer takes a while: else it would come and go with each frame."""
        self._forget(now_s)
        if self.away_s is not None:
            return f"endpoint away {_span(now_s - self.away_s)}"
        slow = any(now_s - asked_s > ASKING_S for asked_s in self._asked.values())
        if self._asked and (slow or not self.answers):
            return "asking the cloud"
        return f"cloud answers {self.answers:4d}" if self.answers else ""

    def _forget(self, now_s: float) -> None:
        """The oldest come first."""
        while self._asked and now_s - next(iter(self._asked.values())) > UNANSWERED_S:
            del self._asked[next(iter(self._asked))]


def _span(seconds: float) -> str:
    """As in "12 s" or "3 min", with as many columns."""
    if seconds < 60:
        return f"{int(max(0.0, seconds)):2d} s"
    return f"{int(seconds / 60):2d} min" if seconds < 3600 else f"{int(seconds / 3600):2d} h"
