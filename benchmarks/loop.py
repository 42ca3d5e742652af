"""`edge-run` against hand-written loops: the same model, video, threads and spinning.

A classifier is measured against handwritten.py, a YOLOX detector against handwritten_detector.py on the ONNX file that
its bundle was made of, and any detector, where asked, against the loops of other projects (peer_*.py), each run by the
interpreter of an environment that has it, or skipped with the reason. Whole processes are started in turn, A B A B ...,
after one uncounted run of each, and everything is measured from outside by the same means (process_tree.py).

    python benchmarks/loop.py [--model BUNDLE] [--detector BUNDLE] [--threads N ...] [--pairs N] [--json FILE] ...

Only the standard library is imported here: see process_tree.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from process_tree import watch
from trials import DETECTOR, PEERS, Trial, ours, prepare, theirs

from devices import processor

SURE = 0.3
"""Objects of at least this score are compared."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process tree, seen from outside. `seen` is each frame's best class, or the labels of its sure objects."""

    frames: int
    loop_fps: float
    whole_fps: float
    first_s: float
    peak_mb: float
    cpu_ms_a_frame: float
    seen: tuple[Counter[str], ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the table: a field of Run, and how ours relates to theirs."""

    what: str
    field: str
    relate: Callable[[float, float], float]
    style: str


def ratio(ours: float, theirs: float) -> float:
    return ours / theirs


def difference(ours: float, theirs: float) -> float:
    return ours - theirs


MEASURES = (
    Measure("frames/s, first to last result", "loop_fps", ratio, "{:.3f}x"),
    Measure("frames/s, whole process", "whole_fps", ratio, "{:.3f}x"),
    Measure("first result, s after start", "first_s", difference, "{:+.2f} s"),
    Measure("peak memory, MB", "peak_mb", difference, "{:+.1f} MB"),
    Measure("CPU ms a frame", "cpu_ms_a_frame", ratio, "{:.3f}x"),
)

TARGETS: dict[str, dict[str, str]] = {
    "classifier": {"loop_fps": "≥ 0.95x", "first_s": "≤ +0.4 s", "peak_mb": "≤ +40 MB"},
    "float32 detector": {
        "loop_fps": "≥ 1.05x",
        "first_s": "≤ +0.25 s",
        "peak_mb": "≤ +30 MB",
        "cpu_ms_a_frame": "≤ 1.03x",
    },
    "int8 detector": {"loop_fps": "≥ 1.2x"},
    "peer": {},
}
"""Kind of trial → field of Run → what issue 2 wants of the median."""


def measure(command: Sequence[str], temperature: float = 1.0) -> Run:
    """Run a command that writes a JSON line a frame on standard output, and account for all of it."""
    watched = watch(command)
    frames = []
    for came_s, line in watched.lines:
        record = json.loads(line)
        if record.get("kind", "frame") == "frame":  # edge-run has notices between them
            frames.append((record["seq"], came_s, seen(record, temperature)))
    if len(frames) < 2:
        raise SystemExit(f"loop.py: {command[0]} gave {len(frames)} frames")
    came = [came_s for _, came_s, _ in frames]
    return Run(
        frames=len(frames),
        loop_fps=(len(frames) - 1) / (came[-1] - came[0]),
        whole_fps=len(frames) / watched.whole_s,
        first_s=came[0],
        peak_mb=watched.peak_mb,
        cpu_ms_a_frame=watched.cpu_s * 1e3 / len(frames),
        seen=tuple(what for _, _, what in sorted(frames, key=lambda frame: frame[0])),
    )


def seen(record: dict[str, Any], temperature: float) -> Counter[str]:
    """A classifier's best class, or the labels of a detector's objects that score at least SURE before calibration."""
    result = record.get("result", record)
    if "classes" in result:
        return Counter([result["classes"][0]["label"]])
    return Counter(found["label"] for found in result["objects"] if uncalibrated(found["score"], temperature) >= SURE)


def uncalibrated(score: float, temperature: float) -> float:
    """sigmoid(temperature * logit(score)): edge-run's scores are calibrated, the other loop's are as the model has them."""
    if not 0 < score < 1:
        return score
    odds = (score / (1 - score)) ** temperature
    return odds / (1 + odds)


def agreement(one: Run, other: Run) -> tuple[float, float]:
    """The share of frames in which two runs saw the same, and the share of labels that both saw (2 common / all).

    Exits when they are not about the same frames.
    """
    if one.frames != other.frames:
        raise SystemExit(f"loop.py: edge-run gave {one.frames} frames and the other loop {other.frames}")
    both = list(zip(one.seen, other.seen, strict=True))
    common, every = sum((a & b).total() for a, b in both), sum(a.total() + b.total() for a, b in both)
    return sum(a == b for a, b in both) / one.frames, 2 * common / every if every else 1.0


def rows(pairs: Sequence[tuple[Run, Run]], targets: dict[str, str]) -> list[list[str]]:
    """The table's cells: each side's median, and the median of the pairwise relation with its range."""
    table = []
    for row in MEASURES:
        values = [(getattr(a, row.field), getattr(b, row.field)) for a, b in pairs]
        related = sorted(row.relate(a, b) for a, b in values)
        middle = row.style.format(statistics.median(related))
        spread = f"{row.style.format(related[0])} to {row.style.format(related[-1])}"
        sides = [f"{statistics.median(side):.2f}" for side in zip(*values, strict=True)]
        table.append([row.what, *sides, middle, spread, targets.get(row.field, "")])
    return table


def markdown(table: Sequence[Sequence[str]]) -> str:
    """The first row is the head."""
    head, *rest = table
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rest])


def compare(trial: Trial, threads: int, pairs_wanted: int, frames: int) -> dict[str, Any]:
    """Measure one trial on so many threads, print its table, and return every run's figures."""
    commands = [side(trial, threads, frames) for side in (ours, theirs)]
    both = list(zip(commands, (trial.temperature, 1.0), strict=True))
    warm = [measure(*one) for one in both]  # uncounted: it warms the file cache
    same, common = agreement(*warm)
    load = os.getloadavg()[0]
    pairs = [(measure(*both[0]), measure(*both[1])) for _ in range(pairs_wanted)]
    alike = f"same best class on {same:.1%} of frames"
    objects = [sum(what.total() for what in run.seen) for run in warm]
    if trial.kind != "classifier":
        alike = (
            f"{objects[0]} and {objects[1]} objects from a score of {SURE}, same labels on {same:.1%} of frames, "
            f"{common:.1%} of labels in common"
        )
    print(
        f"\n{threads} thread{'s' * (threads > 1)}, {pairs[0][0].frames} frames, {pairs_wanted} pair{'s' * (pairs_wanted > 1)}; "
        f"{alike}; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after\n"
    )
    head = ["", "edge-run", trial.peer_is, "edge-run is", "pairs from", "target"]
    print(markdown([head, *rows(pairs, TARGETS[trial.kind])]), flush=True)
    return {
        "agreement": same,
        "labels_in_common": common,
        "objects": objects,
        "pairs": [[{k: v for k, v in asdict(run).items() if k != "seen"} for run in pair] for pair in pairs],
    }


def installed(sizes: dict[str, float]) -> str:
    """The installed sizes as a table."""
    apart = f"{sizes['edge-run'] - sizes['hand-written']:+.1f} MB, {sizes['bundle']:.1f} of them the packaged bundle"
    figures = ["installed files, MB", f"{sizes['edge-run']:.1f}", f"{sizes['hand-written']:.1f}", apart]
    return markdown([["", "edge-run[onnx]", "opencv-python-headless, numpy, onnxruntime", "edge-run is"], figures])


def peer_python(given: str) -> tuple[str, str]:
    """ultralytics=/somewhere/bin/python, apart."""
    package, equals, python = given.partition("=")
    if package not in PEERS or not equals:
        raise argparse.ArgumentTypeError(f"{given}: not one of {', '.join(PEERS)}, then = and an interpreter")
    return package, python


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", metavar="BUNDLE", help="a classifier or a detector; default: the bundle in the package")
    parser.add_argument("--variant", metavar="NAME", help="of --model; default: the ONNX one that suits this machine best")
    parser.add_argument("--detector", metavar="BUNDLE", help=f"also this YOLOX; default without --model: {DETECTOR}, if any")
    parser.add_argument("--original", metavar="FILE", type=Path, help="its ONNX file; default: yolox_nano_416 of EDGE_DATA")
    parser.add_argument("--video", metavar="FILE", help="default: vtest.avi of EDGE_DATA, else one of the packaged photographs")
    parser.add_argument("--threads", metavar="N", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", metavar="N", type=int, default=5)
    parser.add_argument("--frames", metavar="N", type=int, default=0, help="of the video; default: all")
    parser.add_argument("--json", metavar="FILE", dest="json_path", help="also write every run's figures")
    for package, peer in PEERS.items():
        words = f"{package}'s loop over a model against the bundle made of it; without --model or --detector only peers are run"
        parser.add_argument(f"--{package}", metavar=("BUNDLE", peer.model), nargs=2, help=words)
    words = "the interpreter that has a peer; default: this one; may be given again"
    parser.add_argument("--peer-python", metavar="PEER=PYTHON", type=peer_python, action="append", default=[], help=words)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as work:
        # apart, because the memory of this process counts as its children's (process_tree.py)
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:
            trials, sizes = apart.submit(prepare, args, work).result()
        stamp = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        print(f"{stamp}; {processor()}; Python {platform.python_version()}")
        record: dict[str, Any] = {"at": stamp, "processor": processor(), "installed_mb": sizes, "trials": []}
        for trial in trials:
            spinning = f"{'' if trial.spin else 'not '}spinning"
            print(
                f"\nmodel {trial.name}, variant {trial.variant}, {spinning}; video: {trial.video_is}; against {trial.peer_is}"
            )
            figures = {}
            for threads in args.threads:
                if trial.peer_threads not in (0, threads):
                    print(f"\n{threads} threads: skipped: {trial.peer_is} has {trial.peer_threads} and cannot be told")
                    continue
                figures[threads] = compare(trial, threads, args.pairs, args.frames)
            record["trials"].append({"trial": asdict(trial), "threads": figures})
        print(f"\n{installed(sizes)}")
    if args.json_path:
        Path(args.json_path).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
