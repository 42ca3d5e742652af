"""An evaluation as data: every figure of the report, of which the page and the JSON beside it are made."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import numpy as np

from devices import processor
from edge import __version__
from edge.calibration import expected_calibration_error, reliability
from edge.card import Label
from edge.classification_metrics import Tally, class_counts, class_rows, confusions, top_k, wilson_interval
from edge.detection_metrics import average_precisions
from edge.evaluate import Scored
from train.box_figures import ap50_interval, ranked, trade
from train.cross_fit import cross_fit
from train.evaluation import Boxes, Classification, Evaluation
from train.worst import Wrong, worst_boxes, worst_classes

TOOLS = ("torch", "numpy", "opencv-python-headless", "faster-coco-eval")
CURVE_POINTS = 200


class Figure(msgspec.Struct, kw_only=True):
    """A share in [0, 1] with its 95% interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


class ClassRow(msgspec.Struct, kw_only=True):
    """One class's figures, null where there is nothing to divide by; `recall_low` and `recall_high` are a 95% interval.

    Of pictures, or of a detector's objects: `support` are labelled, `answered` were reported and `right` of these.
    """

    id: str
    name: str
    support: int
    answered: int
    right: int
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    ap50: float | None = None
    recall_low: float = 0.0
    recall_high: float = 1.0


class Confusion(msgspec.Struct, kw_only=True):
    """How many pictures of one class were taken for another, by the classes' ids."""

    truth: str
    answer: str
    count: int


class Diagram(msgspec.Struct, kw_only=True):
    """A reliability diagram: per equal-width bin of confidence its mean confidence, accuracy and count."""

    ece: float
    confidence: list[float]
    accuracy: list[float]
    count: list[int]


class Calibration(msgspec.Struct, kw_only=True):
    """The confidence as it is, and as a temperature would make it, judged on other pictures than it was fitted to.

    `temperatures` were fitted to either half of the pictures, `fitted_to` so many pictures or detections; none: too few.
    """

    plain: Diagram
    scaled: Diagram | None = None
    temperatures: list[float] = []
    fitted_to: list[int] = []


class Epoch(msgspec.Struct, kw_only=True):
    """A row of the learning curves; `metric` is the one on the pictures kept to measure, larger is better."""

    epoch: int
    step: int
    loss: float | None = None
    rate: float | None = None
    metric: float | None = None


class Facts(msgspec.Struct, kw_only=True):
    """What the answers do not say: which data, what was skipped, how it was trained, where and with what.

    `pictures` are by part, `counts` by part and label id, pictures or a detector's objects. `part` is the one judged by,
    and `chose` says that it also chose the epoch or the settings, so that its figures are too good.
    """

    model: str
    data: str = ""
    part: str = "val"
    chose: bool = False
    pictures: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    skipped: list[str] = []
    settings: dict[str, Any] = {}
    seed: int | None = None
    command: str = ""
    seconds: float = 0.0
    created: str = ""
    machine: str = ""
    versions: dict[str, str] = {}
    notes: list[str] = []


class Summary(msgspec.Struct, kw_only=True):
    """The whole report. `figures` are fractions by name; `curve` has a detector's thresholds, precision and recall."""

    task: str
    images: int
    figures: dict[str, Figure]
    classes: list[ClassRow]
    calibration: Calibration
    facts: Facts
    confusions: list[Confusion] = []
    score_threshold: float | None = None
    curve: list[tuple[float, float, float]] = []
    history: list[Epoch] = []
    wrong: int = 0
    worst: list[Wrong] = []


def evaluation_schema() -> dict[str, Any]:
    """The published JSON Schema of the file beside the report."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-train evaluation"}
    return head | msgspec.json.schema(Summary)


def summarize(evaluation: Evaluation, history: Iterable[Any], facts: Facts) -> Summary:
    """All figures of an evaluation; the rows of `history` have `epoch, step, loss, rate, metric`, as train.loop.Row."""
    summary = _classification(evaluation, facts) if isinstance(evaluation, Classification) else _boxes(evaluation, facts)
    return msgspec.structs.replace(summary, history=[_epoch(row) for row in history])


def _epoch(row: Any) -> Epoch:
    """Of an object, or of a line of JSON as a dictionary."""
    known = row if isinstance(row, Mapping) else {name: getattr(row, name) for name in Epoch.__struct_fields__}
    loss, rate, metric = (None if known.get(name) is None else float(known[name]) for name in ("loss", "rate", "metric"))
    return Epoch(epoch=int(known["epoch"]), step=int(known["step"]), loss=loss, rate=rate, metric=metric)


def _classification(evaluation: Classification, facts: Facts) -> Summary:
    labels, tally, count = evaluation.labels, evaluation.tally, len(evaluation.truth)
    right = int(tally.right.sum())
    among = int(top_k(evaluation.probabilities, evaluation.truth, 5).sum())
    figures = {"top1": _share(right, count), "top5": _share(among, count)} | _macro(tally, len(labels))
    most = int(class_counts(tally, len(labels)).support.max())
    return Summary(
        task="classify",
        images=count,
        figures=figures | {"largest_class": Figure(value=most / count)},
        classes=_class_rows(tally, labels, {}),
        calibration=_calibration(evaluation),
        facts=_completed(facts, evaluation),
        confusions=[
            Confusion(truth=labels[truth].id, answer=labels[answer].id, count=times)
            for truth, answer, times in confusions(tally.truth, tally.answers)
        ],
        wrong=count - right,
        worst=worst_classes(evaluation),
    )


def _boxes(evaluation: Boxes, facts: Facts) -> Summary:
    labels, tally = evaluation.labels, evaluation.tally
    precisions = average_precisions(evaluation.truth, evaluation.found)
    classes = ranked(evaluation.truth, evaluation.found, sorted(precisions.class_ap50))
    low, high = ap50_interval(classes, precisions.ap50)
    right = int(tally.right.sum())
    figures = {
        "ap50": Figure(value=precisions.ap50, low=low, high=high),
        "ap": Figure(value=precisions.ap),
        "objects_precision": _share(right, len(tally.answers)),
        "objects_recall": _share(right, len(tally.truth)),
    }
    ap50 = np.array([precisions.class_ap50.get(index, np.nan) for index in range(len(labels))])
    curve = np.stack(trade(classes), axis=1)
    kept = np.unique(np.linspace(0, len(curve) - 1, min(CURVE_POINTS, len(curve))).round().astype(np.int64))
    wrong, worst = worst_boxes(evaluation)
    return Summary(
        task="detect",
        images=len(evaluation.truth),
        figures=figures | _macro(tally, len(labels)),
        classes=_class_rows(tally, labels, {"ap50": ap50}),
        calibration=_calibration(evaluation),
        facts=_completed(facts, evaluation),
        score_threshold=evaluation.score_threshold,
        curve=[(score, precision, recall) for score, precision, recall in curve[kept].round(5).tolist()],
        wrong=wrong,
        worst=worst,
    )


def _share(right: int, count: int) -> Figure:
    low, high = wilson_interval(right, count)
    return Figure(value=right / max(count, 1), low=low, high=high)


def _macro(tally: Tally, classes: int) -> dict[str, Figure]:
    macro = class_counts(tally, classes).macro
    return {f"macro_{name}": Figure(value=getattr(macro, name)) for name in ("precision", "recall", "f1")}


def _class_rows(tally: Tally, labels: Sequence[Label], more: dict[str, Any]) -> list[ClassRow]:
    rows = [ClassRow(**row) for row in class_rows(class_counts(tally, len(labels)), labels, more)]
    for row in rows:
        row.recall_low, row.recall_high = (round(end, 6) for end in wilson_interval(row.right, row.support))
    return rows


def _calibration(evaluation: Evaluation) -> Calibration:
    fitted = cross_fit(evaluation)
    if fitted is None:
        return Calibration(plain=_diagram(evaluation.scored))
    return Calibration(
        plain=_diagram(evaluation.scored),
        scaled=_diagram(fitted.scored),
        temperatures=[round(value, 4) for value in fitted.temperatures],
        fitted_to=list(fitted.counts),
    )


def _diagram(scored: Scored) -> Diagram:
    bins = reliability(scored.confidence, scored.right)
    return Diagram(
        ece=expected_calibration_error(scored.confidence, scored.right),
        confidence=bins.confidence.round(4).tolist(),
        accuracy=bins.accuracy.round(4).tolist(),
        count=bins.count.tolist(),
    )


def _completed(facts: Facts, evaluation: Evaluation) -> Facts:
    """With what this machine knows where it was not given, and with what the evaluation could not read."""
    return msgspec.structs.replace(
        facts,
        created=facts.created or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=facts.machine or processor(),
        versions=facts.versions or versions(),
        skipped=list(dict.fromkeys([*facts.skipped, *evaluation.skipped])),
    )


def versions() -> dict[str, str]:
    """The versions of what a network is trained and judged with."""
    found = {"edge-run": __version__, "python": platform.python_version()}
    for tool in TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
