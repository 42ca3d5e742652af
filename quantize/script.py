"""Where the console script starts."""

from __future__ import annotations

from edge.start import start


def main() -> None:
    """edge-quantize."""
    start("edge-quantize", "quantize.cli")
