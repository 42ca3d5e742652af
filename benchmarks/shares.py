"""Where the CPU time of the loop goes: the engine, the video's decoder, preparing and decoding, and all else.

Everything runs as in edge-run, with one engine thread and events into a file, in this process; the clocks are those of
the threads. What FFmpeg's threads use is the decoder's.

    python benchmarks/shares.py --model BUNDLE [--variant NAME] [--frames N] VIDEO
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.bundle import open_bundle
from edge.loop import Scene, run
from edge.model import open_model
from edge.policies import LocalOnly
from edge.protocols import Task
from edge.sinks.jsonl import JsonlSink
from edge.sinks.queued import QueuedSink
from edge.sources.video import VideoSource
from edge.types import Frame, Outputs, Result, Tensor

WARM_UP = 50
TASKS = Path("/proc/self/task")


class Clock:
    """CPU seconds by what they were for, of whichever threads came by."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, what: str, call: Any, *arguments: Any) -> Any:
        """Call it, and count what this thread used meanwhile."""
        begun_s = time.thread_time()
        try:
            return call(*arguments)
        finally:
            with self._lock:
                self.spent[what] = self.spent.get(what, 0.0) + time.thread_time() - begun_s


class CountedVideo(VideoSource):
    """A video whose reading is counted."""

    clock: Clock

    def frames(self) -> Iterator[Frame]:
        """Its frames."""
        frames = iter(super().frames())
        while (frame := self.clock("decoder", next, frames, None)) is not None:
            yield frame


class CountedEngine:
    """An engine whose inferences are counted."""

    def __init__(self, engine: Any, clock: Clock) -> None:
        self._engine, self._clock = engine, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def infer(self, tensor: Tensor) -> Outputs:
        """Its answer."""
        outputs: Outputs = self._clock("engine", self._engine.infer, tensor)
        return outputs


class CountedTask:
    """A task of which both halves are counted."""

    def __init__(self, task: Task, clock: Clock) -> None:
        self._task, self._clock = task, clock

    def prepare(self, frame: Frame) -> Tensor:
        """Its tensor."""
        tensor: Tensor = self._clock("prepare", self._task.prepare, frame)
        return tensor

    def decode(self, outputs: Outputs, tensor: Tensor) -> Result:
        """Its result."""
        result: Result = self._clock("decode", self._task.decode, outputs, tensor)
        return result


def foreign_threads() -> dict[str, float]:
    """CPU seconds of the threads that are none of Python's, by the name they gave themselves."""
    ours = {thread.native_id for thread in threading.enumerate()}
    spent: dict[str, float] = {}
    for task in TASKS.iterdir():
        if int(task.name) not in ours:
            name = (task / "comm").read_text().strip()
            spent[name] = spent.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--variant")
    parser.add_argument("--frames", type=int, default=700)
    parser.add_argument("video", type=Path)
    options = parser.parse_args()
    clock = Clock()
    model = open_model(open_bundle(options.model), variant=options.variant, threads=1)
    model = replace(model, engine=CountedEngine(model.engine, clock))  # type: ignore[arg-type]
    source = CountedVideo(options.video)
    source.clock = clock
    scene = Scene(policy=LocalOnly(), view=lambda task: CountedTask(task, clock))
    with source, tempfile.NamedTemporaryFile() as events:
        sink = QueuedSink(JsonlSink(events.name, print), "events", print, waits=True)
        begun: dict[str, float] = {}
        shown = run([source], model, [scene])
        for number, event in enumerate(shown):
            sink.emit(event)
            if number == WARM_UP:
                begun = {"total": time.process_time(), **clock.spent, **{f"({k})": v for k, v in foreign_threads().items()}}
            if number == WARM_UP + options.frames:
                break
        ended = {"total": time.process_time(), **clock.spent, **{f"({k})": v for k, v in foreign_threads().items()}}
        shown.close()  # type: ignore[attr-defined]
        sink.close()
    spent = {what: (seconds - begun.get(what, 0.0)) / options.frames * 1e3 for what, seconds in ended.items()}
    total = spent.pop("total")
    print(f"{model.name} {model.variant.name}, {options.video}, {options.frames} frames, one engine thread\n")
    print("| | CPU ms a frame | of all |\n|---|---|---|")
    for what, ms in [*spent.items(), ("all else", total - sum(spent.values())), ("all", total)]:
        print(f"| {what} | {ms:.3f} | {ms / total:.1%} |")


if __name__ == "__main__":
    main()
