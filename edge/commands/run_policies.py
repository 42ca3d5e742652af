"""How edge-run decides what to ask about: the rules and policies that its options name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge.card import Promise, Selection
from edge.commands.options import RunOptions
from edge.errors import UsageError
from edge.model import Model
from edge.policies import Budget, Guarantee, LocalOnly, PerFrame, PerObject, Rule, Threshold
from edge.protocols import Policy, Source

if TYPE_CHECKING:
    from edge.offload import Offloader


def rules_of(
    options: RunOptions, model: Model, sources: Sequence[Source], offloader: Offloader | None, say: Callable[[str], None]
) -> list[Rule | None]:
    """How each source's confidences are judged, where there is an endpoint to ask. Only a budget is shared."""
    if offloader is None:
        return [None] * len(sources)
    if options.policy == "budget":
        return [_budget(options, offloader)] * len(sources)
    if options.policy == "guarantee":
        selection, promise = _promise(options, model, say)
        return [_guarantee(selection, promise, source) for source in sources]
    return [Threshold(0.5 if options.threshold is None else options.threshold) for _ in sources]


def policy_of(rule: Rule | None, options: RunOptions) -> Policy:
    """What asks about the objects or frames of one source."""
    if rule is None:
        return LocalOnly()
    return PerObject(rule) if options.track else PerFrame(rule)


def _budget(options: RunOptions, offloader: Offloader) -> Budget:
    allowance, price = options.offload_budget, options.offload_price
    assert allowance is not None  # edge.commands.option_checks
    threshold = 1.0 if options.threshold is None else options.threshold
    if allowance.in_bytes:
        return Budget(
            allowance,
            threshold=threshold,
            cost=lambda: offloader.request_bytes / 1e6,
            spent=lambda: offloader.spent_bytes / 1e6,
        )
    return Budget(allowance, threshold=threshold, cost=lambda: price or 1.0)


def _promise(options: RunOptions, model: Model, say: Callable[[str], None]) -> tuple[Selection, Promise]:
    """The card's promise that is nearest below `--max-error`, which is said."""
    unit = "object" if options.track else "frame"
    name, alpha = f"{model.name} {model.variant.name}", 0.05 if options.max_error is None else options.max_error
    selection = next((one for one in model.variant.selections if one.unit == unit), None)
    if selection is None:
        raise UsageError(
            f"--policy guarantee: the card of {name} promises nothing {unit} by {unit}; build it again with edge-quantize"
        )
    there = ", ".join(f"{promise.alpha:g}" for promise in selection.promises) or "none"
    fitting = [promise for promise in selection.promises if promise.alpha <= alpha]
    if not fitting:
        raise UsageError(
            f"--max-error {alpha:g}: the {selection.answers} answers that calibrated {name} support no such promise; "
            f"there are {there}; build it with more pictures"
        )
    promise = fitting[-1]
    nearest = f", the nearest below --max-error {alpha:g} (there are {there})" if promise.alpha < alpha else ""
    say(
        f"promised: an error rate below {promise.alpha:g}{nearest}, for answers of at least {promise.threshold:.3f}, "
        f"which were {promise.coverage:.0%} in calibration"
    )
    return selection, promise


def _guarantee(selection: Selection, promise: Promise, source: Source) -> Guarantee:
    from edge.sources.pictures import PictureSource  # only now: a camera needs none of it

    spacing_s = 0.0 if isinstance(source, PictureSource) else 1.0  # a folder's pictures are no neighbours
    return Guarantee(promise, selection, source=source.name, spacing_s=spacing_s)
