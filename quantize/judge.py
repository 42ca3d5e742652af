"""The pictures that choose: how far a candidate's outputs are from float32's, and what that does to the task's own metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.boxes_data import BoxSample
from edge.card import Variant
from edge.datasets import Sample, labelled_frames
from edge.detection_metrics import detection_ap
from edge.errors import InputError
from edge.evaluate import AP_DETECTIONS, AP_SCORE
from edge.progress import told
from edge.protocols import Engine
from edge.tasks.detect import Detect
from edge.types import Detections, Float32, Tensor
from quantize.data import Picture
from quantize.float_model import FloatModel
from quantize.store import digest

RESAMPLES = 24

METRICS = {"classify": "top1", "detect": "ap50"}
"""Task → the figure that its gate is about."""

_GROUPS: dict[str, tuple[int, Callable[[int], tuple[slice, ...]]]] = {
    "softmax": (-1, lambda classes: (slice(None),)),
    "yolox": (-1, lambda classes: (slice(0, 4), slice(4, None))),
    "yolov8": (1, lambda classes: (slice(0, 4), slice(4, None))),
    "nanodet": (-1, lambda classes: (slice(0, classes), slice(classes, None))),
    "fastestdet": (1, lambda classes: (slice(0, 1), slice(1, 5), slice(5, None))),
}
"""Head → the axis of its outputs along which quantities differ, and where each kind lies on it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`fidelity_db` is signal over quantization noise, averaged over kinds of output; `metric` a fraction.

    `error` is the standard error of the metric's difference from float32's, by resampling the pictures.
    """

    fidelity_db: float
    metric: float
    error: float


class Judge:
    """Holds prepared pictures with their truth, and float32's outputs once it has run."""

    def __init__(self, model: FloatModel, samples: Sequence[Picture], bad: Callable[[str], None]) -> None:
        self._model = model
        self.tensors: list[Tensor] = []
        self.truth: list[Picture] = []
        for frame, sample in labelled_frames(samples, bad):
            self.tensors.append(model.prepare(frame))
            self.truth.append(sample)
        if not self.tensors:
            raise InputError("none of the pictures that choose among candidates is readable; give more pictures")
        self._reference: list[Float32] = []
        self.key = digest(
            model.task,
            model.head,
            model.detect,
            len(model.labels),
            *map(repr, self.truth),
            *(t.data.tobytes() for t in self.tensors),
        )

    def run(
        self, engine: Engine, count: int | None = None, tick: Callable[[float], None] = lambda share: None
    ) -> list[Float32]:
        """An engine's outputs for the first `count` pictures, or all; `tick` is told the share done."""
        return [engine.infer(tensor)[self._model.role] for tensor in told(self.tensors[:count], tick)]

    def refer_to(self, outputs: list[Float32]) -> None:
        """Take float32's outputs as what others are held to."""
        self._reference = outputs

    def verdict(self, variant: Variant, outputs: Sequence[Float32]) -> Verdict:
        """How a candidate did on all pictures."""
        fidelity_db = round(self.fidelity_db(outputs), 3)
        answers, wanted = self._answers(variant, outputs), self._answers(variant, self._reference)
        random = np.random.default_rng(0)
        differences = []
        for _ in range(RESAMPLES):
            chosen = random.integers(0, len(self.truth), len(self.truth)).tolist()
            differences.append(self._score(answers, chosen) - self._score(wanted, chosen))
        everything = list(range(len(self.truth)))
        return Verdict(fidelity_db, self._score(answers, everything), round(float(np.std(differences)), 5))

    def fidelity_db(self, outputs: Sequence[Float32]) -> float:
        """Signal over noise of the first pictures, in decibels."""
        return -10 * math.log10(max(self.noise(outputs), 1e-12))

    def noise(self, outputs: Sequence[Float32]) -> float:
        """Noise over signal, the mean over kinds of output, of the first pictures; infinite when it is not finite."""
        axis, groups = _GROUPS[self._model.head]
        powers = []
        for group in groups(len(self._model.labels)):
            error = signal = 0.0
            for got, want in zip(outputs, self._reference, strict=False):
                kept = _along(want, axis, group).astype(np.float64)
                error += float(np.square(_along(got, axis, group) - kept).sum())
                signal += float(np.square(kept).sum())
            powers.append(error / max(signal, 1e-12))
        noise = float(np.mean(powers))
        return noise if math.isfinite(noise) else math.inf

    def metric(self, variant: Variant, outputs: Sequence[Float32]) -> float:
        """Top-1 or average precision at IoU 0.5 of these outputs."""
        return self._score(self._answers(variant, outputs), list(range(len(self.truth))))

    def _answers(self, variant: Variant, outputs: Sequence[Float32]) -> list[int] | list[Detections]:
        """The best class, or all that average precision looks at, of each picture."""
        if self._model.task == "classify":
            return [int(given.argmax()) for given in outputs]
        return self.detections(variant, outputs)

    def detections(self, variant: Variant, outputs: Sequence[Float32]) -> list[Detections]:
        """All that average precision looks at, of each picture."""
        task = self._model.task_of(variant)
        assert isinstance(task, Detect)
        thorough = task.thorough(AP_SCORE, AP_DETECTIONS)
        role = self._model.role
        return [thorough.decode({role: given}, tensor) for given, tensor in zip(outputs, self.tensors, strict=True)]

    def _score(self, answers: list[int] | list[Detections], chosen: Sequence[int]) -> float:
        """The metric over the chosen pictures, one as often as it is named; 0 for pictures without anything to find."""
        truth = [self.truth[index] for index in chosen]
        if self._model.task == "classify":
            classes = [sample.class_id for sample in truth if isinstance(sample, Sample)]
            return float(np.mean([answers[index] == wanted for index, wanted in zip(chosen, classes, strict=True)]))
        boxes = [sample for sample in truth if isinstance(sample, BoxSample)]
        found = [answer for index in chosen if isinstance(answer := answers[index], Detections)]
        return detection_ap(boxes, found)[0] if any(len(sample.class_ids) for sample in boxes) else 0.0


def _along(values: Float32, axis: int, group: slice) -> Float32:
    index: list[slice] = [slice(None)] * values.ndim
    index[axis] = group
    return values[tuple(index)]
