"""Work for a model: pictures wait in one queue, lanes take them in batches, a request's last picture makes its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeAlias

import numpy as np

from cloud.errors import RetiredError
from cloud.metrics import Metrics
from edge.errors import EdgeError, EngineError
from edge.model import Model
from edge.types import Geometry, Outputs, Result, Tensor

Answer: TypeAlias = tuple[Outputs, Result]
SMOOTHING = 0.05
"""Weight of the newest batch in the running mean of seconds a picture."""


class Work:
    """One request's pictures: each a function that prepares it, and `done`, called once with all answers or an error.

    `done` runs on a lane's thread. A picture that cannot be prepared fails its request and no other.
    """

    def __init__(self, pictures: Sequence[Callable[[], Tensor]], done: Callable[[list[Answer] | Exception], None]) -> None:
        self._pictures, self._count = pictures, len(pictures)
        self._done: Callable[[list[Answer] | Exception], None] | None = done
        self._answers: dict[int, Answer] = {}
        self._lock = threading.Lock()
        self.queued = 0
        """Of its pictures, those that wait for a lane and count as such; the batcher's, under its lock."""
        self.released: Callable[[Work], None] = lambda work: None
        """Called when what is left of it need not be inferred any more."""

    def __len__(self) -> int:
        return self._count

    def picture(self, index: int) -> Callable[[], Tensor] | None:
        """What prepares a picture; None once nobody waits for it."""
        with self._lock:
            return self._pictures[index] if self._done is not None else None

    def answer(self, index: int, answer: Answer) -> None:
        """The answer to one picture."""
        with self._lock:
            self._answers[index] = answer
            complete = len(self._answers) == self._count
        if complete:
            self._end([self._answers[index] for index in range(self._count)])

    def fail(self, error: Exception) -> None:
        """The request fails; what is left of it is skipped."""
        self._end(error)

    def cancel(self) -> None:
        """Nobody waits for it any more: what is left of it is let go of and skipped."""
        self._end(None)

    def _end(self, result: list[Answer] | Exception | None) -> None:
        with self._lock:
            done, self._done, self._pictures = self._done, None, ()
        if done is None:
            return
        self.released(self)
        if result is not None:
            done(result)


class _Picture:
    __slots__ = ("arrived_s", "index", "work")

    def __init__(self, work: Work, index: int, arrived_s: float) -> None:
        self.work, self.index, self.arrived_s = work, index, arrived_s


class Batcher:
    """As many threads as the engine has lanes; each decodes, prepares, infers and answers up to `batch` pictures at once.

    A batch waits for company until its first picture is `wait_s` old, where the engine takes more than one.
    """

    def __init__(self, model: Model, name: str, size_wh: tuple[int, int], metrics: Metrics, *, wait_s: float) -> None:
        self._model, self._name, self._metrics, self._wait_s = model, name, metrics, wait_s
        self.lanes = self._living = model.engine.lanes
        self.batch, self._seconds_each = _usable_batch(model, size_wh)
        self._queue: SimpleQueue[_Picture | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._retired = False
        self._threads = [threading.Thread(target=self._run, name=f"lane-{name}", daemon=True) for _ in range(self.lanes)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Pictures that somebody waits for and no lane has finished yet."""
        return self._waiting

    @property
    def expected_wait_s(self) -> float:
        """How long a picture that comes now would wait for its lane, by the pictures before it and their recent pace."""
        return max(0, self._waiting - self.lanes + 1) * self._seconds_each / self.lanes

    def submit(self, work: Work) -> None:
        """Queue a request's pictures. Raises RetiredError once the model takes no more."""
        arrived_s = time.monotonic()
        with self._lock:
            if self._retired:
                raise RetiredError(f"{self._name}: another version has taken its place")
            work.queued, work.released = len(work), self._release
            self._waiting += len(work)
            for index in range(len(work)):
                self._queue.put(_Picture(work, index, arrived_s))

    def retire(self) -> None:
        """Take no more; the lanes end once what was taken is answered, and the engine is closed by the last."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            for _ in self._threads:
                self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the lanes to end after `retire`."""
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _release(self, work: Work) -> None:
        """Count those of its pictures no longer that would still wait for a lane."""
        with self._lock:
            self._waiting -= work.queued
            work.queued = 0

    def _taken(self, pictures: Sequence[_Picture]) -> int:
        """How many of the pictures that a lane takes are counted as waiting; from now on it is the lane that counts them."""
        count = 0
        with self._lock:
            for picture in pictures:
                if picture.work.queued:
                    picture.work.queued -= 1
                    count += 1
        return count

    def _run(self) -> None:
        while pictures := self._collect():
            begun_s, count = time.monotonic(), self._taken(pictures)
            try:
                self._serve(pictures, begun_s)
            except Exception as error:
                for picture in pictures:
                    picture.work.fail(error)
            with self._lock:
                self._waiting -= count
        with self._lock:
            self._living -= 1  # not `lanes`, by which the wait is still estimated for whoever asked before it was retired
            last = not self._living
        if last:
            self._model.engine.close()

    def _collect(self) -> list[_Picture]:
        """The next batch; empty at the end."""
        picture = self._queue.get()
        pictures: list[_Picture] = []
        while picture is not None:
            pictures.append(picture)
            if len(pictures) == self.batch:
                return pictures
            left_s = pictures[0].arrived_s + self._wait_s - time.monotonic()
            try:
                picture = self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait()
            except Empty:
                return pictures
        if pictures:
            self._queue.put(None)  # the end, met while collecting: for the next turn
        return pictures

    def _serve(self, pictures: list[_Picture], begun_s: float) -> None:
        ready: list[tuple[_Picture, Tensor]] = []
        for picture in pictures:
            prepare = picture.work.picture(picture.index)
            if prepare is None:
                continue
            self._metrics.observe("edge_cloud_queue_seconds", begun_s - picture.arrived_s, model=self._name)
            try:
                ready.append((picture, prepare()))
            except EdgeError as error:
                picture.work.fail(error)
        if not ready:
            return
        prepared_s = time.monotonic()
        outputs = infer_batch(self._model, [tensor for _, tensor in ready])
        ended_s = time.monotonic()
        self._metrics.observe("edge_cloud_inference_seconds", ended_s - prepared_s, model=self._name)
        self._metrics.observe("edge_cloud_batch_pictures", len(ready), model=self._name)
        for (picture, tensor), output in zip(ready, outputs, strict=True):
            try:
                picture.work.answer(picture.index, (output, self._model.task.decode(output, tensor)))
            except EdgeError as error:
                picture.work.fail(error)
        each_s = (time.monotonic() - begun_s) / len(ready)
        self._seconds_each += SMOOTHING * (each_s - self._seconds_each)


def infer_batch(model: Model, tensors: Sequence[Tensor]) -> list[Outputs]:
    """Each tensor's outputs, from one inference. Raises EngineError, also for outputs that are not one row a picture."""
    if len(tensors) == 1:
        return [model.engine.infer(tensors[0])]
    stacked = Tensor(np.concatenate([tensor.data for tensor in tensors]), tensors[0].geometry)
    outputs = model.engine.infer(stacked)
    for role, value in outputs.items():
        if len(value) != len(tensors):
            raise EngineError(f"{model.name}: {role} has {len(value)} rows for {len(tensors)} pictures")
    return [{role: value[row : row + 1] for role, value in outputs.items()} for row in range(len(tensors))]


def _usable_batch(model: Model, size_wh: tuple[int, int]) -> tuple[int, float]:
    """How many pictures a batch may have, and seconds a picture: 1 where two together differ from each alone."""
    geometry = Geometry((1.0, 1.0), (0.0, 0.0), size_wh)
    pair = [Tensor(np.full((1, size_wh[1], size_wh[0], 3), value, np.uint8), geometry) for value in (64, 192)]
    alone = [model.engine.infer(tensor) for tensor in pair]
    begun_s = time.monotonic()
    model.engine.infer(pair[0])
    seconds = time.monotonic() - begun_s
    if model.engine.batch == 1:
        return 1, seconds
    try:
        together = infer_batch(model, pair)
    except EngineError:
        return 1, seconds
    same = all(
        one[role].shape == both[role].shape and np.allclose(one[role], both[role], atol=model.variant.tolerance)
        for one, both in zip(alone, together, strict=True)
        for role in one
    )
    return (model.engine.batch if same else 1), seconds
