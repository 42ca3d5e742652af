"""A finished file through the device's code: temperature, figures on pictures that chose nothing, and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge.boxes_data import BoxSample
from edge.calibration import fit_score_temperature, fit_temperature, reliability
from edge.card import FIGURES_OF_TASK, Accuracy, Variant
from edge.datasets import Sample
from edge.engines import EngineOptions, open_engine
from edge.evaluate import DetectionReport, Report, evaluate, scored_detections
from edge.model import Model
from edge.protocols import Engine
from edge.selection import fit_selections
from edge.types import Detections, Float32, Frame, Result, UInt8
from quantize.data import Picture
from quantize.float_model import FloatModel
from quantize.judge import Judge
from quantize.record import Reliability

FEWEST_DETECTIONS = 50
"""With fewer there is nothing to fit a temperature to."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A variant with its temperature and figures, its golden outputs, and its answer to each readable picture that measures."""

    variant: Variant
    data: bytes
    golden: Float32
    results: dict[Path, Result]
    reliability: Reliability

    @property
    def metrics(self) -> dict[str, float]:
        """The card's figures by name."""
        accuracy = self.variant.accuracy
        assert accuracy is not None
        figures = {name: getattr(accuracy, name) for names in FIGURES_OF_TASK.values() for name in (*names, "ece")}
        return {name: value for name, value in figures.items() if value is not None}


def measure(
    model: FloatModel,
    variant: Variant,
    data: bytes,
    judge: Judge,
    samples: Iterable[Picture],
    golden: UInt8,
    data_name: str,
    threads: int,
    bad: Callable[[str], None],
) -> Measured:
    """Fit the variant's temperature to the judge's pictures, and run it on `samples` in ARM's arithmetic.

    `golden` is a picture BGR [h, w, 3]. Raises EngineError, DataError.
    """
    results: dict[Path, Result] = {}
    with closing(open_engine(data, variant, EngineOptions(threads, spin=True, exact=True))) as engine:
        variant = _calibrated(model, variant, judge, engine)
        task = model.task_of(variant)
        report: Report | DetectionReport = evaluate(
            Model(model.name, variant, engine, task),
            samples,  # type: ignore[arg-type]
            bad,
            results.__setitem__,
        )
        expected = engine.infer(task.prepare(Frame(golden, 0, 0.0, "golden")))[model.role]
    figures = {name: getattr(report, name) for name in FIGURES_OF_TASK[model.task]}
    accuracy = Accuracy(data=data_name, images=report.images, ece=report.ece, **figures)
    variant = msgspec.structs.replace(variant, accuracy=accuracy, selections=fit_selections(report))
    return Measured(variant, data, expected, results, _reliability(variant.name, report))


def _calibrated(model: FloatModel, variant: Variant, judge: Judge, engine: Engine) -> Variant:
    """With the temperatures of this variant's own confidence on the pictures that chose it, as far as there is enough."""
    outputs = judge.run(engine)
    if model.task == "classify":
        classes = np.array([sample.class_id for sample in judge.truth if isinstance(sample, Sample)], np.int64)
        temperature = fit_temperature(np.stack([given.reshape(-1) for given in outputs]), classes)
        return msgspec.structs.replace(variant, temperature=round(temperature, 4))
    boxes = [sample for sample in judge.truth if isinstance(sample, BoxSample)]
    found = judge.detections(variant, outputs)
    fitted = {
        label.id: _score_temperature(boxes, [objects[objects.class_ids == number] for objects in found])
        for number, label in enumerate(model.labels)
    }
    return msgspec.structs.replace(
        variant,
        temperature=_score_temperature(boxes, found) or 1.0,
        class_temperatures={label: temperature for label, temperature in fitted.items() if temperature is not None},
    )


def _score_temperature(truth: Sequence[BoxSample], found: Sequence[Detections]) -> float | None:
    """None where there are too few right ones, or wrong ones."""
    scored = scored_detections(truth, found)
    if min(int(scored.right.sum()), int((~scored.right).sum())) < FEWEST_DETECTIONS:
        return None
    return round(fit_score_temperature(scored.confidence, scored.right), 4)


def _reliability(name: str, report: Report | DetectionReport) -> Reliability:
    bins = reliability(report.scored.confidence, report.scored.right)
    return Reliability(
        variant=name,
        confidence=bins.confidence.round(4).tolist(),
        accuracy=bins.accuracy.round(4).tolist(),
        count=bins.count.tolist(),
        ece=report.ece,
    )
