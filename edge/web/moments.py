"""The last things worth a look: what entered, left or changed, what the cloud was asked, what befell the loop."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from edge.errors import one_line
from edge.events import iso_8601, utf8
from edge.sinks.caption import best_label, caption
from edge.types import Change, Classes, Detections, Event, Notice, Result
from edge.web.bell import Bell
from edge.web.preview import drawn, encoded

Kind = Literal["notice", "enter", "leave", "change", "label", "offload", "answer"]
KEPT = 30
THUMBNAIL_S = 2.0
"""At most one thumbnail of a source in so long."""
LONGEST_SIDE, QUALITY = 320, 75
APART_S: dict[str, float] = {
    "offload": 2.0,
    "answer": 2.0,
    "enter": 1.0,
    "leave": 1.0,
    "change": 1.0,
    "notice": 2.0,
}
"""Moments of one kind and source come no closer; the next one says how many there were."""
SETTLED, SETTLED_S, SURE = 3, 2.0, 0.5
"""A classifier's label has changed when another one was the best for so long, so often with at least this probability."""
LABELS_APART_S = 10.0
"""Within so long a label that comes back has never been away."""
PATIENCE_S = 0.5
"""A moment whose picture was missed takes one that is so much later, or none."""
ASKED = 64
"""Local results of one source, kept until the cloud has answered."""
NAMED = 3
"""Objects that are named one by one."""


class Moment(msgspec.Struct, frozen=True):
    """Something worth a look; `source` counts from 1, `picture` says whether there is a thumbnail of it.

    `more` like it came just before, and are not told.
    """

    id: int
    at: str
    kind: Kind
    source: int | None
    seq: int | None
    text: str
    picture: bool
    more: int = 0


@dataclass(slots=True)
class _Draft:
    """A moment that waits for its picture; `exact`: no other frame's will do."""

    at_s: float
    kind: Kind
    source: int | None
    seq: int | None
    text: str
    more: int = 0
    until_s: float = 0.0
    exact: bool = False


@dataclass(slots=True)
class _Watched:
    """What is remembered of a source."""

    label: str | None = None
    label_s: float = float("-inf")
    candidate: str | None = None
    candidate_s: float = 0.0
    results: int = 0
    pictured_s: float = float("-inf")
    asked: OrderedDict[int, Result] = field(default_factory=OrderedDict)
    drafts: list[_Draft] = field(default_factory=list)


class Moments:
    """Finds them in what passes (`see`, `notice`: on the loop's thread, some microseconds) and keeps the newest.

    `illustrate`, on any thread, gives those that wait for it their thumbnail. A moment is published when it has its
    picture, or will have none; `bell` rings then. Numbers count from `first_id`.
    """

    def __init__(self, names: Sequence[str], *, first_id: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.bell = Bell()
        self._clock = clock
        self._numbers = {name: number for number, name in enumerate(names)}
        self._watched = [_Watched() for _ in names]
        self._lock = threading.Lock()
        self._kept: deque[Moment] = deque()
        self._pictures: dict[int, bytes] = {}
        self._last_id = first_id - 1
        self._told: dict[tuple[str, object], tuple[float, int]] = {}

    def see(self, source: int, event: Event) -> bool:
        """Take an event of source number `source`, from 0; whether its picture is wanted for a moment."""
        watched = self._watched[source]
        if event.revises:
            self._see_answer(source, watched, event)
        else:
            if event.changes:
                self._see_changes(source, event)
            if event.decision.action != "skip" and isinstance(event.result, Classes):
                self._see_label(source, watched, event)
            if event.decision.action == "offload":
                self._see_question(source, watched, event)
        return bool(watched.drafts) and self._awaited(watched, event)

    def notice(self, notice: Notice) -> None:
        """Take a notice."""
        number = self._numbers.get(notice.about)
        # whoever turns a control sees where it ends, not where it began
        if notice.kind == "control" or self._comes_alone("notice", (notice.kind, notice.about)):
            more = self._more((notice.kind, notice.about))
            source = None if number is None else number + 1
            self._tell(_Draft(notice.at_s, "notice", source, None, notice.text, more), pictured=False)

    def awaited(self, source: int, event: Event) -> bool:
        """Whether a moment waits for this event's picture."""
        return self._awaited(self._watched[source], event)

    def illustrate(self, source: int, event: Event) -> None:
        """Make a thumbnail of the event, and publish the moments that wait for it."""
        picture = encoded(drawn(event, LONGEST_SIDE), QUALITY)
        watched = self._watched[source]
        with self._lock:
            done = [draft for draft in watched.drafts if _suits(draft, event)]
            watched.drafts = [draft for draft in watched.drafts if draft not in done]
            for draft in done:
                self._publish(draft, picture)

    def newest(self) -> list[Moment]:
        """Those that are kept, the oldest first."""
        with self._lock:
            self._give_up()
            return list(self._kept)

    def since(self, last_id: int) -> list[Moment]:
        """Those after `last_id`."""
        return [moment for moment in self.newest() if moment.id > last_id]

    def picture(self, moment_id: int) -> bytes | None:
        """The thumbnail of a moment, JPEG."""
        return self._pictures.get(moment_id)

    def _see_changes(self, source: int, event: Event) -> None:
        for kind in ("enter", "leave", "change"):
            changes = [change for change in event.changes if change.kind == kind]
            if changes and self._comes_alone(kind, (kind, source)):
                self._see(kind, source, event, _change_text(changes))

    def _see_label(self, source: int, watched: _Watched, event: Event) -> None:
        label, is_sure, now_s = best_label(event.result), event.result.confidence >= SURE, self._clock()
        if label == watched.label or label is None:
            watched.candidate = None
            return
        if label != watched.candidate:
            watched.candidate, watched.candidate_s, watched.results = label, now_s, 0
        watched.results += is_sure
        steady = is_sure and watched.results >= SETTLED and now_s - watched.candidate_s >= SETTLED_S
        if not steady or now_s - watched.label_s < LABELS_APART_S:
            return
        before, watched.label, watched.candidate = watched.label, label, None
        if before is not None:
            watched.label_s = now_s
            self._see("label", source, event, f"{caption(event.result)}, before it was {before}")

    def _see_question(self, source: int, watched: _Watched, event: Event) -> None:
        watched.asked[event.frame.sequence] = event.result
        while len(watched.asked) > ASKED:
            watched.asked.popitem(last=False)
        if self._comes_alone("offload", ("offload", source)):
            self._see("offload", source, event, f"asked the cloud about {caption(event.result)}")

    def _see_answer(self, source: int, watched: _Watched, event: Event) -> None:
        local = watched.asked.pop(event.frame.sequence, None)
        if local is not None and differ(local, event.result) and self._comes_alone("answer", ("answer", source)):
            self._see("answer", source, event, f"the cloud says {caption(event.result)}, here it was {caption(local)}")

    def _comes_alone(self, kind: Kind, key: tuple[str, object]) -> bool:
        """Whether there was none like it just before; else it is counted, and the next one says so."""
        now_s = self._clock()
        told_s, more = self._told.get(key, (float("-inf"), 0))
        if now_s - told_s < APART_S[kind]:
            self._told[key] = told_s, more + 1
            return False
        self._told[key] = now_s, more
        return True

    def _more(self, key: tuple[str, object]) -> int:
        """How many were not told since the last one of them."""
        told_s, more = self._told.get(key, (0.0, 0))
        if more:
            self._told[key] = told_s, 0
        return more

    def _see(self, kind: Kind, source: int, event: Event, text: str) -> None:
        more = self._more((kind, source))
        draft = _Draft(event.captured_at_s, kind, source + 1, event.frame.sequence, text, more, exact=kind == "answer")
        self._tell(draft, pictured=event.frame.image.size > 0)

    def _tell(self, draft: _Draft, *, pictured: bool) -> None:
        """Publish a moment, at once or when it has its picture."""
        now_s = self._clock()
        with self._lock:
            self._give_up()
            if pictured and draft.source is not None:
                watched = self._watched[draft.source - 1]
                shared = any(waiting.seq == draft.seq for waiting in watched.drafts)
                if shared or now_s - watched.pictured_s >= THUMBNAIL_S:
                    watched.pictured_s = now_s
                    draft.until_s = now_s + PATIENCE_S
                    watched.drafts.append(draft)
                    return
            self._publish(draft, None)

    def _awaited(self, watched: _Watched, event: Event) -> bool:
        with self._lock:
            return any(_suits(draft, event) for draft in watched.drafts)

    def _give_up(self) -> None:
        """Publish without a picture what has waited for long enough; with the lock held."""
        now_s = self._clock()
        for watched in self._watched:
            late = [draft for draft in watched.drafts if draft.until_s < now_s]
            if late:
                watched.drafts = [draft for draft in watched.drafts if draft not in late]
                for draft in late:
                    self._publish(draft, None)

    def _publish(self, draft: _Draft, picture: bytes | None) -> None:
        """With the lock held."""
        self._last_id += 1
        text, at = one_line(utf8(draft.text)), iso_8601(draft.at_s)
        made = Moment(self._last_id, at, draft.kind, draft.source, draft.seq, text, picture is not None, draft.more)
        self._kept.append(made)
        if picture is not None:
            self._pictures[self._last_id] = picture
        while len(self._kept) > KEPT:
            self._pictures.pop(self._kept.popleft().id, None)
        self.bell.ring()


def differ(local: Result, cloud: Result) -> bool:
    """Whether the cloud sees something else: another class, other labels of the same tracks, or other objects."""
    if isinstance(local, Detections) and isinstance(cloud, Detections):
        if local.tracks is None or cloud.tracks is None:
            return Counter(local.labels) != Counter(cloud.labels)
        mine, its = (dict(zip(one.tracks.tolist(), one.labels, strict=True)) for one in (local, cloud))  # type: ignore[union-attr]
        return any(track > 0 and its.get(track, label) != label for track, label in mine.items())
    return best_label(local) != best_label(cloud)


def _suits(draft: _Draft, event: Event) -> bool:
    if event.revises or draft.exact:
        return draft.exact and event.revises and draft.seq == event.frame.sequence
    return draft.seq is not None and event.frame.sequence >= draft.seq


def _change_text(changes: Sequence[Change]) -> str:
    """What the changes, all of one kind, were."""
    kind = changes[0].kind
    if kind == "change":
        named = [f"#{change.track} is {change.label} now" for change in changes[:NAMED]]
        end = ""
    else:
        named = [f"{change.label} #{change.track}" for change in changes[:NAMED]]
        end = " entered" if kind == "enter" else " left"
    more = len(changes) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "") + end
