"""What a trained network, or an exported bundle, answers to labelled pictures, as the device would answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch

from edge.boxes_data import BoxSample
from edge.card import ROLES_OF_HEAD, Card, Label
from edge.classification_metrics import Tally
from edge.datasets import Sample, labelled_frames
from edge.detection_metrics import detection_tally
from edge.engines import infer
from edge.errors import DataError
from edge.evaluate import AP_DETECTIONS, AP_SCORE, Scored, scored_detections
from edge.model import Model
from edge.protocols import Task
from edge.tasks import TASKS
from edge.tasks.classify import Classify
from edge.tasks.detect import Detect
from edge.types import Detections, Float32, Int64, Outputs, Tensor
from train.batches import ahead
from train.draft import draft_card
from train.models import Classifier, Detector

Say: TypeAlias = Callable[[str], None]
Told: TypeAlias = Callable[[int], None]
Run: TypeAlias = Callable[[Sequence[Tensor]], Sequence[Outputs]]


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """A classifier's answers to n labelled pictures; what could not be read is named in `skipped`.

    `logits` are float32 [n, classes], `probabilities` what the device makes of them: their softmax, at a temperature that
    a bundle's variant has and a network has not.
    """

    labels: tuple[Label, ...]
    samples: tuple[Sample, ...]
    logits: Float32
    probabilities: Float32
    skipped: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The pictures' files."""
        return tuple(sample.path for sample in self.samples)

    @property
    def truth(self) -> Int64:
        """The class of each picture [n]."""
        return np.array([sample.class_id for sample in self.samples], np.int64)

    @property
    def tally(self) -> Tally:
        """The truth and the best class of each picture."""
        truth, answers = self.truth, self.probabilities.argmax(axis=1)
        return Tally(truth, answers, answers == truth)

    @property
    def scored(self) -> Scored:
        """The confidence of each answer, and which are right."""
        return Scored(self.probabilities.max(axis=1), self.tally.right)


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """A detector's answers to labelled pictures, one of each list a picture.

    `found` goes down to the scores that average precision looks at, `reported` is what the device reports, from
    `score_threshold`.
    """

    labels: tuple[Label, ...]
    truth: tuple[BoxSample, ...]
    found: tuple[Detections, ...]
    reported: tuple[Detections, ...]
    score_threshold: float
    skipped: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The pictures' files."""
        return tuple(sample.path for sample in self.truth)

    @property
    def tally(self) -> Tally:
        """The labelled objects and the reported ones."""
        return detection_tally(self.truth, self.reported)

    @property
    def scored(self) -> Scored:
        """The score of each detection whose calibration counts, and which are right."""
        return scored_detections(self.truth, self.found)


Evaluation: TypeAlias = Classification | Boxes


@overload
def of_network(
    model: Classifier, samples: Sequence[Sample], *, batch: int = ..., bad: Say = ..., told: Told = ...
) -> Classification: ...
@overload
def of_network(
    model: Detector, samples: Sequence[BoxSample], *, batch: int = ..., bad: Say = ..., told: Told = ...
) -> Boxes: ...
def of_network(
    model: Classifier | Detector,
    samples: Sequence[Sample] | Sequence[BoxSample],
    *,
    batch: int = 32,
    bad: Say = lambda line: None,
    told: Told = lambda done: None,
) -> Evaluation:
    """The network's answers, prepared and decoded by the device's own code; it runs where its weights are.

    Unreadable pictures are named to `bad`; `told` hears after each batch how many were answered. Raises DataError when
    none is readable.
    """
    card = card_of(model)
    return _answers(TASKS[card.task](card, card.variants[0]), card.labels, _network(model, card), samples, batch, bad, told)


def of_bundle(
    model: Model, labels: tuple[Label, ...], samples: Sequence[Sample] | Sequence[BoxSample], bad: Say = lambda line: None
) -> Evaluation:
    """The same of an exported bundle's model, whose card has these labels, on its own engine. Raises DataError."""

    def run(tensors: Sequence[Tensor]) -> Sequence[Outputs]:
        return [infer(model.engine, tensor) for tensor in tensors]

    return _answers(model.task, labels, run, samples, 1, bad)


def card_of(model: Classifier | Detector) -> Card:
    """The card of what has not been exported, with one variant that stands for the network itself."""
    if isinstance(model, Detector):
        return draft_card(model, "detect", model.head, model.options)
    return draft_card(model, "classify", "softmax", None)


def _network(model: Classifier | Detector, card: Card) -> Run:
    """Runs a batch of the device's tensors through the network; each picture has its own outputs again."""
    roles = ROLES_OF_HEAD[card.head]
    network = model.network.eval()
    place = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    mean, std = (torch.tensor(values, device=place).reshape(1, 3, 1, 1) for values in (model.mean, model.std))

    def run(tensors: Sequence[Tensor]) -> Sequence[Outputs]:
        pixels = torch.from_numpy(np.concatenate([tensor.data for tensor in tensors])).to(place)
        with torch.inference_mode():
            given = network((pixels.permute(0, 3, 1, 2).float() - mean) / std)
        arrays = {role: values.float().cpu().numpy() for role, values in _by_role(given, roles).items()}
        return [{role: values[i : i + 1] for role, values in arrays.items()} for i in range(len(tensors))]

    return run


def _by_role(given: Any, roles: Sequence[str]) -> Mapping[str, torch.Tensor]:
    if isinstance(given, torch.Tensor):
        [role] = roles
        return {role: given}
    return given if isinstance(given, Mapping) else dict(zip(roles, given, strict=True))


def _answers(
    task: Task,
    labels: tuple[Label, ...],
    run: Run,
    samples: Sequence[Sample] | Sequence[BoxSample],
    batch: int,
    bad: Say,
    told: Told = lambda done: None,
) -> Evaluation:
    skipped: list[str] = []

    def skip(line: str) -> None:
        skipped.append(line)
        bad(line)

    batches = _counted(_prepared(task, samples, batch, skip), told)
    made = _boxes(task, labels, run, batches) if isinstance(task, Detect) else _classes(task, labels, run, batches)
    if not made.paths:
        first = skipped[0] if skipped else "none given"
        raise DataError(f"none of {len(samples)} pictures to measure on could be read; the first: {first}")
    return replace(made, skipped=tuple(skipped))


Prepared: TypeAlias = list[tuple[Any, Tensor]]


def _counted(batches: Iterator[Prepared], told: Told) -> Iterator[Prepared]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        told(done)


def _classes(task: Task, labels: tuple[Label, ...], run: Run, batches: Iterator[Prepared]) -> Classification:
    assert isinstance(task, Classify)
    answered, logits, probabilities = [], [np.zeros((0, len(labels)), np.float32)], []
    for batch in batches:
        for (sample, _), outputs in zip(batch, run([tensor for _, tensor in batch]), strict=True):
            logits.append(task.logits(outputs))
            probabilities.append(task.probabilities(logits[-1]))
            answered.append(cast(Sample, sample))
    return Classification(
        labels,
        tuple(answered),
        np.concatenate(logits),
        np.array(probabilities, np.float32).reshape(-1, len(labels)),
    )


def _boxes(task: Detect, labels: tuple[Label, ...], run: Run, batches: Iterator[Prepared]) -> Boxes:
    thorough = task.thorough(AP_SCORE, AP_DETECTIONS)
    truth, found, reported = [], [], []
    for batch in batches:
        for (sample, tensor), outputs in zip(batch, run([tensor for _, tensor in batch]), strict=True):
            truth.append(cast(BoxSample, sample))
            found.append(thorough.decode(outputs, tensor))
            reported.append(task.decode(outputs, tensor))
    return Boxes(labels, tuple(truth), tuple(found), tuple(reported), task.score_threshold)


def _prepared(task: Task, samples: Sequence[Any], size: int, bad: Say) -> Iterator[Prepared]:
    """The readable pictures in batches, in their order; the next batch is read while one is used."""

    def load(start: int) -> Prepared:
        return [(sample, task.prepare(frame)) for frame, sample in labelled_frames(samples[start : start + size], bad)]

    for _, batch in ahead(load, range(0, len(samples), size), readers=1):  # one, so that the unreadable ones are in order
        if batch:
            yield batch
