"""One run from its plan to its report: pictures, network, last layer first, the loop, the evaluation."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from torch import Tensor

from edge.boxes_data import BoxSample
from edge.commands import Skipped
from edge.datasets import Sample
from edge.errors import DataError, UsageError
from edge.layouts import Picture
from edge.progress import Progress, clock
from train.checkpoint import Checkpoint
from train.curves import Curves
from train.detect.job import DetectionJob
from train.evaluation import of_network
from train.finetune import ClassifierJob
from train.loop import Job, Row, seeded, train
from train.models import Classifier, Detector
from train.pictures import Pictures
from train.progress import Meter
from train.report import write_report
from train.run import (
    CHECKPOINT,
    REPORT,
    Plan,
    cache_of,
    counts,
    fingerprint,
    is_run,
    named_after,
    read_parts,
    read_plan,
    save_model,
    write_lists,
    write_plan,
)
from train.sources import Parts, known_counts, label_counts, open_data, without_learned
from train.start import start
from train.summary import Facts
from train.teacher import teacher_of
from train.team import Team
from train.transfer import fit_head, is_new
from train.words import METRIC, counted, headline, interval_text

Say = Callable[[str], None]
NAME = "edge-train"
SHOWN = 5
"""Classes that are named in a line about them."""
METRICS = {"classify": "top-1", "detect": "AP50"}
MEASURED_AGAIN = (
    "After the last epoch batch norm's statistics were measured again, so the figures can differ from the last epoch's."
)


def run_session(
    plan: Plan,
    out: Path,
    team: Team,
    threads: int | None,
    *,
    resume: bool,
    trust: bool,
    split: tuple[float | None, int | None],
    say: Say,
) -> int:
    """Train what `plan` says and leave a finished run in `out`; the exit code. Raises EdgeError."""
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // team.world))
    tell: Say = say if team.leads else lambda line: None
    bad = Skipped(tell)
    checkpoint = out / CHECKPOINT
    fresh = not (resume and checkpoint.exists())
    _check_batch(plan, team)
    with Progress(NAME) as opening:
        if team.leads:
            opening("opening the network and the data")
        with seeded(plan.recipe.seed):
            model = start(plan.choice, plan.labels, plan.task, weighted=fresh, trust=trust)
        parts = _resumed(plan, out) if resume else _opened(plan, split, tell)
    fit, val = parts.fit, parts.val
    asked = plan.recipe.batch
    if not resume and asked > len(fit) >= team.world:
        batch = len(fit) // team.world * team.world
        plan = msgspec.structs.replace(plan, recipe=replace(plan.recipe, batch=batch))
    job = _job(plan, model, fit, val, team, bad, trust)
    if plan.recipe.batch < asked:
        tell(f"--batch {asked}: there are {counted(len(fit), 'picture')} to learn from; taking {plan.recipe.batch}")
    team.meet()  # each has looked at the folder as it was
    if not resume and team.leads:
        write_lists(out, plan, parts)
        write_plan(out, msgspec.structs.replace(plan, pictures=fingerprint(plan, parts)))
    size, classes = f"{model.input.width}x{model.input.height}", counted(len(plan.labels), "class", "classes")
    tell(
        f"{plan.name}: {plan.choice.model}, {size}, {classes}; {counted(len(fit), 'picture')} to learn from, "
        f"{len(val)} to measure with; {_place(team)}"
    )
    for line in unlearned(plan, fit, val):
        tell(line)
    if fresh and team.leads and isinstance(model, Classifier) and plan.choice.weights != "random" and is_new(model.network):
        _head_first(plan, model, cast(Sequence[Sample], fit), team, bad, tell)
    metric = METRICS[plan.task]
    shown = Progress(NAME)
    meter, curves = Meter(tell, metric, shown), Curves(out / "tensorboard", metric) if team.leads else None

    def heard(row: Row) -> None:
        meter.epoch(row)
        if curves is not None:
            curves.add(row)

    with _asked_to_stop() as stop:
        trained = train(
            job,
            plan.recipe,
            team=team,
            keeper=Checkpoint(checkpoint),
            progress=meter.step if team.leads else lambda _: None,
            heard=heard,
            stop=stop,
        )
    meter.done()
    if curves is not None:
        curves.close()
    if trained.stopped:
        tell(f"stopped; go on with edge-train --resume --out {out}")
        return 130
    if team.leads:
        with shown:
            _finish(plan, out, replace(model, network=trained.network), fit, val, trained.history, bad, tell, shown)
    return 0


def _check_batch(plan: Plan, team: Team) -> None:
    """Raise UsageError for a batch that the processes cannot share evenly, or not in as many parts."""
    recipe = plan.recipe
    if recipe.batch % team.world or recipe.accumulate > recipe.batch // team.world:
        processes = counted(team.world, "process", "processes")
        raise UsageError(
            f"--batch {recipe.batch}, --accumulate {recipe.accumulate}: each of {processes} needs as many pictures "
            "as the others, one a part at least; change one of them"
        )


def _resumed(plan: Plan, out: Path) -> Parts:
    """The pictures as the run has noted them. Raises DataError where they are not what they were."""
    parts = read_parts(out, plan)
    if fingerprint(plan, parts) != plan.pictures:
        raise DataError(f"{out}: pictures or labels are not what the run began with, so it cannot go on exactly; train again")
    return parts


def _opened(plan: Plan, split: tuple[float | None, int | None], say: Say) -> Parts:
    """The data's pictures, none to measure with that a run to start from has learned."""
    share, count = split
    cache, seed = cache_of(plan), plan.recipe.seed
    parts = open_data(plan.data, plan.labels, plan.task, cache, share=share, count=count, seed=seed, say=say)
    former = Path(plan.choice.weights)
    return without_learned(parts, read_parts(former, read_plan(former)).fit, say) if is_run(former) else parts


def _job(
    plan: Plan, model: Classifier | Detector, fit: Sequence[Picture], val: Sequence[Picture], team: Team, bad: Say, trust: bool
) -> Job[Any]:
    if isinstance(model, Detector):
        return DetectionJob(model, cast(Sequence[BoxSample], fit), cast(Sequence[BoxSample], val), plan.recipe, bad=bad)
    learned, check = (Pictures(cast(Sequence[Sample], part), model.input, model.mean, model.std, bad) for part in (fit, val))
    teacher = None if plan.teacher is None else teacher_of(plan.teacher, model, trust=trust).to(team.device)
    weights = _class_weights(plan, cast(Sequence[Sample], fit)).to(team.device) if plan.balanced else None
    return ClassifierJob(model.network, learned, plan.recipe, teacher, check, weights)


def _class_weights(plan: Plan, fit: Sequence[Sample]) -> Tensor:
    """What makes every class weigh the same: n / (classes * n of the class), 1 for one without pictures."""
    found = torch.from_numpy(label_counts(fit, len(plan.labels))).double()
    return torch.where(found > 0, len(fit) / (len(plan.labels) * found.clamp_min(1)), 1.0).float()


def unlearned(plan: Plan, fit: Sequence[Picture], val: Sequence[Picture]) -> Iterator[str]:
    """What to know of classes of which there is nothing to learn; of shards as far as an index says it."""
    counts = [known_counts(pictures, len(plan.labels)) for pictures in (fit, val)]
    if counts[0] is None or counts[1] is None:
        return
    what = "pictures" if plan.task == "classify" else "boxes"
    none = counts[0] == 0
    only_val = [label.name for label, is_one in zip(plan.labels, none & (counts[1] > 0), strict=True) if is_one]
    nowhere = [label.name for label, is_one in zip(plan.labels, none & (counts[1] == 0), strict=True) if is_one]
    if only_val:
        yield f"no {what} in train, and some in val, of {_some(only_val)}: they measure what nothing teaches; move some there"
    if nowhere:
        yield f"no {what} of {_some(nowhere)} to learn from: add some, or remove the class"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _head_first(plan: Plan, model: Classifier, fit: Sequence[Sample], team: Team, bad: Say, say: Say) -> None:
    say("the last layer first ...")
    model.network.to(team.device)
    with Progress(NAME) as shown:
        pictures = Pictures(fit, model.input, model.mean, model.std, bad)
        fit_head(model.network, pictures, plan.recipe.seed, told=lambda done, of: shown("the last layer: pictures", done, of))


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Within it, Ctrl-C and SIGTERM let the step under way finish; a second one ends at once."""
    asked = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for which in (signal.SIGINT, signal.SIGTERM):
        before[which] = signal.signal(which, ask)
    try:
        yield asked.is_set
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _finish(
    plan: Plan,
    out: Path,
    model: Classifier | Detector,
    fit: Sequence[Picture],
    val: Sequence[Picture],
    history: list[Row],
    bad: Skipped,
    say: Say,
    shown: Progress,
) -> None:
    model = named_after(model, plan)
    save_model(out, model)
    evaluation = of_network(model, val, bad=bad, told=lambda done: shown("pictures measured", done, len(val)))  # type: ignore[arg-type]
    shown("writing the report")
    facts = Facts(
        model=f"{plan.name} ({plan.choice.model})",
        data=", ".join(plan.data),
        part="val",
        chose=plan.recipe.patience is not None,
        pictures={"train": len(fit), "val": len(val)},
        counts=counts(plan, {"train": fit, "val": val}),
        skipped=sorted(bad.lines),
        settings=asdict(plan.recipe) | {"weights": plan.choice.weights, "teacher": plan.teacher},
        seed=plan.recipe.seed,
        command=shlex.join(["edge-train", *sys.argv[1:]]),
        seconds=history[-1].seconds if history else 0.0,
        notes=[MEASURED_AGAIN] if plan.recipe.batch_norm == "train" else [],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    summary = write_report(out / REPORT, evaluation, history, facts)
    name = METRIC[summary.task]
    interval = interval_text(name, summary.figures[name])
    took = clock(history[-1].seconds) if history else "0:00"
    say(f"{plan.name}: {headline(summary).rstrip('.')} (95% interval {interval}); trained in {took}")
    say(f"wrote {out}: report {out / REPORT}; next: edge-quantize {out} --out {plan.name}.edge")


def _place(team: Team) -> str:
    where = "CPU" if team.device.type == "cpu" else torch.cuda.get_device_name(team.device)
    return where if team.world == 1 else f"{team.world} processes, {where}"
