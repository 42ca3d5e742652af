"""Inference on threads: order, and engines that raise, hang or come to nothing."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge import workers as workers_module
from edge.errors import EngineError
from edge.intake import Intake
from edge.model import Model
from edge.sources.base import BaseSource
from edge.types import Classes, Frame, Geometry, Outputs, Tensor
from edge.workers import DONE_PER_WORKER, MOST_ABANDONED, TRIES, Seen, Workers
from tests.endpoint import until
from tests.samples import frame, plain

PATIENCE_S = 20.0
HANG_S = 0.2


class Given(BaseSource):
    """Frames whose pictures tell their number."""

    def __init__(self, count: int, name: str = "given") -> None:
        super().__init__(name)
        self._count = count
        self.read = 0

    def frames(self) -> Iterator[Frame]:
        for number in range(self._count):
            if self.stopped:
                return
            self.read += 1
            yield frame(plain(number % 256, 8, 8), number, source=self.name)


class Engine:
    """Answers with the grey of each picture; `act` is called with the numbers in a tensor, to wait or to raise."""

    def __init__(self, act: Callable[[list[int]], object] = lambda greys: None, batch: int = 1, name: str = "engine") -> None:
        self.name = name
        self.threads = self.lanes = 1
        self.batch = batch
        self.closed = False
        self.asked: list[list[int]] = []
        self._act = act

    def infer(self, tensor: Tensor) -> Outputs:
        assert not self.closed
        greys = [int(one.flat[0]) for one in tensor.data]
        self.asked.append(greys)
        self._act(greys)
        return {"greys": np.array(greys, np.float32).reshape(-1, 1)}

    def close(self) -> None:
        self.closed = True


class Task:
    """The picture as it is; a class whose number is its grey."""

    def prepare(self, one: Frame) -> Tensor:
        return Tensor(one.image[None], Geometry((1.0, 1.0), (0.0, 0.0), (8, 8)))

    def decode(self, outputs: Outputs, tensor: Tensor) -> Classes:
        assert outputs["greys"].shape == (1, 1)
        grey = int(outputs["greys"][0, 0])
        assert grey == tensor.data[0, 0, 0, 0]
        return Classes(np.array([grey]), np.ones(1, np.float32), (str(grey),))


def model_of(engine: Engine, variant: str = "int8") -> Model:
    return Model("test", SimpleNamespace(name=variant), engine, Task())  # type: ignore[arg-type]


def greys(seen: Sequence[Seen]) -> list[int | None]:
    """What was seen, in order: a frame's class, or None where there is no result."""
    return [None if one.result is None else int(one.result.class_ids[0]) for one in seen]


@dataclass
class Reopen:
    """Gives an engine that `make` makes; `asked` are those that failed and why."""

    make: Callable[[], Model]
    asked: list[tuple[Model, str]] = field(default_factory=list)

    def __call__(self, failed: Model, reason: str) -> Model:
        self.asked.append((failed, reason))
        return self.make()


@contextmanager
def working(sources: Sequence[Given], model: Model, count: int = 1, **more: Any) -> Iterator[Workers]:
    """Workers over sources; no thread of theirs may outlive them, but for `stuck` that hang on purpose."""
    look, stuck = more.pop("look", lambda number, one: False), more.pop("stuck", lambda: None)
    before = set(threading.enumerate())
    with Intake(sources, look) as intake:
        yield Workers(intake, model, count, task_of=lambda source, model: model.task, **more)
    stuck()
    assert until(lambda: not set(threading.enumerate()) - before), threading.enumerate()


def all_of(workers: Workers) -> list[Seen]:
    return [seen for seen in workers.results() if seen is not None]


def kinds(workers: Workers) -> list[str]:
    return [notice.kind for notice in workers.notices]


# order


def test_results_come_in_the_order_of_the_frames() -> None:
    chance = random.Random(0)
    engine = Engine(lambda asked: time.sleep(chance.choice([0.0, 0.001, 0.006])))
    with working([Given(100)], model_of(engine), count=3) as workers:
        seen = all_of(workers)
    assert greys(seen) == list(range(100))
    assert [one.taken.ticket for one in seen] == list(range(100))
    assert kinds(workers) == []
    assert workers.abandoned == 0


def test_each_result_has_its_model_and_its_times() -> None:
    model = model_of(Engine(lambda asked: time.sleep(0.003)))
    with working([Given(2)], model) as workers:
        seen = all_of(workers)
    for one in seen:
        assert one.model is model
        assert 3 <= one.timings.infer < 5000
        assert one.timings.prepare > 0
        assert one.timings.decode > 0


def test_workers_infer_at_the_same_time() -> None:
    together = threading.Barrier(3)
    engine = Engine(lambda asked: together.wait(PATIENCE_S))
    with working([Given(9)], model_of(engine), count=3) as workers:
        assert greys(all_of(workers)) == list(range(9))


def test_none_comes_now_and_then_while_there_is_nothing_else() -> None:
    release = threading.Event()
    with working([Given(1)], model_of(Engine(lambda asked: release.wait(PATIENCE_S)))) as workers:
        results = workers.results()
        assert next(results) is None
        assert next(results) is None
        release.set()
        assert greys([seen for seen in results if seen is not None]) == [0]


def test_results_that_nobody_takes_do_not_pile_up() -> None:
    source, engine = Given(500), Engine()
    with working([source], model_of(engine), count=2) as workers:
        results = workers.results()
        next(seen for seen in results if seen is not None)
        assert until(lambda: len(workers._done) >= 2 * DONE_PER_WORKER)
        time.sleep(0.05)
        assert len(engine.asked) <= 1 + 2 * DONE_PER_WORKER + 2
        assert len([seen for seen in results if seen is not None]) == 499
    assert source.read == 500


def test_what_was_taken_is_not_held() -> None:
    """Else the buffer of a camera's picture would be missing until the next one."""

    class Weak(Given):
        def frames(self) -> Iterator[Frame]:
            for one in super().frames():
                pictures.append(weakref.ref(one.image))
                yield one
                del one

    pictures: list[weakref.ref[Any]] = []
    with working([Weak(3)], model_of(Engine()), count=2) as workers:
        for seen in workers.results():
            del seen
        assert until(lambda: not any(picture() is not None for picture in pictures))
    assert len(pictures) == 3


def test_leaving_early_leaves_no_thread() -> None:
    with working([Given(10_000)], model_of(Engine()), count=3) as workers:
        assert next(seen for seen in workers.results() if seen is not None).taken.ticket == 0


# still scenes


def test_a_still_frame_needs_no_engine() -> None:
    engine = Engine()
    with working([Given(10)], model_of(engine), look=lambda number, one: one.sequence % 3 != 0) as workers:
        seen = all_of(workers)
    assert greys(seen) == [0, None, None, 3, None, None, 6, None, None, 9]
    assert engine.asked == [[0], [3], [6], [9]]
    assert all(one.taken.still == (one.result is None) for one in seen)


# batches


def test_frames_of_several_sources_share_an_inference() -> None:
    engine = Engine(lambda asked: time.sleep(0.002), batch=4)
    sources = [Given(20, str(number)) for number in range(4)]
    with working(sources, model_of(engine), count=2) as workers:
        seen = all_of(workers)
    assert [one.taken.ticket for one in seen] == list(range(80))
    for number in range(4):
        assert greys([one for one in seen if one.taken.source == number]) == list(range(20))
    assert max(len(asked) for asked in engine.asked) == 4
    assert len(engine.asked) < 80


def test_a_batch_leaves_still_frames_out() -> None:
    engine = Engine(lambda asked: time.sleep(0.002), batch=4)
    sources = [Given(10, str(number)) for number in range(4)]
    with working(sources, model_of(engine), look=lambda number, one: number % 2 == 0) as workers:
        seen = all_of(workers)
    for number in range(4):
        expected = [None] * 10 if number % 2 == 0 else list(range(10))
        assert greys([one for one in seen if one.taken.source == number]) == expected
    assert max(len(asked) for asked in engine.asked) == 2


def test_a_batch_that_fails_is_tried_again_whole() -> None:
    def fail(asked: list[int]) -> None:
        raise EngineError("out of memory")

    sources = [Given(5, str(number)) for number in range(3)]
    reopen = Reopen(lambda: model_of(Engine(batch=4)))
    with working(sources, model_of(Engine(fail, batch=4)), reopen=reopen) as workers:
        seen = all_of(workers)
    for number in range(3):
        assert greys([one for one in seen if one.taken.source == number]) == list(range(5))
    assert len(reopen.asked) == 1


# engines that raise


@pytest.mark.parametrize("count", [1, 3])
def test_an_engine_that_raises_once_is_opened_again_and_no_frame_is_lost(count: int) -> None:
    def fail_at_5(asked: list[int]) -> None:
        if asked == [5]:
            raise EngineError("it fell over")

    first, second = model_of(Engine(fail_at_5)), model_of(Engine())
    reopen = Reopen(lambda: second)
    with working([Given(20)], first, count, reopen=reopen) as workers:
        seen = all_of(workers)
    assert greys(seen) == list(range(20))
    assert reopen.asked == [(first, "it fell over")]
    assert first.engine.closed
    assert not second.engine.closed
    assert seen[5].model is seen[-1].model is workers.model is second
    assert [(notice.kind, notice.about, notice.text) for notice in workers.notices] == [
        ("engine-failed", "int8", "it fell over"),
        ("engine-reopened", "int8", "running int8 on engine"),
    ]
    assert abs(workers.notices[0].at_s - time.time()) < PATIENCE_S


def test_several_workers_that_meet_the_same_fault_open_one_engine() -> None:
    together = threading.Barrier(3)

    def fail(asked: list[int]) -> None:
        together.wait(PATIENCE_S)
        raise EngineError("it fell over")

    reopen = Reopen(lambda: model_of(Engine()))
    with working([Given(12)], model_of(Engine(fail)), 3, reopen=reopen) as workers:
        assert greys(all_of(workers)) == list(range(12))
    assert len(reopen.asked) == 1
    assert kinds(workers) == ["engine-failed", "engine-reopened"]


def test_another_variant_in_its_place_is_said() -> None:
    def fail(asked: list[int]) -> None:
        raise EngineError("it fell over")

    reopen = Reopen(lambda: model_of(Engine(name="other"), "float32"))
    with working([Given(3)], model_of(Engine(fail)), reopen=reopen) as workers:
        seen = all_of(workers)
    assert greys(seen) == [0, 1, 2]
    assert {one.model.variant.name for one in seen} == {"float32"}
    assert [(notice.kind, notice.about, notice.text) for notice in workers.notices] == [
        ("engine-failed", "int8", "it fell over"),
        ("variant-changed", "float32", "running float32 on other"),
    ]


def test_a_frame_that_no_engine_can_do_goes_without_a_result() -> None:
    def fail_at_2(asked: list[int]) -> None:
        if asked == [2]:
            raise EngineError("this picture is poison")

    made: list[Engine] = []

    def make() -> Model:
        made.append(Engine(fail_at_2))
        return model_of(made[-1])

    with working([Given(5)], make(), reopen=Reopen(make)) as workers:
        seen = all_of(workers)
    assert greys(seen) == [0, 1, None, 3, 4]
    assert not seen[2].taken.still
    assert sum(asked == [2] for engine in made for asked in engine.asked) == TRIES
    assert kinds(workers) == ["engine-failed", "engine-reopened", "frame-failed"], "the second time, it is the picture"
    assert workers.notices[-1].text == "frame 2 of given: this picture is poison"
    assert [engine.closed for engine in made] == [True, False]


@pytest.mark.parametrize("count", [1, 3])
def test_no_engine_left_ends_with_the_reason(count: int) -> None:
    def fail(asked: list[int]) -> None:
        if asked[0] >= 3:
            raise EngineError("it fell over")

    def refuse() -> Model:
        raise EngineError("test.edge: no variant is left that works")

    with working([Given(100)], model_of(Engine(fail)), count, reopen=Reopen(refuse)) as workers:
        seen = []
        with pytest.raises(EngineError, match="no variant is left that works"):
            seen.extend(one for one in workers.results() if one is not None)
    assert kinds(workers)[0] == "engine-failed"


def test_without_anything_to_reopen_the_engines_error_is_the_end() -> None:
    def fail(asked: list[int]) -> None:
        if asked == [3]:
            raise EngineError("it fell over")

    seen: list[Seen] = []
    with working([Given(100)], model_of(Engine(fail))) as workers, pytest.raises(EngineError, match=r"^it fell over$"):
        seen.extend(one for one in workers.results() if one is not None)
    assert greys(seen) == [0, 1, 2]


# engines that hang


def hanging(at: int, release: threading.Event) -> Callable[[list[int]], object]:
    return lambda asked: release.wait(PATIENCE_S) if at in asked else None


@pytest.mark.parametrize("count", [1, 3])
def test_an_inference_that_hangs_is_given_up_and_tried_elsewhere(count: int) -> None:
    release = threading.Event()
    first, second = model_of(Engine(hanging(4, release))), model_of(Engine())
    reopen = Reopen(lambda: second)
    with working([Given(12)], first, count, reopen=reopen, deadline_s=HANG_S, stuck=release.set) as workers:
        seen = all_of(workers)
        assert greys(seen) == list(range(12))
        assert seen[4].model is second
        assert workers.abandoned == 1
        assert len(reopen.asked) == 1
        assert "never returned" in reopen.asked[0][1]
        assert kinds(workers) == ["engine-failed", "engine-reopened"]
        assert not first.engine.closed  # it is still in use
    assert kinds(workers) == ["engine-failed", "engine-reopened"]  # what returned after all changes nothing
    assert not second.engine.closed


@pytest.mark.parametrize("fault", [EngineError("too late"), ValueError("too late")])
def test_what_a_given_up_inference_ends_with_is_nobodys_concern(fault: Exception) -> None:
    release, ended = threading.Event(), threading.Event()

    def act(asked: list[int]) -> None:
        if asked == [1]:
            release.wait(PATIENCE_S)
            ended.set()
            raise fault

    second = Engine(lambda asked: ended.wait(PATIENCE_S) and time.sleep(0.01) if asked == [2] else None)
    first = model_of(Engine(act))
    with working([Given(5)], first, reopen=Reopen(lambda: model_of(second)), deadline_s=HANG_S) as workers:
        seen: list[Seen] = []
        for one in workers.results():
            if one is not None:
                seen.append(one)
                if one.taken.ticket == 1:
                    release.set()
    assert greys(seen) == list(range(5))
    assert second.asked == [[1], [2], [3], [4]]
    assert kinds(workers) == ["engine-failed", "engine-reopened"]


def test_a_frame_that_hangs_twice_goes_without_a_result() -> None:
    release = threading.Event()
    make = lambda: model_of(Engine(hanging(1, release)))  # noqa: E731
    with working([Given(4)], make(), reopen=Reopen(make), deadline_s=HANG_S, stuck=release.set) as workers:
        assert greys(all_of(workers)) == [0, None, 2, 3]
        assert workers.abandoned == TRIES
    assert [notice.text for notice in workers.notices if notice.kind == "frame-failed"] == [
        "frame 1 of given: an inference never returned"
    ]


def test_hanging_again_and_again_is_the_end() -> None:
    release = threading.Event()
    make = lambda: model_of(Engine(lambda asked: release.wait(PATIENCE_S)))  # noqa: E731
    reopen = Reopen(make)
    with (
        working([Given(1000)], make(), reopen=reopen, deadline_s=0.02, stuck=release.set) as workers,
        pytest.raises(EngineError, match=f"never returned {MOST_ABANDONED + 1} times"),
    ):
        all_of(workers)
    assert len(reopen.asked) == MOST_ABANDONED


def test_opening_that_hangs_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "OPENING_DEADLINE_S", 0.02)
    release = threading.Event()

    def fail(asked: list[int]) -> None:
        raise EngineError("it fell over")

    def make() -> Model:
        release.wait(PATIENCE_S)
        return model_of(Engine())

    with (
        working([Given(100)], model_of(Engine(fail)), reopen=Reopen(make), stuck=release.set) as workers,
        pytest.raises(EngineError, match="never returned"),
    ):
        all_of(workers)


def test_a_slow_engine_is_not_called_hung() -> None:
    """Without a fixed deadline it is ten seconds at least."""
    with working([Given(3)], model_of(Engine(lambda asked: time.sleep(0.3)))) as workers:
        assert greys(all_of(workers)) == [0, 1, 2]
    assert workers.abandoned == 0


@pytest.mark.parametrize(("recent_s", "expected"), [([], 10.0), ([0.1] * 5, 10.0), ([1.0] * 5, 20.0), ([1.0, 1.0, 90.0], 20.0)])
def test_the_deadline_follows_what_inferences_take(recent_s: list[float], expected: float) -> None:
    with working([], model_of(Engine())) as workers:
        workers._recent_s.extend(recent_s)
        assert workers._deadline_s() == expected


# faults of ours


@pytest.mark.parametrize("where", ["prepare", "infer", "decode", "task_of"])
def test_a_fault_of_ours_ends_with_a_line(where: str) -> None:
    def fail(*arguments: object) -> Any:
        raise ValueError("two\nlines")

    engine, task = Engine(), Task()
    if where != "task_of":
        setattr(engine if where == "infer" else task, where, fail)
    model = Model("test", SimpleNamespace(name="int8"), engine, task)  # type: ignore[arg-type]
    with Intake([Given(50)]) as intake:
        task_of = fail if where == "task_of" else lambda source, model: model.task
        workers = Workers(intake, model, 2, task_of=task_of)
        with pytest.raises(EngineError, match=r"^a fault in the loop: ValueError: two lines$") as error:
            all_of(workers)
        assert isinstance(error.value.__cause__, ValueError)
        assert intake.closed


def test_an_opening_that_never_returns_ends_the_loop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "OPENING_DEADLINE_S", 0.2)
    never = threading.Event()

    def fail(asked: list[int]) -> None:
        raise EngineError("it fell over")

    def hang() -> Model:
        never.wait()
        raise EngineError("late")

    with (
        working([Given(5)], model_of(Engine(fail)), reopen=Reopen(hang), stuck=never.set) as workers,
        pytest.raises(EngineError, match="opening an engine never returned; restart the board"),
    ):
        all_of(workers)
