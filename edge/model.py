"""A bundle made ready: the variant that suits this board, its engine, its task, and the golden check passed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from devices import Board, detect
from edge.bundle import Bundle
from edge.card import Variant
from edge.choice import Choice
from edge.engines import EngineOptions, open_engine
from edge.errors import BundleError, EdgeError, EngineError
from edge.extras import installed
from edge.protocols import Engine, Task
from edge.tasks import TASKS
from edge.types import Geometry, Tensor

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Model:
    """A variant that passed its golden check, ready for frames; `options` are what its engine was opened with."""

    name: str
    variant: Variant
    engine: Engine
    task: Task
    options: EngineOptions = field(default_factory=EngineOptions)


def preference(variants: Sequence[Variant], machine: str) -> list[Variant]:
    """Variants made for `machine` first, then those made for any, then the rest; card order within each."""

    def rank(variant: Variant) -> int:
        return 0 if machine in variant.machines else 1 if not variant.machines else 2

    return sorted(variants, key=rank)


def runnable(variants: Sequence[Variant], machine: str) -> list[Variant]:
    """Those whose engine is installed, in order of preference."""
    return preference([variant for variant in variants if installed(variant.engine)], machine)


def open_model(
    bundle: Bundle,
    *,
    board: Board | None = None,
    variant: str | None = None,
    threads: int | None = None,
    spin: bool | None = None,
    exact: bool = False,
    lanes: int = 1,
    choice: Choice | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Model:
    """Load the best variant that this machine can run and that agrees with its golden check.

    Of the variants whose engine is installed, one that cannot run or disagrees is passed over and the next is tried,
    with a line to `say` each time; when `variant` names one, it alone is tried. A `choice`, which edge-bench made, is
    tried before all others, on its accelerator and, where one inference runs at a time, with its threads. Raises
    BundleError or EngineError when none is left.
    """
    board = board or detect()
    options = EngineOptions(threads or board.threads, board.spin if spin is None else spin, exact, lanes)
    if variant:
        return load_variant(bundle, bundle.card.variant(variant), options)
    if choice is not None:
        chosen = replace(options, accelerator=choice.accelerator, options=choice.options)
        if lanes == 1:
            chosen = replace(chosen, threads=choice.threads)
        try:
            model = load_variant(bundle, bundle.card.variant(choice.variant), chosen)
        except (BundleError, EngineError) as error:
            say(f"edge-bench's choice, {choice.what}, passed over: {error}")
        else:
            say(f"{choice.what} is edge-bench's choice of {choice.measured}; --variant or --threads overrides it")
            return model
    candidates = runnable(bundle.card.variants, board.machine)
    if not candidates:
        engines = " or ".join(sorted({f"'edge-run[{candidate.engine}]'" for candidate in bundle.card.variants}))
        raise EngineError(f"{bundle.where}: no engine for any of its variants is installed; pip install {engines}")
    refusals: list[EdgeError] = []
    for candidate in candidates:
        try:
            return load_variant(bundle, candidate, options)
        except (BundleError, EngineError) as error:
            refusals.append(error)
            say(f"variant {candidate.name} passed over: {error}")
    worst = BundleError if any(isinstance(error, BundleError) for error in refusals) else EngineError
    raise worst(f"{bundle.where}: no variant can run here; the first, {candidates[0].name}: {refusals[0]}")


class Reopener:
    """Opens a bundle's model anew when its engine has failed: the same variant a few times an hour, then the next one.

    One that ran on an accelerator gets that again, as often, and then the CPU. Called with the model that failed and why;
    takes the arguments of `open_model`. Raises EngineError when every variant that may run here has failed as often.
    """

    def __init__(
        self, bundle: Bundle, options: EngineOptions, board: Board, *, variant: str | None = None, attempts: int = 3
    ) -> None:
        self._bundle = bundle
        card = bundle.card
        variants = [card.variant(variant)] if variant else runnable(card.variants, board.machine)
        self._left = [(candidate, options) for candidate in variants]
        self._accelerated: tuple[Variant, EngineOptions] | None = None
        self._attempts = attempts
        self._opened_s: dict[tuple[str, str], deque[float]] = {}

    def __call__(self, failed: Model, reason: str) -> Model:
        """Another engine for the variant that failed or, when that has been tried enough, for the next."""
        if self._accelerated is None and failed.options.accelerator != "cpu":
            self._accelerated = (failed.variant, failed.options)
            self._left.append(self._accelerated)
        asked_for = (failed.variant.name, failed.options.accelerator)
        candidates = sorted(
            self._left,
            key=lambda one: ((one[0].name, one[1].accelerator) != asked_for, one[0].name != failed.variant.name),
        )
        for candidate in candidates:
            variant, options = candidate
            tried_s = self._opened_s.setdefault((variant.name, options.accelerator), deque())
            now_s = time.monotonic()
            while tried_s and now_s - tried_s[0] > HOUR_S:
                tried_s.popleft()
            if len(tried_s) >= self._attempts:
                self._left.remove(candidate)
                continue
            tried_s.append(now_s)
            try:
                return load_variant(self._bundle, variant, options)
            except (BundleError, EngineError) as error:
                reason = str(error)
                self._left.remove(candidate)
        raise EngineError(f"{self._bundle.where}: no variant is left that works: {reason}")


def load_variant(bundle: Bundle, variant: Variant, options: EngineOptions) -> Model:
    """Open one variant and hold it to its golden check. Raises BundleError and EngineError."""
    engine = open_engine(bundle.model_bytes(variant), variant, options)
    try:
        _golden_check(bundle, variant, engine)
    except EdgeError:
        engine.close()
        raise
    return Model(bundle.card.name, variant, engine, TASKS[bundle.card.task](bundle.card, variant), options)


def _golden_check(bundle: Bundle, variant: Variant, engine: Engine) -> None:
    picture, expected = bundle.golden(variant)
    height, width = picture.shape[1:3]
    outputs = engine.infer(Tensor(picture, Geometry((1.0, 1.0), (0.0, 0.0), (width, height))))
    for role, want in expected.items():
        got = outputs[role]
        if got.shape != want.shape:
            raise BundleError(f"{bundle.where}: {variant.name} gives {role} {got.shape}, its golden check has {want.shape}")
        with np.errstate(invalid="ignore"):  # infinite outputs make it not a number, which is refused below
            difference = float(np.abs(got - want).max(initial=0.0))
        if not difference <= variant.tolerance:  # not finite is a disagreement, too
            raise BundleError(
                f"{bundle.where}: {variant.name} disagrees with its golden check on this machine: "
                f"{role} differ by {difference:.4g}, tolerance {variant.tolerance:.4g}"
            )
