"""Quantization-aware training: the fake-quantized network learns to answer as the float one does; no labels are needed."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from quantize.calibrate import Ranges
from quantize.fake import FakeQuantized, Watching
from quantize.graph import ATEN

BATCH = 4
"""Pictures a step, one after the other: an exported graph may hold its batch of one in its shapes."""
CHECK_EVERY = 20
DECAY = 0.95
"""Of the moving average of what is trained."""
RANGE_RATE = 1e-3
"""The learning rate of a range's ends, a share of themselves a step."""
PATIENCE = 6
"""Checks without a better state after which training ends."""
CLIP = 1.0
HELD_OUT = 8
BACKGROUND = 0.02
"""The weight of a regression where the float network sees nothing."""

SIGMOIDS = (ATEN.sigmoid.default, ATEN.sigmoid_.default)
SOFTMAXES = (ATEN.softmax.int, ATEN._softmax.default)


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What training gave: the float graph to round, its activation ranges, and the held-out loss before and after."""

    graph: GraphModule
    ranges: Ranges
    before: float
    after: float
    steps: int


def finetune(
    graph: GraphModule,
    pictures: Sequence[Tensor],
    *,
    limit: int,
    ranges: Mapping[str, tuple[float, float]],
    float_nodes: Collection[str] = (),
    teacher: GraphModule | None = None,
    learn_ranges: bool = False,
    augmented: bool = False,
    rate: float = 1e-4,
    steps: int = 400,
    minutes: float = 8.0,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Tuned:
    """Train `graph` to answer in int8 what `teacher`, by default itself in float, answers on `pictures`.

    `pictures` are normalized tensors [1, 3, h, w]; some are held out, at most a quarter, and the state that answers
    best on those is returned: never one worse than what was given. `ranges`, `float_nodes` and `learn_ranges` as in
    FakeQuantized. `rate` is how far a weight may move in a step, a share of its channel's size: what was fitted to the
    rounding already (quantize.correct) is spoiled by a larger one, and by pictures `augmented` out of what it was fitted to.
    Training ends after `steps` steps or `minutes`, or when it has not helped for long; two runs that time does not cut
    short are equal. `progress` is told the share done.
    """
    started_s = time.monotonic()
    generator = random.Random(seed)
    order = generator.sample(range(len(pictures)), len(pictures))
    held = order[: min(HELD_OUT, max(1, len(order) // 4))]
    trained = order[len(held) :] or held
    student = FakeQuantized(graph, limit, ranges, float_nodes, learn_ranges)
    likeness = Likeness(graph, student.placement.last)
    watching = Watching(graph if teacher is None else teacher, student.placement.last)
    with torch.no_grad():
        wanted = [watching.watch(pictures[index]) for index in held]

    def held_out() -> float:
        with torch.no_grad():
            losses = [float(likeness(student.watch(pictures[i]), want)) for i, want in zip(held, wanted, strict=True)]
        return sum(losses) / len(losses)

    weights = [part for change in student.changes.values() for part in change]
    parameters = [*weights, *student.factors.values()]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "lr": rate}, {"params": list(student.factors.values()), "lr": RANGE_RATE}],
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = [parameter.detach().clone() for parameter in parameters]
    best = [parameter.detach().clone() for parameter in parameters]
    before = least = held_out()
    say(f"training in int8: held-out loss {before:.4f} before")
    step = fruitless = 0
    share = 0.0
    while share < 1:
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (step + 1) / 10) * (1 + math.cos(math.pi * share)) / 2
        optimizer.zero_grad()
        for index in generator.choices(trained, k=BATCH):
            picture = augment(pictures[index], generator) if augmented else pictures[index]
            with torch.no_grad():
                want = watching.watch(picture)
            (likeness(student.watch(picture), want) / BATCH).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        step += 1
        decay = min(DECAY, step / (step + 9))
        for mean, parameter in zip(average, parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)
        share = max(step / steps, (time.monotonic() - started_s) / 60 / minutes)
        progress(min(share, 1.0))
        if step % CHECK_EVERY == 0 or share >= 1:
            current = [parameter.detach().clone() for parameter in parameters]
            _put(parameters, average)
            loss = held_out()
            say(f"training in int8: step {step}, held-out loss {loss:.4f}")
            fruitless += 1
            if loss < least:
                least, best, fruitless = loss, [mean.clone() for mean in average], 0
            _put(parameters, current)
            if fruitless == PATIENCE:
                say(f"training in int8: no better for {PATIENCE} checks, so it ends here")
                break
    _put(parameters, best)
    return Tuned(student.network(), student.ranges(), before, least, step)


def _put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


class Likeness:
    """How far the answers of a network are from those of its teacher; zero when they are equal.

    The answers are the last tensors that are computed in integers. One that a sigmoid reads is compared as
    probabilities of yes and no, one that a softmax reads, or a vector of logits, as a distribution (Kullback-Leibler
    divergences); any other by squared error over the teacher's variance in each channel, where a map's position counts
    by the probability with which the teacher's maps of that size see something there.
    """

    def __init__(self, graph: GraphModule, names: Collection[str]) -> None:
        nodes = [node for node in graph.graph.nodes if node.name in names]
        self._kinds = {node.name: _kind(node) for node in nodes}

    def __call__(self, answer: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
        """The loss, a scalar, of tensors by name."""
        seen: dict[tuple[int, ...], Tensor] = {}
        for name, kind in self._kinds.items():
            if kind == "sigmoid" and wanted[name].dim() == 4:
                most = wanted[name].sigmoid().amax(1, keepdim=True)
                size = tuple(most.shape[2:])
                seen[size] = torch.minimum(seen[size], most) if size in seen else most
        losses = []
        for name, kind in self._kinds.items():
            logits, target = answer[name], wanted[name]
            if kind == "sigmoid":
                # cross-entropy less the teacher's own entropy
                probability = target.sigmoid()
                divergence = functional.binary_cross_entropy_with_logits(
                    logits, probability, reduction="sum"
                ) - functional.binary_cross_entropy_with_logits(target, probability, reduction="sum")
                losses.append(divergence / (probability.sum() + 1))
            elif kind == "softmax":
                axis = 1 if target.dim() == 4 else -1
                difference = target.log_softmax(axis) - logits.log_softmax(axis)
                losses.append((target.softmax(axis) * difference).sum(axis).mean())
            else:
                channels = target.transpose(0, 1).flatten(1) if target.dim() == 4 else target.reshape(1, -1)
                variance = channels.var(1).clamp_min(1e-6).reshape(1, -1, *[1] * (target.dim() - 2))
                error = (logits - target).square() / variance
                weight = seen.get(tuple(target.shape[2:]), target.new_ones(())) + BACKGROUND
                losses.append((error.mean(1, keepdim=True) * weight).sum() / weight.expand_as(error[:, :1]).sum())
        return torch.stack(losses).mean()


def _kind(node: Node) -> str:
    targets = {reader.target for reader in node.users}
    if targets & set(SIGMOIDS):
        return "sigmoid"
    value = node.meta.get("val")
    if targets & set(SOFTMAXES) or (isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] > 1):
        return "softmax"
    return "other"


def augment(picture: Tensor, generator: random.Random) -> Tensor:
    """A crop of at least half of the picture [1, 3, h, w], mirrored or not, brightened or dimmed, in the picture's size."""
    height, width = picture.shape[2:]
    share = generator.uniform(0.7, 1.0) if generator.random() < 0.7 else 1.0
    tall, wide = max(1, round(height * share)), max(1, round(width * share))
    top, left = generator.randint(0, height - tall), generator.randint(0, width - wide)
    crop = picture[:, :, top : top + tall, left : left + wide]
    if generator.random() < 0.5:
        crop = crop.flip(3)
    if (tall, wide) != (height, width):
        crop = functional.interpolate(crop, (height, width), mode="bilinear", align_corners=False)
    low, high = float(picture.amin()), float(picture.amax())
    gain = crop.new_tensor([generator.uniform(0.8, 1.2) for _ in range(3)]).reshape(1, 3, 1, 1)
    return ((crop - low) * gain + low).clamp(low, high)
