"""How paired runs are made into ratios, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import open_bundle
from edge.card import Variant
from edge.engines import EngineOptions
from edge.engines.fake import FakeEngine
from edge.errors import EngineError
from edge.types import Outputs, Tensor
from quantize import speed
from quantize.speed import FEWEST_ROUNDS, Speed, interleaved, paired

PICTURE = np.full((1, 32, 48, 3), 7, np.uint8)


class Clock:
    """Seconds that pass only while one of its calls runs; remembers who was called."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.called = ""

    def __call__(self) -> float:
        return self.now_s

    def call(self, name: str, *milliseconds: float) -> Callable[[], None]:
        """A call that takes these times in turn, over and over."""
        times = list(milliseconds)

        def run() -> None:
            times.append(times.pop(0))
            self.now_s += times[-1] / 1e3
            self.called += name

        return run


def turns(called: str) -> str:
    """Who ran, each unbroken run of one name written once."""
    return "".join(name for before, name in zip(" " + called, called, strict=False) if name != before)


def test_every_file_has_its_turn_in_every_round() -> None:
    clock = Clock()
    interleaved([clock.call("A", 4.0), clock.call("B", 2.0), clock.call("C", 8.0)], clock, rounds=3)
    assert turns(clock.called) == "ABC" * 4  # once to warm up and to find how many fill a slice
    assert clock.called.endswith("A" * 6 + "B" * 11 + "C" * 4)


def test_a_ratio_says_how_many_times_as_fast_as_the_first() -> None:
    clock = Clock()
    found = interleaved([clock.call("A", 4.0), clock.call("B", 2.0), clock.call("C", 8.0)], clock, rounds=20)
    assert [one.ms for one in found] == pytest.approx([4.0, 2.0, 8.0])
    assert [one.ratio for one in found] == pytest.approx([1.0, 2.0, 0.5])
    assert [one.low for one in found] == pytest.approx([one.high for one in found])


def test_it_ends_when_more_would_say_nothing_new() -> None:
    clock = Clock()
    interleaved([clock.call("A", 4.0), clock.call("B", 2.0)], clock, rounds=100)
    assert turns(clock.called) == "AB" * (1 + FEWEST_ROUNDS)


def test_it_goes_on_while_the_ratio_is_uncertain() -> None:
    clock = Clock()
    times = np.random.default_rng(0).uniform(20.0, 60.0, 500).tolist()  # a slice is one call
    [_, found] = interleaved([clock.call("A", 40.0), clock.call("B", *times)], clock, rounds=30)
    assert turns(clock.called) == "AB" * 31
    assert found.low < found.ratio < found.high


def test_single_disturbances_do_not_count() -> None:
    clock = Clock()
    found = interleaved([clock.call("A", 5.0), clock.call("B", *[5.0] * 16, 400.0)], clock, rounds=20)
    assert found[1] == Speed(pytest.approx(5.0), pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))


def test_a_clock_too_coarse_to_move_is_no_error() -> None:
    assert [one.ratio for one in interleaved([lambda: None, lambda: None], lambda: 0.0, rounds=2)] == [1.0, 1.0]


def test_engines_get_the_picture_and_are_closed(tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, EngineOptions, FakeEngine]] = []

    class Recording(FakeEngine):
        def infer(self, tensor: Tensor) -> Outputs:
            assert tensor.data is PICTURE
            assert tensor.geometry.original_wh == (48, 32)
            return super().infer(tensor)

    def open_fake(data: bytes, variant: Variant, options: EngineOptions) -> FakeEngine:
        opened.append((variant.name, options, Recording(threads=options.threads)))
        return opened[-1][2]

    monkeypatch.setattr(speed, "open_engine", open_fake)
    bundle = open_bundle(tiny_edge)
    files = [(bundle.model_bytes(variant), variant) for variant in bundle.card.variants]
    assert len(paired(files, PICTURE, threads=2, rounds=1, exact=True)) == 2
    assert [name for name, _, _ in opened] == ["float32", "int8-x86"]
    assert all(options == EngineOptions(threads=2, spin=False, exact=True) for _, options, _ in opened)
    assert all(engine.closed for _, _, engine in opened)


def test_a_real_engine_against_itself(tiny_edge: Path) -> None:
    bundle = open_bundle(tiny_edge)
    files = [(bundle.model_bytes(variant), variant) for variant in bundle.card.variants]
    found = paired(files, np.zeros((1, 32, 32, 3), np.uint8), rounds=2)
    assert all(one.ms > 0 and one.low <= one.ratio <= one.high for one in found)


def test_a_refused_file_is_the_engines_error_and_leaves_none_open(tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeEngine()
    engines = iter([first])

    def open_fake(data: bytes, variant: Variant, options: EngineOptions) -> FakeEngine:
        try:
            return next(engines)
        except StopIteration:
            raise EngineError("refused") from None

    monkeypatch.setattr(speed, "open_engine", open_fake)
    variant = open_bundle(tiny_edge).card.variants[0]
    with pytest.raises(EngineError, match="refused"):
        paired([(b"", variant), (b"", variant)], PICTURE)
    assert first.closed
