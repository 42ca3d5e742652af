"""One round of the flywheel: deploy, run on pictures from another place, collect what was hard, retrain, deploy again.

A local model is taught ten classes on clear photographs, a larger one in the cloud on photographs of all kinds of
light. The board then sees dusk: dark, noisy, blurred. It asks the cloud about what it doubts, the endpoint keeps that
with its own answer, and the local model is taught again on both. No label of a dusk picture is used but to measure. Every
step is a command that a person could type; they are printed.

    python benchmarks/flywheel.py [--data ../shared/data/imagenette] [--work build/flywheel] [--budget 50%]
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FPS = 8
LOCAL, CLOUD = "efficientnet-lite0", "efficientnet-lite2"
QUICK = ("--no-arm-instructions", "--no-cache", "--budget-minutes", 2)


def dusk(image: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """A quarter of the light, a colour cast, a little out of focus, and a sensor's noise."""
    source = np.random.default_rng(seed)
    light = cv2.GaussianBlur(image, (0, 0), 1.2).astype(np.float32) * source.uniform(0.12, 0.3)
    light *= np.array([1.15, 1.0, 0.8], np.float32)
    return np.clip(light + source.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def make_dusk(clear: Path, into: Path) -> None:
    """The same folders with each picture at dusk."""
    for number, path in enumerate(sorted(clear.rglob("*.*"))):
        image = cv2.imread(str(path))
        target = into / path.relative_to(clear).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), dusk(image, number), [cv2.IMWRITE_JPEG_QUALITY, 85])


def command(name: str, *arguments: object) -> None:
    """Run one of our commands, and print it."""
    print(f"$ {name} {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([str(BIN / name), *map(str, arguments)], check=True)


def built(work: Path, name: str, variant: str, *training: object) -> Path:
    """A bundle of one variant of what `edge-train` makes with these arguments; a step whose result is there is left out."""
    run, bundle = work / f"{name}-run", work / f"{name}.edge"
    if not run.exists():
        command("edge-train", *training, "--out", run, "--name", name)
    if not bundle.exists():
        command("edge-quantize", run, "--out", bundle, "--variants", variant, "--max-drop", 3, *QUICK)
    return bundle


@contextmanager
def endpoint(bundle: Path, keep: Path) -> Iterator[str]:
    """edge-cloud over the bundle, keeping what it is asked; its URL."""
    command = [str(BIN / "edge-cloud"), "--model", str(bundle), "--port", "0", "--keep", str(keep), "--max-wait", "30"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "http://" in line)
            yield next(word for word in line.replace(",", " ").split() if word.startswith("http://")).rstrip(";.")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@contextmanager
def camera(labelled: Path) -> Iterator[tuple[str, threading.Event]]:
    """A camera over HTTP that sees the pictures of a folder's folders, mixed, once; its URL, and what tells that it has."""
    paths = sorted(labelled.rglob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    ended = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            while order:
                jpeg = paths[order.pop()].read_bytes()
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
                self.wfile.write(jpeg + b"\r\n")
                time.sleep(1 / FPS)
            ended.set()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", ended
    finally:
        server.shutdown()
        server.server_close()


def accuracies(bundle: Path, places: Sequence[Path]) -> list[float]:
    """Top-1 of a bundle's first variant on each place's validation pictures, through the device's code."""
    found = []
    for place in places:
        command = [str(BIN / "edge-eval"), "--model", str(bundle), "--data", str(place), "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(next(iter(json.loads(done.stdout)["variants"].values()))["top1"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "imagenette")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "flywheel")
    parser.add_argument("--budget", default="50%")
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "dusk").exists():
        make_dusk(data, work / "dusk")
    places = [data, work / "dusk"]
    cloud = built(work, "cloud", "float32", "--data", data, "--model", CLOUD, "--augment", "night")
    first = built(work, "first", "int8-tflite", "--data", data, "--model", LOCAL)
    rows = {"cloud": accuracies(cloud, places), "first": accuracies(first, places)}

    for left in (work / "kept", work / "second-run"):
        shutil.rmtree(left, ignore_errors=True)
    (work / "second.edge").unlink(missing_ok=True)
    (work / "events.jsonl").unlink(missing_ok=True)
    with endpoint(cloud, work / "kept") as url, camera(work / "dusk" / "train") as (stream, ended):
        loop = [str(BIN / "edge-run"), "--model", str(first), "--source", stream]
        loop += ["--offload", f"{url}/v2/models/cloud", "--policy", "budget", "--offload-budget", options.budget]
        loop += ["--events", str(work / "events.jsonl"), "--summary", str(work / "summary.json")]
        print(f"$ {' '.join(loop)}", flush=True)
        with subprocess.Popen(loop) as process:
            ended.wait()
            process.send_signal(signal.SIGTERM)
    kept = len(list((work / "kept").glob("*.json")))
    second = built(work, "second", "int8-tflite", "--data", data, "--data", work / "kept", "--model", LOCAL)
    rows["second"] = accuracies(second, places)
    summary = json.loads((work / "summary.json").read_text())
    print(f"\n{summary['frames']} pictures at dusk, {summary['offloaded']} asked about, {kept} kept\n")
    print("| top-1 | clear | dusk |\n|---|---|---|")
    titles = (f"{CLOUD} float32 in the cloud", f"{LOCAL} int8 as deployed", "the same after one round")
    for title, (clear, later) in zip(titles, rows.values(), strict=True):
        print(f"| {title} | {clear:.1%} | {later:.1%} |")


if __name__ == "__main__":
    main()
