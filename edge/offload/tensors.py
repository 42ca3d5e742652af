"""Asking with a raw tensor, as any server of the Open Inference Protocol takes it by its metadata."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edge.answers import read_answer, wanted
from edge.card import InputGeometry, TensorInput
from edge.engines.adapt import InputAdapter
from edge.errors import OffloadError
from edge.geometry import prepare
from edge.offload.forms import Question, check_kind
from edge.offload.served import Served, TensorSpec
from edge.offload.uplink import Rung
from edge.oip import InferResponse, NamedTensor
from edge.tasks.classify import are_probabilities, best_k, softmax
from edge.types import Classes, Detections, Event, Frame, Result, UInt8

BEST = 5
DTYPES = {"UINT8": "uint8", "FP32": "float32"}
SUM_TOLERANCE = 1e-3
"""By how much probabilities may miss a sum of 1; what misses it by more are logits."""


class TensorForm:
    """The frame as the local model sees it, in the size, type and layout that the endpoint's model asks for.

    Floats are normalized as the local variant's file wants them (`normalized`), or from 0 to 255 where that takes uint8.
    A classifier's answer is `labels` and `scores`, or one FP32 [1, classes] of logits or probabilities in the order of
    the local `labels`; a detector's is `boxes`, `labels` and `scores` in pixels of the tensor.
    """

    def __init__(self, geometry: InputGeometry, normalized: TensorInput, labels: Sequence[str]) -> None:
        self._geometry, self._normalized, self._labels = geometry, normalized, tuple(labels)

    def check(self, served: Served, local: Result) -> None:
        """It has one tensor of pictures among its inputs, and outputs that can be understood."""
        _pictures(served)
        if served.gives("labels", "scores"):
            check_kind(served, local)
        elif isinstance(local, Detections):
            raise OffloadError("names no 'boxes', 'labels' and 'scores', which a detector's answer must have")
        elif _scores(served, len(self._labels)) is None:
            raise OffloadError(
                f"gives neither 'labels' and 'scores' nor one FP32 [1, {len(self._labels)}], a score a local label"
            )

    def question(self, event: Event, image: UInt8, rung: Rung, served: Served | None) -> Question:
        """One tensor."""
        if served is None:
            raise OffloadError("nothing is known of the model yet")
        spec = _pictures(served)
        layout, height, width = _layout(spec)
        geometry = msgspec.structs.replace(
            self._geometry,
            width=width if width > 0 else self._geometry.width,
            height=height if height > 0 else self._geometry.height,
        )
        tensor = prepare(Frame(image, event.frame.sequence, event.frame.captured_s, event.frame.source), geometry)
        wants = TensorInput(name=spec.name, dtype=DTYPES[spec.datatype], layout=layout)  # type: ignore[arg-type]
        if self._normalized.dtype == "float32":
            wants = msgspec.structs.replace(wants, mean=self._normalized.mean, scale=self._normalized.scale)
        named = wanted(event.result) if served.gives("labels", "scores") else [_scores(served, len(self._labels)) or ""]
        return Question(NamedTensor.of(spec.name, InputAdapter(wants)(tensor.data)), named, tensor.geometry)

    def answer(self, event: Event, question: Question, response: InferResponse) -> Result:
        """The endpoint's result, its classes by the local labels where it named none."""
        if "labels" in question.outputs:
            return read_answer(response, event.result, question.geometry)
        with np.errstate(over="ignore"):
            values = np.array(response.outputs[question.outputs[0]].data, np.float32).reshape(-1)
        if len(values) != len(self._labels):
            raise ValueError(f"{len(values)} scores for {len(self._labels)} labels")
        if not np.isfinite(values).all():
            raise ValueError("scores that are not finite")
        scores = values if are_probabilities(values, SUM_TOLERANCE) else softmax(values, 1.0)
        best = best_k(scores, BEST)
        return Classes(best, scores[best], tuple(self._labels[i] for i in best.tolist()))


def _pictures(served: Served) -> TensorSpec:
    """The input that a prepared picture fits. Raises OffloadError where there is none, or others are needed, too."""
    tensors = [tensor for tensor in served.inputs if tensor.datatype in DTYPES and _shaped(tensor.shape)]
    others = 0 if served.takes_pictures else len(served.inputs) - len(tensors)  # edge-cloud takes one of two
    if len(tensors) != 1 or others:
        raise OffloadError(
            "takes no single UINT8 or FP32 tensor of one picture, [1, height, width, 3] or [1, 3, height, width]"
        )
    return tensors[0]


def _shaped(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[0] in (1, -1) and (shape[3] == 3 or shape[1] == 3)


def _layout(spec: TensorSpec) -> tuple[str, int, int]:
    """Layout, height and width, which are -1 where any size will do."""
    _, second, third, fourth = spec.shape
    return ("nhwc", second, third) if fourth == 3 else ("nchw", third, fourth)


def _scores(served: Served, classes: int) -> str | None:
    """The name of the one output that has a score for each class."""
    fitting = [
        output.name
        for output in served.outputs
        if output.datatype == "FP32" and output.shape[-1:] == [classes] and all(size in (1, -1) for size in output.shape[:-1])
    ]
    return fitting[0] if len(fitting) == 1 else None
