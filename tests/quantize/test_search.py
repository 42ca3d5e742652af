"""The search for one variant, with files, engines and a judge that say what the test wants them to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from quantize import search as module
from quantize.blocks import Block
from quantize.calibrate import CALIBRATORS
from quantize.judge import Verdict
from quantize.readback import Readback
from quantize.record import Candidate
from quantize.search import ENOUGH_PICTURES, Gates, Reference, Search, noisiest, refusal
from quantize.speed import Speed
from quantize.store import Store
from quantize.targets import KINDS, Kind, Settings, variant_of

FLOAT32 = variant_of(KINDS["float32"], b"float32", "logits")
GATES = Gates(max_drop=0.01, min_speedup=1.0)
NOISE = {f"layer{index}": 1.0 / (index + 1) for index in range(6)}


@dataclass
class World:
    """What every candidate turns out to be, by its settings, and what was done to find out."""

    decibels: Callable[[Settings], float] = lambda settings: 12.0
    metric: Callable[[Settings], float] = lambda settings: 0.9
    error: float = 0.0
    speed: Callable[[Settings], float] = lambda settings: 1.5
    silu: bool = False
    kind: Kind = KINDS["int8-x86"]
    pictures: int = 50
    built: list[Settings] = field(default_factory=list)
    timed: list[Settings] = field(default_factory=list)
    trained: list[Settings] = field(default_factory=list)
    heard: list[Candidate] = field(default_factory=list)

    def blocks(self) -> Sequence[Block]:
        return [Block(layer, (layer,), ("Conv",)) for layer in NOISE]

    def has_silu(self) -> bool:
        return self.silu

    def build(self, settings: Settings) -> bytes:
        self.built.append(settings)
        return json.dumps(settings.as_dict()).encode()

    def train(self, settings: Settings) -> bool:
        self.trained.append(settings)
        return True

    def run(self, engine: Any) -> bytes:
        data: bytes = engine.data
        return data

    def verdict(self, variant: Any, data: bytes) -> Verdict:
        settings = self.settings(data)
        return Verdict(self.decibels(settings), self.metric(settings), self.error)

    def settings(self, data: bytes) -> Settings:
        fields = json.loads(data)
        return Settings(**(fields | {"float_layers": tuple(fields["float_layers"])}))


class Engine:
    """Knows its file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Search]:
    """A search in a world, run."""

    def run(world: World, gates: Gates = GATES, **fields: Any) -> Search:
        def timed(files: Sequence[Any], picture: Any) -> list[Speed]:
            world.timed.append(world.settings(files[1][0]))
            ratio = world.speed(world.timed[-1])
            return [Speed(1.0, 1.0, 1.0, 1.0), Speed(1 / ratio, ratio, ratio, ratio)]

        monkeypatch.setattr(module, "open_engine", lambda data, variant, options: Engine(data))
        monkeypatch.setattr(module, "read_back", lambda data, engine: Readback(3, {"Sigmoid": 1}))
        monkeypatch.setattr(module, "paired", timed)
        judge: Any = SimpleNamespace(
            run=world.run,
            verdict=world.verdict,
            truth=[None] * world.pictures,
            tensors=[SimpleNamespace(data=None)],
        )
        given: dict[str, Any] = {
            "target": world,
            "judge": judge,
            "reference": Reference(b"float32", FLOAT32, 0.9, {"cortex-a72": 100.0, "cortex-a76": 60.0}),
            "gates": gates,
            "store": Store(tmp_path / "store"),
            "key": "key",
            "threads": 1,
            "until_s": time.monotonic() + 100,
            "noise": lambda: NOISE,
            "train": world.train,
            "counter": None,
            "heard": world.heard.append,
        }
        search = Search(**(given | fields))
        search.run()
        return search

    return run


def test_clear_candidates_end_it_after_the_calibrators(searched: Callable[..., Search]) -> None:
    world = World(decibels=lambda settings: 25.0 if settings.calibrator == "entropy" else 22.0)
    search = searched(world)
    assert world.built == [Settings(calibrator=name) for name in CALIBRATORS]
    assert search.ranked()[0].settings == Settings(calibrator="entropy")
    assert [candidate.id for candidate in world.heard] == [tried.candidate.id for tried in search.tried.values()]


def test_many_pictures_that_lose_nothing_are_enough_too(searched: Callable[..., Search]) -> None:
    few, many = World(pictures=ENOUGH_PICTURES - 1), World(pictures=ENOUGH_PICTURES)
    searched(many)
    assert len(many.built) == len(CALIBRATORS)
    searched(few, store=Store(None))
    assert len(few.built) > len(CALIBRATORS)


def test_silu_in_float_is_tried_on_the_best_where_there_is_one(searched: Callable[..., Search]) -> None:
    world = World(decibels=lambda settings: 25.0 if settings.calibrator == "minmax" else 22.0, silu=True)
    searched(world)
    assert world.built[-1] == Settings(calibrator="minmax", float_silu=True)
    assert sum(settings.float_silu for settings in world.built) == 1


def test_noisiest_layers_are_left_in_float_more_and_more_until_it_passes(searched: Callable[..., Search]) -> None:
    world = World(metric=lambda settings: 0.9 if len(settings.float_layers) >= 3 else 0.8)
    search = searched(world)
    mixed = [settings.float_layers for settings in world.built if settings.float_layers and settings.rounding == "gptq"]
    assert mixed == [tuple(NOISE)[:count] for count in (1, 2, 3, 4)]
    assert len(search.ranked()[0].settings.float_layers) >= 3
    assert not world.trained


def test_training_is_the_last_resort_for_what_loses_too_much(searched: Callable[..., Search]) -> None:
    world = World(metric=lambda settings: 0.9 if settings.rounding == "qat" else 0.8)
    search = searched(world)
    assert len(world.trained) == 1
    assert [tried.settings.rounding for tried in search.ranked()] == ["qat"]
    assert world.built[-1].rounding == "qat"


@pytest.mark.parametrize(
    ("qat", "world", "trained"),
    [
        ("never", World(metric=lambda settings: 0.5), False),
        ("auto", World(speed=lambda settings: 0.5), False),  # training makes nothing faster
        ("auto", World(decibels=lambda settings: 30.0), False),
        ("always", World(decibels=lambda settings: 30.0), True),
        ("auto", World(metric=lambda settings: 0.5), True),
    ],
)
def test_when_it_trains(searched: Callable[..., Search], qat: str, world: World, trained: bool) -> None:
    searched(world, qat=qat)
    assert bool(world.trained) == trained


def test_no_time_for_training_is_no_candidate(searched: Callable[..., Search]) -> None:
    world = World(metric=lambda settings: 0.5)
    search = searched(world, train=lambda settings: False)
    assert not search.ranked()
    assert all(settings.rounding != "qat" for settings in world.built)


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ({"error": (22.0, 1.5), "minmax": (25.0, 1.0)}, "error"),  # faster, and within the gate
        ({"error": (22.0, 1.5), "minmax": (25.0, 1.4)}, "minmax"),  # as fast, and closer
        ({"error": (22.0, 1.5), "minmax": (30.0, 0.9)}, "error"),  # the closer one misses the gate
    ],
)
def test_the_fastest_that_passes_and_of_those_the_closest(
    searched: Callable[..., Search], monkeypatch: pytest.MonkeyPatch, found: dict[str, tuple[float, float]], best: str
) -> None:
    monkeypatch.setattr(module, "_structure", lambda settings: settings.calibrator)  # so that each has a speed of its own
    worst = (10.0, 1.0)
    world = World(
        decibels=lambda settings: found.get(settings.calibrator, worst)[0],
        speed=lambda settings: found.get(settings.calibrator, worst)[1],
    )
    assert searched(world).ranked()[0].settings.calibrator == best


def test_speed_is_measured_once_for_what_computes_alike(searched: Callable[..., Search]) -> None:
    world = World(silu=True)
    search = searched(world)
    structures = [(settings.float_layers, settings.float_silu) for settings in world.timed]
    assert len(structures) == len(set(structures))
    assert set(structures) == {(settings.float_layers, settings.float_silu) for settings in world.built}
    assert all(tried.candidate.speedup == 1.5 for tried in search.tried.values())


def test_what_is_stored_is_not_built_again(searched: Callable[..., Search]) -> None:
    first, again, other = World(), World(), World()
    before = searched(first)
    after = searched(again)
    assert first.built
    assert not again.built
    assert not again.timed
    assert list(after.tried) == list(before.tried)
    assert [tried.data for tried in after.tried.values()] == [tried.data for tried in before.tried.values()]
    assert [one.id for one in again.heard] == [one.id for one in first.heard]
    searched(other, key="of other pictures")
    assert other.built == first.built


def test_gates_are_judged_anew_of_what_is_stored(searched: Callable[..., Search]) -> None:
    assert searched(World(metric=lambda settings: 0.88), Gates(max_drop=0.03)).ranked()
    assert not searched(World(metric=lambda settings: 0.88), Gates(max_drop=0.01), train=lambda settings: False).ranked()


def test_an_interrupted_search_goes_on_where_it_stopped(searched: Callable[..., Search]) -> None:
    first, again = World(), World()

    def interrupting(candidate: Candidate) -> None:
        if len(first.built) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(first, heard=interrupting)
    searched(again)
    assert len(first.built) == 3
    assert not set(first.built) & set(again.built)
    assert first.built + again.built == list(dict.fromkeys(first.built + again.built))


def test_the_budget_ends_it_after_the_candidate_under_way(searched: Callable[..., Search]) -> None:
    world = World(metric=lambda settings: 0.5)
    search = searched(world, until_s=time.monotonic() - 1)
    assert world.built == [Settings()]
    assert not search.ranked()
    assert search.best().settings == Settings()


def test_hints_come_first_and_are_enough_where_they_are_clear(searched: Callable[..., Search]) -> None:
    hint = Settings(calibrator="percentile", rounding="corrected")
    clear, poor = World(decibels=lambda settings: 30.0), World(decibels=lambda settings: 10.0)
    searched(clear, hints=[hint], store=Store(None))
    assert clear.built == [hint]
    searched(poor, hints=[hint], store=Store(None))
    assert poor.built[0] == hint
    assert len(poor.built) > 1


class Counter:
    """Says how many instructions, and remembers of what."""

    def __init__(self, millions: float) -> None:
        self.counted: list[bytes] = []
        self._millions = millions

    def millions(self, data: bytes, variant: Any, picture: Any, cpus: Sequence[str]) -> dict[str, float]:
        self.counted.append(data)
        return dict.fromkeys(cpus, self._millions)


@pytest.mark.parametrize(("millions", "passes"), [(20.0, True), (80.0, False)])
def test_a_variant_for_arm_is_as_fast_as_its_instructions_say(
    searched: Callable[..., Search], millions: float, passes: bool
) -> None:
    counter = Counter(millions)
    world = World(kind=KINDS["int8-arm"], decibels=lambda settings: 30.0)
    search = searched(world, counter=counter)
    assert not world.timed
    assert len(counter.counted) == len({settings.float_layers for settings in world.built})
    assert bool(search.ranked()) == passes
    if not passes:
        assert search.best().candidate.refused == "0.75 times float32's speed, 1 is asked for"


def test_instructions_of_a_hopeless_candidate_are_not_counted(searched: Callable[..., Search]) -> None:
    counter = Counter(10.0)
    searched(World(kind=KINDS["int8-arm"], metric=lambda settings: 0.5), counter=counter, train=lambda settings: False)
    assert not counter.counted


@pytest.mark.parametrize(
    ("candidate", "gates", "says"),
    [
        ({}, Gates(), ""),
        ({"metric": 0.88}, Gates(), "loses 2.00 points, give or take 0.00; 1 are allowed"),
        ({"metric": 0.88, "metric_error": 0.02}, Gates(), ""),  # chance may do that
        ({"metric": 0.86, "metric_error": 0.02}, Gates(), "loses 4.00 points, give or take 2.00; 1 are allowed"),
        ({"metric": 0.89}, Gates(), ""),  # on the limit is within
        ({"metric": 0.95}, Gates(), ""),
        ({"speedup": 0.9}, Gates(), "0.90 times float32's speed, 1 is asked for"),
        ({"speedup": 0.9}, Gates(min_speedup=0.8), ""),
        ({"speedup": 2.0, "instructions": {"cortex-a72": 125.0}}, Gates(), "0.80 times float32's speed, 1 is asked for"),
        ({"instructions": {"cortex-a72": 40.0, "cortex-a76": 30.0}}, Gates(min_speedup=2.0), ""),
        ({"bytes": 1_300_001}, Gates(max_bytes=1_300_000), "1.30 MB, 1.3 are allowed"),
        ({"bytes": 1_300_000}, Gates(max_bytes=1_300_000), ""),
    ],
)
def test_what_a_refusal_says(candidate: dict[str, Any], gates: Gates, says: str) -> None:
    reference = Reference(b"", FLOAT32, 0.9, {"cortex-a72": 100.0, "cortex-a76": 60.0})
    made = Candidate(**({"id": "1", "target": "int8-x86", "settings": {}, "metric": 0.9} | candidate))
    assert refusal(made, reference, gates) == says


def test_the_layers_to_blame_in_words() -> None:
    assert (
        noisiest({"a": 1.0, "b": 6.0, "c": 3.0}, {"b": "head.conv"}, 2) == "head.conv (60% of the noise), c (30% of the noise)"
    )
    assert noisiest({}, {}) == ""
