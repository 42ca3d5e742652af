"""Structured pruning: channels that matter little are cut out, step by step, and what is left learns from the whole.

A cut network is kept only when it is measured to be faster.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edge.datasets import Sample
from edge.errors import GateError, InputError, UsageError
from quantize.channels import ROUND, Group, choose, count_macs, cut, find_groups, has_layers, importance, prunable
from quantize.check import blamed
from quantize.float_model import FloatModel
from train.augment import Augment
from train.finetune import Progress, Recipe, accuracy, fine_tune, recalibrate
from train.models import Classifier, Detector
from train.pictures import Batch, Pictures

Say = Callable[[str], None]

STEP = 0.75
"""No step leaves less than this share of the multiplications there were before it."""
MOST_LEFT = 0.97
"""And none leaves more."""
NEARLY = 0.9
LEAST_MACS = 0.05
IMPORTANCE_PICTURES = 128
RECIPE = Recipe(
    epochs=8,
    rate=3e-4,
    smoothing=0.0,
    distill=0.9,
    hints=3.0,
    average=0.97,
    batch_norm="freeze",  # it is measured again after each cut; the statistics of small batches cost more than they give
    augment=Augment(least_area=0.5),
)
STEP_EPOCHS = 1.0
STEP_TIME = 0.15
"""What share of the time that is left a step before the last may take."""


@dataclass(frozen=True, slots=True)
class PruneTarget:
    """How much to prune: to a share `macs` of the multiplications, or until measured `speedup` times as fast."""

    macs: float | None = None
    speedup: float | None = None


@dataclass(frozen=True, slots=True)
class PruneStep:
    """The network after one step: its multiplications, what `measure` said, and its metric after fine-tuning."""

    macs: int
    measured: float
    metric: float


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """What came of it. `network` is the original one, and `kept` False, when pruning made nothing faster.

    `speedup` is by `measure`, of the last step; `metric_before` is the original's.
    """

    network: nn.Module
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    metric_before: float
    speedup: float
    steps: list[PruneStep]
    kept: bool


def parse_target(text: str) -> PruneTarget:
    """The target that `macs=0.5` or `speedup=1.5` names. Raises UsageError."""
    kind, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind.strip() == "macs" and 0 < value < 1:
        return PruneTarget(macs=value)
    if kind.strip() == "speedup" and 1 < value < math.inf:
        return PruneTarget(speedup=value)
    raise UsageError(f"--prune {text!r}: give macs=SHARE, between 0 and 1, or speedup=TIMES, more than 1")


def prune(
    classifier: Classifier | Detector | FloatModel,
    train: Sequence[Sample],
    check: Sequence[Sample],
    target: PruneTarget,
    *,
    measure: Callable[[nn.Module], float],
    epochs: float = RECIPE.epochs,
    step_epochs: float = STEP_EPOCHS,
    recipe: Recipe = RECIPE,
    minutes: float | None = None,
    metric: Callable[[nn.Module], float] | None = None,
    say: Say = lambda line: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Pruned:
    """Cut channels until `target`, fine-tuning `step_epochs` after each step and `epochs` at the end.

    It learns from the labels of `train` and from the unpruned network, as `recipe` weighs them. `metric`, by default top-1
    over `check`, is reported; a detector needs one, and a recipe with `distill=1.0`. `measure` gives a network's cost, less
    is better: seconds or instructions of an inference of the variant that counts; where the machine is shared, relative to
    the unpruned one in the same run. `minutes` bounds the fine-tuning. Raises InputError for a network that cannot be cut
    and GateError for a target that is out of reach.
    """
    work = _Work(classifier, train, check, target, measure, metric, recipe, say, progress)
    return work.run(epochs, step_epochs, None if minutes is None else time.monotonic() + 60 * minutes)


class _Work:
    """One pruning: what all its steps share, and the network as it is now."""

    def __init__(
        self,
        classifier: Classifier | Detector | FloatModel,
        train: Sequence[Sample],
        check: Sequence[Sample],
        target: PruneTarget,
        measure: Callable[[nn.Module], float],
        metric: Callable[[nn.Module], float] | None,
        recipe: Recipe,
        say: Say,
        progress: Callable[[Progress], None],
    ) -> None:
        self._name = classifier.name
        self._original = classifier.network
        self._network = copy.deepcopy(classifier.network).eval().requires_grad_(True)
        self._teacher = copy.deepcopy(classifier.network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._example = torch.zeros(1, 3, classifier.input.height, classifier.input.width)
        self._pictures = Pictures(train, classifier.input, classifier.mean, classifier.std, say)
        checked = Pictures(check, classifier.input, classifier.mean, classifier.std, say)
        self._metric = metric or (lambda network: accuracy(network, checked))
        self._target, self._measure, self._recipe = target, measure, recipe
        self._say, self._progress = say, progress

    def run(self, epochs: float, step_epochs: float, deadline_s: float | None) -> Pruned:
        """Cut, measure and fine-tune until the target is met, then fine-tune for good."""
        roots = self._roots()
        before, cost = count_macs(self._network, self._example), self._measure(self._network)
        metric_before = self._metric(self._original)
        self._say(f"{self._name}: {before / 1e6:.1f} M multiplications, metric {metric_before:.2%}; {len(roots)} groups to cut")
        macs, steps, measured = before, list[PruneStep](), cost
        is_last = False
        while not is_last:
            left = self._cut_to(self._goal(macs, before, cost, measured), roots)
            if left == macs or left < LEAST_MACS * before:
                raise GateError(
                    f"{self._name}: --prune {self._wanted()} is out of reach: with {left / before:.0%} of the multiplications "
                    f"left it is {cost / measured:.2f}x as fast; ask for less"
                )
            macs = left
            measured = self._measure(self._network)
            is_last = self._met(macs / before, cost / measured)
            if not is_last and self._goal(macs, before, cost, measured) > NEARLY * macs:
                continue  # so little is left to cut that nothing need be learned before
            self._fine_tune(*(epochs, 1.0) if is_last else (step_epochs, STEP_TIME), deadline_s)
            if is_last:
                measured = self._measure(self._network)  # once more, of what is kept
            steps.append(PruneStep(macs, measured, self._metric(self._network)))
            self._say(
                f"{self._name}: {macs / before:.1%} of the multiplications, {cost / measured:.2f}x as fast, "
                f"metric {steps[-1].metric:.2%}"
            )
        return self._result(before, macs, metric_before, cost / measured, steps)

    def _roots(self) -> set[str]:
        roots: set[str] = set()
        if has_layers(self._network):
            with blamed(f"{self._name}: torch-pruning cannot follow its layers", "; leave --prune out"):
                groups = find_groups(self._network, self._example)
                roots = {group.root for group in prunable(self._network, groups, self._example)}
        if not roots:
            raise InputError(
                f"{self._name}: has no layers to prune: it takes a torch module of convolution or linear layers with more than "
                f"{ROUND} channels, not an ONNX file; leave --prune out"
            )
        return roots

    def _met(self, macs_share: float, speedup: float) -> bool:
        if self._target.speedup is not None:
            return speedup >= self._target.speedup
        assert self._target.macs is not None
        return macs_share <= self._target.macs

    def _wanted(self) -> str:
        return f"speedup={self._target.speedup:g}" if self._target.speedup is not None else f"macs={self._target.macs:g}"

    def _goal(self, macs: int, before: int, cost: float, measured: float) -> float:
        """The multiplications to cut to next: even steps to a share, or where a line through what was measured points."""
        if self._target.speedup is None:
            assert self._target.macs is not None
            wanted = self._target.macs * before
            steps = math.ceil(math.log(wanted / macs) / math.log(STEP) - 1e-9)
            return max(wanted, macs * math.exp(math.log(wanted / macs) / max(steps, 1)))
        if measured >= cost:
            return STEP * macs
        slope = (cost - measured) / (before - macs)
        wanted = macs - (measured - cost / self._target.speedup) / slope
        return min(max(wanted, STEP * macs), MOST_LEFT * macs)

    def _cut_to(self, goal: float, roots: set[str]) -> int:
        """Cut until at most `goal` multiplications are left, or nothing more can go; how many are left."""
        batches = list(self._pictures.plain(self._recipe.batch, IMPORTANCE_PICTURES))
        macs = count_macs(self._network, self._example)
        while macs > goal:
            chosen = self._least(roots, batches, macs - goal)
            if not chosen:
                break
            cut(self._network, chosen, self._example)
            macs = count_macs(self._network, self._example)
        recalibrate(self._network, [batch.images for batch in batches])
        return macs

    def _least(self, roots: set[str], batches: Sequence[Batch], spare: float) -> dict[str, Sequence[int]]:
        with blamed(f"{self._name}: torch-pruning cannot follow its layers", "; leave --prune out"):
            groups: list[Group] = [group for group in find_groups(self._network, self._example) if group.root in roots]
            return choose(groups, importance(self._network, groups, batches, self._recipe.seed), spare)

    def _fine_tune(self, epochs: float, share: float, deadline_s: float | None) -> None:
        """Train for so many epochs, but for no more than a share of the time that is left."""
        if epochs > 0:
            minutes = None if deadline_s is None else share * max(0.0, deadline_s - time.monotonic()) / 60
            recipe = replace(self._recipe, epochs=epochs, minutes=minutes)
            self._network = fine_tune(self._network, self._pictures, recipe, teacher=self._teacher, progress=self._progress)

    def _result(self, before: int, after: int, metric_before: float, speedup: float, steps: list[PruneStep]) -> Pruned:
        kept = speedup > 1
        if not kept:
            self._say(
                f"{self._name}: pruning is not kept: with {after / before:.0%} of the multiplications "
                f"it is {speedup:.2f}x as fast"
            )
        network = self._network if kept else self._original
        return Pruned(
            network=network,
            macs_before=before,
            macs_after=after if kept else before,
            parameters_before=_parameters(self._original),
            parameters_after=_parameters(network),
            metric_before=metric_before,
            speedup=speedup,
            steps=steps,
            kept=kept,
        )


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
