"""A result in a few words, for people."""

from __future__ import annotations

from collections import Counter

from edge.types import Detections, Result


def caption(result: Result) -> str:
    """The best class and its score, or how many objects of each class there are, the commonest first."""
    if not isinstance(result, Detections):
        return f"{result.labels[0] if len(result) else 'nothing'} {result.confidence:.0%}"
    if not len(result):
        return "nothing"
    return ", ".join(f"{count} {label}" for label, count in Counter(result.labels).most_common())
