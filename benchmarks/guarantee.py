"""Whether promises are kept: thresholds fitted on random halves of labelled pictures, judged on the other halves.

*holds* is the share of splits in which the error rate of what is accepted in the other half is at most alpha; that half
is a sample itself, whose error rate would exceed a true one of exactly alpha every other time. *true* judges the same
thresholds by the error rate over all pictures. Coverage is compared with the largest that the other half would have
allowed, known afterwards. SGR is the bound of Geifman and El-Yaniv (2017) for the same data.

    python benchmarks/guarantee.py --data DIR [--model BUNDLE] [--variant NAME] [--splits 200]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from edge.boxes_data import labelled_boxes
from edge.bundle import Bundle, open_bundle
from edge.datasets import class_folders
from edge.evaluate import DetectionReport, Report, evaluate
from edge.model import open_model
from edge.packaged import DEFAULT_BUNDLE
from edge.progress import Progress
from edge.selection import ALPHAS, DELTA, fit_promise, most_errors
from edge.types import Bools, Float32


def measured(bundle: Bundle, variant: str | None, data: Path) -> Report | DetectionReport:
    model = open_model(bundle, variant=variant, threads=1)
    labels = bundle.card.labels
    parts = [data / part for part in ("train", "val") if (data / part).is_dir()] or [data]
    with Progress("guarantee.py") as progress:
        if bundle.card.task == "detect":
            return evaluate(model, progress.over(labelled_boxes(data, labels, split="val"), "pictures"), print)
        samples = [sample for part in parts for sample in class_folders(part, labels)]
        return evaluate(model, progress.over(samples, "pictures"), print)


def sgr(confidence: Float32, right: Bools, alpha: float) -> float:
    """Geifman and El-Yaniv's threshold: a binary search over coverages, each step at delta over their number."""
    order = np.argsort(-confidence, kind="stable")
    errors = np.cumsum(~right[order])
    steps = math.ceil(math.log2(len(order)))
    low, high, best = 0, len(order) - 1, 2.0
    for _ in range(steps):
        middle = (low + high + 1) // 2
        if errors[middle] <= most_errors(middle + 1, alpha, DELTA / steps):
            low, best = middle, float(confidence[order[middle]])
        else:
            high = middle
    return best


def error_rate(confidence: Float32, right: Bools, threshold: float) -> tuple[float, float]:
    """Of what is accepted, and its share."""
    accepted = confidence >= threshold
    return (float((~right[accepted]).mean()) if accepted.any() else 0.0), float(accepted.mean())


def in_hindsight(confidence: Float32, right: Bools, alpha: float) -> float:
    """The largest coverage whose error rate is at most alpha."""
    order = np.argsort(-confidence, kind="stable")
    allowed = np.flatnonzero(np.cumsum(~right[order]) <= alpha * np.arange(1, len(order) + 1))
    return (int(allowed[-1]) + 1) / len(order) if len(allowed) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--variant")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=200)
    options = parser.parse_args()
    bundle, progress = open_bundle(options.model), Progress("guarantee.py")
    report = measured(bundle, options.variant, options.data)
    for unit, scored in report.answers.items():
        confidence, right = scored.confidence, scored.right
        print(
            f"{bundle.card.name} by {unit}: {len(right)} answers, {right.mean():.1%} right; {options.splits} splits in half\n"
        )
        print("| alpha | threshold by | holds | true | coverage | in hindsight | ratio | no promise |")
        print("|---|---|---|---|---|---|---|---|")
        for alpha in ALPHAS:
            rows: dict[str, list[tuple[float, ...]]] = {"fixed sequence": [], "SGR": []}
            source = np.random.default_rng(0)
            for _ in progress.over(range(options.splits), f"alpha {alpha:g}: splits"):
                order = source.permutation(len(right))
                fit, test = order[: len(order) // 2], order[len(order) // 2 :]
                promise = fit_promise(confidence[fit], right[fit], alpha)
                thresholds = (promise.threshold if promise else 2.0, sgr(confidence[fit], right[fit], alpha))
                best = in_hindsight(confidence[test], right[test], alpha)
                for found, threshold in zip(rows.values(), thresholds, strict=True):
                    error, coverage = error_rate(confidence[test], right[test], threshold)
                    whole, _ = error_rate(confidence, right, threshold)
                    found.append((error <= alpha, whole <= alpha, coverage, best, threshold > 1))
            progress.done()
            for name, found in rows.items():
                holds, true, coverage, best, none = np.mean(found, axis=0)
                ratio = f"{coverage / best:.3f}" if best else ""
                print(f"| {alpha:g} | {name} | {holds:.1%} | {true:.1%} | {coverage:.3f} | {best:.3f} | {ratio} | {none:.0%} |")
        print()


if __name__ == "__main__":
    main()
