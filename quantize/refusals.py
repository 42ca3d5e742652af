"""What is said of a variant that is left out: the gate it missed, what is to blame, what to try."""

from __future__ import annotations

from edge.types import UInt8
from quantize.readback import slowest_operators
from quantize.record import Candidate
from quantize.targets import Kind
from train.draft import INPUT

UNLIKE_DB = 4.0
"""Less of it on pictures that measure than on those that chose says that the two kinds of pictures differ."""


def too_inaccurate(drop: float, allowed: float, fidelity_db: float, blame: str) -> str:
    """For a loss of `drop` where `allowed` is, both fractions; `blame` names the noisiest layers."""
    layers = f"; most of it comes from {blame}" if blame else ""
    return (
        f"it loses {drop * 100:.2f} points, --max-drop allows {allowed * 100:g} (its outputs are {fidelity_db:.1f} dB clear "
        f"of quantization noise){layers}; try more --calibration-images, a larger --budget-minutes, --qat always or a "
        "larger --max-drop"
    )


def unlike(fidelity_db: tuple[float, float]) -> str:
    """More to say when the pictures that measure fare worse than those that chose: nothing when they don't."""
    chosen, measured = fidelity_db
    if chosen - measured < UNLIKE_DB:
        return ""
    return (
        f"; calibration pictures are unlike those it is measured with ({chosen:.1f} dB on pictures like them, "
        f"{measured:.1f} dB on these): calibrate on pictures from where the model will be used"
    )


def too_slow(refusal: str, data: bytes, kind: Kind, picture: UInt8, candidate: Candidate) -> str:
    """For a file that is slower than is asked for, with the operators that cost the time where the engine tells."""
    if kind.engine == "onnx" and not kind.machines:
        order = slowest_operators(data, picture, INPUT)[:3]
        where = "its time goes to " + ", ".join(f"{name} ({share:.0%})" for name, share in order)
    else:
        floats = sorted(candidate.float_operators.items(), key=lambda item: -item[1])[:3]
        where = "in float it keeps " + (", ".join(f"{count} {name}" for name, count in floats) or "nothing")
    return f"{refusal}; {where}; ship float32 there, or lower --min-speedup"
