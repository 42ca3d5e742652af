"""Which frames are worth asking about first, when not all can be."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from edge.types import Event


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An event to ask about, and the key under which the endpoint knows it again, however often it is sent."""

    event: Event
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def value(self) -> tuple[float, float]:
        """How much an answer is worth: the most uncertain first, then the newest."""
        return -self.event.decision.confidence, self.event.frame.captured_s


class Waiting:
    """At most `limit` jobs, the most valuable of all that were added; for one thread at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> Job | None:
        """Queue a job; the least valuable one of all is given up, and returned, when there are too many."""
        self._jobs.append(job)
        if len(self._jobs) <= self._limit:
            return None
        least = min(self._jobs, key=lambda job: job.value)
        self._jobs.remove(least)
        return least

    def take(self) -> Job:
        """The most valuable job, of equal ones the last. Raises ValueError when there is none."""
        best = max(reversed(self._jobs), key=lambda job: job.value)
        self._jobs.remove(best)
        return best

    def clear(self) -> list[Job]:
        """All jobs, which then no longer wait."""
        jobs, self._jobs = self._jobs, []
        return jobs
