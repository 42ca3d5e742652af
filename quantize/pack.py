"""Measured variants into a bundle: card, golden check, files."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from edge import __version__
from edge.bundle import pack_golden, sha256, write_bundle
from edge.card import Card, Golden, Provenance
from edge.tasks import TASKS
from edge.types import Frame, UInt8
from quantize.build import Built, draft, placeholder_variant
from train.models import Classifier

TOOLS = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


def pack(
    path: Path, classifier: Classifier, name: str, built: Sequence[Built], picture: UInt8, calibration: str, command: str
) -> Card:
    """Write the bundle and return its card. `picture` is the golden one, BGR [h, w, 3]. Raises BundleError."""
    card = draft(classifier)
    golden_input = TASKS[card.task](card, placeholder_variant()).prepare(Frame(picture, 0, 0.0, "golden")).data
    golden = pack_golden(golden_input, {one.variant.name: {"logits": one.golden} for one in built})
    card = msgspec.structs.replace(
        card,
        name=name,
        variants=tuple(one.variant for one in built),
        golden=Golden(sha256=sha256(golden), bytes=len(golden)),
        provenance=Provenance(
            source=classifier.source,
            license=classifier.license,
            created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            calibration=calibration,
            command=command,
            tools={"edge-run": __version__, "python": platform.python_version()} | _versions(),
        ),
    )
    write_bundle(path, card, {card.golden.file: golden} | {one.variant.file: one.data for one in built})
    return card


def _versions() -> dict[str, str]:
    found = {}
    for tool in TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
