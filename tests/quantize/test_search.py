"""Which candidate is taken, and why another is not."""

from __future__ import annotations

from typing import Any, cast

import pytest

pytest.importorskip("torch")

from edge.card import TensorInput, Variant
from quantize.record import Candidate
from quantize.search import Gates, Reference, Search, Tried, instruction_ratios, noisiest, refusal
from quantize.store import Store
from quantize.targets import KINDS, Settings

VARIANT = Variant(
    name="float32",
    file="float32.onnx",
    engine="onnx",
    precision="float32",
    scheme="float32",
    weight_bits=32,
    sha256="0" * 64,
    bytes=1,
    input=TensorInput(name="image"),
    outputs={"logits": "logits"},
    tolerance=0.0,
)
REFERENCE = Reference(b"", VARIANT, 0.75, {"cortex-a72": 300.0, "cortex-a76": 300.0})


def candidate(**changes: Any) -> Candidate:
    given = {"fidelity_db": 15.0, "metric": 0.75, "metric_error": 0.0, "speedup": 1.5, "bytes": 1000}
    return Candidate(id="x", target="int8-x86", settings={}, **(given | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"metric": 0.74}, ""),
        ({"metric": 0.73}, "loses 2.00 points, give or take 0.00; 1 are allowed"),
        ({"metric": 0.73, "metric_error": 0.01}, ""),
        ({"metric": None}, "loses 75.00 points, give or take 0.00; 1 are allowed"),
        ({"speedup": 1.1}, "1.10 times float32's speed, 1.2 is asked for"),
        ({"speedup": None, "instructions": {"cortex-a72": 290.0}}, "1.03 times float32's speed, 1.2 is asked for"),
        ({"speedup": 2.0, "instructions": {"cortex-a76": 290.0}}, "1.03 times float32's speed, 1.2 is asked for"),
        ({"speedup": None}, ""),
        ({"bytes": 3_000_000}, "3.00 MB, 2 are allowed"),
    ],
)
def test_refusal(changes: dict[str, Any], said: str) -> None:
    assert refusal(candidate(**changes), REFERENCE, Gates(0.01, 1.2, 2_000_000)) == said


@pytest.mark.parametrize(
    ("known", "order"),
    [
        # speed-up and fidelity by name; the best first
        ({"a": (2.0, 10.0), "b": (1.9, 14.0)}, "ba"),  # about as fast, and closer
        ({"a": (2.0, 13.5), "b": (1.9, 14.0)}, "ab"),  # and about as close
        ({"a": (2.0, 10.0), "b": (1.2, 30.0)}, "ab"),  # much slower is no use
        ({"a": (1.2, 30.0), "b": (1.0, 40.0), "c": (1.25, 29.5)}, "cab"),
        ({}, ""),
    ],
)
def test_the_fastest_and_of_these_the_closest(known: dict[str, tuple[float, float]], order: str) -> None:
    search = searching()
    for name, (speed, fidelity) in known.items():
        settings = Settings(calibrator=name)
        search.tried[settings] = Tried(settings, b"", candidate(speedup=speed, fidelity_db=fidelity))
    refused = Settings(calibrator="refused")
    search.tried[refused] = Tried(refused, b"", candidate(speedup=9.0, fidelity_db=99.0, refused="too large"))
    assert "".join(tried.settings.calibrator for tried in search.ranked()) == order


def test_what_is_kept_is_not_built_again() -> None:
    search = searching()
    settings = Settings(calibrator="minmax")
    search.store.put(f"file-{search.identity(settings)}", b"the file")
    search.store.put_record(f"candidate-{search.identity(settings)}", candidate(metric=0.5))
    tried = search.attempt(settings)
    assert (tried.data, tried.candidate.metric) == (b"the file", 0.5)
    assert tried.candidate.refused.startswith("loses 25.00 points")


def test_the_noisiest_layers_are_named_with_their_share() -> None:
    noise = {"conv2d": 1.0, "conv2d_1": 3.0, "conv2d_2": 0.0}
    said = noisiest(noise, {"conv2d_1": "stem"}, 2)
    assert said == "stem (75% of the noise), conv2d (25% of the noise)"
    assert noisiest({}, {}) == ""


def test_ratios_are_of_processors_that_both_know() -> None:
    assert instruction_ratios({"cortex-a76": 100.0, "haswell": 1.0}, REFERENCE.instructions) == {"cortex-a76": 3.0}


class _Kept(Store):
    """A store in memory."""

    def __init__(self) -> None:
        super().__init__(None)
        self.held: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.held.get(key)

    def put(self, key: str, data: bytes) -> bytes:
        self.held[key] = data
        return data


class _Target:
    kind = KINDS["int8-x86"]


def searching() -> Search:
    return Search(
        target=cast(Any, _Target()),
        judge=cast(Any, None),
        reference=REFERENCE,
        gates=Gates(),
        store=_Kept(),
        key="key",
        threads=1,
        until_s=0.0,
        noise=dict,
        train=lambda settings: False,
        counter=None,
        heard=lambda candidate: None,
    )
