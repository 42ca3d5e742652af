"""edge-eval: accuracy, calibration error and speed of a bundle on labelled pictures, through the device code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from devices import detect
from edge.boxes_data import BoxSample, labelled_boxes
from edge.bundle import Bundle, open_bundle
from edge.card import Variant
from edge.commands import SETTINGS, OneLineCommand, Skipped, bundle_option, speaker, threads_option, version_option
from edge.datasets import Labelled, Sample, class_folders, evaluation_split
from edge.engines import EngineOptions, installed
from edge.errors import BundleError, EngineError
from edge.evaluate import DetectionReport, Report, evaluate
from edge.model import Model, load_variant

NAME = "edge-eval"
say = speaker(NAME)
FIGURES = {"classify": {"top1": "top-1", "top5": "top-5"}, "detect": {"ap50": "AP50", "ap": "AP"}}
"""Task → the figures of its report, and their titles in the table."""


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@bundle_option
@click.option(
    "--data",
    metavar="DIR",
    type=Path,
    required=True,
    help="Class folders; for a detector YOLO, COCO or VOC boxes. Of train and val parts, val is used.",
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@version_option
def main(
    model_path: Path, data: Path, variant: tuple[str, ...], exact: bool, threads: int | None, limit: int | None, as_json: bool
) -> int:
    """Measure a bundle on labelled pictures with the code that runs on the device.

    A class folder matches a label by its id or its name, boxes by their class's name. All of the model's classes are
    candidates, whatever folders there are. Pictures that cannot be read are named and left out.
    """
    bundle = open_bundle(model_path)
    samples = _samples(bundle, data, limit)
    board = detect()
    options = EngineOptions(threads or board.threads, board.spin, exact)
    reports: dict[str, dict[str, Any]] = {}
    bad = Skipped(say)
    for candidate in _chosen(bundle, variant):
        try:
            model = load_variant(bundle, candidate, options)
        except (BundleError, EngineError) as error:
            if variant:
                raise
            say(f"variant {candidate.name} left out: {error}")
            continue
        reports[candidate.name] = _row(model, evaluate(model, samples, bad), FIGURES[bundle.card.task])
        model.engine.close()
    if not reports:
        raise EngineError(f"{bundle.where}: none of its variants can run here")
    images = next(iter(reports.values()))["images"]
    if as_json:
        result = {"model": bundle.card.name, "task": bundle.card.task, "images": images, "exact": exact, "variants": reports}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    else:
        _print_table(bundle.card.name, data, images, len(bad.lines), reports, FIGURES[bundle.card.task])
    return 0


def _samples(bundle: Bundle, data: Path, limit: int | None) -> list[Sample] | list[BoxSample]:
    """The labelled pictures to measure on, as the bundle's task wants them."""
    if bundle.card.task == "detect":
        return _spread(labelled_boxes(data, bundle.card.labels, split="val"), limit)
    return _spread(class_folders(evaluation_split(data), bundle.card.labels), limit)


def _spread(samples: list[Labelled], limit: int | None) -> list[Labelled]:
    """At most `limit` of the samples, spread evenly."""
    if limit is None or limit >= len(samples):
        return samples
    return [samples[i * len(samples) // limit] for i in range(limit)]


def _chosen(bundle: Bundle, names: tuple[str, ...]) -> list[Variant]:
    """The variants asked for, or all whose engine is installed, saying which are not."""
    if names:
        return [bundle.card.variant(name) for name in names]
    here = [variant for variant in bundle.card.variants if installed(variant.engine)]
    for variant in bundle.card.variants:
        if variant not in here:
            say(f"variant {variant.name} left out: pip install 'edge-run[{variant.engine}]' to evaluate it")
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


if __name__ == "__main__":
    main()
