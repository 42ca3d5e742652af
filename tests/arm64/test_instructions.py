"""Instructions counted on emulated ARM: they repeat, they are those in docs/benchmarks.md, and errors are one line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.bundle import Bundle, open_bundle
from edge.engines import EngineOptions
from edge.errors import EngineError
from edge.model import load_variant
from edge.packaged import DEFAULT_BUNDLE
from edge.types import Geometry, Tensor
from quantize.instructions import Counter, open_counter, why_not

pytestmark = pytest.mark.arm64
CPUS = ("cortex-a72", "cortex-a76")


@pytest.fixture(scope="module")
def counter(root: Path) -> Counter:
    """A counter in the root of these tests, which the wheel's engines are in."""
    counter = open_counter(CPUS)
    assert counter is not None, [why_not(cpu) for cpu in CPUS]
    return counter


@pytest.fixture(scope="module")
def lite0() -> Bundle:
    return open_bundle(DEFAULT_BUNDLE)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("int8-x86", {"cortex-a72": 144.9, "cortex-a76": 77.9}), ("int8-tflite", {"cortex-a72": 140.3, "cortex-a76": 63.3})],
)
def test_counts_are_those_of_the_benchmarks_and_repeat(
    counter: Counter, lite0: Bundle, name: str, millions: dict[str, float]
) -> None:
    """Also: what it answers is what the engine answers here to ARM's arithmetic."""
    variant = lite0.card.variant(name)
    data, (picture, _) = lite0.model_bytes(variant), lite0.golden(variant)
    here = load_variant(lite0, variant, EngineOptions(exact=True)).engine
    expected = here.infer(Tensor(picture, Geometry((1.0, 1.0), (0.0, 0.0), (224, 224))))["logits"]
    for cpu, documented in millions.items():
        first = counter.infer(data, variant, picture, cpu)
        assert first.millions == pytest.approx(documented, rel=0.01)
        assert np.array_equal(first.outputs["logits"], expected)
    assert counter.millions(data, variant, picture, CPUS) == pytest.approx(millions, rel=0.01)
    again = counter.infer(data, variant, picture, "cortex-a76")
    assert again.millions == pytest.approx(first.millions, rel=0.003)  # the last of them was a Cortex-A76, too


def test_what_the_emulated_engine_refuses_is_one_line(counter: Counter, lite0: Bundle) -> None:
    variant = lite0.card.variant("int8-x86")
    picture = lite0.golden(variant)[0]
    with pytest.raises(
        EngineError, match=r"int8-x86.onnx on an emulated cortex-a72 cannot be counted: ONNX Runtime .* refuses"
    ):
        counter.infer(b"no model", variant, picture, "cortex-a72")
    renamed = msgspec.structs.replace(variant, outputs={"logits": "absent"})
    with pytest.raises(EngineError, match="no tensor named 'absent'"):
        counter.infer(lite0.model_bytes(variant), renamed, picture, "cortex-a72")


def test_a_count_that_takes_too_long_is_given_up(lite0: Bundle, counter: Counter) -> None:
    variant = lite0.card.variant("int8-x86")
    with pytest.raises(EngineError, match=r"took more than 0\.1 s; leave the count out"):
        Counter(timeout_s=0.1).infer(lite0.model_bytes(variant), variant, lite0.golden(variant)[0], "cortex-a72")
