"""Accuracy, calibration and speed of a loaded model on labelled pictures, through the code that runs on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast, overload

import numpy as np

from edge.boxes_data import BoxSample
from edge.calibration import expected_calibration_error
from edge.card import SelectionUnit
from edge.classification_metrics import Tally
from edge.datasets import Labelled, Sample, labelled_frames
from edge.detection_metrics import average_precisions, detection_tally, true_positives
from edge.engines import infer
from edge.errors import DataError
from edge.model import Model
from edge.tasks.detect import Detect
from edge.types import Bools, Classes, Detections, Float32, Int64, Outputs, Result, Tensor

Say: TypeAlias = Callable[[str], None]
Heard: TypeAlias = Callable[[Path, Result], None]

AP_SCORE, AP_DETECTIONS = 0.001, 100
"""The least score, before calibration, and the most boxes a picture that average precision looks at."""
ECE_SCORE = 0.05
"""The least score of a detection whose calibration counts; below it lies what no application reports."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What calibration is about: `confidence` float32 [n] of answers, and which of them are `right` [n]."""

    confidence: Float32
    right: Bools


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured over `images` pictures: fractions in [0, 1], and the median prepare + infer + decode time.

    `tally` has what there was and what was answered, picture by picture.
    """

    images: int
    skipped: int
    top1: float
    top5: float
    ece: float
    ms_per_image: float
    scored: Scored = field(repr=False, compare=False)
    tally: Tally = field(repr=False, compare=False)

    @property
    def answers(self) -> dict[SelectionUnit, Scored]:
        """What a device may accept or not, by unit."""
        return {"frame": self.scored}


@dataclass(frozen=True, slots=True)
class DetectionReport:
    """What was measured over `images` pictures: average precisions in [0, 1], and what `Report` has.

    `ece` compares the scores of detections, from 0.05, with how many of them find an object of their class at IoU 0.5.
    `answers` are what a device may accept or not, each object it reports, or a frame's objects together (edge.card).
    `class_ap50` has the average precision of each class that is labelled, `tally` the objects that the device reports.
    """

    images: int
    skipped: int
    ap50: float
    ap: float
    ece: float
    ms_per_image: float
    scored: Scored = field(repr=False, compare=False)
    answers: dict[SelectionUnit, Scored] = field(repr=False, compare=False)
    class_ap50: dict[int, float] = field(repr=False, compare=False)
    tally: Tally = field(repr=False, compare=False)


@overload
def evaluate(model: Model, samples: Iterable[Sample], bad: Say = ..., heard: Heard = ...) -> Report: ...
@overload
def evaluate(model: Model, samples: Iterable[BoxSample], bad: Say = ..., heard: Heard = ...) -> DetectionReport: ...
def evaluate(
    model: Model,
    samples: Iterable[Sample] | Iterable[BoxSample],
    bad: Say = lambda line: None,
    heard: Heard = lambda path, result: None,
) -> Report | DetectionReport:
    """Run every picture through `model`; unreadable ones are named to `bad`. Raises DataError when none is readable.

    A classifier wants Samples, a detector BoxSamples. `heard` is told what the device would report of each picture.
    """
    run = _Run(bad, heard)
    if isinstance(model.task, Detect):
        return _detection(model, model.task, cast(Iterable[BoxSample], samples), run)
    return _classification(model, cast(Iterable[Sample], samples), run)


@dataclass(slots=True)
class _Run:
    """One pass over pictures: how long each took, and which could not be read."""

    bad: Say
    heard: Heard
    seconds: list[float] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def skip(self, line: str) -> None:
        self.skipped.append(line)
        self.bad(line)

    def pictures(self, model: Model, samples: Iterable[Labelled]) -> Iterator[tuple[Labelled, Tensor, Outputs, Result]]:
        """Each readable sample with what the model makes of its picture. Raises DataError at the end when there is none."""
        for frame, sample in labelled_frames(samples, self.skip):
            started = time.perf_counter()
            tensor = model.task.prepare(frame)
            outputs = infer(model.engine, tensor)
            result = model.task.decode(outputs, tensor)
            self.seconds.append(time.perf_counter() - started)
            self.heard(sample.path, result)
            yield sample, tensor, outputs, result
        if not self.seconds:
            first = self.skipped[0] if self.skipped else "none given"
            raise DataError(f"none of {len(self.skipped)} pictures could be read; the first: {first}")

    @property
    def ms_per_image(self) -> float:
        return float(np.median(self.seconds) * 1e3)


def _classification(model: Model, samples: Iterable[Sample], run: _Run) -> Report:
    truth: list[int] = []
    best: list[Int64] = []
    confidence: list[float] = []
    for sample, _, _, result in run.pictures(model, samples):
        assert isinstance(result, Classes)
        truth.append(sample.class_id)
        best.append(result.class_ids)
        confidence.append(result.confidence)
    correct = np.array([ids[0] == want for ids, want in zip(best, truth, strict=True)])
    scored = Scored(np.array(confidence, np.float32), correct)
    return Report(
        images=len(truth),
        skipped=len(run.skipped),
        top1=float(correct.mean()),
        top5=float(np.mean([want in ids for ids, want in zip(best, truth, strict=True)])),
        ece=expected_calibration_error(scored.confidence, scored.right),
        ms_per_image=run.ms_per_image,
        scored=scored,
        tally=Tally(np.array(truth, np.int64), np.array([ids[0] for ids in best], np.int64), correct),
    )


def _detection(model: Model, task: Detect, samples: Iterable[BoxSample], run: _Run) -> DetectionReport:
    """Timed as the card has it, then decoded again down to the scores that average precision looks at."""
    thorough = task.thorough(AP_SCORE, AP_DETECTIONS)
    truth: list[BoxSample] = []
    found: list[Detections] = []
    reported: list[Detections] = []
    for sample, tensor, outputs, result in run.pictures(model, samples):
        assert isinstance(result, Detections)
        truth.append(sample)
        reported.append(result)
        found.append(thorough.decode(outputs, tensor))
    precisions = average_precisions(truth, found)
    scored = scored_detections(truth, found)
    return DetectionReport(
        images=len(truth),
        skipped=len(run.skipped),
        ap50=precisions.ap50,
        ap=precisions.ap,
        ece=expected_calibration_error(scored.confidence, scored.right),
        ms_per_image=run.ms_per_image,
        scored=scored,
        answers={"object": scored_detections(truth, reported, least=0.0), "frame": _scored_frames(truth, reported)},
        class_ap50=precisions.class_ap50,
        tally=detection_tally(truth, reported),
    )


def scored_detections(truth: Iterable[BoxSample], found: Iterable[Detections], least: float = ECE_SCORE) -> Scored:
    """Score and correctness of every detection of at least that score; its own makes it one whose calibration counts."""
    scores, right = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
    for sample, detections in zip(truth, found, strict=True):
        likely = detections[detections.scores >= least]
        correct, counted = true_positives(sample, likely)
        scores.append(likely.scores[counted])
        right.append(correct[counted])
    return Scored(np.concatenate(scores), np.concatenate(right))


def _scored_frames(truth: Iterable[BoxSample], reported: Iterable[Detections]) -> Scored:
    """Confidence and correctness of frames with objects: right are those whose every object is."""
    scored = [scored_detections([sample], [objects], least=0.0) for sample, objects in zip(truth, reported, strict=True)]
    scored = [one for one in scored if len(one.right)]
    confidence = np.array([one.confidence.min() for one in scored], np.float32)
    return Scored(confidence, np.array([one.right.all() for one in scored], np.bool_))
