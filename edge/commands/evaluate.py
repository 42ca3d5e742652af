"""edge-eval: accuracy, calibration error and speed of a bundle on labelled pictures, through the device code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from devices import detect
from edge.bundle import Bundle, open_bundle
from edge.card import Variant
from edge.commands import SETTINGS, OneLineCommand, Skipped, bundle_option, speaker, threads_option, version_option
from edge.datasets import class_folders, evaluation_split
from edge.engines import EngineOptions, installed
from edge.errors import BundleError, EngineError
from edge.evaluate import Report, evaluate
from edge.model import Model, load_variant

NAME = "edge-eval"
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@bundle_option
@click.option(
    "--data",
    metavar="DIR",
    type=Path,
    required=True,
    help="A folder of class folders, or one with train/ and val/, of which val/ is used.",
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

    A class folder matches a label by its id or its name. All of the model's classes are candidates, whatever folders
    there are. Pictures that cannot be read are named and left out.
    """
    bundle = open_bundle(model_path)
    samples = class_folders(evaluation_split(data), bundle.card.labels)
    if limit is not None and limit < len(samples):
        samples = [samples[i * len(samples) // limit] for i in range(limit)]
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
        reports[candidate.name] = _row(model, evaluate(model, samples, bad))
        model.engine.close()
    if not reports:
        raise EngineError(f"{bundle.where}: none of its variants can run here")
    images = next(iter(reports.values()))["images"]
    if as_json:
        result = {"model": bundle.card.name, "task": bundle.card.task, "images": images, "exact": exact, "variants": reports}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    else:
        _print_table(bundle.card.name, data, images, len(bad.lines), reports)
    return 0


def _chosen(bundle: Bundle, names: tuple[str, ...]) -> list[Variant]:
    """The variants asked for, or all whose engine is installed, saying which are not."""
    if names:
        return [bundle.card.variant(name) for name in names]
    here = [variant for variant in bundle.card.variants if installed(variant.engine)]
    for variant in bundle.card.variants:
        if variant not in here:
            say(f"variant {variant.name} left out: pip install 'edge-run[{variant.engine}]' to evaluate it")
    return here


def _row(model: Model, report: Report) -> dict[str, Any]:
    return {
        "top1": round(report.top1, 6),
        "top5": round(report.top5, 6),
        "ece": round(report.ece, 6),
        "ms_per_image": round(report.ms_per_image, 3),
        "engine": model.engine.name,
        "threads": model.engine.threads,
        "images": report.images,
        "skipped": report.skipped,
    }


def _print_table(name: str, data: Path, images: int, skipped: int, reports: dict[str, dict[str, Any]]) -> None:
    click.echo(f"{name} on {images} pictures of {data}" + (f", {skipped} skipped" if skipped else ""))
    click.echo(f"{'variant':<12} {'top-1':>7} {'top-5':>7} {'ECE':>7} {'ms':>8}  engine, threads")
    for variant, row in reports.items():
        click.echo(
            f"{variant:<12} {row['top1']:>7.2%} {row['top5']:>7.2%} {row['ece']:>7.4f} {row['ms_per_image']:>8.2f}  "
            f"{row['engine']}, {row['threads']}"
        )


if __name__ == "__main__":
    main()
