"""How often frames are taken: a limit on each source's rate that may change at any time, from any thread."""

from __future__ import annotations

from collections import deque

JITTER = 0.1
"""Of an interval: a frame may come so early, since no camera's clock is ours."""
COMING_S = (2.0, 5.0)
"""How often frames come is known after so long, and is that of the last so many seconds."""
HALTED_S = 1.0
"""Ask again after so long; who waits looks more often."""
AWAY_S = 10.0
"""After a silence of so long it is another stream."""


class Pace:
    """At most one frame each `interval_s` of every source, on average; 0: as they come.

    A frame that comes before it is due is let go at once (`paced` counts those): nothing looks at it, and the one that is
    taken is as fresh as the source has it. A source that waits is made to. `taken` frames were due, `delayed` of them only
    after waiting. `coming_fps` is how often a live source's frames come; None: not known yet. While
    `halted`, no frame is due.
    """

    def __init__(self, sources: int) -> None:
        self.halted = False
        self.intervals_s = [0.0] * sources
        self.paced = [0] * sources
        self.taken = [0] * sources
        self.delayed = [0] * sources
        self.coming_fps: list[float | None] = [None] * sources
        self._due_s = [0.0] * sources
        self._waits = [False] * sources
        self._came_s: list[deque[float]] = [deque() for _ in range(sources)]

    def early_s(self, source: int, now_s: float) -> float:
        """How long until a frame of this source is due; 0: it is, and the next one an interval later."""
        self._came(source, now_s)
        if self.halted:
            return HALTED_S
        interval_s = self.intervals_s[source]
        due_s = min(self._due_s[source], now_s + interval_s)  # a faster pace does not wait for the slower one's frame
        if due_s - now_s > JITTER * interval_s:
            self._waits[source] = True
            return due_s - now_s
        # early or a little late moves no later frame: else 30 frames a second could not become 20
        self._due_s[source] = interval_s + (due_s if now_s - due_s < interval_s else now_s)
        self.taken[source] += 1
        self.delayed[source] += self._waits[source]
        self._waits[source] = False
        return 0.0

    def _came(self, source: int, now_s: float) -> None:
        known_s, window_s = COMING_S
        came_s = self._came_s[source]
        if came_s and now_s - came_s[-1] > AWAY_S:
            came_s.clear()
        came_s.append(now_s)
        while len(came_s) > 3 and now_s - came_s[1] >= window_s:
            came_s.popleft()
        if len(came_s) > 2 and (span_s := now_s - came_s[0]) >= known_s:
            self.coming_fps[source] = (len(came_s) - 1) / span_s
