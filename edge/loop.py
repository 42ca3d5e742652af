"""The loop: a frame in, an event out, and now and then a better answer from the cloud."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.errors import EdgeError
from edge.model import Model
from edge.protocols import Policy
from edge.types import Event, Frame, Timings

if TYPE_CHECKING:  # it brings an HTTP client, which a loop without an endpoint does without
    from edge.offload import Answer, Offloader

DRAIN_S = 2.0


def run(
    frames: Iterable[Frame],
    model: Model,
    policy: Policy,
    *,
    offloader: Offloader | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> Iterator[Event]:
    """Yield an event for every frame as soon as it is known, and a revising event for each answer of the cloud.

    Every frame has a local answer; none waits for the network. After the last frame, answers under way get two
    seconds. Raises CaptureError and EngineError.
    """
    failure: EdgeError | None = None
    try:
        for frame in frames:
            event = _step(frame, model, policy, clock, wall_clock)
            if offloader is not None and event.decision.action == "offload":
                event = _offload(event, offloader)
            yield event
            if offloader is not None:
                yield from (_revision(answer, clock()) for answer in offloader.answers())
    except EdgeError as error:
        failure = error  # what the cloud still owes us comes first
    if offloader is not None:
        yield from (_revision(answer, clock()) for answer in offloader.drain(DRAIN_S))
    if failure is not None:
        raise failure


def _step(frame: Frame, model: Model, policy: Policy, clock: Callable[[], float], wall_clock: Callable[[], float]) -> Event:
    begun_s = clock()
    tensor = model.task.prepare(frame)
    prepared_s = clock()
    outputs = model.engine.infer(tensor)
    inferred_s = clock()
    result = model.task.decode(outputs, tensor)
    decision = policy.decide(result, frame.captured_s)
    decoded_s = clock()
    return Event(
        frame=frame,
        result=result,
        decision=decision,
        model=model.name,
        variant=model.variant.name,
        emitted_s=decoded_s,
        captured_at_s=wall_clock() - (decoded_s - frame.captured_s),
        timings=Timings(
            capture=frame.capture_ms,
            prepare=(prepared_s - begun_s) * 1e3,
            infer=(inferred_s - prepared_s) * 1e3,
            decode=(decoded_s - inferred_s) * 1e3,
        ),
    )


def _offload(event: Event, offloader: Offloader) -> Event:
    """Hand the frame over, or, while the endpoint is left in peace, say that the local answer stands."""
    if offloader.available(event.emitted_s):
        offloader.submit(event)
        return event
    offloader.declined += 1
    reason = f"{event.decision.reason}, endpoint unavailable"
    return replace(event, decision=replace(event.decision, action="accept", reason=reason))


def _revision(answer: Answer, now_s: float) -> Event:
    return replace(
        answer.event,
        result=answer.result,
        model=answer.model,
        variant=answer.variant,
        served_by="cloud",
        emitted_s=now_s,
        revises=True,
    )
