"""How often frames are taken: a limit on each source's rate that may change at any time, from any thread."""

from __future__ import annotations

JITTER = 0.1
"""Of an interval: a frame may come so early, since no camera's clock is ours."""


class Pace:
    """At most one frame each `interval_s` of every source, on average; 0: as they come.

    A frame that comes before it is due is let go at once (`paced` counts those): nothing looks at it, and the one that is
    taken is as fresh as the source has it. A source that waits is made to.
    """

    def __init__(self, sources: int) -> None:
        self.intervals_s = [0.0] * sources
        self.paced = [0] * sources
        self._due_s = [0.0] * sources

    def early_s(self, source: int, now_s: float) -> float:
        """How long until a frame of this source is due; 0: it is, and the next one an interval later."""
        interval_s = self.intervals_s[source]
        due_s = min(self._due_s[source], now_s + interval_s)  # a faster pace does not wait for the slower one's frame
        if due_s - now_s > JITTER * interval_s:
            return due_s - now_s
        # early or a little late moves no later frame: else 30 frames a second could not become 20
        self._due_s[source] = interval_s + (due_s if now_s - due_s < interval_s else now_s)
        return 0.0
