"""Tasks by name: what the card's `task` may say."""

from __future__ import annotations

from collections.abc import Callable

from edge.card import Card, Variant
from edge.protocols import Task
from edge.tasks.classify import Classify
from edge.tasks.detect import Detect
from edge.tasks.segment import Segmentation

TASKS: dict[str, Callable[[Card, Variant], Task]] = {
    "classify": Classify,
    "detect": Detect,
    "pose": Detect,
    "segment": Segmentation,
}
