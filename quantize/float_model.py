"""What is quantized: a float network with all that a device must know to use it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edge.card import ROLES_OF_HEAD, Card, DetectOptions, InputGeometry, Label, Variant
from edge.protocols import Task
from edge.tasks import TASKS
from edge.types import Frame, Tensor
from train.draft import draft_card, no_variant
from train.models import Classifier, Detector


@dataclass(frozen=True, slots=True, eq=False)
class FloatModel:
    """A float network, whoever made it.

    `network` maps float32 [1, 3, h, w] in `input.color`, normalized per channel as (x - mean) / std from pixels in
    [0, 255], to one tensor that has the head's one role: logits, or predictions.
    """

    name: str
    task: str
    head: str
    network: nn.Module
    input: InputGeometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[Label, ...]
    source: str
    license: str
    detect: DetectOptions | None = None

    @property
    def role(self) -> str:
        """What the network's one output is to the head, and the name of that tensor in every variant."""
        [role] = ROLES_OF_HEAD[self.head]
        return role

    @property
    def size_wh(self) -> tuple[int, int]:
        """The network's input in pixels."""
        return self.input.width, self.input.height

    def card(self, *variants: Variant) -> Card:
        """Its card with these variants, or, before there are any, with one that stands for none."""
        return draft_card(self, self.task, self.head, self.detect, *variants)

    def task_of(self, variant: Variant) -> Task:
        """The task as the device builds it for this variant."""
        card = self.card(variant)
        return TASKS[card.task](card, variant)

    def prepare(self, frame: Frame) -> Tensor:
        """What the device feeds to any of its variants."""
        return self.task_of(no_variant(self.head)).prepare(frame)


def float_model(made: Classifier | Detector) -> FloatModel:
    """A factory's classifier or detector as what is quantized."""
    is_detector = isinstance(made, Detector)
    return FloatModel(
        name=made.name,
        task="detect" if is_detector else "classify",
        head=made.head if isinstance(made, Detector) else "softmax",
        network=made.network,
        input=made.input,
        mean=made.mean,
        std=made.std,
        labels=made.labels,
        source=made.source,
        license=made.license,
        detect=made.options if isinstance(made, Detector) else None,
    )
