"""Structured pruning from end to end: EfficientNet-Lite0 taught cats and dogs, pruned, and both quantized and compared.

    python benchmarks/prune.py [--data DIR] [--prune speedup=1.5] [--minutes M] [--cache DIR]

Speeds are of the int8 variants, unpruned against pruned, A B A B ... on one thread, by CPU time; accuracies are of the
files that a device would run, through its own code. Trained weights are kept in --cache, so that a second run is short.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edge.card import Variant
from edge.datasets import Sample, class_folders, labelled_frames
from edge.engines import EngineOptions, open_engine
from edge.errors import EdgeError
from edge.evaluate import evaluate
from edge.model import Model
from edge.progress import Progress as Shown
from quantize.data import shuffled
from quantize.float_model import float_model
from quantize.prune import Pruned, parse_target, prune
from quantize.pruned import QUICK_PICTURES, VARIANTS, int8_files, relative_cost
from quantize.speed import paired
from quantize.targets import Settings
from train.finetune import Progress, accuracy
from train.models import Classifier
from train.pictures import Pictures
from train.run import MODEL, is_run, load_run

CALIBRATION_PICTURES = 128
THREADS = 2


def top1(classifier: Classifier, data: bytes, variant: Variant, samples: Sequence[Sample]) -> float:
    """The accuracy of a file through the code that runs on the device."""
    engine = open_engine(data, variant, EngineOptions(THREADS, exact=True))
    model = Model(classifier.name, variant, engine, float_model(classifier).task_of(variant))
    try:
        return evaluate(model, samples, print).top1
    finally:
        engine.close()


def teller() -> Callable[[Progress], None]:
    """Shows how far it is."""
    shown = Shown("prune.py")
    return lambda progress: shown("pruning", progress.done, 1.0, f"loss {progress.loss:.3f}")


def say(line: str) -> None:
    """What the project says, at once."""
    print(line, flush=True)


def main() -> None:
    """Transfer, prune, quantize, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGE_DATA", "../shared/data")) / "cats_dogs")
    parser.add_argument("--prune", default="speedup=1.5")
    parser.add_argument("--minutes", type=float, help="for fine-tuning while pruning")
    parser.add_argument("--cache", type=Path, default=Path("build/prune"))
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    try:
        compare(args.data, args.prune, args.minutes, args.cache)
    except EdgeError as error:
        raise SystemExit(f"prune.py: {error}") from None


def compare(data: Path, wanted: str, minutes: float | None, cache: Path) -> None:
    """Make or load both networks and print the table."""
    cache.mkdir(parents=True, exist_ok=True)
    whole = taught(data, cache / "whole")
    train, val = (class_folders(data / part, whole.labels) for part in ("train", "val"))
    model = float_model(whole)
    calibration = [model.prepare(frame).data for frame, _ in labelled_frames(shuffled(train)[:CALIBRATION_PICTURES], say)]

    def pruned_network() -> Pruned:
        measure = relative_cost(model, calibration[:QUICK_PICTURES], VARIANTS, THREADS)
        return prune(whole, train, val, parse_target(wanted), measure=measure, minutes=minutes, say=say, progress=teller())

    pruned: Pruned = cached(cache / f"{wanted}.pt", pruned_network)
    cut = replace(whole, network=pruned.network)
    pictures = Pictures(val, whole.input, whole.mean, whole.std, say)
    print(f"\n| {len(val)} pictures | unpruned | pruned | |\n|---|---|---|---|")
    macs, parameters = (pruned.macs_before, pruned.macs_after), (pruned.parameters_before, pruned.parameters_after)
    for what, (before, after) in (("multiplications, M", macs), ("parameters, M", parameters)):
        print(f"| {what} | {before / 1e6:.1f} | {after / 1e6:.1f} | {after / before:.2f}x |")
    row("float32 top-1", accuracy(whole.network, pictures), accuracy(cut.network, pictures))
    files = [int8_files(float_model(one), calibration, VARIANTS, THREADS, Settings()) for one in (whole, cut)]
    for name, a, b in zip(VARIANTS, *files, strict=True):
        row(f"{name} top-1", top1(whole, a[0], a[1], val), top1(cut, b[0], b[1], val))
        slow, fast = paired([a, b], calibration[0])
        print(
            f"| {name} ms, 1 thread | {slow.ms:.2f} | {fast.ms:.2f} "
            f"| {fast.ratio:.2f}x as fast ({fast.low:.2f} to {fast.high:.2f}) |"
        )
        print(f"| {name} MB | {len(a[0]) / 1e6:.2f} | {len(b[0]) / 1e6:.2f} | {len(b[0]) / len(a[0]):.2f}x |", flush=True)


def taught(data: Path, run: Path) -> Classifier:
    """What edge-train makes of the data, in a run that is gone on from or used again."""
    if not (run / MODEL).is_file():
        begun = ["--resume"] if is_run(run) else ["--data", str(data)]
        subprocess.run([sys.executable, "-m", "train.cli", *begun, "--out", str(run), "--threads", str(THREADS)], check=True)
    model = load_run(run)
    assert isinstance(model, Classifier)
    return model


def row(what: str, before: float, after: float) -> None:
    """A row of the table: two fractions and their difference in points."""
    print(f"| {what} | {before:.2%} | {after:.2%} | {(after - before) * 100:+.2f} points |", flush=True)


def cached(path: Path, make: Callable[[], Any]) -> Any:
    """What an earlier run of this script left in its own folder, or what is made now and left there."""
    if path.is_file():
        return torch.load(path, weights_only=False)
    made = make()
    torch.save(made, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return made


if __name__ == "__main__":
    main()
