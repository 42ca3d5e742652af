"""How much of a training's time is the network's: edge-train's loop against a bare torch loop on one batch, in pairs.

    python benchmarks/training.py --data ../shared/data/cats_dogs

The bare loop is what a step cannot do without: forward, loss, backward and the optimizer's step on a batch that lies ready. The
loop reads, augments, averages and counts besides. Both train all of EfficientNet-Lite0, so many steps in turn, A B A B; what
either does once, before its first steps, is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from edge.layouts import labels_of, parts_of
from edge.progress import Progress as Shown
from train.augment import AUGMENTS
from train.finetune import ClassifierJob
from train.heads import replace_head
from train.loop import Progress, train
from train.models import pretrained
from train.pictures import Batch, Pictures
from train.recipe import Recipe
from train.recipes import RECIPES
from train.team import assembled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--steps", type=int, default=5, help="of each in a pair, more than are read ahead")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--augment", choices=list(AUGMENTS), default="light")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    labels = labels_of(asked.data)
    start = pretrained("efficientnet-lite0")
    replace_head(start.network, len(labels))
    samples = parts_of(asked.data, labels, "classify")[0]
    pictures = Pictures(samples, start.input, start.mean, start.std, print)
    recipe = replace(RECIPES["transfer"], batch=asked.batch, augment=AUGMENTS[asked.augment], freeze=0.0)
    job = ClassifierJob(start.network, pictures, recipe)
    recipe = replace(recipe, epochs=(asked.pairs + 1) * asked.steps / job.batches_an_epoch())
    with assembled(asked.device) as team, ExitStack() as shows:
        batch = next(iter(pictures.epoch(0, asked.batch, 0, recipe.augment))).to(team.device)
        bare = Bare(network_in_training(labels, team.device), batch, recipe)
        pairs: list[tuple[float, float]] = []
        shown = shows.enter_context(Shown("training.py"))
        began = time.perf_counter()

        def heard(progress: Progress) -> None:
            nonlocal began
            if progress.step % asked.steps == 0:
                whole = time.perf_counter() - began
                alone = bare.seconds(asked.steps)
                pairs.append((asked.steps * asked.batch / alone, asked.steps * asked.batch / whole))
                shown("pairs", len(pairs), asked.pairs + 1)
                began = time.perf_counter()

        train(job, recipe, team=team, progress=heard)
    pairs = pairs[1:]
    for alone, whole in pairs:
        print(f"bare {alone:7.1f} pictures/s, loop {whole:7.1f}, {whole / alone:.3f}x")
    ratios = sorted(whole / alone for alone, whole in pairs)
    print(
        f"median {statistics.median(ratios):.3f}x ({ratios[0]:.3f} to {ratios[-1]:.3f}), {team.device}, {asked.threads} threads"
    )


class Bare:
    """A network trained on one batch over and over."""

    def __init__(self, network: nn.Module, batch: Batch, recipe: Recipe) -> None:
        self._network, self._batch, self._smoothing = network, batch, recipe.smoothing
        self._optimizer = torch.optim.AdamW(network.parameters(), recipe.rate)

    def seconds(self, steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            given = self._network(self._batch.images)
            loss = functional.cross_entropy(given, self._batch.class_ids, label_smoothing=self._smoothing)
            loss.backward()
            self._optimizer.step()
            loss.item()
        return time.perf_counter() - began


def network_in_training(labels: Sequence[str], device: torch.device) -> nn.Module:
    """EfficientNet-Lite0, its batch norm as it came."""
    network = pretrained("efficientnet-lite0").network
    replace_head(network, len(labels))
    network.to(device, memory_format=torch.channels_last).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


if __name__ == "__main__":
    main()
