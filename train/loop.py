"""The training loop: batches down the gradient, averaged weights, a measured epoch, and a checkpoint that goes on exactly.

Whatever is random in a step depends on the seed and the step alone, so a run that was interrupted goes on as it would have.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from edge.errors import DataError, EdgeError
from train.recipe import Recipe, schedule
from train.team import Team

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
B = TypeVar("B", bound="Parts")


class Parts(Protocol):
    """A batch: so many pictures, on some device, which can be cut into parts."""

    def __len__(self) -> int: ...
    def to(self: B, device: torch.device) -> B: ...
    def parts(self: B, count: int) -> list[B]: ...


class Job(Protocol[B]):
    """What is trained, on what, and towards what."""

    network: nn.Module

    def batches_an_epoch(self) -> int:
        """How many steps an epoch has."""

    def batches(self, epoch: int, first: int, team: Team) -> Iterator[tuple[int, B]]:
        """The team's process's shares of an epoch's batches, with their numbers, from number `first` on."""

    def loss(self, network: nn.Module, batch: B, random: np.random.Generator) -> Tensor:
        """The mean loss of a batch; what it draws, it draws from `random`."""

    def plain(self) -> Iterable[Tensor] | None:
        """Some training pictures as the device sees them, to measure batch norm's statistics on; None keeps those there are."""

    def measure(self, network: nn.Module) -> float | None:
        """The metric of a network in evaluation mode, larger is better; None where nothing is measured."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the loop is: `done` is the share of the schedule, `loss` the last step's, `seconds` since the beginning."""

    step: int
    done: float
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """An epoch, as the history and the learning curves have it; `loss` is its steps' mean, `rate` the last step's."""

    epoch: int
    step: int
    loss: float
    rate: float
    metric: float | None
    seconds: float
    images_per_s: float


@dataclass(slots=True)
class State:
    """All that the next step depends on, and what came before it."""

    network: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    """The averaged weights of the epoch with the best metric so far, where patience asks for them."""

    def best_epoch(self) -> int:
        """The first epoch of the best metric; 0 before there is one."""
        measured = [row for row in self.history if row.metric is not None]
        return max(measured, key=lambda row: (row.metric, -row.epoch)).epoch if measured else 0


class Keeper(Protocol):
    """Where a run's state survives the process."""

    def restore(self, state: State) -> bool:
        """Bring a new state to where the run was left; whether there was anything."""

    def keep(self, state: State, *, now: bool) -> None:
        """Write the state down, at once or where the last time is long ago."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The network that came of it, in evaluation mode, every epoch's row, and whether the run was stopped before its end."""

    network: nn.Module
    history: list[Row]
    stopped: bool


def train(
    job: Job[B],
    recipe: Recipe,
    *,
    team: Team,
    keeper: Keeper | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    heard: Callable[[Row], None] = lambda row: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train a copy of the job's network; its averaged weights, batch norm measured again on plain pictures.

    Raises DataError when no picture is readable, and EdgeError when the loss is no longer finite.
    """
    an_epoch = job.batches_an_epoch()
    steps = max(1, round(recipe.epochs * an_epoch))
    state = _begin(job.network, recipe, team)
    if keeper is not None:
        keeper.restore(state)
    network = team.together(state.network)
    clock = _Clock(state.seconds)
    stopped = False
    with seeded(recipe.seed):
        _training_mode(network, recipe.batch_norm)
        for place, batch in _batches(job, state.step, team):
            state.seconds = clock.seconds()
            done, stopped = team.heard(_done(place, steps, state.seconds, recipe.minutes), stop())
            if done >= 1 or stopped or _out_of_patience(state, recipe):
                break
            rate = recipe.rate * schedule(done, recipe.warmup)
            if batch is not None:
                loss = _step(network, job, batch, rate, place, state, recipe, team)
                if not math.isfinite(loss):
                    raise EdgeError(f"the loss became {loss} at step {place + 1} of {steps}; lower the learning rate")
                state.losses.append(loss)
                _average(state.averaged, state.network, min(recipe.average, (place + 1) / (place + 10)))
                progress(Progress(place + 1, done, loss, state.seconds))
            state.step = place + 1
            ended = state.step % an_epoch == 0
            if ended:
                _end_epoch(job, state, recipe, team, rate, clock)
                heard(state.history[-1])
            if keeper is not None and team.leads:
                keeper.keep(state, now=ended)
    if keeper is not None and team.leads:
        keeper.keep(state, now=True)
    return Trained(_finished(job, state, recipe), state.history, stopped)


class _Clock:
    """Seconds of training, those before an interruption included."""

    def __init__(self, before_s: float) -> None:
        self._zero_s = time.monotonic() - before_s

    def seconds(self) -> float:
        return time.monotonic() - self._zero_s


def _begin(network: nn.Module, recipe: Recipe, team: Team) -> State:
    trained = copy.deepcopy(network).to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    team.same(trained)
    freeze(trained, recipe.freeze)
    scaler = torch.amp.GradScaler(team.device.type, enabled=_precision(recipe, team.device) == torch.float16)
    return State(trained, copy.deepcopy(trained), _optimizer(trained, recipe), scaler)


def _batches(job: Job[B], step: int, team: Team) -> Iterator[tuple[int, B | None]]:
    """Batches from `step` on, epoch after epoch, each with the number of its step; None for an unreadable last one."""
    an_epoch = job.batches_an_epoch()
    while True:
        epoch, first = divmod(step, an_epoch)
        last = None
        for last, batch in job.batches(epoch, first, team):
            yield epoch * an_epoch + last, batch
        if last is None and first == 0:
            raise DataError("no training picture is readable; give more pictures")
        step = (epoch + 1) * an_epoch
        if last != an_epoch - 1:
            yield step - 1, None


def _step(network: nn.Module, job: Job[B], batch: B, rate: float, step: int, state: State, recipe: Recipe, team: Team) -> float:
    """One step down the gradient of a batch; its loss before the step, over all processes."""
    torch.manual_seed((recipe.seed * 1_000_003 + step) * team.world + team.rank)
    random = np.random.default_rng((recipe.seed, step, team.rank))
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    precision = _precision(recipe, team.device)
    parts = batch.to(team.device).parts(recipe.accumulate)
    if team.world > 1:  # every process has to go forward as often, however few of its pictures are readable
        parts += parts[-1:] * (recipe.accumulate - len(parts))
    pictures = sum(len(part) for part in parts)
    total = torch.zeros((), device=team.device)
    for index, part in enumerate(parts):
        with team.apart(network) if index < len(parts) - 1 else nullcontext():
            with torch.autocast(team.device.type, precision, enabled=precision != torch.float32):
                loss = job.loss(network, part, random) * (len(part) / pictures)
            state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    if recipe.clip is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return float(team.mean(total))


def _end_epoch(job: Job[B], state: State, recipe: Recipe, team: Team, rate: float, clock: _Clock) -> None:
    """Measure the averaged weights, and note how the epoch went; the first process measures for all."""
    training_s = clock.seconds() - (state.history[-1].seconds if state.history else 0.0)
    metric = job.measure(state.averaged.eval()) if team.leads else None
    told = team.agreed(math.nan if metric is None else metric)
    row = Row(
        epoch=state.step // job.batches_an_epoch(),
        step=state.step,
        loss=math.fsum(state.losses) / max(1, len(state.losses)),
        rate=rate,
        metric=None if math.isnan(told) else told,
        seconds=clock.seconds(),
        images_per_s=len(state.losses) * recipe.batch / training_s,
    )
    state.losses.clear()
    state.history.append(row)
    if recipe.patience is not None and state.best_epoch() == row.epoch:
        state.best = {name: value.clone() for name, value in state.averaged.state_dict().items()}


def _out_of_patience(state: State, recipe: Recipe) -> bool:
    if recipe.patience is None or not state.history:
        return False
    return state.history[-1].epoch - state.best_epoch() >= recipe.patience


def _finished(job: Job[B], state: State, recipe: Recipe) -> nn.Module:
    if state.best is not None:
        state.averaged.load_state_dict(state.best)
    if recipe.batch_norm == "train" and (images := job.plain()) is not None:
        recalibrate(state.averaged, images)
    return state.averaged.to(memory_format=torch.contiguous_format).eval()  # type: ignore[no-any-return,call-overload]


def recalibrate(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Measure each batch norm's mean and variance again, in place: the average over the batches' own."""
    norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.no_grad():
        for batch in images:
            network(batch.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers start from `seed` within, and go on after it as if nothing had been."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _done(step: int, steps: int, seconds: float, minutes: float | None) -> float:
    by_time = 0.0 if minutes is None else seconds / (60 * max(minutes, 1e-9))
    return min(1.0, max(step / steps, by_time))


def _precision(recipe: Recipe, device: torch.device) -> torch.dtype:
    if recipe.precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    chosen: torch.dtype = getattr(torch, recipe.precision)
    return chosen


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Scales and biases do not decay."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, recipe.rate)


def freeze(network: nn.Module, share: float) -> None:
    """Let the first share of the layers, as they are defined, learn no more, nor what norms them, in place; the last learns."""
    layers = [module for module in network.modules() if next(module.parameters(recurse=False), None) is not None]
    weighted = [index for index, module in enumerate(layers) if isinstance(module, WEIGHTED)]
    end = weighted[min(round(share * len(weighted)), len(weighted) - 1)] if weighted else 0
    for module in layers[:end]:
        module.requires_grad_(False)


def _training_mode(network: nn.Module, batch_norm: str) -> None:
    network.train()
    if batch_norm == "freeze":
        for module in network.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()


@torch.no_grad()
def _average(averaged: nn.Module, trained: nn.Module, decay: float) -> None:
    means, values = averaged.state_dict().values(), trained.state_dict().values()
    floats = [(mean, value) for mean, value in zip(means, values, strict=True) if mean.is_floating_point()]
    torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], 1 - decay)
    for mean, value in zip(means, values, strict=True):
        if not mean.is_floating_point():
            mean.copy_(value)
