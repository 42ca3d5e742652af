"""What a classifier, or whatever learns from a teacher, is pulled towards: labels, outputs, and features inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.pictures import Batch
from train.recipe import Recipe

HINTED = (nn.Conv1d, nn.Conv2d, nn.Linear)


def learning_loss(
    network: nn.Module,
    batch: Batch,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    class_weights: Tensor | None = None,
    mixing: np.random.Generator | None = None,
) -> Tensor:
    """The loss of a batch [] as `recipe` weighs labels and teacher; `mixing` draws what mixup mixes."""
    images, class_ids, other_ids, share = batch.images, batch.class_ids, batch.class_ids, 1.0
    if recipe.mixup > 0 and mixing is not None and len(images) > 1:
        share = float(mixing.beta(recipe.mixup, recipe.mixup))
        order = torch.from_numpy(mixing.permutation(len(images))).to(images.device)
        images, other_ids = torch.lerp(images[order], images, share), class_ids[order]
    with features(network, teacher is not None and recipe.hints > 0) as given:
        outputs = network(images)
    loss = torch.zeros((), device=images.device)
    if teacher is None or recipe.distill < 1:

        def labelled(ids: Tensor) -> Tensor:
            losses = functional.cross_entropy(outputs, ids, label_smoothing=recipe.smoothing, reduction="none")
            return (losses if class_weights is None else losses * class_weights[ids]).mean()

        labels = labelled(class_ids) if share == 1 else share * labelled(class_ids) + (1 - share) * labelled(other_ids)
        loss = loss + (1 if teacher is None else 1 - recipe.distill) * labels
    if teacher is not None:
        with torch.no_grad(), features(teacher, recipe.hints > 0) as wanted_inside:
            wanted = teacher(images)
        loss = loss + recipe.distill * distance(outputs, wanted, recipe.temperature)
        alike = [name for name in given if name in wanted_inside and given[name].shape == wanted_inside[name].shape]
        if alike:
            inside = distance([given[name] for name in alike], [wanted_inside[name] for name in alike], 1.0)
            loss = loss + recipe.hints * inside
    return loss


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
        module.register_forward_pre_hook(note(name.removeprefix("module.")))  # what DistributedDataParallel prefixes
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
