"""Transfer: a published model taught the classes of a folder of pictures, its last layer first and then all of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.card import Label
from edge.datasets import class_folders, evaluation_split
from edge.errors import DataError
from train.augment import Augment
from train.finetune import Progress, Recipe, fine_tune, seeded
from train.heads import last_linear, replace_head
from train.models import Classifier, pretrained
from train.pictures import Pictures

Say = Callable[[str], None]
HEAD_STEPS = 100
HEAD_DECAY = 1e-2
HEAD_PICTURES = 20_000
RECIPE = Recipe(epochs=5, rate=2e-4, average=0.97, batch_norm="freeze", freeze=0.5, augment=Augment(least_area=0.5))


def transfer(
    name: str = "efficientnet-lite0",
    *,
    data: Path,
    minutes: float | None = None,
    recipe: Recipe = RECIPE,
    say: Say = lambda line: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Classifier:
    """The named model, its ImageNet weights fine-tuned on the class folders of `data`, or of its `train` folder.

    The labels are the folders' names, in order; `minutes` bounds the time. Raises what `pretrained` raises, and
    DataError.
    """
    began = time.monotonic()
    start = pretrained(name)
    folder = data / "train" if evaluation_split(data) != data else data
    labels = folder_labels(folder)
    samples = class_folders(folder, labels)
    network = start.network
    replace_head(network, len(labels))
    pictures = Pictures(samples, start.input, start.mean, start.std, say)
    say(f"{name}: {len(samples)} pictures of {len(labels)} classes; the last layer first ...")
    fit_head(network, pictures, recipe.seed)
    left = None if minutes is None else minutes - (time.monotonic() - began) / 60
    say(f"{name}: now all layers, {recipe.epochs:g} epochs ...")
    network = fine_tune(network, pictures, replace(recipe, minutes=left), progress=progress)
    return replace(start, network=network, labels=labels, source=f"{start.source}; fine-tuned on {data.resolve().name}")


def folder_labels(folder: Path) -> tuple[Label, ...]:
    """The names of a folder's class folders, sorted, as labels. Raises DataError when there are fewer than two."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".") if folder.is_dir() else []
    if len(names) < 2:
        raise DataError(f"{folder}: expected at least two class folders, found {len(names)}; give {folder}/CLASS/PICTURE.jpg")
    return tuple(Label(id=name, name=name) for name in names)


def is_new(network: nn.Module) -> bool:
    """Whether the last layer is one of `replace_head` that nothing has been taught."""
    return not last_linear(network).weight.any()


def fit_head(network: nn.Module, pictures: Pictures, seed: int = 0, batch: int = 32) -> None:
    """Fit the last layer alone, in place: logistic regression on the plain pictures' features, with weight decay.

    Of very many pictures, as many as HEAD_PICTURES are looked at.
    """
    head = last_linear(network)
    device = head.weight.device
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    truth = []
    try:
        with torch.no_grad():
            network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for images in pictures.plain(batch, HEAD_PICTURES):
                placed = images.to(device)
                network(placed.images)
                truth.append(placed.class_ids)
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
