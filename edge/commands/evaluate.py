"""edge-eval: accuracy, calibration error and speed of a bundle on labelled pictures, through the device code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

from devices import detect
from edge.accuracy import FIGURES, labelled
from edge.bundle import Bundle, open_bundle
from edge.card import Variant
from edge.commands import (
    SETTINGS,
    OneLineCommand,
    Skipped,
    bundle_option,
    second_look_option,
    speaker,
    threads_option,
    version_option,
)
from edge.commands.evaluate_classes import WORST, class_figures, class_table
from edge.deferral import Answered, offload_curve
from edge.engines import EngineOptions
from edge.errors import BundleError, EngineError, UsageError
from edge.evaluate import DetectionReport, Report, evaluate
from edge.extras import installed
from edge.model import Model, load_variant
from edge.progress import Progress
from edge.tasks.classify import Look, looking_twice
from edge.types import Result

NAME = "edge-eval"
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@bundle_option
@click.option(
    "--data",
    metavar="DIR",
    type=Path,
    required=True,
    help="Class folders; for a detector YOLO, COCO or VOC boxes; or a list such as RUN/val.txt. Of train and val, val is used.",
)
@click.option(
    "--variant",
    metavar="NAME",
    multiple=True,
    help="Only this variant; may be given again.  [default: every one that runs here]",
)
@click.option("--exact", is_flag=True, help="On x86, compute bit for bit what ARM computes; slow.")
@threads_option
@click.option("--limit", type=click.IntRange(min=1), help="Use at most this many pictures, spread evenly.")
@second_look_option
@click.option("--remote", metavar="BUNDLE", type=Path, help="Also ask this bundle, of the same task, about the least certain.")
@click.option("--remote-variant", metavar="NAME", help="Its variant.  [default: the first that runs here]")
@click.option(
    "--per-class", is_flag=True, help=f"Show all classes, the worst first.  [default: the {WORST} worst of more than 2]"
)
@click.option("--confusion", is_flag=True, help="With --json, also what was taken for what: a square of all classes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@version_option
def main(
    model_path: Path,
    data: Path,
    variant: tuple[str, ...],
    exact: bool,
    threads: int | None,
    limit: int | None,
    second_look: Look | None,
    remote: Path | None,
    remote_variant: str | None,
    per_class: bool,
    confusion: bool,
    as_json: bool,
) -> int:
    """Measure a bundle on labelled pictures with the code that runs on the device.

    A class folder matches a label by its id or its name, boxes by their class's name. All of the model's classes are
    candidates, whatever folders there are. Pictures that cannot be read are named and left out. Of a detector's boxes,
    precision and recall count those that it reports, from the card's score threshold. With --remote it is told
    what accuracy results when the other bundle answers for a growing share of the pictures, the least certain first.
    """
    bundle = _open(model_path)
    if confusion and not (as_json and bundle.card.task == "classify"):
        raise UsageError("--confusion is for the --json of a classifier; leave it out")
    if remote_variant is not None and remote is None:
        raise UsageError("--remote-variant does nothing without --remote; give both or neither")
    other = None if remote is None else _open(remote)
    if other is not None and other.card.task != bundle.card.task:
        raise UsageError(f"--remote {remote}: its task is {other.card.task}, that of {bundle.where} {bundle.card.task}")
    samples = labelled(bundle, data, limit)
    board = detect()
    options = EngineOptions(threads or board.threads, board.spin, exact)
    reports: dict[str, dict[str, Any]] = {}
    tables: dict[str, list[str]] = {}
    bad = Skipped(say)
    asked = None if other is None else _asked(other, remote_variant, data, limit, options, bad)
    for candidate in _chosen(bundle, variant):
        try:
            model = load_variant(bundle, candidate, options)
        except (BundleError, EngineError) as error:
            if variant:
                raise
            say(f"variant {candidate.name} left out: {error}", level="warning")
            continue
        model = replace(model, task=looking_twice(model.task, second_look))
        results: dict[Path, Result] = {}
        with Progress(NAME) as progress:
            watched: Iterator[Any] = progress.over(samples, f"{candidate.name}: pictures")
            report = evaluate(model, watched, bad, results.__setitem__)
        row = _row(model, report, FIGURES[bundle.card.task])
        row |= class_figures(report, bundle.card.labels, confusion)
        tables[candidate.name] = class_table(report, bundle.card.labels, per_class)
        if asked is not None:
            row["offload"] = {**asked[1], **offload_curve(Answered(bundle.card.labels, samples, results), asked[0])}
        reports[candidate.name] = row
        model.engine.close()
    if not reports:
        raise EngineError(f"{bundle.where}: none of its variants can run here")
    images = next(iter(reports.values()))["images"]
    if as_json:
        result = {"model": bundle.card.name, "task": bundle.card.task, "images": images, "exact": exact, "variants": reports}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    else:
        _print_table(bundle.card.name, data, images, len(bad.lines), reports, FIGURES[bundle.card.task])
        for name, lines in tables.items():
            for line in [f"\n{name}, {lines[0]}", *lines[1:]] if lines else []:
                click.echo(line)
    return 0


def _open(path: Path) -> Bundle:
    bundle = open_bundle(path)
    if bundle.card.task not in FIGURES:
        raise UsageError(
            f"{bundle.where}: accuracy is measured for {' and '.join(FIGURES)} only, its task is {bundle.card.task}; "
            "look at it with edge-run --video"
        )
    return bundle


def _asked(
    bundle: Bundle, name: str | None, data: Path, limit: int | None, options: EngineOptions, bad: Skipped
) -> tuple[Answered, dict[str, Any]]:
    """The remote bundle's answers to the same pictures, and its own row."""
    chosen = _chosen(bundle, () if name is None else (name,))
    if not chosen:
        raise EngineError(f"{bundle.where}: none of its variants can run here")
    model = load_variant(bundle, chosen[0], options)
    samples, results = labelled(bundle, data, limit), dict[Path, Result]()
    with Progress(NAME) as progress:
        watched: Iterator[Any] = progress.over(samples, f"{bundle.card.name}: pictures")
        report = evaluate(model, watched, bad, results.__setitem__)
    row = _row(model, report, FIGURES[bundle.card.task])
    model.engine.close()
    return Answered(bundle.card.labels, samples, results), {"model": model.name, "variant": model.variant.name, **row}


def _chosen(bundle: Bundle, names: tuple[str, ...]) -> list[Variant]:
    """The variants asked for, or all whose engine is installed, saying which are not."""
    if names:
        return [bundle.card.variant(name) for name in names]
    here = [variant for variant in bundle.card.variants if installed(variant.engine)]
    for variant in bundle.card.variants:
        if variant not in here:
            say(f"variant {variant.name} left out: pip install 'edge-run[{variant.engine}]' to evaluate it", level="warning")
    return here


def _row(model: Model, report: Report | DetectionReport, figures: dict[str, str]) -> dict[str, Any]:
    return {
        **{figure: round(getattr(report, figure), 6) for figure in figures},
        "ece": round(report.ece, 6),
        "ms_per_image": round(report.ms_per_image, 3),
        "engine": model.engine.name,
        "threads": model.engine.threads,
        "images": report.images,
        "skipped": report.skipped,
    }


def _print_table(
    name: str, data: Path, images: int, skipped: int, reports: dict[str, dict[str, Any]], figures: dict[str, str]
) -> None:
    click.echo(f"{name} on {images} pictures of {data}" + (f", {skipped} skipped" if skipped else ""))
    titles = " ".join(f"{title:>7}" for title in figures.values())
    click.echo(f"{'variant':<12} {titles} {'ECE':>7} {'ms':>8}  engine, threads")
    for variant, row in reports.items():
        accuracy = " ".join(f"{row[figure]:>7.2%}" for figure in figures)
        click.echo(
            f"{variant:<12} {accuracy} {row['ece']:>7.4f} {row['ms_per_image']:>8.2f}  {row['engine']}, {row['threads']}"
        )
    for variant, row in reports.items():
        if "offload" in row:
            _print_curve(variant, row["offload"], next(iter(figures.values())))


def _print_curve(variant: str, curve: dict[str, Any], title: str) -> None:
    remote = f"{curve['model']} {curve['variant']}"
    of = "" if "efficiency" in curve else ", of the boxes that are reported"
    click.echo(f"\n{variant}, asking {remote} (ECE {curve['ece']:.4f}) about the least certain{of}:")
    click.echo("offloaded " + " ".join(f"{share:>6.0%}" for share in curve["share"]))
    click.echo(f"{title:<9} " + " ".join(f"{value:>6.1%}" for value in curve["accuracy"]))
    if "efficiency" in curve:
        click.echo(f"deferral efficiency {curve['efficiency']:.3f}: 0 is choosing by chance, 1 knowing who is right")


if __name__ == "__main__":
    main()
