"""A run: the folder that holds what was asked, which pictures did what, the state to go on from, and what came of it.

run.json        what was asked (Plan)
train.txt       the pictures learned from, as a list (edge.lists)
val.txt         those it is measured on
checkpoint.pt   what --resume goes on from
model.pt        the trained weights, once it is finished
report.html     the evaluation, and report.json
tensorboard/    learning curves for TensorBoard
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import torch

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.errors import DataError, InputError, UsageError
from edge.layouts import Picture, parts_of
from edge.lists import is_list, place_of, write_list
from train.checkpoint import write_whole
from train.models import Classifier, Detector
from train.recipe import Recipe
from train.shard_cache import ShardCache
from train.shard_sets import is_shards
from train.sources import PARTS, Parts, label_counts, open_data
from train.start import Choice, start
from train.weights import read_state, take

RUN = "run.json"
MODEL = "model.pt"
CHECKPOINT = "checkpoint.pt"
REPORT = "report.html"
M = TypeVar("M", bound=Classifier | Detector)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a run was asked to do; `data`, one or more sets, and the teacher's run are absolute paths.

    `pictures` is a hash over the pictures and labels that it began with, of other data than shards.
    """

    version: Literal[1] = 1
    name: str
    task: Literal["classify", "detect"]
    choice: Choice
    labels: tuple[Label, ...]
    data: tuple[str, ...]
    recipe: Recipe
    balanced: bool = False
    teacher: str | None = None
    cache: str | None = None
    cache_mb: float = 4096.0
    pictures: str = ""


def write_plan(folder: Path, plan: Plan) -> None:
    """Begin a run in a folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"
    write_whole(folder / RUN, lambda file: file.write(raw))


def read_plan(folder: Path) -> Plan:
    """What the run in a folder was asked. Raises InputError when there is none, or one of another version."""
    path = folder / RUN
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        raise InputError(f"{folder}: no run of edge-train, which has a {RUN}; give the folder of its --out") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InputError(f"{path}: not what this edge-train writes ({error}); train again") from None


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / RUN).is_file()


def cache_of(plan: Plan) -> ShardCache | None:
    """Where shards that are fetched are kept."""
    return None if plan.cache is None else ShardCache(Path(plan.cache), plan.cache_mb)


def write_lists(folder: Path, plan: Plan, parts: Parts) -> None:
    """Note which pictures do what; shards say it themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    if _in_shards(plan):
        return
    root = Path(os.path.commonpath([os.path.abspath(place_of(Path(data)).folder) for data in plan.data]))
    try:
        for part, pictures in zip(PARTS, (parts.fit, parts.val), strict=True):
            write_list(folder / f"{part}.txt", root, [picture.path for picture in pictures])
    except BaseException:
        for part in PARTS:
            (folder / f"{part}.txt").unlink(missing_ok=True)
        raise


def fingerprint(plan: Plan, parts: Parts) -> str:
    """A hash over the names, parts and labels of all pictures; "" of shards."""
    if _in_shards(plan):
        return ""
    hashed = hashlib.sha256()
    for part, pictures in zip(PARTS, (parts.fit, parts.val), strict=True):
        for picture in sorted(pictures, key=lambda picture: picture.path):
            label = f"{picture.class_id}" if isinstance(picture, Sample) else _boxes_text(picture)
            hashed.update(f"{part}\0{picture.path}\0{label}\0".encode("utf-8", "surrogateescape"))
    return hashed.hexdigest()


def _in_shards(plan: Plan) -> bool:
    return any(is_shards(data) for data in plan.data)


def _boxes_text(picture: BoxSample) -> str:
    return f"{picture.boxes_xyxy.tolist()} {picture.class_ids.tolist()} {picture.ignored.tolist()}"


def read_parts(folder: Path, plan: Plan) -> Parts:
    """The pictures that the run learns from and those it is measured on, with their labels. Raises DataError."""
    if _in_shards(plan):
        return open_data(plan.data, plan.labels, plan.task, cache_of(plan), seed=0, say=lambda line: None)
    found: list[list[Picture]] = []
    parts = [parts_of(Path(data), plan.labels, plan.task) for data in plan.data]
    known = [picture for train, val in parts for picture in [*train, *(val or [])]]
    for part in PARTS:
        path = Path(os.path.abspath(folder / f"{part}.txt"))  # as the pictures' paths are
        if not is_list(path):
            raise DataError(
                f"{path}: is missing, or no list of pictures; without it nobody knows what was learned; train again"
            )
        place = place_of(path)
        pictures = [picture for picture in known if place.keeps(picture.path)]
        if not pictures:
            raise DataError(f"{path}: none of its pictures is in {' or '.join(plan.data)} any more; train again")
        found.append(pictures)
    return Parts(found[0], found[1])


def save_model(folder: Path, model: Classifier | Detector) -> None:
    """Write the trained weights."""
    state = {name: value.cpu() for name, value in model.network.state_dict().items()}
    write_whole(folder / MODEL, lambda file: torch.save(state, file))


def check_trust(plan: Plan, folder: Path, trust: bool) -> None:
    """Raise UsageError for a run whose network comes from code that its run.json names, unless that is to be run."""
    if ":" in plan.choice.model and not trust:
        raise UsageError(
            f"{folder}: its network is made by calling {plan.choice.model}, as its {RUN} says; give --trust if the run is yours"
        )


def load_run(folder: Path, *, trust: bool = False) -> Classifier | Detector:
    """The model that a finished run trained; its factory, where it has one, is called with `trust` only.

    Raises UsageError without it, and InputError for a run that is not finished, or damaged.
    """
    plan = read_plan(folder)
    check_trust(plan, folder, trust)
    path = folder / MODEL
    if not path.is_file():
        raise InputError(f"{folder}: the run is not finished; go on with edge-train --resume --out {folder}")
    model = start(plan.choice, plan.labels, plan.task, weighted=False)
    take(model.network, read_state(path), f"{path}: not this run's weights, or damaged", "train again")
    model.network.eval()
    return named_after(model, plan)


def named_after(model: M, plan: Plan) -> M:
    """The model under the run's name, with where it comes from."""
    source = f"{model.source}; trained on {data_name(plan)}"
    return replace(model, name=plan.name, source=source)


def data_name(plan: Plan) -> str:
    """What people call the data: its folders' names."""
    return " + ".join(Path(data).name for data in plan.data)


def counts(plan: Plan, parts: dict[str, Sequence[Picture]]) -> dict[str, dict[str, int]]:
    """Part → label id → how many pictures, or objects, it has there."""
    ids = [label.id for label in plan.labels]
    return {part: dict(zip(ids, label_counts(pictures, len(ids)).tolist(), strict=True)) for part, pictures in parts.items()}
