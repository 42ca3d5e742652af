"""The short training loop: a network that is nearly right, from labels, from a teacher, or from both."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.errors import DataError, EdgeError
from train.pictures import Augment, Batch, Pictures

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
HINTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
RECALIBRATION_PICTURES = 512


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. `rate` is the peak of a cosine that rises over the share `warmup` of the steps.

    `distill` is the teacher's share of the loss, the rest is the labels'; `temperature` softens the logits of both.
    `hints` weighs what is added to it: the distance of features inside (Romero et al., FitNets, ICLR 2015) wherever the
    two networks have a layer of the same name and input shape, as a pruned one and the one that it came from do.
    `average` is the decay a step of the averaged weights that are returned. `minutes`, when given, shortens the schedule
    to fit, and then the result depends on the machine's speed.
    """

    epochs: float = 3
    batch: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    rate: float = 5e-4
    warmup: float = 0.1
    weight_decay: float = 0.02
    smoothing: float = 0.1
    distill: float = 0.0
    hints: float = 0.0
    temperature: float = 2.0
    average: float = 0.98
    batch_norm: Literal["train", "freeze"] = "train"
    augment: Augment = field(default_factory=Augment)
    seed: int = 0
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the loop is: `done` is the share of the schedule, `loss` the last step's."""

    step: int
    done: float
    loss: float
    seconds: float


def fine_tune(
    network: nn.Module,
    pictures: Pictures,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> nn.Module:
    """A trained copy of `network` in evaluation mode: averaged weights, batch norm measured again on plain pictures.

    With a `teacher`, `recipe.distill` of the loss is the distance to its outputs. Raises DataError when no picture is
    readable, and EdgeError when the loss is no longer finite.
    """
    steps = max(1, round(recipe.epochs * pictures.batches_an_epoch(recipe.batch)))
    trained = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(trained)
    optimizer = _optimizer(trained, recipe)
    began, step, done, loss = time.monotonic(), 0, 0.0, math.nan
    with seeded(recipe.seed):
        _training_mode(trained, recipe.batch_norm)
        for batch in _batches(pictures, recipe):
            done = _done(step, steps, time.monotonic() - began, recipe.minutes)
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * schedule(done, recipe.warmup)
            loss = train_step(trained, batch, optimizer, recipe, teacher)
            if not math.isfinite(loss):
                raise EdgeError(f"the loss became {loss} at step {step + 1} of {steps}; lower the learning rate")
            step += 1
            _average(averaged, trained, min(recipe.average, step / (step + 9)))
            progress(Progress(step, done, loss, time.monotonic() - began))
    if recipe.batch_norm == "train":
        recalibrate(averaged, pictures.plain(recipe.batch, RECALIBRATION_PICTURES))
    return averaged.to(memory_format=torch.contiguous_format).eval()  # type: ignore[no-any-return]


def train_step(
    network: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, recipe: Recipe, teacher: nn.Module | None
) -> float:
    """One step down the gradient of a batch; its loss before the step."""
    optimizer.zero_grad(set_to_none=True)
    with features(network, recipe.hints > 0) as given:
        outputs = network(batch.images)
    loss = torch.zeros(())
    if teacher is None or recipe.distill < 1:
        labels = functional.cross_entropy(outputs, batch.class_ids, label_smoothing=recipe.smoothing)
        loss = loss + (1 if teacher is None else 1 - recipe.distill) * labels
    if teacher is not None:
        with torch.no_grad(), features(teacher, recipe.hints > 0) as wanted_inside:
            wanted = teacher(batch.images)
        loss = loss + recipe.distill * distance(outputs, wanted, recipe.temperature)
        alike = [name for name in given if name in wanted_inside and given[name].shape == wanted_inside[name].shape]
        if alike:
            inside = distance([given[name] for name in alike], [wanted_inside[name] for name in alike], 1.0)
            loss = loss + recipe.hints * inside
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def distance(outputs: Any, wanted: Any, temperature: float) -> Tensor:
    """How far outputs are from a teacher's.

    For logits [n, classes] the Kullback-Leibler divergence of what `temperature` softens, times its square (Hinton et
    al., 2015); for anything else, nested tensors included, the squared error over the wanted values' variance.
    """
    if isinstance(outputs, Tensor) and outputs.ndim == 2:
        divergence = functional.kl_div(
            functional.log_softmax(outputs / temperature, 1),
            functional.log_softmax(wanted / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return divergence * temperature**2
    errors = [
        functional.mse_loss(given, aim) / aim.var(correction=0).clamp_min(1e-12)
        for given, aim in zip(tensors(outputs), tensors(wanted), strict=True)
    ]
    return torch.stack(errors).mean()


@contextmanager
def features(network: nn.Module, wanted: bool) -> Iterator[dict[str, Tensor]]:
    """What each convolution and linear layer, by name, is fed while the network runs; nothing unless `wanted`.

    Left out is what is filtered channel by channel: it is as good as its own input.
    """
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0]

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in network.named_modules()
        if wanted and isinstance(module, HINTED) and getattr(module, "groups", 1) == 1
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors in whatever a network returns, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [tensor for value in values for tensor in tensors(value)]


def schedule(done: float, warmup: float) -> float:
    """The share of the peak rate at a share of the schedule: a line up, then half a cosine down to zero."""
    if done < warmup:
        return (done + 0.02) / (warmup + 0.02)
    return 0.5 + 0.5 * math.cos(math.pi * (done - warmup) / (1 - warmup))


def recalibrate(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Measure each batch norm's mean and variance again, in place: the average over the batches' own."""
    norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    with torch.no_grad():
        for batch in batches:
            network(batch.images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def accuracy(network: nn.Module, pictures: Pictures, size: int = 32) -> float:
    """The share of pictures, as the device would see them, whose best class is their own. Raises DataError."""
    right = count = 0
    network.eval()
    with torch.inference_mode():
        for batch in pictures.plain(size):
            right += int((network(batch.images).argmax(1) == batch.class_ids).sum())
            count += len(batch.class_ids)
    if not count:
        raise DataError("no picture to measure on is readable; give more pictures")
    return right / count


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers start from `seed` within, and go on after it as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _batches(pictures: Pictures, recipe: Recipe) -> Iterator[Batch]:
    epoch = 0
    while True:
        empty = True
        for batch in pictures.epoch(epoch, recipe.batch, recipe.seed, recipe.augment):
            empty = False
            yield batch
        if empty:
            raise DataError("no training picture is readable; give more pictures")
        epoch += 1


def _done(step: int, steps: int, seconds: float, minutes: float | None) -> float:
    by_time = 0.0 if minutes is None else seconds / (60 * max(minutes, 1e-9))
    return min(1.0, max(step / steps, by_time))


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Scales and biases do not decay."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: Sequence[dict[str, Any]] = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, recipe.rate)


def _training_mode(network: nn.Module, batch_norm: str) -> None:
    network.train()
    if batch_norm == "freeze":
        for module in network.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()


def _average(averaged: nn.Module, trained: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(averaged.state_dict().values(), trained.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
