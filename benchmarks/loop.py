"""`edge-run` against a hand-written loop (handwritten.py): the same model file, video, threads and spinning.

Whole processes are started in turn, A B A B ..., after one uncounted run of each, and everything is measured from
outside by the same means: a JSON line a frame arrives on a pipe, the kernel accounts for CPU time and peak memory.

    python benchmarks/loop.py [--model BUNDLE] [--variant NAME] [--video FILE] [--threads N ...] [--pairs N] [--json FILE]

Only the standard library is imported here: the kernel counts the memory of the process that starts a child as the
child's own until it has its own image, so this one must stay the smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from devices import processor

HANDWRITTEN = Path(__file__).with_name("handwritten.py")
EDGE_RUN = Path(sys.executable).with_name("edge-run")
DEMO_FRAMES = 450


@dataclass(frozen=True, slots=True)
class Trial:
    """What both loops are given."""

    bundle: str
    name: str
    variant: str
    model: str
    labels: str
    crop: float
    interpolation: str
    exact: bool
    spin: bool
    video: str
    video_is: str


@dataclass(frozen=True, slots=True)
class Run:
    """One process, seen from outside. `best` is each frame's best class."""

    frames: int
    loop_fps: float
    whole_fps: float
    first_s: float
    peak_mb: float
    cpu_ms_a_frame: float
    best: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the table: a field of Run, how ours relates to theirs, and issue 2's target."""

    what: str
    field: str
    relate: Callable[[float, float], float]
    style: str
    target: str


def ratio(ours: float, theirs: float) -> float:
    return ours / theirs


def difference(ours: float, theirs: float) -> float:
    return ours - theirs


MEASURES = (
    Measure("frames/s, first to last result", "loop_fps", ratio, "{:.3f}x", "≥ 0.95x"),
    Measure("frames/s, whole process", "whole_fps", ratio, "{:.3f}x", ""),
    Measure("first result, s after start", "first_s", difference, "{:+.2f} s", "≤ +0.4 s"),
    Measure("peak memory, MB", "peak_mb", difference, "{:+.1f} MB", "≤ +40 MB"),
    Measure("CPU ms a frame", "cpu_ms_a_frame", ratio, "{:.3f}x", ""),
)


def prepare(bundle: str | None, variant: str | None, video: str | None, work: str) -> Trial:
    """Take the model out of its bundle and find a video; runs in a process of its own, whose memory goes with it."""
    from devices import detect
    from edge.bundle import DEFAULT_BUNDLE, open_bundle
    from edge.errors import EdgeError
    from edge.model import preference

    board = detect()
    try:
        opened = open_bundle(bundle or DEFAULT_BUNDLE)
        preferred = preference(opened.card.variants, board.machine)
        chosen = opened.card.variant(variant) if variant else next((v for v in preferred if v.engine == "onnx"), preferred[0])
    except EdgeError as error:
        raise SystemExit(f"loop.py: {error}") from None
    spec = opened.card.input
    if chosen.engine != "onnx" or chosen.input.dtype != "uint8" or chosen.input.layout != "nhwc":
        raise SystemExit(f"loop.py: {chosen.name} is not an ONNX file with uint8 NHWC input; choose another --variant")
    if (spec.width, spec.color, spec.resize) != (spec.height, "rgb", "crop"):
        raise SystemExit("loop.py: handwritten.py only does a square, centred crop to RGB; choose another --model")
    model, labels = Path(work, chosen.file), Path(work, "labels.txt")
    model.write_bytes(opened.model_bytes(chosen))
    labels.write_text("\n".join(label.name for label in opened.card.labels))
    vtest = Path(os.environ.get("EDGE_DATA", "/nonexistent"), "videos", "vtest.avi")
    if video is None and vtest.is_file():
        video = str(vtest)
    return Trial(
        bundle=opened.where,
        name=opened.card.name,
        variant=chosen.name,
        model=str(model),
        labels=str(labels),
        crop=spec.crop_fraction,
        interpolation=spec.interpolation,
        exact=chosen.precision == "int8" and chosen.weight_bits == 8,
        spin=board.spin,
        video=video or demo_video(Path(work, "demo.avi")),
        video_is=video or f"{DEMO_FRAMES} frames made here of the packaged photographs (no --video, no vtest.avi in EDGE_DATA)",
    )


def demo_video(path: Path) -> str:
    """The demo source's pictures as a file, the same on every machine."""
    import cv2

    from edge.sources.demo import FPS, SIZE_WH, DemoSource

    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE_WH)
    with DemoSource() as demo:
        for sequence in range(DEMO_FRAMES):
            writer.write(demo.picture(sequence))
    writer.release()
    return str(path)


def ours(trial: Trial, threads: int, frames: int) -> list[str]:
    """The command line of edge-run."""
    command = [str(EDGE_RUN), "--model", trial.bundle, "--variant", trial.variant, "--threads", str(threads)]
    command += ["--source", trial.video, "--events", "-", "--spin" if trial.spin else "--no-spin"]
    return command + (["--max-frames", str(frames)] if frames else [])


def theirs(trial: Trial, threads: int, frames: int) -> list[str]:
    """The command line of the hand-written loop."""
    command = [sys.executable, str(HANDWRITTEN), trial.model, trial.video, trial.labels, "--threads", str(threads)]
    command += ["--crop", str(trial.crop), "--interpolation", trial.interpolation]
    command += [*(["--spin"] if trial.spin else []), *(["--exact"] if trial.exact else [])]
    return command + (["--frames", str(frames)] if frames else [])


def measure(command: Sequence[str]) -> Run:
    """Run a command that writes a JSON line a frame on standard output, and account for all of it."""
    with tempfile.TemporaryFile() as said:
        started_s = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said)
        assert process.stdout is not None
        chunks: list[bytes] = []
        first_s = last_s = 0.0
        while chunk := os.read(process.stdout.fileno(), 1 << 20):
            last_s = time.monotonic()
            first_s = first_s or last_s
            chunks.append(chunk)
        _, status, usage = os.wait4(process.pid, 0)
        ended_s = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        lines = b"".join(chunks).splitlines()
        if process.returncode or len(lines) < 2:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise SystemExit(f"loop.py: {command[0]} exited {process.returncode} after {len(lines)} lines")
    return Run(
        frames=len(lines),
        loop_fps=(len(lines) - 1) / (last_s - first_s),
        whole_fps=len(lines) / (ended_s - started_s),
        first_s=first_s - started_s,
        peak_mb=usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10),
        cpu_ms_a_frame=(usage.ru_utime + usage.ru_stime) * 1e3 / len(lines),
        best=tuple(_best(json.loads(line)) for line in lines),
    )


def _best(line: dict[str, Any]) -> str:
    return str(line.get("result", line)["classes"][0]["label"])


def agreement(one: Run, other: Run) -> float:
    """The share of frames on whose best class two runs agree. Exits when they are not about the same frames."""
    if one.frames != other.frames:
        raise SystemExit(f"loop.py: edge-run gave {one.frames} frames and the hand-written loop {other.frames}")
    return sum(a == b for a, b in zip(one.best, other.best, strict=True)) / one.frames


def rows(pairs: Sequence[tuple[Run, Run]]) -> list[list[str]]:
    """The table's cells: each side's median, and the median of the pairwise relation with its range."""
    table = []
    for row in MEASURES:
        values = [(getattr(a, row.field), getattr(b, row.field)) for a, b in pairs]
        related = sorted(row.relate(a, b) for a, b in values)
        middle = row.style.format(statistics.median(related))
        spread = f"{row.style.format(related[0])} to {row.style.format(related[-1])}"
        sides = [f"{statistics.median(side):.2f}" for side in zip(*values, strict=True)]
        table.append([row.what, *sides, middle, spread, row.target])
    return table


def markdown(table: Sequence[Sequence[str]]) -> str:
    head = ["", "edge-run", "hand-written", "edge-run is", "pairs from", "target"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *table])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", metavar="BUNDLE", help="default: the bundle in the package")
    parser.add_argument("--variant", metavar="NAME", help="default: the ONNX one that suits this machine best")
    parser.add_argument("--video", metavar="FILE", help="default: vtest.avi of EDGE_DATA, else one of the packaged photographs")
    parser.add_argument("--threads", metavar="N", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", metavar="N", type=int, default=5)
    parser.add_argument("--frames", metavar="N", type=int, default=0, help="of the video; default: all")
    parser.add_argument("--json", metavar="FILE", dest="json_path", help="also write every run's figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as work:
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:
            trial = apart.submit(prepare, args.model, args.variant, args.video, work).result()
        stamp = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        print(f"{stamp}; {processor()}; Python {platform.python_version()}")
        print(f"model {trial.name}, variant {trial.variant}, {'' if trial.spin else 'not '}spinning; video: {trial.video_is}")
        record: dict[str, Any] = {"at": stamp, "processor": processor(), "trial": asdict(trial), "threads": {}}
        for threads in args.threads:
            commands = [side(trial, threads, args.frames) for side in (ours, theirs)]
            same = agreement(*(measure(command) for command in commands))  # uncounted: it warms the file cache
            load = os.getloadavg()[0]
            pairs = [(measure(commands[0]), measure(commands[1])) for _ in range(args.pairs)]
            print(
                f"\n{threads} thread{'s' * (threads > 1)}, {pairs[0][0].frames} frames, {args.pairs} pairs; "
                f"same best class on {same:.1%} of frames; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after\n"
            )
            print(markdown(rows(pairs)), flush=True)
            record["threads"][threads] = {
                "agreement": same,
                "pairs": [[{k: v for k, v in asdict(run).items() if k != "best"} for run in pair] for pair in pairs],
            }
    if args.json_path:
        Path(args.json_path).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
