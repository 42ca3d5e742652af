"""A result in a few words, for people."""

from __future__ import annotations

from collections import Counter

from edge.types import Classes, Mask, Result


def caption(result: Result) -> str:
    """The best class and its score, how many objects of each class there are, or their shares of a mask; the most first."""
    if isinstance(result, Classes):
        return f"{result.labels[0] if len(result) else 'nothing'} {result.confidence:.0%}"
    if isinstance(result, Mask):
        return ", ".join(f"{segment.share:.0%} {segment.label}" for segment in result.segments()) or "nothing"
    if not len(result):
        return "nothing"
    return ", ".join(f"{count} {label}" for label, count in Counter(result.labels).most_common())


def best_label(result: Result) -> str | None:
    """The label of the best class or object, or of a mask's largest segment; None where nothing was seen."""
    if isinstance(result, Mask):
        segments = result.segments()
        return segments[0].label if segments else None
    if not len(result):
        return None
    return result.labels[int(result.scores.argmax())]
