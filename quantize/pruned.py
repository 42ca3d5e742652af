"""--prune: a model's network cut, fine-tuned and kept only if its int8 is measured faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from edge.card import Variant
from edge.datasets import Sample, labelled_frames
from edge.errors import UsageError
from edge.types import UInt8
from quantize.data import Split
from quantize.float_model import FloatModel
from quantize.prune import parse_target, prune
from quantize.speed import paired
from quantize.store import Store
from quantize.targets import KINDS, Settings, target, variant_of
from quantize.workshop import Workshop
from train.finetune import Progress

VARIANTS = ("int8-x86", "int8-tflite")
QUICK = Settings(calibrator="minmax", rounding="nearest")
"""Speed does not depend on the values."""
QUICK_PICTURES = 8


def pruned(
    model: FloatModel,
    split: Split,
    wanted: str,
    names: Sequence[str],
    threads: int,
    say: Callable[[str], None],
    progress: Callable[[str, float | None], None],
) -> FloatModel:
    """The model with a smaller network, or as it was when pruning made nothing faster.

    Learns from the pictures that do not measure. Raises UsageError, InputError for a network that cannot be cut and
    GateError for a target that is out of reach.
    """
    goal = parse_target(wanted)
    training = [sample for sample in split.training if isinstance(sample, Sample)]
    check = [sample for sample in split.choice if isinstance(sample, Sample)]
    if model.task != "classify":
        raise UsageError(f"--prune: {model.name} is a detector; only classifiers can be pruned yet")
    variants = tuple(name for name in VARIANTS if name in names)
    if not variants:
        raise UsageError(f"--prune: is judged by the speed of {' or '.join(VARIANTS)}; name one of them in --variants")
    frames = (frame for frame, _ in labelled_frames(split.calibration[:QUICK_PICTURES], lambda line: None))
    pictures = [model.prepare(frame).data for frame in frames]
    result = prune(
        model,
        training,
        check,
        goal,
        measure=relative_cost(model, pictures, variants, threads),
        say=say,
        progress=lambda step: progress(_words(step), step.done),
    )
    if not result.kept:
        return model
    say(
        f"{model.name}: pruned to {result.macs_after / result.macs_before:.0%} of its multiplications and "
        f"{result.parameters_after / result.parameters_before:.0%} of its parameters; {result.speedup:.2f} times as fast"
    )
    return replace(model, network=result.network)


def relative_cost(
    model: FloatModel, pictures: Sequence[UInt8], variants: Sequence[str], threads: int
) -> Callable[[nn.Module], float]:
    """A network's time over the model's in one paired run of their int8 files, the worst of the variants."""

    whole = int8_files(model, pictures, variants, threads, QUICK)

    def measure(network: nn.Module) -> float:
        cut = int8_files(replace(model, network=network), pictures, variants, threads, QUICK)
        pairs = zip(whole, cut, strict=True)
        return max(1 / paired(list(pair), pictures[0])[1].ratio for pair in pairs)

    return measure


def int8_files(
    model: FloatModel, pictures: Sequence[UInt8], variants: Sequence[str], threads: int, settings: Settings
) -> list[tuple[bytes, Variant]]:
    """The named variants of a model, calibrated on `pictures`, without a search."""
    workshop = Workshop(model, pictures, threads, Store(None), lambda line: None)
    built = [(target(name, workshop).build(settings), KINDS[name]) for name in variants]
    return [(data, variant_of(kind, data, model.role)) for data, kind in built]


def _words(step: Progress) -> str:
    return f"pruning: loss {step.loss:.3f}"
