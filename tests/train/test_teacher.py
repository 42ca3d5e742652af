"""A teacher sees a student's pictures as it was trained to, and only one of the same classes teaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from edge.card import Label  # noqa: E402
from edge.errors import InputError, UsageError  # noqa: E402
from tests.quantize import tiny  # noqa: E402
from train.losses import learning_loss  # noqa: E402
from train.models import Classifier  # noqa: E402
from train.pictures import Batch  # noqa: E402
from train.recipe import Recipe  # noqa: E402
from train.teacher import AsTaught, teacher_of  # noqa: E402


class Same(nn.Module):
    """Gives what it is given, so that a test sees it."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def seeing(**changes: object) -> Classifier:
    return replace(tiny.classifier(), network=Same(), **changes)


def normalized(pixels: Tensor, model: Classifier) -> Tensor:
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (model.mean, model.std))
    return (pixels - mean) / std


def test_pixels_are_normalized_and_ordered_as_the_teacher_has_them() -> None:
    student = seeing()
    teacher = seeing(
        mean=(103.5, 116.3, 123.7),
        std=(57.4, 57.1, 58.4),
        input=msgspec.structs.replace(student.input, color="bgr"),
    )
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    seen = AsTaught(teacher, student)(normalized(pixels, student))
    torch.testing.assert_close(seen, normalized(pixels.flip(1), teacher))


def test_another_size_is_made() -> None:
    student = seeing()
    teacher = seeing(input=msgspec.structs.replace(student.input, width=48, height=40))
    flat = torch.full((1, 3, 32, 32), 0.5)
    seen = AsTaught(teacher, student)(flat)
    assert seen.shape == (1, 3, 40, 48)
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5))


def test_what_cannot_teach(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run of edge-train"):
        teacher_of(str(tmp_path), tiny.classifier())
    with pytest.raises(UsageError, match="no model named 'nobody'"):
        teacher_of("nobody", tiny.classifier())


def test_a_teacher_of_more_classes_is_refused() -> None:
    labels = tuple(Label(id=f"n{index}", name=f"{index}") for index in range(4))
    with pytest.raises(UsageError, match="has 1000 classes, which are not the data's 4"):
        teacher_of("efficientnet-lite0", replace(tiny.classifier(), labels=labels))


def batch() -> Batch:
    random = torch.Generator().manual_seed(1)
    return Batch(torch.rand(8, 3, 32, 32, generator=random), torch.randint(0, 3, (8,), generator=random))


def test_mixup_weighs_two_pictures_and_their_labels() -> None:
    """Of a network that is linear in the picture, the mixed logits are the logits' mix."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    given = batch()
    recipe = Recipe(mixup=0.4, smoothing=0.0)
    loss = learning_loss(network, given, recipe, mixing=np.random.default_rng(7))
    random = np.random.default_rng(7)
    share = float(random.beta(0.4, 0.4))
    order = torch.from_numpy(random.permutation(8))
    logits = network(given.images)
    mixed = share * logits + (1 - share) * logits[order]
    cross = nn.functional.cross_entropy
    wanted = share * cross(mixed, given.class_ids) + (1 - share) * cross(mixed, given.class_ids[order])
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(learning_loss(network, given, recipe), cross(logits, given.class_ids))  # nothing to draw from


def test_class_weights_weigh_labels() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    given = batch()
    weights = torch.tensor([1.0, 0.0, 4.0])
    loss = learning_loss(network, given, Recipe(smoothing=0.0), class_weights=weights)
    losses = nn.functional.cross_entropy(network(given.images), given.class_ids, reduction="none")
    torch.testing.assert_close(loss, (losses * weights[given.class_ids]).mean())
    halves = [learning_loss(network, part, Recipe(smoothing=0.0), class_weights=weights) for part in given.parts(2)]
    torch.testing.assert_close(loss, torch.stack(halves).mean())


@pytest.mark.parametrize("name", ["resnet18", "nothing", "FILE"])
def test_what_a_teacher_may_be_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").write_bytes(b"weights")
    with pytest.raises((InputError, UsageError), match=r"a teacher is the folder of a run of edge-train, or .* one of eff"):
        teacher_of(name.replace("FILE", str(tmp_path / "FILE")), tiny.classifier())
