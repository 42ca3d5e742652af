"""Checks of engines and of the bundle they are to run, from what child processes told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devices import Board
from edge.doctor.check import Check
from edge.doctor.known_bad import Here, KnownBad, known_bad, last_words
from edge.doctor.probe import Probe, ending
from edge.extras import DISTRIBUTIONS, EDGE_TPU

if TYPE_CHECKING:
    from edge.choice import Choice

ACCELERATORS = {
    "cuda": ("CUDAExecutionProvider", "pip install onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "pip install onnxruntime-gpu"),
    "edgetpu": (EDGE_TPU, "sudo apt install libedgetpu1-std, from https://coral.ai/software/"),
}
"""Accelerator → what an engine that has it names, and how to get it."""
PACKAGES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
OLD_TFLITE = "tflite-runtime 'numpy<2'"
"""What there is for 32-bit ARM."""
DAMAGED = "copy the bundle again, or rebuild it with edge-quantize"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine by its name, the module that was tried, and what the child process told; None: nothing is installed."""

    engine: str
    module: str = ""
    told: Probe | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A variant that was tried, and why it did not run; "" when it did. `chosen`: as edge-bench's choice has it."""

    variant: str
    error: str
    chosen: bool = False


def engine_check(facts: EngineFacts, here: Here, board: Board, others: Sequence[str]) -> Check:
    """Whether an engine loads and runs; `others` are the engines that do."""
    if facts.told is None:
        return _absent(facts.engine, here, others)
    brought = [name for name in DISTRIBUTIONS[facts.engine] if name.replace("-", "_").startswith(facts.module)]
    package = next((name for name in reversed(brought) if name in here.versions), facts.module)
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
    choice: Choice | None = None,
    stale: str = "",
    damaged: Sequence[str] = (),
) -> Check:
    """Which variant edge-run would take: edge-bench's `choice` where it ran, else the first of `order` that did.

    `missing` are packages to install. `fatal` holds the variants whose engine would end edge-run instead of being passed
    over, and how. `stale` says why a choice does not count, and `damaged` what is wrong with the bundle's files.
    """
    fatal = fatal or {}
    tried = {attempt.variant: attempt.error for attempt in attempts if not attempt.chosen}
    plain = next((variant for variant in order if tried.get(variant) == ""), None)
    as_chosen = next((attempt for attempt in attempts if attempt.chosen), None)
    ran_as_chosen = as_chosen is not None and not as_chosen.error
    if damaged:
        taken = choice.what if choice is not None and ran_as_chosen else plain
        more = f", and {len(damaged) - 1} more of its files" if len(damaged) > 1 else ""
        then = f"; {taken} would run" if taken else "; no variant runs"
        return Check("bundle", "fail", f"{name}: {damaged[0]}{more}{then}", DAMAGED)
    if choice is not None and ran_as_chosen:
        text = f"{name}: {choice.what} would run, edge-bench's choice of {choice.measured}; its golden check agrees"
        return Check("bundle", "ok", text)
    if plain is None:
        return _nothing_runs(name, [f"{variant}: {tried[variant]}" for variant in order if tried.get(variant)], missing)
    before = order[: order.index(plain)]
    first = next((variant for variant in ([choice.variant] if choice else []) + [*before] if variant in fatal), None)
    if first is not None:
        text = f"{name}: edge-run would take {first}, whose engine {fatal[first]}; {plain} runs"
        return Check("bundle", "fail", text, f"mend the engine above, or edge-run --variant {plain}")
    text = f"{name}: {plain} would run"
    if choice is not None:
        absent = "its engine does not run" if choice.variant in order else "the bundle has no such variant"
        why = as_chosen.error if as_chosen else absent
        passed = f"{choice.what}, edge-bench's choice of {choice.measured}, passed over: {why}"
        return Check("bundle", "warn", f"{text}, {passed}", "edge-bench, which chooses again")
    refused = [variant for variant in before if tried.get(variant)]
    if refused:
        mend = "rebuild the bundle with edge-quantize on this machine, or give another --model"
        return Check("bundle", "warn", f"{text}, {refused[0]} passed over: {tried[refused[0]]}", mend)
    text = f"{text}; its golden check agrees"
    return Check("bundle", "warn", f"{text}; {stale}", "edge-bench") if stale else Check("bundle", "ok", text)


def _nothing_runs(name: str, refused: Sequence[str], missing: Sequence[str]) -> Check:
    if refused:
        return Check("bundle", "fail", f"{name}: no variant runs here; {refused[0]}", "rebuild it here with edge-quantize")
    mend = f"pip install {', or '.join(missing)}" if missing else "mend the engine above"
    return Check("bundle", "fail", f"{name}: no engine for any of its variants runs here", mend)


def deadly(facts: EngineFacts) -> str:
    """How an engine ends the whole process, edge-run's too; empty for one that runs or only raises."""
    told = facts.told
    return ending(told) if told is not None and (told.code is None or told.code < 0) else ""


def attempts_of(facts: EngineFacts) -> list[Attempt]:
    """What became of the variants that a child process tried."""
    if facts.told is None:
        return []
    steps = facts.told.steps
    attempts = [
        Attempt(step["variant"], step.get("error", ""), step.get("chosen", False))
        for step in steps
        if step["step"] in ("ran", "refused")
    ]
    if steps and steps[-1]["step"] == "open":
        last = steps[-1]
        attempts.append(Attempt(last["variant"], f"its engine {ending(facts.told)}", last.get("chosen", False)))
    return attempts


def package_of(engine: str, here: Here) -> str:
    """What pip installs to have an engine here."""
    return OLD_TFLITE if engine == "tflite" and here.machine == "armv7l" else PACKAGES[engine]


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
    package = package_of(engine, here)
    rows = known_bad(package.split()[0], here)
    mend = rows[0].mend if rows else f"pip install {package}"
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
