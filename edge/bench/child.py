"""The process that opens one configuration, so that one which dies takes nothing else with it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from edge.accuracy import labelled
from edge.bench.messages import Judged, Measured, Message, Phase, Refused, Request
from edge.bundle import Bundle, open_bundle
from edge.capture.lifetime import dying_with
from edge.engines import EngineOptions
from edge.errors import EdgeError
from edge.evaluate import DetectionReport, evaluate
from edge.model import Model, load_variant
from edge.sources.demo import DemoSource
from edge.summary import peak_rss_mb
from edge.types import Frame, Geometry, Result, Tensor

PICTURES, APART = 12, 15
"""Frames of the demo that are gone through again and again, and how many lie between two."""
LEAST_FRAMES = 5
WARM_FRAMES, WARM_MOST_S, STEADY = 5, 5.0, 0.05
SLICE_S = 1.0
SIGN_OF_LIFE_S = 1.0

Send = Callable[[Message], None]


def main() -> None:
    """Do what the line on standard input asks; the answers are lines on standard output, and nothing else is."""
    dying_with(int(sys.argv[1]))()
    link = os.dup(1)
    os.dup2(2, 1)  # what a C library prints must not come between

    def send(message: Message) -> None:
        data = msgspec.json.encode(message) + b"\n"
        while data:
            data = data[os.write(link, data) :]

    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    try:
        serve(request, send)
    except EdgeError as error:
        send(Refused(str(error)))
    except MemoryError:
        send(Refused("out of memory"))


def serve(request: Request, send: Send) -> None:
    """Answer one request. Raises EdgeError where the configuration does not work."""
    send(Phase("opening"))
    bundle = open_bundle(request.bundle)
    options = EngineOptions(request.threads, request.spin, accelerator=request.accelerator, options=request.options)
    started_s = time.perf_counter()
    model = load_variant(bundle, bundle.card.variant(request.variant), options)
    load_s = time.perf_counter() - started_s
    if request.do == "judge":
        send(Phase("judging"))
        send(judged(bundle, model, request, send))
        return
    frames = demo_frames()
    send(Phase("warming"))
    warm_up(model, frames, min(WARM_MOST_S, request.seconds + 1.0))
    send(Phase("measuring"))
    while True:
        seconds = SLICE_S if request.do == "sustain" else request.seconds
        send(measured(model, frames, seconds, load_s))
        if request.do == "measure":
            return


def demo_frames() -> list[Frame]:
    """Pictures of 640x480, as edge-run --source demo has them."""
    demo = DemoSource()
    demo.open()
    return [Frame(demo.picture(number * APART), number, 0.0, "bench") for number in range(PICTURES)]


def one_frame(model: Model, frame: Frame) -> tuple[float, float]:
    """Milliseconds of the inference, and of prepare + infer + decode."""
    started_s = time.perf_counter()
    tensor = model.task.prepare(frame)
    prepared_s = time.perf_counter()
    outputs = model.engine.infer(tensor)
    inferred_s = time.perf_counter()
    model.task.decode(outputs, tensor)
    return (inferred_s - prepared_s) * 1e3, (time.perf_counter() - started_s) * 1e3


def warm_up(model: Model, frames: Sequence[Frame], most_s: float) -> int:
    """Infer until five frames take what the five before them took, but for a twentieth; how many frames that were."""
    until_s = time.perf_counter() + most_s
    taken: list[float] = []
    while True:
        taken.append(one_frame(model, frames[len(taken) % len(frames)])[1])
        if len(taken) >= 2 * WARM_FRAMES:
            now, before = median(taken[-WARM_FRAMES:]), median(taken[-2 * WARM_FRAMES : -WARM_FRAMES])
            if abs(now - before) <= STEADY * before:
                break
        if time.perf_counter() >= until_s:
            break
    return len(taken)


def measured(model: Model, frames: Sequence[Frame], seconds: float, load_s: float) -> Measured:
    """Frames for so many seconds, and a few at least."""
    engine_ms: list[float] = []
    frame_ms: list[float] = []
    started_s = time.perf_counter()
    while time.perf_counter() - started_s < seconds or len(frame_ms) < LEAST_FRAMES:
        of_engine, of_frame = one_frame(model, frames[len(frame_ms) % len(frames)])
        engine_ms.append(round(of_engine, 4))
        frame_ms.append(round(of_frame, 4))
    return Measured(engine_ms, frame_ms, time.perf_counter() - started_s, load_s, peak_memory_mb())


def judged(bundle: Bundle, model: Model, request: Request, send: Send) -> Judged:
    """The golden outputs against ours and, where there are labelled pictures, the accuracy on them."""
    picture, expected = bundle.golden(model.variant)
    height, width = picture.shape[1:3]
    outputs = model.engine.infer(Tensor(picture, Geometry((1.0, 1.0), (0.0, 0.0), (width, height))))
    difference = max(float(np.abs(outputs[role] - want).max(initial=0.0)) for role, want in expected.items())
    same_best = None
    if bundle.card.task == "classify":
        same_best = all(int(outputs[role].argmax()) == int(want.argmax()) for role, want in expected.items())
    if request.data is None:
        return Judged(difference, model.variant.tolerance, same_best)
    last_s = time.monotonic()

    def heard(path: Path, result: Result) -> None:
        nonlocal last_s
        if time.monotonic() - last_s > SIGN_OF_LIFE_S:
            last_s = time.monotonic()
            send(Phase("judging"))

    samples = labelled(bundle, Path(request.data), request.limit)
    report = evaluate(model, samples, heard=heard)
    figure = report.ap50 if isinstance(report, DetectionReport) else report.top1
    return Judged(difference, model.variant.tolerance, same_best, figure, report.images)


def peak_memory_mb() -> float:
    """The most memory since this program began; what getrusage tells begins with the process that started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return peak_rss_mb()


if __name__ == "__main__":
    main()
