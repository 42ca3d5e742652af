"""Batches and lanes, on engines that tell what they were given."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cloud.admission import Budget, check_wait
from cloud.batching import Answer, Batcher, Work, infer_batch
from cloud.errors import BusyError, RetiredError
from cloud.metrics import Metrics
from edge.errors import DataError, EngineError
from edge.model import Model
from edge.types import Geometry, Outputs, Tensor

GEOMETRY = Geometry((1.0, 1.0), (0.0, 0.0), (32, 32))


class Recorder:
    """Logits are the picture's first value; remembers the sizes of batches, waits while held."""

    name, threads = "recorder", 1

    def __init__(self, batch: int = 4, lanes: int = 1, mixes: bool = False) -> None:
        self.batch, self.lanes, self._mixes = batch, lanes, mixes
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.closed = False

    def infer(self, tensor: Tensor) -> Outputs:
        self.batches.append(len(tensor.data))
        self.go.wait(10)
        first = tensor.data[:, 0, 0, 0].astype(np.float32)
        first = np.full_like(first, first.mean()) if self._mixes else first
        return {"logits": np.repeat(first[:, None], 10, axis=1)}

    def close(self) -> None:
        self.closed = True


def picture(value: int) -> Callable[[], Tensor]:
    return lambda: Tensor(np.full((1, 32, 32, 3), value, np.uint8), GEOMETRY)


class Waiting:
    """A request's answers, or its error."""

    def __init__(self, *pictures: Callable[[], Tensor]) -> None:
        self.come = threading.Event()
        self.answers: list[Answer] | Exception = []
        self.work = Work(pictures, self._done)

    def _done(self, answers: list[Answer] | Exception) -> None:
        self.answers = answers
        self.come.set()

    def firsts(self) -> list[float]:
        assert self.come.wait(5)
        assert isinstance(self.answers, list), self.answers
        return [float(outputs["logits"][0, 0]) for outputs, _ in self.answers]


@pytest.fixture
def batcher(model: Model) -> Any:
    made: list[Batcher] = []

    def make(engine: Any, wait_s: float = 0.002) -> Batcher:
        made.append(Batcher(replace(model, engine=engine), "tiny", (32, 32), Metrics(), wait_s=wait_s))
        engine.batches.clear()
        return made[-1]

    yield make
    for one in made:
        one.retire()
        one.join(5)


def test_pictures_that_wait_are_one_batch(batcher: Any) -> None:
    engine = Recorder(batch=4)
    line = batcher(engine)
    engine.go.clear()
    first = Waiting(picture(1))
    line.submit(first.work)
    while not engine.batches:
        time.sleep(0.001)
    others = [Waiting(picture(2), picture(3)), Waiting(picture(4)), Waiting(picture(5), picture(6))]
    for other in others:
        line.submit(other.work)
    engine.go.set()
    assert [waiting.firsts() for waiting in (first, *others)] == [[1], [2, 3], [4], [5, 6]]
    assert engine.batches == [1, 4, 1]


def test_a_batch_waits_for_company_until_its_deadline(batcher: Any) -> None:
    engine = Recorder(batch=2)
    line = batcher(engine, wait_s=0.2)
    early, late = Waiting(picture(1)), Waiting(picture(2))
    line.submit(early.work)
    time.sleep(0.05)
    line.submit(late.work)
    assert [early.firsts(), late.firsts()] == [[1], [2]]
    assert engine.batches == [2]
    begun_s = time.monotonic()
    alone = Waiting(picture(3))
    line.submit(alone.work)
    assert alone.firsts() == [3]
    assert 0.19 < time.monotonic() - begun_s < 2


def test_a_model_of_one_picture_runs_on_several_lanes(batcher: Any) -> None:
    engine = Recorder(batch=1, lanes=2)
    line = batcher(engine)
    engine.go.clear()
    waiting = Waiting(picture(1), picture(2), picture(3))
    line.submit(waiting.work)
    while len(engine.batches) < 2:
        time.sleep(0.001)
    engine.go.set()
    assert waiting.firsts() == [1, 2, 3]
    assert engine.batches == [1, 1, 1]


def test_a_model_whose_batch_mixes_pictures_is_given_one_at_a_time(batcher: Any) -> None:
    assert batcher(Recorder(batch=8)).batch == 8
    assert batcher(Recorder(batch=8, mixes=True)).batch == 1


def test_a_bad_picture_fails_its_request_and_no_other(batcher: Any) -> None:
    engine = Recorder(batch=4)
    line = batcher(engine, wait_s=0.1)

    def bad() -> Tensor:
        raise DataError("input image, element 1: no picture")

    good, spoilt = Waiting(picture(1)), Waiting(picture(2), bad)
    line.submit(spoilt.work)
    line.submit(good.work)
    assert good.firsts() == [1]
    assert spoilt.come.wait(5)
    assert isinstance(spoilt.answers, DataError)


def test_what_nobody_waits_for_is_not_inferred(batcher: Any) -> None:
    engine = Recorder(batch=1)
    line = batcher(engine)
    engine.go.clear()
    first, left, last = Waiting(picture(1)), Waiting(picture(2)), Waiting(picture(3))
    for waiting in (first, left, last):
        line.submit(waiting.work)
    while not engine.batches:
        time.sleep(0.001)
    left.work.cancel()
    engine.go.set()
    assert last.firsts() == [3]
    assert engine.batches == [1, 1]
    assert not left.come.is_set()


def test_who_has_left_keeps_nobody_waiting_and_no_picture_in_memory(batcher: Any) -> None:
    engine = Recorder(batch=1)
    line = batcher(engine)
    line._seconds_each = 0.5
    engine.go.clear()
    at_work = Waiting(picture(1), picture(2))
    line.submit(at_work.work)
    while not engine.batches:
        time.sleep(0.001)
    held = picture(7)
    gone = weakref.ref(held)
    leaving, staying = Waiting(*[held] * 9), Waiting(picture(4))
    del held
    line.submit(leaving.work)
    line.submit(staying.work)
    assert (line.waiting, line.expected_wait_s) == (12, 6.0)
    leaving.work.cancel()
    leaving.work.cancel()
    assert (line.waiting, line.expected_wait_s) == (3, 1.5)
    assert gone() is None
    at_work.work.cancel()
    assert line.waiting == 2  # a lane is at work on one of its two
    engine.go.set()
    assert staying.firsts() == [4]
    line.retire()
    line.join(5)
    assert line.waiting == 0
    assert len(engine.batches) == 2


def test_a_request_that_failed_keeps_nobody_waiting(batcher: Any) -> None:
    engine = Recorder(batch=1)
    line = batcher(engine)
    engine.go.clear()
    at_work = Waiting(picture(1))
    line.submit(at_work.work)
    while not engine.batches:
        time.sleep(0.001)

    def bad() -> Tensor:
        raise DataError("input image, element 0: no picture")

    spoilt, staying = Waiting(bad, *[picture(2)] * 8), Waiting(picture(4))
    line.submit(spoilt.work)
    line.submit(staying.work)
    assert line.waiting == 11
    engine.go.set()
    assert staying.firsts() == [4]
    line.retire()
    line.join(5)
    assert (line.waiting, engine.batches) == (0, [1, 1])


def test_a_retired_model_answers_what_it_took_and_closes_its_engine(batcher: Any) -> None:
    engine = Recorder(batch=1, lanes=2)
    line = batcher(engine)
    engine.go.clear()
    waiting = [Waiting(picture(value)) for value in range(5)]
    for one in waiting:
        line.submit(one.work)
    line.retire()
    with pytest.raises(RetiredError):
        line.submit(Waiting(picture(9)).work)
    engine.go.set()
    assert [one.firsts() for one in waiting] == [[0], [1], [2], [3], [4]]
    line.join(5)
    assert engine.closed


def test_who_asks_as_a_model_s_lanes_end_is_told_that_it_is_retired(batcher: Any) -> None:
    """A request may have taken the model before another version did its place."""
    engine = Recorder(batch=1, lanes=2)
    line = batcher(engine)
    line.retire()
    line.join(5)
    assert engine.closed
    assert (line.lanes, line.expected_wait_s) == (2, 0.0)
    check_wait(line, 0.0)
    with pytest.raises(RetiredError):
        line.submit(Waiting(picture(1)).work)


def test_the_wait_is_estimated_from_the_queue_and_the_pace(batcher: Any) -> None:
    engine = Recorder(batch=1, lanes=2)
    line = batcher(engine)
    line._seconds_each = 0.5
    check_wait(line, 0.01)
    engine.go.clear()
    line.submit(Waiting(*(picture(value) for value in range(6))).work)
    with pytest.raises(BusyError, match=r"would wait 1\.2 s, at most 1 s") as caught:
        check_wait(line, 1.0)
    assert caught.value.headers == {"Retry-After": "2"}
    engine.go.set()


def test_outputs_that_are_not_a_row_a_picture_are_an_engine_error(model: Model) -> None:
    class Short(Recorder):
        def infer(self, tensor: Tensor) -> Outputs:
            return {"logits": np.zeros((1, 10), np.float32)}

    with pytest.raises(EngineError, match="logits has 1 rows for 2 pictures"):
        infer_batch(replace(model, engine=Short()), [picture(1)(), picture(2)()])


def test_a_budget_gives_back_what_a_request_held() -> None:
    budget = Budget(100)
    with budget.share() as share:
        share.take(60)
        with budget.share() as other, pytest.raises(BusyError):
            other.take(41)
        share.take(40)
        assert budget.held == 100
    assert budget.held == 0
