"""Training for a variant that rounding alone leaves short: quantization-aware, by the network's own float answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from quantize.graph import layers
from quantize.qat import finetune
from quantize.targets import Kind, Settings
from quantize.workshop import Weights, Workshop

LIMIT = {8: 127, 7: 64}
MINUTES = 8.0
FEWEST_MINUTES = 0.5


def trained(
    workshop: Workshop,
    kind: Kind,
    settings: Settings,
    until_s: float,
    say: Callable[[str], None],
    progress: Callable[[str, float | None], None],
) -> bool:
    """Whether the workshop now has weights trained for these settings, whose rounding is `qat`.

    False when no time is left, or there is nothing to train.
    """
    if not layers(workshop.graph):
        return False
    weights = Weights(LIMIT[kind.weight_bits], "qat", settings.float_layers)
    if workshop.has(weights):
        return True
    minutes = min(MINUTES, (until_s - time.monotonic()) / 60)
    if minutes < FEWEST_MINUTES:
        say(f"{kind.name}: no time is left for quantization-aware training; give a larger --budget-minutes")
        return False
    say(f"{kind.name}: quantization-aware training, at most {minutes:.1f} minutes ...")
    floats = workshop.float_nodes(settings.float_layers)
    start = workshop.corrected(Weights(weights.limit, "corrected", settings.float_layers))
    pictures = list(workshop.normalized())
    tuned = finetune(
        start.graph,
        pictures,
        limit=weights.limit,
        ranges=start.ranges,
        float_nodes=floats,
        teacher=workshop.graph,
        minutes=max(minutes - 0.2, FEWEST_MINUTES),
        progress=lambda share: progress(f"{kind.name}: training", share),
    )
    workshop.adopt(weights, tuned.graph, tuned.ranges)
    return True
