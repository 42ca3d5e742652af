"""Checks of engines and of the bundle they are to run, from what child processes told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devices import Board
from edge.doctor.check import Check
from edge.doctor.known_bad import Here, KnownBad, known_bad, last_words
from edge.doctor.probe import EDGE_TPU, Probe, ending

DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "ai_edge_litert": ("ai-edge-litert",),
    "tflite_runtime": ("tflite-runtime",),
}
"""Module → the distributions that provide it, in the order to believe."""
ACCELERATORS = {
    "cuda": ("CUDAExecutionProvider", "pip install onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "pip install onnxruntime-gpu"),
    "edgetpu": (EDGE_TPU, "sudo apt install libedgetpu1-std, from https://coral.ai/software/"),
}
"""Accelerator → what an engine that has it names, and how to get it."""
PACKAGES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine by its name, the module that was tried, and what the child process told; None: nothing is installed."""

    engine: str
    module: str = ""
    told: Probe | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A variant that was tried, and why it did not run; "" when it did."""

    variant: str
    error: str


def engine_check(facts: EngineFacts, here: Here, board: Board, others: Sequence[str]) -> Check:
    """Whether an engine loads and runs; `others` are the engines that do."""
    if facts.told is None:
        return _absent(facts.engine, here, others)
    package = next((name for name in DISTRIBUTIONS[facts.module] if name in here.versions), facts.module)
    name = f"{package} {here.versions.get(package, 'of unknown version')}"
    steps = {step["step"]: step for step in facts.told.steps}
    rows = known_bad(package, here)
    if "packaged" not in steps:
        return Check(f"engine {facts.engine}", "fail", f"{name} was not tried: NumPy or OpenCV does not load", "see packages")
    if "end" not in steps:
        while_what = (
            "while it is loaded" if "loaded" not in steps else f"while it runs {steps.get('open', {}).get('variant', '')}"
        )
        return _broken(f"engine {facts.engine}", name, package, facts.told, f"{while_what}".strip(), rows)
    beside = [row for row in rows if row.beside]
    if beside:
        return Check(f"engine {facts.engine}", "warn", f"{name} runs, but {_known(beside[0])}", beside[0].mend)
    accelerator, mend = _accelerator(facts, here, board, steps["loaded"])
    ran = f"runs {steps['ran']['variant']}" if "ran" in steps else "loads"
    return Check(f"engine {facts.engine}", "warn" if mend else "ok", f"{name} {ran}{accelerator}", mend)


def bundle_check(
    name: str,
    order: Sequence[str],
    attempts: Sequence[Attempt],
    *,
    missing: Sequence[str] = (),
    fatal: Mapping[str, str] | None = None,
    choice: str = "",
    stale: str = "",
) -> Check:
    """Which variant edge-run would take: the first of `order` that ran; `missing` are engines to install.

    `fatal` holds the variants whose engine would end edge-run instead of being passed over, and how. `choice` is what
    edge-bench found, which edge-run tries first; `stale` says why it would not.
    """
    tried = {attempt.variant: attempt.error for attempt in attempts}
    chosen = next((variant for variant in order if tried.get(variant) == ""), None)
    refused = [f"{variant}: {tried[variant]}" for variant in order if tried.get(variant)]
    if chosen is None:
        if refused:
            return Check("bundle", "fail", f"{name}: no variant runs here; {refused[0]}", "rebuild it here with edge-quantize")
        engines = " or ".join(f"'edge-run[{engine}]'" for engine in missing)
        mend = f"pip install {engines}" if engines else "mend the engine above"
        return Check("bundle", "fail", f"{name}: no engine for any of its variants runs here", mend)
    first = next((variant for variant in order[: order.index(chosen)] if variant in (fatal or {})), None)
    if fatal and first is not None:
        text = f"{name}: edge-run would take {first}, whose engine {fatal[first]}; {chosen} runs"
        return Check("bundle", "fail", text, f"mend the engine above, or edge-run --variant {chosen}")
    before = [variant for variant in order[: order.index(chosen)] if tried.get(variant)]
    if before:
        text = f"{name}: {chosen} would run, {before[0]} passed over: {tried[before[0]]}"
        return Check("bundle", "warn", text, "mend the engine above, or rebuild the bundle with edge-quantize")
    text = f"{name}: {chosen} would run; its golden check agrees"
    if stale:
        return Check("bundle", "warn", f"{text}; {stale}", "edge-bench")
    return Check("bundle", "ok", f"{text}; before it {choice}" if choice else text)


def deadly(facts: EngineFacts) -> str:
    """How an engine ends the whole process, edge-run's too; empty for one that runs or only raises."""
    told = facts.told
    return ending(told) if told is not None and (told.code is None or told.code < 0) else ""


def attempts_of(facts: EngineFacts) -> list[Attempt]:
    """What became of the variants that a child process tried."""
    if facts.told is None:
        return []
    steps = facts.told.steps
    attempts = [Attempt(step["variant"], step.get("error", "")) for step in steps if step["step"] in ("ran", "refused")]
    if steps and steps[-1]["step"] == "open":
        attempts.append(Attempt(steps[-1]["variant"], f"its engine {ending(facts.told)}"))
    return attempts


def _broken(check: str, name: str, package: str, told: Probe, while_what: str, rows: Sequence[KnownBad]) -> Check:
    reason = f"{name} {ending(told)} {while_what}".strip()
    said = last_words(told.output)
    if said is not None:
        return Check(check, "fail", f"{reason}: it {said.problem} ({said.source})", said.mend)
    if rows:
        return Check(check, "fail", f"{reason}: {_known(rows[0])}", rows[0].mend)
    return Check(check, "fail", reason, f"pip install --force-reinstall {package}, or another version of it")


def _absent(engine: str, here: Here, others: Sequence[str]) -> Check:
    """An engine that is not installed, which matters only where no other is."""
    package = "tflite-runtime" if engine == "tflite" and here.machine == "armv7l" else PACKAGES[engine]
    rows = known_bad(package, here)
    mend = rows[0].mend if rows else f"pip install 'edge-run[{engine}]'"
    why = f"; {_known(rows[0])}" if rows else ""
    if others:
        return Check(f"engine {engine}", "ok", f"not installed{why}")
    return Check(f"engine {engine}", "fail", f"not installed, nor is another that runs{why}", mend)


def _accelerator(facts: EngineFacts, here: Here, board: Board, loaded: dict[str, Any]) -> tuple[str, str]:
    """What the engine has of the board's accelerators, and what mends it where it lacks one."""
    wanted = [choice.accelerator for choice in board.engines if choice.engine == facts.engine]
    wanted = [name for name in wanted if name in ACCELERATORS]
    lacking = [name for name in wanted if ACCELERATORS[name][0] not in loaded.get("accelerators", ())]
    if not lacking:
        return f" with {' and '.join(wanted)}" if wanted else "", ""
    rows = known_bad("onnxruntime-gpu", here) if facts.engine == "onnx" else []
    return f" on the CPU, without {' and '.join(lacking)}", rows[0].mend if rows else ACCELERATORS[lacking[0]][1]


def _known(row: KnownBad) -> str:
    return f"{row.package} {row.problem} ({row.source})"
