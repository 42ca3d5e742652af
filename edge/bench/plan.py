"""What there is to measure: the variants of a bundle on the engines, accelerators and threads of a board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devices import Board, EngineChoice
from edge.bundle import Bundle
from edge.card import Variant
from edge.engines import for_edge_tpu
from edge.errors import EngineError
from edge.extras import DISTRIBUTIONS, installed


@dataclass(frozen=True, slots=True)
class Configuration:
    """A variant and how to run it; `options` are the accelerator's own."""

    variant: str
    engine: str
    threads: int
    accelerator: str = "cpu"
    options: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        """The engine, with its accelerator where that is not the CPU."""
        return self.engine if self.accelerator == "cpu" else f"{self.engine}+{self.accelerator}"

    def __str__(self) -> str:
        return f"{self.variant} on {self.where}, {self.threads} thread{'s' * (self.threads > 1)}"


def thread_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4 and `most`, which leaves what the board's profile leaves to the camera."""
    return tuple(sorted({count for count in (1, 2, 4, most) if count <= most}))


def configurations(
    bundle: Bundle, board: Board, names: Sequence[str], threads: Sequence[int], say: Callable[[str], None]
) -> list[Configuration]:
    """All that can be tried, by variant; what is not installed is said.

    Raises BundleError for a name that is not there, and EngineError where no engine is installed for any of them.

    An accelerator runs what its threads do not, so its number of threads hardly matters: it gets the board's.
    """
    card = bundle.card
    wanted = [card.variant(name) for name in dict.fromkeys(names)] or card.variants
    if not any(installed(variant.engine) for variant in wanted):
        package = DISTRIBUTIONS[min(variant.engine for variant in wanted)][0]
        raise EngineError(f"{bundle.where}: no engine for it is installed; pip install {package}")
    found = []
    for variant in wanted:
        if not installed(variant.engine):
            say(f"variant {variant.name} left out: pip install 'edge-run[{variant.engine}]' to measure it")
            continue
        for choice in _choices(bundle, variant, board):
            counts = threads if choice.accelerator == "cpu" else [board.threads]
            found += [
                Configuration(variant.name, variant.engine, count, choice.accelerator, choice.options) for count in counts
            ]
    return found


def _choices(bundle: Bundle, variant: Variant, board: Board) -> list[EngineChoice]:
    """The board's accelerators for this variant, and the CPU; the Edge TPU runs what is compiled for it and nothing else."""
    listed = [choice for choice in board.engines if choice.engine == variant.engine]
    if variant.engine == "tflite" and for_edge_tpu(bundle.model_bytes(variant)):
        return [choice for choice in listed if choice.accelerator == "edgetpu"] or [EngineChoice("tflite", "edgetpu")]
    others = [choice for choice in listed if choice.accelerator not in ("cpu", "edgetpu")]
    return [*others, next((choice for choice in listed if choice.accelerator == "cpu"), EngineChoice(variant.engine))]
