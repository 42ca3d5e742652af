"""Inference beside capture and sinks: frames are prepared, inferred and decoded on threads, and come out in order.

A call that raises or never returns costs one frame a second try: the engine is opened anew, a bounded number of times.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edge.engines import infer
from edge.errors import EdgeError, EngineError
from edge.intake import Intake, Taken
from edge.model import Model
from edge.protocols import Task
from edge.types import Notice, NoticeKind, Result, Tensor, Timings

TICK_S = 0.25
LEAVING_S = 5.0
TRIES = 2
MOST_ABANDONED = 8
DONE_PER_WORKER = 4
"""Results that wait to be taken; with more than these, no worker begins another frame."""
HUNG = "never returned"
OPENING_DEADLINE_S = 120.0
LEAST_DEADLINE_S = 10.0
"""An inference is not called hung before this, nor before it took 20 times the median of the recent ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A frame and what the model made of it; no result where the scene is still, or where the engine failed twice."""

    taken: Taken
    model: Model
    result: Result | None = None
    timings: Timings = field(default_factory=Timings)


@dataclass(slots=True, eq=False)
class _Job:
    """Frames that one worker is at, with which model, and until when; `trouble` is why they are tried again."""

    batch: list[Taken]
    model: Model
    tries: int = 0
    trouble: str = ""
    late_s: float = 0.0
    opening: bool = False
    abandoned: bool = False


class Workers:
    """`count` threads that take from `intake`; `results` gives what they made of it, in the order it was taken.

    `task_of(source, model)` is what prepares and decodes a source's frames. `reopen(model, reason)` gives a model in
    place of one that failed, the same variant or the next one, or raises EdgeError when it has no more to give.
    """

    def __init__(
        self,
        intake: Intake,
        model: Model,
        count: int,
        *,
        task_of: Callable[[int, Model], Task],
        reopen: Callable[[Model, str], Model] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.notices: deque[Notice] = deque()
        self.abandoned = 0
        self._intake = intake
        self._model = model
        self._task_of = task_of
        self._reopen = reopen
        self._fixed_s = deadline_s
        self._recent_s: deque[float] = deque(maxlen=50)
        self._done: dict[int, Seen] = {}
        self._most_done = DONE_PER_WORKER * count
        self._changed = threading.Condition()
        self._opening = threading.Lock()
        self._jobs: set[_Job] = set()
        self._alive = 0
        self._failure: EdgeError | None = None
        for _ in range(count):
            self._hire()

    @property
    def model(self) -> Model:
        """The one in use."""
        return self._model

    def results(self) -> Iterator[Seen | None]:
        """Yield in order until the intake is done, and None at least four times a second when there is nothing else.

        Raises EngineError when no engine is left.
        """
        ticket = 0
        while True:
            with self._changed:
                seen = self._done.pop(ticket, None)
                if seen is not None:
                    self._changed.notify_all()
                else:
                    if self._failure is not None:
                        raise self._failure
                    if self._alive == 0 and not self._done:
                        return
                    self._changed.wait(TICK_S)
            if seen is not None:
                ticket += 1
            else:
                self._watch()
            yield seen
            seen = None  # its frame's memory may be needed

    def leave(self) -> None:
        """Wait for the inferences under way, once the intake is closed: an engine must not outlive the interpreter."""
        with self._changed:
            self._changed.wait_for(lambda: self._alive == 0, LEAVING_S)

    def _hire(self, job: _Job | None = None) -> None:
        with self._changed:
            self._alive += 1
        threading.Thread(target=self._work, args=(job,), name="inference", daemon=True).start()

    def _work(self, job: _Job | None) -> None:
        try:
            while job is not None or (job := self._next()) is not None:
                self._attempt(job)
                if job.abandoned:
                    return  # another one was hired in its place
                job = None
        except Exception as error:
            if job is None or not job.abandoned:  # what an abandoned call ends with is nobody's concern any more
                self._fail(error)
        finally:
            with self._changed:
                if job is None or not job.abandoned:
                    self._alive -= 1
                self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        failure = (
            error if isinstance(error, EdgeError) else EngineError(f"a fault in the loop: {type(error).__name__}: {error}")
        )
        if failure is not error:
            failure.__cause__ = error
        with self._changed:
            self._failure = failure
        self._intake.close()

    def _next(self) -> _Job | None:
        with self._changed:  # results that nobody takes, or that wait for one that hangs, hold pictures
            while len(self._done) >= self._most_done and not self._intake.closed:
                self._changed.wait(TICK_S)
        batch = self._intake.take(self._model.engine.batch)
        return _Job(batch, self._model) if batch else None

    def _attempt(self, job: _Job) -> None:
        """Do a job, and once more with another engine when the first fails; then its frames go without a result."""
        seen: list[Seen] | None = None
        while seen is None:
            if job.tries == TRIES:  # it is the picture rather than the engine, unless that hangs
                for taken in job.batch:
                    frame = taken.frame
                    self._note("frame-failed", job.model, f"frame {frame.sequence} of {frame.source}: {job.trouble}")
                seen = [Seen(taken, job.model) for taken in job.batch]
            if job.trouble and (seen is None or HUNG in job.trouble):
                self._due(job, OPENING_DEADLINE_S)
                job.opening = True
                self._replace(job)
                job.opening = False
            if job.abandoned:
                return
            job.model = self._model
            if seen is not None:
                break
            job.tries += 1
            self._due(job, self._deadline_s())
            try:
                seen = self._infer(job.batch, job.model)
            except EngineError as error:
                job.trouble = str(error)
        with self._changed:
            self._jobs.discard(job)
            if not job.abandoned:
                self._done.update((one.taken.ticket, one) for one in seen)
                self._changed.notify_all()

    def _due(self, job: _Job, within_s: float) -> None:
        with self._changed:
            job.late_s = time.monotonic() + within_s
            if not job.abandoned:
                self._jobs.add(job)

    def _deadline_s(self) -> float:
        return self._fixed_s or max(LEAST_DEADLINE_S, 20 * statistics.median(self._recent_s or [0.0]))

    def _infer(self, batch: list[Taken], model: Model) -> list[Seen]:
        moving = [taken for taken in batch if not taken.still]
        seen = [Seen(taken, model) for taken in batch if taken.still]
        if not moving:
            return seen
        tasks = [self._task_of(taken.source, model) for taken in moving]
        begun_s = time.monotonic()
        tensors = [task.prepare(taken.frame) for task, taken in zip(tasks, moving, strict=True)]
        together = tensors[0] if len(tensors) == 1 else Tensor(np.concatenate([t.data for t in tensors]), tensors[0].geometry)
        prepared_s = time.monotonic()
        outputs = infer(model.engine, together)
        inferred_s = time.monotonic()
        self._recent_s.append(inferred_s - prepared_s)
        end = 0
        for task, taken, tensor in zip(tasks, moving, tensors, strict=True):
            begin, end = end, end + len(tensor.data)
            own = {role: value[begin:end] for role, value in outputs.items()} if len(moving) > 1 else outputs
            started_s = time.monotonic()
            result = task.decode(own, tensor)
            timings = Timings(
                capture=taken.frame.capture_ms,
                prepare=(prepared_s - begun_s) * 1e3 / len(moving),
                infer=(inferred_s - prepared_s) * 1e3,
                decode=(time.monotonic() - started_s) * 1e3,
            )
            seen.append(Seen(taken, model, result, timings))
        return seen

    def _replace(self, job: _Job) -> None:
        """Put a new engine in the place of the job's, unless another worker has. Raises EdgeError when none is left."""
        with self._opening:
            if self._model is not job.model or job.abandoned:
                return
            self._note("engine-failed", job.model, job.trouble)
            if self._reopen is None:
                raise EngineError(job.trouble)
            fresh = self._reopen(job.model, job.trouble)
            kind: NoticeKind = "engine-reopened" if fresh.variant.name == job.model.variant.name else "variant-changed"
            self._note(kind, fresh, f"running {fresh.variant.name} on {fresh.engine.name}")
            self._model = fresh
        if HUNG not in job.trouble:  # a call that has not returned still uses it
            job.model.engine.close()

    def _note(self, kind: NoticeKind, model: Model, text: str) -> None:
        self.notices.append(Notice(kind, model.variant.name, text, time.time()))

    def _watch(self) -> None:
        """Give up jobs that hang, and hire for each a worker that opens another engine and tries its frames again."""
        now_s = time.monotonic()
        with self._changed:
            hung = [job for job in self._jobs if now_s > job.late_s]
            for job in hung:
                job.abandoned = True
                self._jobs.discard(job)
                self._alive -= 1
                self.abandoned += 1
                if self.abandoned > MOST_ABANDONED:
                    self._failure = EngineError(f"the engine {HUNG} {self.abandoned} times; restart the board")
                elif job.opening:  # who comes next would wait for it
                    self._failure = EngineError(f"opening an engine {HUNG}; restart the board")
        for job in hung if self._failure is None else []:
            self._hire(_Job(job.batch, job.model, job.tries, trouble=f"an inference {HUNG}"))
