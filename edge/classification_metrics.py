"""How well answers agree with labels, class by class: precision, recall, F1, confusions, and how sure an accuracy is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.card import Label
from edge.types import Bools, Float32, Float64, Int64

NORMAL_95 = 1.959963984540054
"""The quantile of the normal distribution that leaves 2.5% above it."""


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What there was and what was answered: class ids `truth` [n] and `answers` [m], and which answers are `right` [m].

    A classifier gives an answer a picture, so that n = m; a detector gives as many as it finds objects.
    """

    truth: Int64
    answers: Int64
    right: Bools


@dataclass(frozen=True, slots=True, eq=False)
class ClassCounts:
    """Per class [classes]: how many there are, how many answers name it, and how many of these are right.

    What has no denominator is not a number: the recall of a class without a picture, the precision of one never named.
    """

    support: Int64
    answered: Int64
    right: Int64

    @property
    def precision(self) -> Float64:
        """The share of the answers naming a class that are right [classes]."""
        return _ratio(self.right, self.answered)

    @property
    def recall(self) -> Float64:
        """The share of a class's own that was found [classes]."""
        return _ratio(self.right, self.support)

    @property
    def f1(self) -> Float64:
        """The harmonic mean of the two [classes]: 2 right / (support + answered)."""
        return _ratio(2 * self.right, self.support + self.answered)

    @property
    def macro(self) -> Macro:
        """The means over the classes that the labels have; the precision of one that is never named counts as 0."""
        known = self.support > 0
        if not known.any():
            return Macro(0.0, 0.0, 0.0)
        means = (float(np.nan_to_num(values[known]).mean()) for values in (self.precision, self.recall, self.f1))
        return Macro(*means)

    @property
    def occurring(self) -> Int64:
        """The classes, in order, of which there is one or that an answer names."""
        return np.flatnonzero(self.support + self.answered)

    def worst(self) -> Int64:
        """The classes of which there is one, the least recall first; of equal ones that with the most pictures."""
        known = np.flatnonzero(self.support)
        return known[np.lexsort((-self.support[known], self.recall[known]))]


@dataclass(frozen=True, slots=True)
class Macro:
    """Means over classes, each of which counts the same however many pictures it has."""

    precision: float
    recall: float
    f1: float


def class_counts(tally: Tally, classes: int) -> ClassCounts:
    """The tally of each of so many classes."""
    counted = (np.bincount(ids, minlength=classes) for ids in (tally.truth, tally.answers, tally.answers[tally.right]))
    return ClassCounts(*counted)


def confusion_matrix(truth: Int64, answers: Int64, classes: int) -> Int64:
    """How many pictures of each class (row) were taken for each (column): int64 [classes, classes]."""
    return np.bincount(truth * classes + answers, minlength=classes * classes).reshape(classes, classes)


def confusions(truth: Int64, answers: Int64) -> list[tuple[int, int, int]]:
    """What was taken for what: (true class, answer, pictures), the most frequent first, right answers left out."""
    wrong = np.flatnonzero(truth != answers)
    pairs, counts = np.unique(np.stack((truth[wrong], answers[wrong]), axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(*pair, count) for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)]


def top_k(probabilities: Float32, truth: Int64, k: int) -> Bools:
    """Whether the true class [n] is among the k best of probabilities [n, classes]; of equal ones the first count more."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    before = np.arange(probabilities.shape[1])[None, :] < truth[:, None]
    better = (probabilities > own) | ((probabilities == own) & before)
    among: Bools = better.sum(axis=1) < k
    return among


def wilson_interval(right: float, count: int, quantile: float = NORMAL_95) -> tuple[float, float]:
    """The 95% interval of a share, `right` of `count`; (0, 1) of nothing.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference (JASA, 1927): unlike the normal
    approximation it holds for few pictures and for shares near 0 and 1.
    """
    if count == 0:
        return 0.0, 1.0
    share, spread = right / count, quantile**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def class_rows(counts: ClassCounts, labels: Sequence[Label], more: dict[str, Float64] | None = None) -> list[dict[str, Any]]:
    """The figures of each class that occurs, as JSON has them: null where there is nothing to divide by.

    `more` are further figures by name, each [classes].
    """
    figures = (more or {}) | {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    return [
        {
            "id": labels[index].id,
            "name": labels[index].name,
            **{name: None if math.isnan(values[index]) else round(float(values[index]), 6) for name, values in figures.items()},
            "support": int(counts.support[index]),
            "answered": int(counts.answered[index]),
            "right": int(counts.right[index]),
        }
        for index in counts.occurring.tolist()
    ]


def rounded_macro(counts: ClassCounts) -> dict[str, float]:
    """The means over classes, as JSON has them."""
    return {name: round(getattr(counts.macro, name), 6) for name in ("precision", "recall", "f1")}


def _ratio(part: Int64, whole: Int64) -> Float64:
    ratio: Float64 = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio
