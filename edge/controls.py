"""What may be changed while the loop runs, from any thread: pausing, the thresholds, the motion gates."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from edge.motion import MotionGate
from edge.pace import Pace
from edge.policies import Adjustable
from edge.types import Notice

ABSENT = {
    "threshold": "nothing is offloaded by a threshold here",
    "score_threshold": "there is no score threshold to set here",
    "gate": "there is no motion gate here",
}
"""Control → why it cannot be set, where it is None."""


class Controls:
    """The knobs of a running loop; each turn of one is told in `notices`, with whoever turned it.

    `threshold` is the confidence below which frames are offloaded, and `score_threshold` the score from which a detector's
    objects are reported; either is None where there is nothing to set, and then setting it raises ValueError, as does a
    value outside [0, 1]. `gate` is whether the motion gates are on. `version` grows when `score_threshold` changes.
    `paused_by` is who has paused it.
    """

    def __init__(
        self,
        pace: Pace,
        rules: Sequence[Adjustable] = (),
        gates: Sequence[MotionGate] = (),
        *,
        score_threshold: float | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.pace = pace
        self.notices: deque[Notice] = deque()
        self.version = 0
        self.paused_by: str | None = None
        self._rules, self._gates, self._wall_clock = rules, gates, wall_clock
        self._score_threshold = score_threshold
        self._turning = threading.Lock()

    @property
    def paused(self) -> bool:
        """Whether frames are let go without a look."""
        return self.pace.halted

    def pause(self, paused: bool, who: str) -> None:
        """Let all frames go from now on, or look at them again."""
        with self._turning:
            if paused != self.paused:
                self.pace.halted, self.paused_by = paused, who if paused else None
                self._note(who, "paused" if paused else "goes on")

    @property
    def threshold(self) -> float | None:
        """The confidence below which frames are offloaded."""
        return self._rules[0].threshold if self._rules else None

    def set_threshold(self, value: float, who: str) -> None:
        """Offload what is less confident than this. Raises ValueError."""
        with self._turning:
            before = self.threshold
            if before is None:
                raise ValueError(ABSENT["threshold"])
            if _fraction(value) != before:
                for rule in self._rules:
                    rule.threshold = value
                self._note(who, f"threshold {value:g}, was {before:g}")

    @property
    def score_threshold(self) -> float | None:
        """The score from which a detector's objects are reported."""
        return self._score_threshold

    def set_score_threshold(self, value: float, who: str) -> None:
        """Report objects from this score. Raises ValueError."""
        with self._turning:
            before = self._score_threshold
            if before is None:
                raise ValueError(ABSENT["score_threshold"])
            if _fraction(value) != before:
                self._score_threshold = value
                self.version += 1
                self._note(who, f"score threshold {value:g}, was {before:g}")

    @property
    def gate(self) -> bool | None:
        """Whether still scenes are skipped; None where there is no motion gate to switch."""
        return self._gates[0].enabled if self._gates else None

    def set_gate(self, on: bool, who: str) -> None:
        """Skip still scenes, or look at every frame. Raises ValueError."""
        with self._turning:
            if not self._gates:
                raise ValueError(ABSENT["gate"])
            if on != self.gate:
                for gate in self._gates:
                    gate.enabled = on
                self._note(who, f"motion gate {'on' if on else 'off'}")

    def _note(self, who: str, text: str) -> None:
        self.notices.append(Notice("control", who, text, self._wall_clock()))


def _fraction(value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{value}: expected a number from 0 to 1")
    return value
