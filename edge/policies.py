"""Policies by name: whether a local result is good enough. A rule judges confidences, a policy what to ask about."""

from __future__ import annotations

import random
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from edge.card import Promise, Selection
from edge.selection import ShiftAlarm
from edge.types import Decision, Detections, Notice, Result


class Verdict(NamedTuple):
    """Whether a confidence is too low, and why in words that follow it."""

    uncertain: bool
    why: str


class Rule(Protocol):
    """How confident is confident enough; time is passed in, as for a Policy."""

    notices: deque[Notice]

    def begin(self, confidences: Sequence[float], now_s: float) -> None:
        """A frame has come with so many answers."""

    def judge(self, confidence: float) -> Verdict:
        """Judge one answer of that frame that nobody has been asked about."""

    def asked(self) -> None:
        """A question is asked about that frame."""

    def refund(self) -> None:
        """A question was not asked after all."""


class Adjustable(Protocol):
    """A rule whose threshold may be set while it is used."""

    threshold: float


class Threshold:
    """What is at least `threshold` confident, a calibrated probability, is good enough."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.notices: deque[Notice] = deque()

    def begin(self, confidences: Sequence[float], now_s: float) -> None:
        """Every frame is judged on its own."""

    def judge(self, confidence: float) -> Verdict:
        """Compare it with the threshold; equal is enough."""
        uncertain = confidence < self.threshold
        return Verdict(uncertain, f"{'<' if uncertain else '>='} {self.threshold:g}")

    def asked(self) -> None:
        """Asking is free."""

    def refund(self) -> None:
        """Asking is free."""


class Allowance(NamedTuple):
    """What may be spent: so much for each frame, so much a second, in MB if `in_bytes`; `text` is how it was given."""

    text: str
    per_frame: float = 0.0
    per_s: float = 0.0
    in_bytes: bool = False


class Budget:
    """Spend an allowance on the least certain answers, without bursts, and nothing on those of at least `threshold`.

    A bucket earns the allowance and holds at most that of `BURST_FRAMES` frames and `BURST_S` seconds, or four questions:
    more is never spent. The threshold is a quantile of the last `WINDOW` confidences, the one below which as many lie as
    what is earned pays for. `cost` is what a question costs now, in the allowance's unit. Where `spent` is given, what is
    paid is what that grows by, as bytes do that turn out more or less than expected, or are not for a question.
    """

    WINDOW = 512
    BURST_FRAMES = 50
    BURST_S = 10.0
    BURST_QUESTIONS = 4

    def __init__(
        self,
        allowance: Allowance,
        *,
        threshold: float = 1.0,
        cost: Callable[[], float] = lambda: 1.0,
        spent: Callable[[], float] | None = None,
    ) -> None:
        self.notices: deque[Notice] = deque()
        self.threshold = threshold
        self._allowance, self._cost = allowance, cost
        self._spent, self._spent_before = spent, 0.0
        self._held = 0.0
        self._paid = 0.0
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._earned, self._judged = 0.0, 0.0
        self._now_s: float | None = None

    def begin(self, confidences: Sequence[float], now_s: float) -> None:
        """Earn a frame's allowance and that of the time since the last one."""
        elapsed_s = 0.0 if self._now_s is None else max(0.0, now_s - self._now_s)
        self._now_s = now_s if self._now_s is None else max(now_s, self._now_s)  # cameras take turns
        income = self._allowance.per_frame + self._allowance.per_s * elapsed_s
        self._held = min(self._held + income - self._expenses(), self._most())
        self._earned += income

    def judge(self, confidence: float) -> Verdict:
        """Whether it is among those that the allowance is for, and that is not spent."""
        threshold = min(self.threshold, self._quantile(confidence))
        if confidence > threshold or confidence >= self.threshold:
            return Verdict(False, f"> {threshold:.3f}, the limit within {self._allowance.text}")
        if self._held < self._cost():
            return Verdict(False, f"<= {threshold:.3f}, but nothing is left of {self._allowance.text} for now")
        return Verdict(True, f"<= {threshold:.3f}, within {self._allowance.text}")

    def asked(self) -> None:
        """Pay for it, unless what is spent tells."""
        self._paid = self._cost() if self._spent is None else 0.0
        self._held -= self._paid

    def refund(self) -> None:
        """Get back what the last question cost."""
        self._held += self._paid

    def spares(self, cost: float) -> bool:
        """Whether so much may be spent on what was asked about before: what half a bucket, or a full one, has left.

        Only bytes are spent on it, for a number or a price was paid with the question.
        """
        most = self._most()
        return not self._allowance.in_bytes or self._held >= min(cost + most / 2, most)

    def _expenses(self) -> float:
        """What was spent since this was last asked."""
        if self._spent is None:
            return 0.0
        before, self._spent_before = self._spent_before, self._spent()
        return self._spent_before - before

    def _most(self) -> float:
        """What the bucket holds."""
        burst = self._allowance.per_frame * self.BURST_FRAMES + self._allowance.per_s * self.BURST_S
        return max(burst, self.BURST_QUESTIONS * self._cost())

    def _quantile(self, confidence: float) -> float:
        """Take a confidence into the window; the one below which lies what can be paid for.

        That is what is earned on average; a full bucket makes it twice as much, an empty one nothing.
        """
        if len(self._recent) == self.WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
            forget = 1 - 1 / self.WINDOW
            self._earned *= forget
            self._judged *= forget
        self._recent.append(confidence)
        insort(self._sorted, confidence)
        self._judged += 1
        share = self._earned / (self._judged * self._cost()) * 2 * max(0.0, self._held) / self._most()
        return self._sorted[min(int(share * len(self._sorted)), len(self._sorted) - 1)]


class Guarantee:
    """Keep the error rate of what is accepted below a promise's alpha, for as long as answers are like the calibration's.

    Each answer is looked at for a change with the chance that makes it one look in `spacing_s` seconds, for neighbouring
    frames are no independent witnesses. Once withdrawn the promise is void until the run ends; the threshold stays.
    """

    def __init__(self, promise: Promise, selection: Selection, *, source: str = "", spacing_s: float = 1.0) -> None:
        self.notices: deque[Notice] = deque()
        self._threshold, self._alpha = promise.threshold, promise.alpha
        self._alarm = ShiftAlarm(selection)
        self._source, self._spacing_s = source, spacing_s
        self._now_s = float("-inf")
        self._random = random.Random(0)
        self._withdrawn = False

    def begin(self, confidences: Sequence[float], now_s: float) -> None:
        """Look at those answers whose turn it is."""
        elapsed_s, self._now_s = now_s - self._now_s, now_s
        for confidence in confidences:
            if self._random.random() * self._spacing_s <= elapsed_s and not self._withdrawn and self._alarm.add(confidence):
                self.withdraw(
                    f"after {self._alarm.answers} answers, confidences are not distributed as in calibration; "
                    "build the bundle with pictures from here"
                )

    def withdraw(self, reason: str) -> None:
        """Say that the promise is void from now on; from any thread."""
        if not self._withdrawn:
            self._withdrawn = True
            text = f"an error rate below {self._alpha:g} is not promised any more: {reason}"
            self.notices.append(Notice("guarantee-withdrawn", self._source, text, time.time()))

    def judge(self, confidence: float) -> Verdict:
        """Compare it with the promise's threshold."""
        if confidence < self._threshold:
            return Verdict(True, f"< {self._threshold:.3f}, not promised")
        promised = "promise withdrawn" if self._withdrawn else f"error rate < {self._alpha:g}"
        return Verdict(False, f">= {self._threshold:.3f}, {promised}")

    def asked(self) -> None:
        """Asking is free."""

    def refund(self) -> None:
        """Asking is free."""


class LocalOnly:
    """Accept everything: there is nobody else to ask."""

    def __init__(self) -> None:
        self.notices: deque[Notice] = deque()

    def decide(self, result: Result, now_s: float) -> Decision:
        """Accept."""
        return Decision("accept", "no endpoint", result.confidence)

    def declined(self, now_s: float) -> None:
        """Nobody is ever asked."""

    def answered(self, tracks: Sequence[int]) -> None:
        """Nobody is ever asked."""


class PerFrame:
    """Ask about a frame as a whole, which is as certain as its least certain object that may be shown."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.notices = rule.notices

    def decide(self, result: Result, now_s: float) -> Decision:
        """Accept or offload, as the rule judges the result's confidence."""
        if isinstance(result, Detections):
            result = result[~result.hidden]
            if not len(result):
                self._rule.begin([], now_s)
                return Decision("accept", "no object", result.confidence)
        confidence = result.confidence
        self._rule.begin([confidence], now_s)
        verdict = self._rule.judge(confidence)
        if verdict.uncertain:
            self._rule.asked()
        return Decision("offload" if verdict.uncertain else "accept", f"confidence {confidence:.3f} {verdict.why}", confidence)

    def declined(self, now_s: float) -> None:
        """The next frame is decided on its own."""
        self._rule.refund()

    def answered(self, tracks: Sequence[int]) -> None:
        """The next frame is decided on its own."""


class PerObject:
    """Ask about a tracked object once: never again when that was answered, and not within `retry_s` when it was not.

    Objects that no tracker follows (yet) do not count, unless the result has been given no tracks at all: then it is
    decided as `PerFrame` does. Identities are a source's own, and so is an instance; rules may be shared.
    """

    NAMED = 3
    REMEMBERED = 10_000

    def __init__(self, rule: Rule, retry_s: float = 30.0) -> None:
        self._rule, self._retry_s = rule, retry_s
        self.notices = rule.notices
        self._untracked = PerFrame(rule)
        self._asked_s: dict[int, float] = {}
        self._answered: dict[int, None] = {}

    def decide(self, result: Result, now_s: float) -> Decision:
        """Look for objects to ask about; the decision's confidence is the least of those, or of all that are tracked."""
        if not isinstance(result, Detections) or result.tracks is None:
            return self._untracked.decide(result, now_s)
        # one asked about longer ago may be asked about again, so that there is nothing to remember of it
        self._asked_s = {track: asked_s for track, asked_s in self._asked_s.items() if now_s - asked_s < self._retry_s}
        tracks, scores = result.tracks.tolist(), result.scores.tolist()
        hidden = result.hidden.tolist()
        followed = [place for place, track in enumerate(tracks) if track > 0 and not hidden[place]]
        self._rule.begin(scores, now_s)
        fresh = [place for place in followed if tracks[place] not in self._asked_s and tracks[place] not in self._answered]
        judged = [(place, self._rule.judge(scores[place])) for place in fresh]
        doubtful = [place for place, verdict in judged if verdict.uncertain]
        if doubtful:
            self._rule.asked()
            self._asked_s.update((tracks[place], now_s) for place in doubtful)
            named = ", ".join(f"track {tracks[p]} {result.labels[p]} {scores[p]:.3f}" for p in doubtful[: self.NAMED])
            more = f" and {len(doubtful) - self.NAMED} more" if len(doubtful) > self.NAMED else ""
            why = next(verdict.why for _, verdict in judged if verdict.uncertain)
            confidence = min(scores[place] for place in doubtful)
            return Decision("offload", f"{named}{more} {why}", confidence, about=tuple(doubtful))
        confidence = min((scores[place] for place in followed), default=1.0)
        if not judged:
            return Decision("accept", "asked about before" if followed else "no tracked object", confidence)
        place, verdict = min(judged, key=lambda one: scores[one[0]])
        return Decision("accept", f"track {tracks[place]} {result.labels[place]} {scores[place]:.3f} {verdict.why}", confidence)

    def declined(self, now_s: float) -> None:
        """Objects of that decision may be asked about again at once."""
        self._rule.refund()
        self._asked_s = {track: asked_s for track, asked_s in self._asked_s.items() if asked_s != now_s}

    def answered(self, tracks: Sequence[int]) -> None:
        """There is an answer about these: it is remembered."""
        self._answered.update(dict.fromkeys(track for track in tracks if track > 0))
        while len(self._answered) > self.REMEMBERED:
            del self._answered[next(iter(self._answered))]
