"""What edge-doctor runs in a child process, because it may die there: an engine's import, a bundle's golden check, Picamera2.

Each step is a line of JSON on standard output before it begins, so that the last one names where a crash came.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.extras import EDGE_TPU

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.card import Variant
    from edge.engines import EngineOptions

TIMEOUT_S = 90.0
"""For a Zero 2 W that swaps, or an emulator."""
START = (
    "import sys; sys.path[:] = sys.argv[1].split(':'); sys.argv[:2] = []; from edge.doctor.probe import main; main(sys.argv)"
)
OUTPUT_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Probe:
    """What a child process told: its steps, its exit code (negative: a signal; None: too late), and what else it printed."""

    steps: tuple[dict[str, Any], ...]
    code: int | None
    output: str


def probe(arguments: Sequence[str], timeout_s: float = TIMEOUT_S) -> Probe:
    """Run this module's `main` in a child process with the modules that this one would find."""
    path = ":".join(sys.path)
    command = [sys.executable, "-c", START, path, *arguments]
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore", "LIBCAMERA_LOG_LEVELS": "*:FATAL"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, env=environment, check=False
        )
        out, err, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        out, err, code = late.stdout or b"", late.stderr or b"", None
    steps: list[dict[str, Any]] = []
    other: list[str] = []
    for line in out.decode("utf-8", "replace").splitlines():
        try:
            step = json.loads(line)
            steps.append({"step": step["step"], **step})
        except (ValueError, TypeError, KeyError):
            other.append(line)
    return Probe(tuple(steps), code, "\n".join([*other, err.decode("utf-8", "replace")])[-OUTPUT_LIMIT:])


def has_packages(told: Probe) -> bool:
    """Whether NumPy and OpenCV load, so that the parent may import them, too."""
    return any(step["step"] == "packaged" for step in told.steps)


def ending(told: Probe) -> str:
    """How a child process that did not come to its end ended."""
    if told.code is None:
        return f"does not come to an end within {TIMEOUT_S:.0f} s"
    if told.code < 0:
        try:
            name = signal.Signals(-told.code).name
        except ValueError:
            name = f"signal {-told.code}"
        return f"dies of {name} ({(signal.strsignal(-told.code) or 'unknown').lower()})"
    lines = [line.strip() for line in told.output.splitlines() if line.strip()]
    return f"fails: {lines[-1]}" if lines else f"ends with exit code {told.code}"


def main(arguments: Sequence[str]) -> None:
    """`engine NAME MODULE BUNDLE MACHINE THREADS [chosen]`, `packages`, `picamera`, or, for tests, `crash SIGNAL`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind, *rest = arguments
    kinds: dict[str, Callable[..., None]] = {
        "engine": _engine,
        "packages": _packages,
        "picamera": _picamera,
        "crash": _crash,
    }
    kinds[kind](*rest)
    tell("end")
    sys.stdout.flush()
    os._exit(0)  # a library that fails on the way out has done its work


def tell(step: str, **facts: object) -> None:
    """One step, at once."""
    print(json.dumps({"step": step, **facts}), flush=True)  # noqa: T201


def _packages() -> None:
    """NumPy and OpenCV, which everything needs."""
    tell("packages")
    import cv2
    import numpy as np

    tell("packaged", numpy=np.__version__, cv2=cv2.__version__)


def _engine(name: str, module: str, bundle_path: str, machine: str, threads: str, chosen: str = "") -> None:
    """Load an engine and run variants until one agrees: with `chosen` edge-bench's choice first, as edge-run does."""
    _packages()
    tell("load")
    package = importlib.import_module(f"{module}.interpreter" if name == "tflite" else module)
    tell("loaded", accelerators=_edge_tpu() if name == "tflite" else package.get_available_providers())
    from edge.bundle import open_bundle
    from edge.engines import EngineOptions
    from edge.model import preference

    try:
        bundle = open_bundle(bundle_path)
    except EdgeError:  # the parent says what is wrong with it
        return
    variants = preference(bundle.card.variants, machine)
    tell("order", variants=[variant.name for variant in variants])
    mine = [variant for variant in variants if variant.engine == name]
    options = EngineOptions(int(threads))
    if chosen and _ran_choice(bundle, mine, options):
        return
    for variant in mine:
        if _ran(bundle, variant, options):
            return


def _ran_choice(bundle: Bundle, variants: Sequence[Variant], options: EngineOptions) -> bool:
    """Whether edge-bench's choice is one of these variants and runs."""
    from devices import detect
    from edge.choice import remembered

    choice = remembered(detect(), bundle, lambda line: None)
    variant = next((each for each in variants if choice is not None and each.name == choice.variant), None)
    if choice is None or variant is None:
        return False
    asked = replace(options, threads=choice.threads, accelerator=choice.accelerator, options=choice.options)
    return _ran(bundle, variant, asked, chosen=True)


def _ran(bundle: Bundle, variant: Variant, options: EngineOptions, *, chosen: bool = False) -> bool:
    """Open a variant, hold it to its golden check, and tell how that went."""
    from edge.model import load_variant

    tell("open", variant=variant.name, chosen=chosen)
    begun_s = time.perf_counter()
    try:
        load_variant(bundle, variant, options).engine.close()
    except EdgeError as error:
        tell("refused", variant=variant.name, chosen=chosen, error=str(error))
        return False
    tell("ran", variant=variant.name, chosen=chosen, ms=round((time.perf_counter() - begun_s) * 1e3))
    return True


def _edge_tpu() -> list[str]:
    """The Edge TPU's library, where it loads."""
    try:
        ctypes.CDLL(EDGE_TPU)
    except OSError:
        return []
    return [EDGE_TPU]


def _picamera() -> None:
    tell("load")
    module = importlib.import_module("picamera2")
    tell("cameras", count=len(module.Picamera2.global_camera_info()))


def _crash(number: str) -> None:
    tell("load")
    os.kill(os.getpid(), int(number))
