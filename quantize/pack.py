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
from edge.types import Frame, UInt8
from quantize.float_model import FloatModel
from quantize.measure import Measured

TOOLS = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


def pack(
    path: Path, model: FloatModel, name: str, built: Sequence[Measured], picture: UInt8, calibration: str, command: str
) -> Card:
    """Write the bundle and return its card. `picture` is the golden one, BGR [h, w, 3]. Raises BundleError."""
    golden_input = model.prepare(Frame(picture, 0, 0.0, "golden")).data
    golden = pack_golden(golden_input, {one.variant.name: {model.role: one.golden} for one in built})
    card = msgspec.structs.replace(
        model.card(*(one.variant for one in built)),
        name=name,
        golden=Golden(sha256=sha256(golden), bytes=len(golden)),
        provenance=Provenance(
            source=model.source,
            license=model.license,
            created=created(),
            calibration=calibration,
            command=command,
            tools=tools(),
        ),
    )
    write_bundle(path, card, {card.golden.file: golden} | {one.variant.file: one.data for one in built})
    return card


def created() -> str:
    """Now, as cards and records have it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def tools() -> dict[str, str]:
    """The versions of what a build is made with."""
    return {"edge-run": __version__, "python": platform.python_version()} | _versions()


def _versions() -> dict[str, str]:
    found = {}
    for tool in TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
