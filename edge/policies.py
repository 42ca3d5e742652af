"""Policies by name: whether a local result is good enough."""

from __future__ import annotations

from collections.abc import Callable

from edge.protocols import Policy
from edge.types import Decision, Detections, Result


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

    def declined(self, now_s: float) -> None:
        """The next frame is decided on its own."""


class LocalOnly:
    """Accept everything: there is nobody else to ask."""

    def decide(self, result: Result, now_s: float) -> Decision:
        """Accept."""
        return Decision("accept", "no endpoint", result.confidence)

    def declined(self, now_s: float) -> None:
        """Nobody is ever asked."""


class PerObject:
    """Offload a frame for a tracked object below `threshold`, then not for the same one again within `retry_s` seconds.

    Objects that no tracker follows (yet) do not count, unless the result has been given no tracks at all: then it is
    decided as `Threshold` does. Identities are a source's own, and so is an instance.
    """

    NAMED = 3

    def __init__(self, threshold: float, retry_s: float = 30.0) -> None:
        self.threshold, self.retry_s = threshold, retry_s
        self._untracked = Threshold(threshold)
        self._asked_s: dict[int, float] = {}

    def decide(self, result: Result, now_s: float) -> Decision:
        """Look for an object to ask about; the decision's confidence is the least of those, or of all that are tracked."""
        if not isinstance(result, Detections) or result.tracks is None:
            return self._untracked.decide(result, now_s)
        # one asked about longer ago may be asked about again, so that there is nothing to remember of it
        self._asked_s = {track: asked_s for track, asked_s in self._asked_s.items() if now_s - asked_s < self.retry_s}
        objects = zip(result.tracks.tolist(), result.labels, result.scores.tolist(), strict=True)
        tracked = [(track, label, score) for track, label, score in objects if track > 0]
        weak = [each for each in tracked if each[2] < self.threshold]
        new = [each for each in weak if each[0] not in self._asked_s]
        if new:
            self._asked_s.update((track, now_s) for track, _, _ in new)
            named = ", ".join(f"track {track} {label} {score:.3f}" for track, label, score in new[: self.NAMED])
            more = f" and {len(new) - self.NAMED} more" if len(new) > self.NAMED else ""
            return Decision("offload", f"{named}{more} < {self.threshold:g}", min(score for _, _, score in new))
        confidence = min((score for _, _, score in tracked), default=1.0)
        if weak:
            asked = ", ".join(str(track) for track, _, _ in weak[: self.NAMED])
            return Decision("accept", f"asked about track {asked} within {self.retry_s:g} s", confidence)
        return Decision("accept", f"no tracked object < {self.threshold:g}", confidence)

    def declined(self, now_s: float) -> None:
        """Objects of that decision may be asked about again at once."""
        self._asked_s = {track: asked_s for track, asked_s in self._asked_s.items() if asked_s != now_s}


POLICIES: dict[str, Callable[[float], Policy]] = {"threshold": Threshold, "per-object": PerObject}
