"""The card of a model that has not been exported: what the device's code needs to prepare its pictures and read its answers."""

from __future__ import annotations

from typing import Protocol

from edge.card import ROLES_OF_HEAD, Card, DetectOptions, Golden, InputGeometry, Label, Provenance, TensorInput, Variant

INPUT = "image"
"""The name of every variant's input, uint8 [1, h, w, 3]."""


class Described(Protocol):
    """What a classifier, a detector and what is quantized all say of themselves."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[Label, ...]: ...
    @property
    def input(self) -> InputGeometry: ...
    @property
    def source(self) -> str: ...
    @property
    def license(self) -> str: ...


def draft_card(model: Described, task: str, head: str, detect: DetectOptions | None, *variants: Variant) -> Card:
    """The model's card with these variants, or, before there are any, with one that stands for none."""
    return Card(
        name=model.name,
        task=task,  # type: ignore[arg-type]
        head=head,  # type: ignore[arg-type]
        detect=detect,
        labels=model.labels,
        input=model.input,
        variants=variants or (no_variant(head),),
        golden=Golden(sha256="0" * 64, bytes=1),
        provenance=Provenance(source=model.source, license=model.license, created=""),
    )


def no_variant(head: str) -> Variant:
    """A variant that stands for none, its outputs named as the head's roles."""
    return Variant(
        name="none",
        file="none",
        engine="onnx",
        precision="float32",
        scheme="float32",
        weight_bits=32,
        sha256="0" * 64,
        bytes=1,
        input=TensorInput(name=INPUT),
        outputs={role: role for role in ROLES_OF_HEAD[head]},
        tolerance=0.0,
    )
