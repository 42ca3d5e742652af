"""What a build did, as data: every candidate with its figures, what was chosen and why.

The report and the JSON beside it are made of this.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Candidate(msgspec.Struct, kw_only=True):
    """One file that was made and measured.

    `settings` are what the search varied. `fidelity_db` is the signal-to-quantization-noise ratio of the outputs against
    float32's, in decibels. `metric` is the task's own (top-1 or AP50, a fraction) over the pictures that choose, and
    `metric_error` the standard error of its difference from float32's;
    `ms` one inference on one thread here, the median of interleaved runs, and `speedup` the median of float32's time over
    its own in the same runs. `instructions` are millions an inference by emulated CPU. `refused` says why it cannot be
    shipped, empty when it can.
    """

    id: str
    target: str
    settings: dict[str, Any]
    fidelity_db: float | None = None
    metric: float | None = None
    metric_error: float | None = None
    ms: float | None = None
    speedup: float | None = None
    instructions: dict[str, float] = {}
    bytes: int = 0
    integer_operators: int = 0
    float_operators: dict[str, int] = {}
    seconds: float = 0.0
    refused: str = ""
    chosen: bool = False


class LayerNoise(msgspec.Struct, kw_only=True):
    """How much one layer, quantized alone, disturbs the outputs.

    `noise` is noise over signal power, and `share` its share of the sum over all layers.
    """

    target: str
    layer: str
    operators: list[str]
    noise: float
    share: float
    kept_float: bool = False


class Reliability(msgspec.Struct, kw_only=True):
    """A reliability diagram: per equal-width bin of confidence its mean confidence, accuracy and count."""

    variant: str
    confidence: list[float]
    accuracy: list[float]
    count: list[int]
    ece: float


class Disagreement(msgspec.Struct, kw_only=True):
    """A picture on which an int8 variant and float32 disagree: a JPEG thumbnail in base64, and both answers in words."""

    variant: str
    picture: str
    jpeg_base64: str
    float32: str
    int8: str
    truth: str = ""


class Chosen(msgspec.Struct, kw_only=True):
    """A variant that is in the bundle, with its figures over the pictures kept to measure, and why it was chosen.

    `processors` says in words what it is for. `metrics` are fractions by name, the task's own and `ece` among them.
    """

    variant: str
    candidate: str
    why: str
    metrics: dict[str, float]
    speedup: float | None = None
    instructions: dict[str, float] = {}
    bytes: int = 0
    processors: str = ""


class Left(msgspec.Struct, kw_only=True):
    """A variant that was asked for and is not in the bundle: the gate it missed, what is to blame and what to try.

    The figures are those it was refused for, over the pictures kept to measure, where it came that far.
    """

    variant: str
    why: str
    candidate: str = ""
    metrics: dict[str, float] = {}
    speedup: float | None = None
    instructions: dict[str, float] = {}
    bytes: int = 0
    processors: str = ""


class Record(msgspec.Struct, kw_only=True):
    """A whole build; `command` and `machine` say where it came from.

    `metric_name` is a key of the metrics, as the card has it (`top1`, `ap50`). `gates` are the limits asked for:
    `max_drop_points`, `min_speedup`, `max_mb`, `max_ece`. `split` is how many pictures did what: `calibration`, `choice`,
    `temperature`, `measure`. `float32` and `float32_choice` are float32's metrics over the pictures that measure and that
    choose, with its `ms` and `bytes`; `float32_instructions` are millions an inference by emulated CPU.
    """

    model: str
    task: str
    metric_name: str
    created: str
    command: str
    machine: str
    gates: dict[str, float]
    split: dict[str, int]
    tools: dict[str, str] = {}
    float32: dict[str, float] = {}
    float32_choice: dict[str, float] = {}
    float32_instructions: dict[str, float] = {}
    candidates: list[Candidate] = []
    layers: list[LayerNoise] = []
    reliability: list[Reliability] = []
    disagreements: list[Disagreement] = []
    chosen: list[Chosen] = []
    left_out: list[Left] = []
    notes: list[str] = []
    seconds: float = 0.0


def record_schema() -> dict[str, Any]:
    """The published JSON Schema of the file beside the report."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-quantize build"} | msgspec.json.schema(
        Record
    )
