"""A teacher for a student that sees pictures another way: each batch is put to it as it was trained to see them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.errors import InputError, UsageError
from train.models import MODELS, Classifier, pretrained
from train.run import is_run, load_run


def check_teacher(name: str) -> None:
    """Raise InputError for a file or folder that is no run, and UsageError for the name of no published model."""
    published = [model.name for model in MODELS.values() if model.package is not None]
    may_be = f"a teacher is the folder of a run of edge-train, or of ImageNet's classes one of {', '.join(published)}"
    if Path(name).exists() and not is_run(Path(name)):
        raise InputError(f"--teacher {name}: no run of edge-train; {may_be}")
    if not Path(name).exists() and name not in published:
        problem = "has no published weights" if name in MODELS else f"no such folder, and no model named {name!r}"
        raise UsageError(f"--teacher {name}: {problem}; {may_be}")


def teacher_of(name: str, student: Classifier, *, trust: bool = False) -> nn.Module:
    """The network of a run, or a published one, that takes the student's normalized pictures.

    Raises UsageError for one of other classes, what `check_teacher` raises, and what loading it raises.
    """
    check_teacher(name)
    teacher = load_run(Path(name), trust=trust) if Path(name).is_dir() else pretrained(name)
    if not isinstance(teacher, Classifier) or [one.id for one in teacher.labels] != [one.id for one in student.labels]:
        raise UsageError(
            f"--teacher {name}: has {len(teacher.labels)} classes, which are not the data's {len(student.labels)}; train a "
            "teacher on the same data first"
        )
    return AsTaught(teacher, student).eval()


class AsTaught(nn.Module):
    """The teacher's network behind what turns a student's input into its own: colours, normalization and size."""

    def __init__(self, teacher: Classifier, student: Classifier) -> None:
        super().__init__()
        self.network = teacher.network
        self.size = (teacher.input.height, teacher.input.width)
        self.mirrored = teacher.input.color != student.input.color
        ours, theirs = (torch.tensor([one.mean, one.std]).reshape(2, 1, 3, 1, 1) for one in (student, teacher))
        if self.mirrored:
            ours = ours.flip(2)
        self.register_buffer("scale", ours[1] / theirs[1])
        self.register_buffer("shift", (ours[0] - theirs[0]) / theirs[1])

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self.scale, Tensor)
        assert isinstance(self.shift, Tensor)
        images = (images.flip(1) if self.mirrored else images) * self.scale + self.shift
        if images.shape[2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        logits: Tensor = self.network(images)
        return logits
