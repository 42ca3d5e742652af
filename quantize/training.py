"""Training for a variant that rounding alone leaves short: quantization-aware, by the network's own float answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from quantize.correct import corrected
from quantize.fake import observe, place
from quantize.qat import finetune
from quantize.sensitivity import graph_blocks
from quantize.targets import Kind, Settings
from quantize.workshop import Weights, Workshop

LIMIT = {8: 127, 7: 64}
MINUTES = 8.0


def trained(
    workshop: Workshop,
    kind: Kind,
    settings: Settings,
    until_s: float,
    say: Callable[[str], None],
    progress: Callable[[str, float | None], None],
) -> str | None:
    """The name of the rounding that training gave, ready in the workshop; None when no time is left for it."""
    rounding = "qat" if not settings.float_layers else f"qat-{len(settings.float_layers)}"
    weights = Weights(LIMIT[kind.weight_bits], rounding)
    if workshop.has(weights):
        return rounding
    minutes = min(MINUTES, (until_s - time.monotonic()) / 60)
    if minutes < 0.5:
        say(f"{kind.name}: no time is left for quantization-aware training; give a larger --budget-minutes")
        return None
    graph = workshop.graph
    floats = {name for block in graph_blocks(graph) if block.layer in settings.float_layers for name in block.operators}
    pictures = list(workshop.normalized())
    ranges = observe(graph, place(graph, floats), pictures[:32])
    say(f"{kind.name}: quantization-aware training, at most {minutes:.1f} minutes ...")
    start = corrected(graph, pictures[:32], limit=weights.limit, ranges=ranges, float_nodes=floats, teacher=graph)
    tuned = finetune(
        start,
        pictures,
        limit=weights.limit,
        ranges=ranges,
        float_nodes=floats,
        teacher=graph,
        minutes=minutes,
        progress=lambda share: progress(f"{kind.name}: training", share),
    )
    workshop.adopt(weights, tuned.graph)
    return rounding
