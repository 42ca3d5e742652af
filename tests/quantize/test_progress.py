"""What a build says of its candidates while it searches."""

from __future__ import annotations

import msgspec
import pytest

from edge.progress import Progress as Shown
from quantize.progress import Progress
from quantize.record import Candidate

SETTINGS = {"calibrator": "error", "rounding": "gptq", "float_layers": ["a", "b"], "float_silu": True}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"fidelity_db": 21.37}, "21.4 dB, metric 0.9000"),
        ({"fidelity_db": 21.37, "speedup": 1.5}, "21.4 dB, metric 0.9000, 1.50 times float32's speed"),
        ({"fidelity_db": 21.37, "refused": "too large"}, "21.4 dB, metric 0.9000; too large"),
        ({"fidelity_db": float("-inf")}, "no dB, metric 0.9000"),  # which JSON has no number for
    ],
)
def test_a_candidate_is_one_line_also_when_it_comes_from_the_store(fields: dict[str, object], says: str) -> None:
    made = Candidate(**({"id": "1", "target": "int8-x86", "settings": SETTINGS, "metric": 0.9} | fields))  # type: ignore[arg-type]
    kept = msgspec.json.decode(msgspec.json.encode(made), type=Candidate)
    lines: list[str] = []
    Progress(lines.append, Shown("edge-quantize"), 1.0, verbose=True).candidate(kept)
    assert lines == [f"int8-x86: error ranges, gptq weights, 2 layers in float, SiLU in float: {says}"]


def test_nothing_is_said_unless_asked() -> None:
    lines: list[str] = []
    Progress(lines.append, Shown("edge-quantize"), 1.0, verbose=False).candidate(
        Candidate(id="1", target="t", settings=SETTINGS)
    )
    assert not lines
