"""A detector of our own, and how it is trained."""

from __future__ import annotations

from train.detect.network import DETECTORS, build

__all__ = ["DETECTORS", "build"]
