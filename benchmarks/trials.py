"""What loop.py measures: bundles, and which loop each is measured against.

Only the standard library is imported at the top; what `prepare` needs, it imports in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devices import Board
    from edge.bundle import Bundle
    from edge.card import Variant

HERE = Path(__file__).resolve().parent
EDGE_RUN = Path(sys.executable).with_name("edge-run")
DETECTOR = HERE.parent / "build" / "yolox-nano.edge"
DEMO_FRAMES = 450
PROBE_S = 120.0
"""How long a peer's first two frames may take."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else's loop over the model that a bundle of ours was made of: a script of ours that needs their package.

    It is compared with the bundle's first variant of `engine` and `precision`, and only at `threads` where that is not 0.
    """

    script: str
    licence: str
    model: str
    engine: str
    precision: str
    spins: bool
    threads: int


PEERS = {
    "ultralytics": Peer("peer_ultralytics.py", "AGPL-3.0", "YOLO.onnx", "onnx", "float32", spins=True, threads=0),
    "mediapipe": Peer("peer_mediapipe.py", "Apache-2.0", "DETECTOR.tflite", "tflite", "int8", spins=False, threads=1),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What both loops are given; `peer` is the other one's command line without its interpreter, threads, spinning and frames.

    `temperature` is what edge-run calibrated its scores with; `kind` chooses the targets; `peer_threads` is the only number
    of threads that the other one can have, 0 where it can be told.
    """

    kind: str
    bundle: str
    name: str
    variant: str
    temperature: float
    peer_is: str
    peer: tuple[str, ...]
    peer_spins: bool
    spin: bool
    video: str
    video_is: str
    peer_python: str = sys.executable
    peer_threads: int = 0


def prepare(args: argparse.Namespace, work: str) -> tuple[list[Trial], dict[str, float]]:
    """Every trial, and the installed sizes; runs in a process of its own, whose memory goes with it."""
    from installed_size import installed_mb

    from devices import detect
    from edge.bundle import open_bundle
    from edge.errors import EdgeError
    from edge.packaged import DEFAULT_BUNDLE

    board, data = detect(), Path(os.environ.get("EDGE_DATA", HERE.parent.parent / "shared" / "data"))
    vtest = data / "videos" / "vtest.avi"
    video = args.video or (str(vtest) if vtest.is_file() else None)
    video_is = video or f"{DEMO_FRAMES} frames made here of the packaged photographs (no --video, no vtest.avi in EDGE_DATA)"
    video = video or demo_video(Path(work, "demo.avi"))
    original = args.original or data / "models" / "yolox_nano_416.onnx"
    asked = {package: getattr(args, package) for package in PEERS}
    only_peers = any(asked.values()) and not (args.model or args.detector)
    bundles = [] if only_peers else [(args.model or DEFAULT_BUNDLE, args.variant)]
    if args.detector or (not args.model and not only_peers and DETECTOR.is_file()):
        bundles.append((args.detector or DETECTOR, None))
    elif not args.model and not only_peers:
        print(
            f"detectors: {DETECTOR} is not there, skipped; build it with\n    edge-quantize {original} --head yolox "
            f"--labels coco --data {data / 'coco128'} --out {DETECTOR}\nor give --detector BUNDLE\n",
            flush=True,
        )
    trials: list[Trial] = []
    for number, (path, variant) in enumerate(bundles):
        folder = Path(work, str(number))
        folder.mkdir()
        try:
            opened = open_bundle(path)
            folder.joinpath("labels.txt").write_text("\n".join(label.name for label in opened.card.labels))
            make = classifier_trials if opened.card.task == "classify" else detector_trials
            found = list(make(opened, variant, board, folder, original))
        except EdgeError as error:
            raise SystemExit(f"loop.py: {error}") from None
        trials += [replace(trial, video=video, video_is=video_is) for trial in found]
    for package, wanted in asked.items():
        peer = PEERS[package]
        if wanted is None:
            print(f"{package}: not asked for; --{package} BUNDLE {peer.model} to compare (see {peer.script})", flush=True)
            continue
        try:
            trial = peer_trial(package, *wanted, board)
        except EdgeError as error:
            raise SystemExit(f"loop.py: {error}") from None
        python = dict(args.peer_python).get(package, sys.executable)
        trial = trial and probed(replace(trial, video=video, video_is=video_is, peer_python=python), package)
        trials += [trial] if trial else []
    return trials, installed_mb()


def classifier_trials(opened: Bundle, name: str | None, board: Board, folder: Path, original: Path) -> Iterator[Trial]:
    """One: the ONNX variant that suits this machine best, or that of `name`, taken out of its bundle for handwritten.py."""
    from edge.model import preference

    preferred = preference(opened.card.variants, board.machine)
    chosen = opened.card.variant(name) if name else next((v for v in preferred if v.engine == "onnx"), preferred[0])
    spec = opened.card.input
    if chosen.engine != "onnx" or chosen.input.dtype != "uint8" or chosen.input.layout != "nhwc":
        raise SystemExit(f"loop.py: {chosen.name} is not an ONNX file with uint8 NHWC input; choose another --variant")
    if (spec.width, spec.color, spec.resize) != (spec.height, "rgb", "crop"):
        raise SystemExit("loop.py: handwritten.py only does a square, centred crop to RGB; choose another --model")
    model = folder / chosen.file
    model.write_bytes(opened.model_bytes(chosen))
    exact = chosen.precision == "int8" and chosen.weight_bits == 8
    fitting = ["--crop", str(spec.crop_fraction), "--interpolation", spec.interpolation, *(["--exact"] if exact else [])]
    yield _trial("classifier", opened, chosen, board, "handwritten.py", [model, folder / "labels.txt", *fitting])


def detector_trials(opened: Bundle, name: str | None, board: Board, folder: Path, original: Path) -> Iterator[Trial]:
    """The float32 variant and the fastest int8 one that runs here, or that of `name`, against handwritten_detector.py."""
    card, detection = opened.card, opened.card.detect
    spec = card.input
    fitting = (spec.color, spec.resize, spec.letterbox_anchor, spec.pad_value, spec.interpolation)
    if card.head != "yolox" or detection is None or fitting != ("bgr", "letterbox", "topleft", 114, "linear"):
        raise SystemExit(f"loop.py: {opened.where}: handwritten_detector.py only does YOLOX as published; give another bundle")
    if not Path(original).is_file():
        raise SystemExit(f"loop.py: {original} is not there; give the ONNX file that {opened.where} was made of as --original")
    options = ["--score", str(detection.score_threshold), "--iou", str(detection.iou_threshold)]
    for chosen in [card.variant(name)] if name else _float32_and_fastest(card.variants, board.machine):
        kind = f"{chosen.precision} detector"
        yield _trial(kind, opened, chosen, board, "handwritten_detector.py", [original, folder / "labels.txt", *options])


def _float32_and_fastest(variants: Sequence[Variant], machine: str) -> list[Variant]:
    from edge.extras import installed

    here = [v for v in variants if installed(v.engine) and (not v.machines or machine in v.machines)]
    int8 = [v for v in here if v.precision == "int8"]
    fastest = max(int8, key=lambda v: v.speedup or 0, default=None)  # of equals the first, which the card prefers
    if fastest is None:
        print("int8 detector: the bundle has no int8 variant that runs here, skipped", flush=True)
    return [v for v in here if v.precision == "float32"][:1] + ([fastest] if fastest else [])


def _trial(kind: str, opened: Bundle, chosen: Variant, board: Board, script: str, arguments: Sequence[str | Path]) -> Trial:
    """Without the video, which is the same for all; a hand-written loop has it between the model and the labels."""
    return Trial(
        kind=kind,
        bundle=opened.where,
        name=opened.card.name,
        variant=chosen.name,
        temperature=chosen.temperature if kind != "classifier" else 1.0,
        peer_is="hand-written",
        peer=(str(HERE / script), *(str(argument) for argument in arguments)),
        peer_spins=True,
        spin=board.spin,
        video="",
        video_is="",
    )


def peer_trial(package: str, bundle: str, model: str, board: Board) -> Trial | None:
    """A bundle against the loop of another project over `model`, with the bundle's thresholds; None says why on the way."""
    from edge.bundle import open_bundle

    peer, opened = PEERS[package], open_bundle(bundle)
    detection, suits = opened.card.detect, (peer.engine, peer.precision)
    chosen = next((v for v in opened.card.variants if (v.engine, v.precision) == suits), None)
    if detection is None or chosen is None:
        print(f"{package}: skipped: {bundle} is not a detector with {peer.precision} for {peer.engine}", flush=True)
        return None
    arguments = [model, "--score", str(detection.score_threshold), "--iou", str(detection.iou_threshold)]
    trial = _trial("peer", opened, chosen, board, peer.script, arguments)
    return replace(trial, peer_is=package, peer_spins=peer.spins, peer_threads=peer.threads)


def probed(trial: Trial, package: str) -> Trial | None:
    """The trial with the name that the peer gives itself; None, after its reason, where two frames do not come."""
    command = theirs(trial, 1, 2)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{package}: skipped: {error}", flush=True)
        return None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exited {done.returncode}"]
        print(f"{package}: skipped: {trial.peer_python}: {said[-1]}", flush=True)
        if "No module named" in said[-1] or "PackageNotFoundError" in said[-1]:
            print(f"    its package is {PEERS[package].licence}; PEER/bin/pip install {package}, ", end="")
            print(f"then --peer-python {package}=PEER/bin/python", flush=True)
        return None
    return replace(trial, peer_is=json.loads(done.stdout.splitlines()[0])["loop"])


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
    """The command line of the other loop."""
    script, model, *more = trial.peer
    command = [trial.peer_python, script, model, trial.video, *more, "--threads", str(threads)]
    command += ["--spin"] if trial.spin and trial.peer_spins else []
    return command + (["--frames", str(frames)] if frames else [])
