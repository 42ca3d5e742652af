"""An edge-device inference runtime: bundles, engines, tasks, sources, the loop, offload and sinks.

    import edge

    for event in edge.run("camera:0", "garden.edge"):
        print(event.result.labels, event.decision.confidence)

    find = edge.load("garden.edge")
    print(find(picture).labels)

Importing this package loads none of its parts; a name is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.api import Predictor, Run, load, run
    from edge.errors import (
        BundleError,
        CaptureError,
        EdgeError,
        EngineError,
        InputError,
        OffloadError,
        SourceError,
        UsageError,
    )
    from edge.types import Change, Classes, Decision, Detections, Event, Frame, Mask, Notice, Opinion, Timings

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "CaptureError",
    "Change",
    "Classes",
    "Decision",
    "Detections",
    "EdgeError",
    "EngineError",
    "Event",
    "Frame",
    "InputError",
    "Mask",
    "Notice",
    "OffloadError",
    "Opinion",
    "Predictor",
    "Run",
    "SourceError",
    "Timings",
    "UsageError",
    "__version__",
    "load",
    "run",
]

_HOMES = {
    "edge.api": ("Predictor", "Run", "load", "run"),
    "edge.errors": (
        "BundleError",
        "CaptureError",
        "EdgeError",
        "EngineError",
        "InputError",
        "OffloadError",
        "SourceError",
        "UsageError",
    ),
    "edge.types": (
        "Change",
        "Classes",
        "Decision",
        "Detections",
        "Event",
        "Frame",
        "Mask",
        "Notice",
        "Opinion",
        "Timings",
    ),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'edge' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
