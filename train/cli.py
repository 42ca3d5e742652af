"""edge-train: a folder of labelled pictures to a model worth quantizing, with a report of what it can do."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from edge.card import is_name
from edge.commands import SETTINGS, OneLineCommand, fail, speaker, version_option
from edge.errors import EdgeError, InputError, UsageError
from edge.places import check_writable
from edge.sizes import LARGEST, parse_size

if TYPE_CHECKING:
    from train.recipe import Recipe
    from train.run import Plan

NAME = "edge-train"
PACKAGES = ("torch", "matplotlib", "jinja2")
DEFAULT_MODELS = {"classify": "efficientnet-lite0", "detect": "efficientnet-lite0-det"}
TOLD_AGAIN = ("out", "resume", "threads", "device", "trust")
"""What may be said beside --resume; the run knows the rest."""
ASKED = (
    *("epochs", "minutes", "batch", "accumulate", "rate", "optimizer", "weight_decay", "smoothing", "mixup"),
    *("freeze", "patience", "precision", "seed"),
)
"""Options that are fields of a recipe."""
say = speaker(NAME)


class Finite(click.FloatRange):
    """A number in a range that is one: neither nan nor infinite."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """The number, or a usage error."""
        number: float = super().convert(value, parameter, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", parameter, context)
        return number


class Commands(OneLineCommand):
    """`edge-train` trains; its first word may also be another of its commands."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> NoReturn:
        """Run the command that the first word names, or train."""
        words = list(sys.argv[1:] if args is None else args)
        if words and words[0] in ("check", "pack"):
            _command(words[0]).main(words[1:], *more, **kwargs)
        super().main(words, *more, **kwargs)


def _command(name: str) -> click.Command:
    if name == "check":
        from train.check_command import check

        return check
    from train.pack_command import pack

    return pack


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    size_wh = parse_size(value)
    if size_wh is None:
        raise UsageError(f"--size {value}: give WIDTHxHEIGHT in pixels, such as 224x224, at most {LARGEST} a side")
    return size_wh


AUGMENTS = ("none", "light", "standard", "camera", "night")


@click.command(NAME, cls=Commands, context_settings=SETTINGS)
@click.option(
    "--data",
    metavar="DIR",
    multiple=True,
    help="Class folders; pictures with YOLO, COCO or VOC boxes; a list of edge-train check --fix; what edge-cloud --keep "
    "kept; WebDataset shards, also like https://host/{train,val}-{0000..0099}.tar. May be given again.",
)
@click.option("--out", metavar="RUN", type=Path, required=True, help="The run's folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it was left, exactly as it would have gone on.")
@click.option(
    "--model",
    metavar="NAME",
    help="A classifier or a detector by name, or package.module:factory.  [default: efficientnet-lite0, of boxes its -det]",
)
@click.option("--arg", "arguments", metavar="NAME=VALUE", multiple=True, help="A keyword argument of the factory; repeatable.")
@click.option("--name", metavar="NAME", help="What the model will be called.  [default: the folder's name]")
@click.option("--size", metavar="WxH", callback=_size, help="The model's input.  [default: its own]")
@click.option(
    "--weights", metavar="FILE|RUN", type=Path, help="Start from a file of weights, torchvision's too, or from another run."
)
@click.option("--from-scratch", is_flag=True, help="Start from random weights.  [default: published ones]")
@click.option(
    "--val-share",
    type=Finite(0, 0.9, min_open=True),
    help="What is kept apart of data that has no val part.  [default: 0.2]",
)
@click.option("--val-count", type=click.IntRange(1), help="The same as a number of pictures.")
@click.option("--cache", metavar="DIR", type=Path, help="Where shards of http servers are kept while they are used.")
@click.option("--cache-mb", type=Finite(0, min_open=True), help="At most so much of them.  [default: 4096]")
@click.option("--epochs", type=Finite(0, min_open=True), help="How often every picture is seen.  [default: by the start]")
@click.option("--minutes", type=Finite(0, min_open=True), help="Shorten the schedule to fit; the result depends on speed.")
@click.option("--batch", type=click.IntRange(1, 65536), help="Pictures a step, over all processes.")
@click.option("--accumulate", type=click.IntRange(1, 1024), help="Parts that a batch is taken in, where memory is short.")
@click.option("--rate", type=Finite(0, min_open=True), help="The peak of the learning rate.")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]))
@click.option("--weight-decay", type=Finite(0))
@click.option(
    "--freeze",
    type=Finite(0, 1, max_open=True),
    help="The share of the layers, from the input on, that stay as they are.",
)
@click.option("--smoothing", type=Finite(0, 1, max_open=True), help="Label smoothing.")
@click.option("--mixup", type=Finite(0), help="Alpha of mixup; 0 mixes none.")
@click.option(
    "--augment", type=click.Choice(AUGMENTS), help="What may differ from the pictures; camera adds blur, noise, JPEG, exposure."
)
@click.option(
    "--class-weights", type=click.Choice(["none", "balanced"]), default="none", show_default=True, help="Weigh rare classes up."
)
@click.option(
    "--teacher",
    metavar="NAME|RUN",
    help="Learn from a model of the same classes, too: a run, or a published one of ImageNet's.",
)
@click.option("--distill", type=Finite(0, 1), help="The teacher's share of the loss.  [default: 0.5 with --teacher]")
@click.option("--patience", type=click.IntRange(1), help="Stop after so many epochs without a better val; take the best one.")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="[default: bfloat16 on a GPU]")
@click.option(
    "--trust", is_flag=True, help="Call the function that the run in --weights, --teacher or --out says makes its network."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", metavar="auto|cpu|cuda[:N]", default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads to work with.  [default: all cores]")
@version_option
@click.pass_context
def main(
    context: click.Context,
    /,
    data: tuple[str, ...],
    out: Path,
    resume: bool,
    trust: bool,
    device: str,
    threads: int | None,
    **options: Any,
) -> int:
    """Train a model on DIR: its last layer first, then all of it, each epoch measured on pictures kept apart.

    RUN then has the model for edge-quantize and a report. On several GPUs or nodes, start the same command by torchrun.
    `edge-train check DIR` looks for what is wrong with the data first; `edge-train pack DIR` makes shards of it.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise EdgeError(f"{package} is not installed; pip install 'edge-run[train]'")
    if resume:
        _check_only(context)
    elif not data:
        raise UsageError("give --data DIR: pictures in class folders, or with boxes")
    from train.run import check_trust, read_plan
    from train.session import run_session
    from train.team import assembled

    try:
        with assembled(device) as team:
            plan = read_plan(out) if resume else _plan(data, out, trust, options)
            if resume:
                check_trust(plan, out, trust)
            return run_session(
                plan,
                out,
                team,
                threads,
                resume=resume,
                trust=trust,
                split=(options["val_share"], options["val_count"]),
                say=say,
            )
    except KeyboardInterrupt:
        fail(NAME, f"interrupted; go on with edge-train --resume --out {out}", 130)


def _check_only(context: click.Context) -> None:
    """Raise UsageError for an option beside --resume that the run itself has."""
    for name in context.params:
        if name not in TOLD_AGAIN and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--resume goes on as the run began; leave out --{name.replace('_', '-')}")


def _plan(data: tuple[str, ...], out: Path, trust: bool, options: dict[str, Any]) -> Plan:
    """What is asked, completed by defaults and by what the data is."""
    from train.run import Plan, check_trust, is_run, read_plan
    from train.shard_cache import ShardCache, is_url
    from train.sources import checked, described
    from train.start import Choice, arguments_of

    data = tuple(checked(one) for one in data)
    if len({os.path.realpath(one) for one in data}) < len(data):
        raise UsageError(f"--data {data[-1]}: one data set is given twice, and would count twice; give each once")
    if is_run(out):
        raise UsageError(f"--out {out}: has a run; go on with it by --resume, give another folder, or remove it")
    check_writable(out, "--out", inside=True)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: is there and not an empty folder; give another name")
    name = options["name"] or out.resolve().name
    if not is_name(name):
        whose = "--name" if options["name"] else "the name that --out gives the model is"
        advice = "" if options["name"] else "give --name: "
        raise UsageError(f"{whose} {name!r}: {advice}letters, digits, '.', '_' and '-', a letter or digit first, at most 100")
    weights = _weights(options)
    former = read_plan(Path(weights)) if is_run(Path(weights)) else None
    if former is not None and options["model"] is None:
        check_trust(former, Path(weights), trust)
    if options["val_share"] is not None and options["val_count"] is not None:
        raise UsageError("--val-share and --val-count both say how much measures; leave one out")
    if options["cache_mb"] is not None and options["cache"] is None:
        raise UsageError("--cache-mb is the size of --cache; give the folder")
    if options["cache"] is not None and not any(is_url(one) for one in data):
        raise UsageError(f"--cache {options['cache']}: is for shards of http servers, which --data has none of; leave it out")
    if options["cache"] is not None:
        check_writable(options["cache"], "--cache", inside=True)
    cache_mb = options["cache_mb"] or 4096.0
    cache = None if options["cache"] is None else ShardCache(options["cache"], cache_mb)
    task, labels = described(data, cache)
    if former is not None and {label.id for label in labels} <= {label.id for label in former.labels}:
        labels = former.labels
    if task == "classify" and len(labels) < 2:
        raise InputError(f"{data[0]}: has one class, {labels[0].name!r}; a classifier needs two at least")
    if options["from_scratch"] and ":" in (options["model"] or ""):
        raise UsageError(f"--from-scratch: the weights of {options['model']} are its own affair; leave the option out")
    if options["from_scratch"] and task == "detect" and (options["model"] or "-det").endswith("-det"):
        raise UsageError("--from-scratch: the first layers of our detectors do not learn, so they need weights; leave it out")
    if options["arguments"] and ":" not in (options["model"] or (former.choice.model if former else "")):
        raise UsageError(f"--arg {options['arguments'][0]}: is for package.module:factory; leave it out")
    model = options["model"] or (former.choice.model if former else DEFAULT_MODELS[task])
    return Plan(
        name=name,
        task=task,
        choice=Choice(
            model=model,
            arguments=arguments_of(options["arguments"]) or (former.choice.arguments if former else {}),
            size_wh=options["size"] or (former.choice.size_wh if former else None),
            weights=weights,
        ),
        labels=labels,
        data=data,
        recipe=_recipe(task, weights, options),
        balanced=options["class_weights"] == "balanced",
        teacher=_teacher(options["teacher"], options["distill"], task),
        cache=None if options["cache"] is None else str(options["cache"].resolve()),
        cache_mb=cache_mb,
    )


def _weights(options: dict[str, Any]) -> str:
    if options["from_scratch"] and options["weights"] is not None:
        raise UsageError("--from-scratch starts from random weights, --weights from given ones; leave one out")
    if options["weights"] is not None:
        return str(_there(options["weights"], "--weights"))
    return "random" if options["from_scratch"] else "published"


def _recipe(task: str, weights: str, options: dict[str, Any]) -> Recipe:
    """The recipe of this kind of start, with what was asked for instead."""
    from train.augment import AUGMENTS as PRESETS
    from train.recipes import RECIPES

    recipe = RECIPES["detect" if task == "detect" else "scratch" if weights == "random" else "transfer"]
    asked = {name: options[name] for name in ASKED if options[name] is not None}
    if options["augment"] is not None:
        asked["augment"] = PRESETS[options["augment"]]
    if options["teacher"] is not None:
        asked["distill"] = 0.5 if options["distill"] is None else options["distill"]
    if task == "detect" and (options["mixup"] or options["smoothing"] or options["class_weights"] != "none"):
        raise UsageError("--mixup, --smoothing and --class-weights are for classifiers; leave them out")
    return replace(recipe, **asked)


def _teacher(teacher: str | None, distill: float | None, task: str) -> str | None:
    if teacher is None:
        if distill is not None:
            raise UsageError("--distill is the share of --teacher; give one")
        return None
    if task == "detect":
        raise UsageError("--teacher: only classifiers learn from one yet; leave it out")
    from train.teacher import check_teacher

    check_teacher(teacher)
    return str(Path(teacher).resolve()) if Path(teacher).exists() else teacher


def _there(path: Path, option: str) -> Path:
    if not path.exists():
        raise UsageError(f"{option} {path}: no such file or folder")
    return path.resolve()


if __name__ == "__main__":
    main()
