"""The loop: frames in, events out, and now and then a better answer from the cloud.

Four things go on side by side: each source is read (edge.intake), frames are prepared, inferred and decoded
(edge.workers), events are made here, and sinks write them on threads of their own (edge.sinks.queued).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge.controls import Controls
from edge.errors import EdgeError
from edge.governor import Governor
from edge.intake import Intake
from edge.model import Model
from edge.motion import MotionGate
from edge.protocols import Policy, Source, Task
from edge.regions import PrivacyMask
from edge.tracking import Tracker
from edge.types import Change, Decision, Detections, Event, Frame, Notice, Opinion, Result
from edge.workers import Seen, Workers

if TYPE_CHECKING:  # it brings an HTTP client, which a loop without an endpoint does without
    from edge.offload import Answer, Offloader

DRAIN_S = 2.0
REMEMBERED = 10_000
"""Tracks of one source about which the cloud's answer is remembered, the newest."""


@dataclass(slots=True)
class Scene:
    """What the loop does with one source's frames, and the last result it had for them.

    `mask` is painted over a frame before anything looks at it; `gate` says which frames are worth an inference; `view`
    wraps the model's task, as for a region of interest; `tracker` gives objects an identity. `opinions` are the cloud's
    answers about objects that have not left yet, by track.
    """

    policy: Policy
    mask: PrivacyMask | None = None
    gate: MotionGate | None = None
    view: Callable[[Task], Task] = lambda task: task
    tracker: Tracker | None = None
    last: Result | None = None
    opinions: dict[int, Opinion] = field(default_factory=dict)

    def look(self, frame: Frame) -> bool:
        """Mask a frame as it arrives; whether it shows nothing new."""
        if self.mask is not None:
            self.mask.apply(frame.image)
        return self.gate is not None and not self.gate.moves(frame.image, frame.scene_s)

    def remember(self, asked: Sequence[int], answer: Result) -> None:
        """Keep what the cloud has answered about these tracks, where it found them."""
        if not isinstance(answer, Detections) or answer.tracks is None:
            return
        for track, label, score in zip(answer.tracks.tolist(), answer.labels, answer.scores.tolist(), strict=True):
            if track > 0 and track in asked:
                self.opinions[track] = Opinion(label, score)
        while len(self.opinions) > REMEMBERED:
            del self.opinions[next(iter(self.opinions))]

    def forget(self, changes: Sequence[Change]) -> None:
        """Drop what is remembered of objects that left."""
        for change in changes:
            if change.kind == "leave":
                self.opinions.pop(change.track, None)

    def opinions_of(self, result: Result) -> Mapping[int, Opinion]:
        """What the cloud has answered about the objects of a result."""
        if not self.opinions or not isinstance(result, Detections) or result.tracks is None:
            return {}
        return {track: self.opinions[track] for track in result.tracks.tolist() if track in self.opinions}


def run(
    sources: Sequence[Source],
    model: Model,
    scenes: Sequence[Scene],
    *,
    offloader: Offloader | None = None,
    governor: Governor | None = None,
    controls: Controls | None = None,
    reopen: Callable[[Model, str], Model] | None = None,
    max_frames: int | None = None,
    deadline_s: float | None = None,
    tick: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> Generator[Event | Notice, None, None]:
    """Yield an event for every frame taken, in order, a notice of whatever befalls the loop, and revising events.

    `sources` are open; there is a scene for each. Every frame has a local answer and none waits for the network; after
    the last one, answers under way get two seconds. An engine that fails is replaced by `reopen` (see edge.workers);
    `governor` sets the pace and may forbid to offload; `controls` may pause it and set thresholds. `tick` is called at
    least four times a second, whether or not there are frames. Raises CaptureError, SourceError and EngineError, after what
    there was to yield.
    """
    tasks = _Tasks(scenes, controls)
    failure: EdgeError | None = None
    pace = governor.pace if governor is not None else controls.pace if controls is not None else None
    if governor is not None:
        governor.tick(clock())  # before there are frames
    with Intake(sources, lambda number, frame: scenes[number].look(frame), max_frames, pace) as intake:
        live = any(source.live for source in sources)
        # one more than infer prepares meanwhile, unless others do; a live frame would only age
        count = model.engine.lanes if live else max(2, model.engine.lanes)
        workers = Workers(intake, model, count, task_of=tasks, reopen=reopen, deadline_s=deadline_s)
        try:
            for seen in workers.results():
                tick()
                if governor is not None:
                    _govern(governor, seen, clock())
                if seen is not None and (event := _event(seen, scenes[seen.taken.source], clock, wall_clock)) is not None:
                    if offloader is not None:
                        offloader.see(event)
                        if event.decision.action == "offload":
                            event = _offload(event, offloader, scenes[seen.taken.source].policy, governor)
                    yield event
                    event = None  # what is not referred to any more can be used again
                seen = None
                yield from _notices(sources, scenes, workers, offloader, governor, controls)
                if offloader is not None:
                    yield from (_revision(answer, sources, scenes, clock()) for answer in offloader.answers())
        except EdgeError as error:
            failure = error  # what the cloud still owes us comes first
        finally:
            intake.close()
            workers.leave()
    yield from _notices(sources, scenes, workers, offloader, governor, controls)
    if offloader is not None:
        yield from (_revision(answer, sources, scenes, clock()) for answer in offloader.drain(DRAIN_S))
        yield from _taken(offloader.notices)
    if failure is None and intake.failures:
        failure = intake.failures[0]
    if failure is not None:
        raise failure


class _Tasks:
    """Each source's view of the model's task, made once for each model and each score threshold."""

    def __init__(self, scenes: Sequence[Scene], controls: Controls | None) -> None:
        self._scenes, self._controls = scenes, controls
        self._made: tuple[Model | None, int, list[Task]] = (None, 0, [])

    def __call__(self, source: int, model: Model) -> Task:
        made_for, made_at, tasks = self._made  # at once: another worker may be making them
        version = 0 if self._controls is None else self._controls.version
        if model is not made_for or version != made_at:  # two workers may both do it: they come to the same
            tasks = [scene.view(model.task) for scene in self._scenes]
            self._made = (model, version, tasks)
        return tasks[source]


def _event(seen: Seen, scene: Scene, clock: Callable[[], float], wall_clock: Callable[[], float]) -> Event | None:
    """The event of a frame; None where there is no result to tell."""
    frame, result = seen.taken.frame, seen.result
    changes: tuple[Change, ...] = ()
    if result is not None:
        if scene.tracker is not None and isinstance(result, Detections):
            result, changes = scene.tracker.update(result, frame.scene_s)
            scene.forget(changes)
        scene.last = result
        decision = scene.policy.decide(result, frame.captured_s)
    elif seen.taken.still and scene.last is not None:
        result = scene.last
        decision = Decision("skip", "the scene is still", result.confidence)
    else:
        return None
    now_s = clock()
    return Event(
        frame=frame,
        result=result,
        decision=decision,
        model=seen.model.name,
        variant=seen.model.variant.name,
        emitted_s=now_s,
        captured_at_s=wall_clock() - (now_s - frame.captured_s),
        timings=seen.timings,
        changes=changes,
        opinions=scene.opinions_of(result),
    )


def _govern(governor: Governor, seen: Seen | None, now_s: float) -> None:
    """Tell the governor what a frame cost, of which the engine does some side by side, and let it look."""
    if seen is not None and seen.result is not None:
        timings, engine = seen.timings, seen.model.engine
        together = engine.lanes * min(engine.batch, len(governor.pace.paced))
        governor.saw((timings.prepare + timings.infer + timings.decode) / 1e3 / together)
    governor.tick(now_s)


def _notices(
    sources: Sequence[Source],
    scenes: Sequence[Scene],
    workers: Workers,
    offloader: Offloader | None,
    governor: Governor | None,
    controls: Controls | None,
) -> Iterator[Notice]:
    for notices in [*(source.notices for source in sources), workers.notices, *(scene.policy.notices for scene in scenes)]:
        yield from _taken(notices)
    if offloader is not None:
        yield from _taken(offloader.notices)
    if governor is not None:
        yield from _taken(governor.notices)
    if controls is not None:
        yield from _taken(controls.notices)


def _taken(notices: deque[Notice]) -> Iterator[Notice]:
    while notices:
        yield notices.popleft()


def _offload(event: Event, offloader: Offloader, policy: Policy, governor: Governor | None) -> Event:
    """Hand the frame over, or, while the endpoint or the board is left in peace, say that the local answer stands."""
    spared = governor is not None and not governor.offloads
    if not spared and offloader.available(event.emitted_s):
        offloader.submit(event)
        return event
    offloader.declined += 1
    policy.declined(event.frame.captured_s)
    reason = f"{event.decision.reason}, {'the governor spares the board' if spared else 'endpoint unavailable'}"
    return replace(event, decision=replace(event.decision, action="accept", reason=reason))


def _revision(answer: Answer, sources: Sequence[Source], scenes: Sequence[Scene], now_s: float) -> Event:
    """The event of an answer, of which the source's policy is told and which its scene remembers."""
    asked = answer.event.result
    if isinstance(asked, Detections) and asked.tracks is not None:
        tracks = asked.tracks[list(answer.event.decision.about)].tolist()
        names = [source.name for source in sources]
        scene = scenes[names.index(answer.event.frame.source)]
        scene.policy.answered(tracks)
        scene.remember(tracks, answer.result)
    return replace(
        answer.event,
        result=answer.result,
        model=answer.model,
        variant=answer.variant,
        served_by="cloud",
        emitted_s=now_s,
        revises=True,
        changes=(),
        opinions={},
    )
