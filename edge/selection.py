"""When a local answer may be accepted with a promise: thresholds fitted at build time, and an alarm for when they lapse."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np

from edge.card import Promise, Selection, SelectionUnit
from edge.types import Bools, Float32

if TYPE_CHECKING:  # a device has no use for it, and it would be loaded at each start
    from edge.evaluate import DetectionReport, Report

ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""The error rates for which a build looks for a threshold."""
DELTA = 0.1
"""The probability, over the pictures that happened to calibrate, that a promise does not hold."""
STEP = 0.01
"""How much more coverage each hypothesis of the sequence asks for."""
FIRST = 0.1
"""The coverage where it begins, unless that is fewer than `FIRST_ANSWERS` times what could promise it without an error."""
FIRST_ANSWERS = 3
QUANTILES = 41
"""How many points of the calibration's distribution a card has, the least and the greatest among them."""


def most_errors(count: int, alpha: float, delta: float) -> int:
    """The most errors among `count` answers that still show, at level `delta`, an error rate below `alpha`; -1: none do.

    The exact binomial test: the largest k with P(Binomial(count, alpha) <= k) <= delta.
    """
    total = 0.0
    for errors in range(count + 1):
        ways = math.lgamma(count + 1) - math.lgamma(errors + 1) - math.lgamma(count - errors + 1)
        total += math.exp(ways + errors * math.log(alpha) + (count - errors) * math.log1p(-alpha))
        if total > delta:
            return errors - 1
    return count


def fit_promise(confidence: Float32, right: Bools, alpha: float, delta: float = DELTA) -> Promise | None:
    """The least threshold at which the error rate of what is accepted is below `alpha` with probability 1 - `delta`.

    `confidence` [n] and `right` [n] are of answers to pictures that chose nothing. Coverages are tested one after
    another, from little to much, each at level `delta`, until one fails: the family-wise error of a fixed sequence is
    that of one test (Angelopoulos et al., 2021, Learn then Test). None when not even the first holds.
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, errors = confidence[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.append(sorted_confidence[1:] != sorted_confidence[:-1], True))  # equal ones go together
    accepted = ends + 1
    fewest = FIRST_ANSWERS * math.log(delta) / math.log1p(-alpha)
    coverage = max(FIRST, fewest / len(confidence)) if len(confidence) else math.inf
    best = None
    while coverage < 1 + STEP:
        place = min(int(np.searchsorted(accepted, min(coverage, 1.0) * len(confidence))), len(ends) - 1)
        if errors[ends[place]] > most_errors(int(accepted[place]), alpha, delta):
            break
        best = Promise(
            alpha=alpha,
            threshold=float(sorted_confidence[ends[place]]),
            coverage=round(int(accepted[place]) / len(confidence), 4),
        )
        coverage += STEP
    return best


def fit_selections(report: Report | DetectionReport) -> tuple[Selection, ...]:
    """What a card says of accepting the answers that were measured, by unit."""
    fitted = (fit_selection(unit, scored.confidence, scored.right) for unit, scored in report.answers.items())
    return tuple(selection for selection in fitted if selection is not None)


def fit_selection(unit: SelectionUnit, confidence: Float32, right: Bools) -> Selection | None:
    """What a card says of accepting answers of this kind; None where there are no answers."""
    if len(confidence) == 0:
        return None
    promises = (fit_promise(confidence, right, alpha) for alpha in ALPHAS)
    quantiles = np.quantile(confidence.astype(np.float64), np.linspace(0, 1, QUANTILES))
    return Selection(
        unit=unit,
        answers=len(confidence),
        delta=DELTA,
        promises=tuple(promise for promise in promises if promise is not None),
        quantiles=tuple(round(float(value), 6) for value in quantiles),
    )


class ShiftAlarm:
    """Tells when confidences have ceased to be distributed as the calibration's were.

    Each confidence becomes its place in the calibration's distribution, uniform if nothing changed; bets against that,
    towards low, high and middling places, are kept going as a Shiryaev-Roberts sum, so that a change at any time shows
    (Vovk et al., 2021, Retrain or not retrain). Without a change an alarm comes once in a million answers at most, as
    long as they are independent. What a calibration set of finite size explains is no change: a bet has to win more than
    that with each answer.
    """

    ALARM = 1e6
    POWERS = (0.3, 0.6)

    def __init__(self, selection: Selection) -> None:
        self._quantiles = np.array(selection.quantiles, np.float64)
        self._places = np.linspace(0, 1, len(selection.quantiles))
        self._slack = 0.01 + 5 / selection.answers
        self._sums = np.zeros(2 * len(self.POWERS) + 1)
        self._random = random.Random(0)
        self.answers = 0
        self.fired = False

    def place(self, confidence: float) -> float:
        """Where in the calibration's distribution a confidence lies, in (0, 1); a tie anywhere within it, by chance."""
        low, high = np.searchsorted(self._quantiles, confidence, "left"), np.searchsorted(self._quantiles, confidence, "right")
        if high - low > 1:
            place = self._random.uniform(self._places[low], self._places[high - 1])
        else:
            place = float(np.interp(confidence, self._quantiles, self._places))
        if 0 < place < 1:
            return place
        beyond = self._random.random() / (2 * len(self._places) - 2)  # within half a step, for nobody knows how far out it is
        return beyond if place <= 0 else 1 - beyond

    def add(self, confidence: float) -> bool:
        """Take one more answer into account; whether the alarm is on, which it then stays."""
        place = self.place(confidence)
        self.answers += 1
        bets = [power * side ** (power - 1) for power in self.POWERS for side in (place, 1 - place)]
        bets.append(6 * place * (1 - place))
        self._sums = (1 + self._sums) * np.array(bets) * math.exp(-self._slack)
        self.fired = self.fired or float(self._sums.mean()) >= self.ALARM
        return self.fired
