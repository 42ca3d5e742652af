"""What the package carries; imports nothing that may be broken on a machine that is examined."""

from __future__ import annotations

from pathlib import Path

DEFAULT_BUNDLE = Path(__file__).with_name("data") / "efficientnet-lite0.edge"
"""An ImageNet classifier (docs/decisions/0002-default-bundle.md)."""
