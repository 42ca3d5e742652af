"""Policies by name: whether a local result is good enough."""

from __future__ import annotations

from collections.abc import Callable

from edge.protocols import Policy
from edge.types import Decision, Result


class Threshold:
    """Accept what is at least `threshold` confident (a calibrated probability), offload the rest."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def decide(self, result: Result, now_s: float) -> Decision:
        """Compare the result's confidence with the threshold; equal is enough."""
        confidence = result.confidence
        if confidence >= self.threshold:
            return Decision("accept", f"confidence {confidence:.3f} >= {self.threshold:g}", confidence)
        return Decision("offload", f"confidence {confidence:.3f} < {self.threshold:g}", confidence)


class LocalOnly:
    """Accept everything: there is nobody else to ask."""

    def decide(self, result: Result, now_s: float) -> Decision:
        """Accept."""
        return Decision("accept", "no endpoint", result.confidence)


POLICIES: dict[str, Callable[[float], Policy]] = {"threshold": Threshold}
