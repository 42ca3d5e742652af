"""How far something is that takes longer than two seconds, and how long it takes still."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import TypeVar

from edge.commands.logs import Speaker, rewrites, says
from edge.errors import one_line
from edge.terminal import rewrite_line

PERIOD_S = 0.25
TICK_S = 1.0
"""What gives no sign of its own is shown anew so often, with the time that has passed."""
PATIENCE_S = 2.0
"""What is over sooner shows nothing."""
PLAIN_S = 30.0
"""Where no line can be rewritten, a line is said so often, and of what takes long each tenth of the time it has taken."""
SAMPLE_S = 0.1
SAMPLES = 64
FEWEST = 3
TRIMMED = 8
"""Of so many samples the quickest and the slowest do not count."""


Item = TypeVar("Item")


class Estimate:
    """The time left, from how long the steps of the recent half took: their mean without the quickest and the slowest.

    Nothing is told before three samples of a tenth of a second at least. Where there are too many, neighbours are put
    together, and later ones are as long: work that comes in every so many steps is in most of them in the end.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._samples: list[tuple[float, float]] = []
        self._least_s = SAMPLE_S

    def add(self, now_s: float, done: float) -> None:
        """So much is done at `now_s`."""
        if self._last is None or done < self._last[1]:
            self._last = (now_s, done)
            self._samples.clear()
            self._least_s = SAMPLE_S
            return
        seconds, amount = now_s - self._last[0], done - self._last[1]
        if seconds < self._least_s or amount <= 0:
            return
        self._last = (now_s, done)
        self._samples.append((seconds, amount))
        if len(self._samples) == SAMPLES:
            pairs = zip(self._samples[::2], self._samples[1::2], strict=True)
            self._samples = [(a[0] + b[0], a[1] + b[1]) for a, b in pairs]
            self._least_s = sum(seconds for seconds, _ in self._samples) / len(self._samples)

    def left_s(self, now_s: float, of: float) -> float | None:
        """Seconds until `of` are done, never below 0; None while there is too little to go by."""
        if self._last is None or len(self._samples) < FEWEST:
            return None
        recent = self._samples[-max(TRIMMED, len(self._samples) // 2) :]
        recent.sort(key=lambda sample: sample[0] / sample[1])
        cut = len(recent) // TRIMMED
        kept = recent[cut : len(recent) - cut]
        each_s = sum(seconds for seconds, _ in kept) / sum(amount for _, amount in kept)
        last_s, done = self._last
        return max(0.0, each_s * (of - done) - (now_s - last_s))


class Progress:
    """Shows how far a command is: on a terminal a line that is rewritten, elsewhere now and then a plain one.

    Call it at each step with what is being done, how much of it is done, and of how much; a share is of 1.0. Without them
    it shows the time since it was made, which goes on, on a thread, until the next call. Lines that the command says
    meanwhile stand above. As a context it clears its line.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock, self._say = name, clock, Speaker(name)
        self._began_s = self._phase_s = self._said_s = clock()
        self._shown_s = float("-inf")
        self._what = ""
        self._estimate = Estimate()
        self._stands = False
        self._ticking: _Ticking | None = None

    def __call__(self, what: str, done: float | None = None, of: float | None = None, note: str = "") -> None:
        """`what` is going on, and `note` has more about the step; another `what` begins a new estimate."""
        self._still()
        now_s = self._clock()
        if what != self._what:
            self._what, self._phase_s, self._estimate = what, now_s, Estimate()
            self._shown_s = float("-inf")
        left_s = None
        if done is not None and of is not None:
            self._estimate.add(now_s, done)
            left_s = self._estimate.left_s(now_s, of)
        if rewrites():
            if done is None:
                self._stands, self._ticking = True, _Ticking(lambda: self._passing(what, note))
            elif now_s - self._shown_s >= PERIOD_S and (not done or self._takes_long(now_s, left_s)):
                self._shown_s, self._stands = now_s, True
                self._rewrite(_text(what, done, of, note, left_s))
        elif says("info") and now_s - self._said_s >= max(PLAIN_S, (now_s - self._began_s) / 10):
            self._said_s = now_s
            self._say(_text(what, done, of, note, left_s))

    def over(self, items: Collection[Item], what: str) -> Iterator[Item]:
        """The items, counted as they are done."""
        for number, item in enumerate(items, 1):
            yield item
            self(what, number, len(items))

    def done(self) -> None:
        """Clear the line: something else comes."""
        self._still()
        if self._stands:
            self._stands = False
            rewrite_line("")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done()

    def _still(self) -> None:
        if self._ticking is not None:
            self._ticking.stop()
            self._ticking = None

    def _passing(self, what: str, note: str) -> None:
        self._rewrite(f"{what}, {clock(self._clock() - self._began_s)}{', ' + note if note else ''}")

    def _rewrite(self, text: str) -> None:
        rewrite_line(f"{self._name}: {one_line(text)}")

    def _takes_long(self, now_s: float, left_s: float | None) -> bool:
        """Whether it is worth a line; one that stands is kept right."""
        passed_s = now_s - self._phase_s
        return self._stands or passed_s + (left_s or 0.0) >= PATIENCE_S


class _Ticking:
    """Does something at once and then every second, on a thread, until it is stopped."""

    def __init__(self, tick: Callable[[], None]) -> None:
        tick()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(tick,), name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """When it returns, nothing more is done."""
        self._ended.set()
        self._thread.join()

    def _work(self, tick: Callable[[], None]) -> None:
        while not self._ended.wait(TICK_S):
            tick()


def told(items: Collection[Item], tick: Callable[[float], None]) -> Iterator[Item]:
    """The items; `tick` is told the share that is done, each time the next one is asked for."""
    for number, item in enumerate(items, 1):
        yield item
        tick(number / len(items))


def _text(what: str, done: float | None, of: float | None, note: str, left_s: float | None) -> str:
    """As in "candidates 12 of 40, 0:31 left"."""
    count = ""
    if done is not None:
        count = f" {done:.0%}" if of == 1.0 and isinstance(of, float) else f" {done:g}" + (f" of {of:g}" if of else "")
    return f"{what}{count}{', ' + note if note else ''}" + ("" if left_s is None else f", {clock(round(left_s))} left")


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
