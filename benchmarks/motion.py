"""The motion gate and the tracker on real videos: what the gate saves, what it misses, and the identities given.

The detector runs on every frame once; the gate is then simulated on the same frames. An object is a detection of at
least 0.3 in a full result. In a skipped frame it is missed when the carried result has no box of its label with an IoU
of at least 0.5, and unseen when neither has any inference within half a second.

    python benchmarks/motion.py --model BUNDLE [--variant NAME] [--threads N] [--refresh S ...] VIDEO...
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.boxes import box_iou
from edge.bundle import open_bundle
from edge.model import Model, open_model
from edge.motion import MotionGate
from edge.opencv import open_capture
from edge.progress import Progress
from edge.tracking import Tracker
from edge.types import Bools, Detections, Frame, UInt8

SCORE = 0.3
IOU = 0.5
NEAR_S = 0.5
MIN_LIFE_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A video, each of its frames' full result, and which frames the gates let through, by refresh in seconds."""

    name: str
    fps: float
    found: list[Detections]
    inferred: dict[float, list[bool]]
    gate_ms: float
    infer_ms: float


def watch(model: Model, path: Path, refreshes: Sequence[float]) -> Watched:
    """Run the detector and a gate for each refresh on every frame; time is the video's own."""
    capture = open_capture(str(path), cv2.CAP_FFMPEG, f"{path}: not a video that can be decoded")
    fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
    frames, progress = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), Progress("motion.py")
    gates = {refresh_s: MotionGate(refresh_s=refresh_s) for refresh_s in refreshes}
    found: list[Detections] = []
    inferred: dict[float, list[bool]] = {refresh_s: [] for refresh_s in refreshes}
    gate_ms, infer_ms = [], []
    while True:
        there, image = capture.read()
        if not there:
            break
        now_s = len(found) / fps
        for refresh_s, gate in gates.items():
            begun_s = time.perf_counter()
            inferred[refresh_s].append(gate.moves(image, now_s))
            gate_ms.append((time.perf_counter() - begun_s) * 1e3)
        begun_s = time.perf_counter()
        found.append(detect(model, image, len(found), now_s))
        infer_ms.append((time.perf_counter() - begun_s) * 1e3)
        progress(f"{path.name}: frames", len(found), frames)
    progress.done()
    capture.release()
    return Watched(path.name, fps, found, inferred, statistics.median(gate_ms), statistics.median(infer_ms))


def detect(model: Model, image: UInt8, sequence: int, now_s: float) -> Detections:
    tensor = model.task.prepare(Frame(image, sequence, now_s, "benchmark"))
    result = model.task.decode(model.engine.infer(tensor), tensor)
    if not isinstance(result, Detections):
        raise SystemExit("motion.py: choose a --model that detects")
    return result


def matched(objects: Detections, carried: Detections) -> Bools:
    """Which of the objects a result has, each of its boxes counting once."""
    same = np.array(objects.labels)[:, None] == np.array(carried.labels)[None, :]
    iou = box_iou(objects.boxes_xyxy, carried.boxes_xyxy) * same
    there = np.zeros(len(objects), np.bool_)
    while iou.size and iou.max() >= IOU:
        row, column = np.unravel_index(int(iou.argmax()), iou.shape)
        there[row] = True
        iou[row], iou[:, column] = 0, 0
    return there


def missed(found: Sequence[Detections], inferred: Sequence[bool], fps: float) -> tuple[int, int, int]:
    """How many objects there are, how many the gate's results miss, and how many have not been seen either side."""
    near = int(NEAR_S * fps)
    objects = absent = unseen = 0
    carried = found[0]
    for number, (result, fresh) in enumerate(zip(found, inferred, strict=True)):
        carried = result if fresh else carried
        strong = result[result.scores >= SCORE]
        objects += len(strong)
        if fresh:
            continue
        lost = strong[~matched(strong, carried)]
        absent += len(lost)
        for other in range(max(0, number - near), min(len(found), number + near + 1)):
            if inferred[other]:
                lost = lost[~matched(lost, found[other])]
        unseen += len(lost)
    return objects, absent, unseen


def tracked(found: Sequence[Detections], fps: float, step: int) -> list[str]:
    """A row about the identities that every `step`th frame gives."""
    tracker, lives, spent_ms, labelled = Tracker(), dict[int, list[float]](), [], 0
    frames = range(0, len(found), step)
    for number in frames:
        begun_s = time.perf_counter()
        result, _ = tracker.update(found[number], number / fps)
        spent_ms.append((time.perf_counter() - begun_s) * 1e3)
        assert result.tracks is not None
        labelled += int((result.tracks > 0).sum())
        for track in result.tracks[result.tracks > 0].tolist():
            lives.setdefault(track, []).append(number / fps)
    spans = [times[-1] - times[0] for times in lives.values()]
    strong = statistics.mean(int((found[number].scores >= 0.5).sum()) for number in frames)
    short = sum(span < MIN_LIFE_S for span in spans)
    life = f"{statistics.median(spans):.1f} / {max(spans):.1f}" if spans else ""
    figures = [f"{fps / step:.1f}", len(frames), f"{strong:.1f}", len(lives), short, life, f"{statistics.median(spent_ms):.2f}"]
    return [str(figure) for figure in figures]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def report(watched: Watched) -> None:
    count = len(watched.found)
    print(f"\n## {watched.name}\n\nmedian ms a frame: gate {watched.gate_ms:.2f}, detector {watched.infer_ms:.2f}\n")
    rows = [["refresh, s", "frames", "inferences", "saved", "objects", "missed", f"unseen within {NEAR_S:g} s"]]
    for refresh_s, inferred in watched.inferred.items():
        objects, absent, unseen = missed(watched.found, inferred, watched.fps)
        shares = [f"{part / max(objects, 1):.2%}" for part in (absent, unseen)]
        made = sum(inferred)
        rows.append([f"{refresh_s:g}", str(count), str(made), f"{1 - made / count:.1%}", str(objects), *shares])
    print(markdown(rows))
    head = [
        "frames/s",
        "frames",
        "objects ≥ 0.5 a frame",
        "ids",
        f"of < {MIN_LIFE_S:g} s",
        "life, median / max s",
        "tracker, ms",
    ]
    print("\n" + markdown([head, *(tracked(watched.found, watched.fps, step) for step in (1, 2, 4))]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", metavar="BUNDLE", type=Path, required=True)
    parser.add_argument("--variant", metavar="NAME")
    parser.add_argument("--threads", metavar="N", type=int, default=1)
    parser.add_argument("--refresh", metavar="S", type=float, nargs="+", default=[1.0, 2.0, 5.0])
    parser.add_argument("videos", metavar="VIDEO", type=Path, nargs="+")
    args = parser.parse_args()
    model = open_model(open_bundle(args.model), variant=args.variant, threads=args.threads)
    for path in args.videos:
        report(watch(model, path, args.refresh))
    model.engine.close()


if __name__ == "__main__":
    main()
