"""Transfer: a network with weights is taught other classes, its last layer first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.errors import DataError
from train.heads import last_linear
from train.loop import seeded
from train.pictures import Pictures

HEAD_STEPS = 100
HEAD_DECAY = 1e-2
HEAD_PICTURES = 20_000


def is_new(network: nn.Module) -> bool:
    """Whether the last layer is one of `replace_head` that nothing has been taught."""
    return not last_linear(network).weight.any()


def fit_head(
    network: nn.Module,
    pictures: Pictures,
    seed: int = 0,
    batch: int = 32,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Fit the last layer alone, in place: logistic regression on the plain pictures' features, with weight decay.

    Of very many pictures, as many as HEAD_PICTURES are looked at; `told` hears how many were, and of how many.
    """
    head = last_linear(network)
    device = head.weight.device
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    truth: list[Tensor] = []
    looked = 0
    try:
        with torch.no_grad():
            network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for images in pictures.plain(batch, HEAD_PICTURES):
                placed = images.to(device)
                network(placed.images)
                truth.append(placed.class_ids)
                looked += len(placed.class_ids)
                told(looked, min(pictures.batches_an_epoch(1), HEAD_PICTURES))
    finally:
        handle.remove()
    if not truth:
        raise DataError("no training picture is readable; give more pictures")
    features, class_ids = torch.cat(seen), torch.cat(truth)
    spread = features.std(0, correction=0).clamp_min(1e-6)
    weight, bias = (torch.zeros_like(parameter, requires_grad=True) for parameter in (head.weight, head.bias))
    scaled = (features - features.mean(0)) / spread
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=HEAD_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(scaled @ weight.T + bias, class_ids) + HEAD_DECAY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with seeded(seed):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        head.bias.copy_(bias - (features.mean(0) / spread) @ weight.T)
