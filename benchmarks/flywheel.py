"""One round of the flywheel: deploy, run on pictures from another place, collect what was hard, retrain, deploy again.

A local model is taught ten classes on clear photographs, a larger one in the cloud on photographs of all kinds of
light. The board then sees dusk: dark, noisy, blurred. It asks the cloud about what it doubts, the endpoint keeps that
with its own answer, and the local model is taught again on both. No label of a dusk picture is used but to measure.

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
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FPS = 8
LOCAL, CLOUD = "efficientnet-lite0", "efficientnet-lite2"


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


def taught(name: str, data: str, weights: str, kept: str = "", exposure: float = 0.5):  # type: ignore[no-untyped-def]
    """For edge-quantize: the named model taught on `data`, and on `kept` pictures if there are any, or as it was."""
    import torch

    from edge.datasets import class_folders
    from train.finetune import fine_tune
    from train.models import pretrained
    from train.pictures import Augment, Pictures
    from train.transfer import RECIPE, fit_head, folder_labels, replace_head

    model = pretrained(name)
    folder = Path(data) / "train"
    labels = folder_labels(folder)
    replace_head(model.network, len(labels))
    if not Path(weights).exists():
        samples = class_folders(folder, labels)
        if kept:
            samples = samples + class_folders(Path(kept), labels)
        pictures = Pictures(samples, model.input, model.mean, model.std, print)
        fit_head(model.network, pictures)
        recipe = replace(RECIPE, augment=Augment(least_area=0.5, exposure=exposure))
        torch.save(fine_tune(model.network, pictures, recipe).state_dict(), weights)
    model.network.load_state_dict(torch.load(weights, weights_only=True))
    return replace(model, network=model.network.eval(), labels=labels)


def quantized(out: Path, pictures: Path, variants: str, **arguments: object) -> None:
    """Build a bundle of `taught`, calibrated on clear pictures."""
    given = [part for name, value in arguments.items() for part in ("--arg", f"{name}={value}")]
    command = [str(BIN / "edge-quantize"), "benchmarks.flywheel:taught", *given, "--data", str(pictures), "--out", str(out)]
    print(f"$ {' '.join(command[:2])} ... --variants {variants} --out {out}", flush=True)
    flags = ["--variants", variants, "--no-arm-instructions", "--max-drop", "3", "--no-cache", "--budget-minutes", "2"]
    subprocess.run([*command, *flags], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)


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
    quantized(work / "cloud.edge", data, "float32", name=CLOUD, data=data, weights=work / "cloud.pt", exposure=2.5)
    quantized(work / "first.edge", data, "int8-tflite", name=LOCAL, data=data, weights=work / "first.pt")
    rows = {"cloud": accuracies(work / "cloud.edge", places), "first": accuracies(work / "first.edge", places)}

    for folder in ("kept", "labelled"):
        shutil.rmtree(work / folder, ignore_errors=True)
    (work / "events.jsonl").unlink(missing_ok=True)
    with endpoint(work / "cloud.edge", work / "kept") as url, camera(work / "dusk" / "train") as (stream, ended):
        command = [str(BIN / "edge-run"), "--model", str(work / "first.edge"), "--source", stream]
        command += ["--offload", f"{url}/v2/models/{CLOUD}", "--policy", "budget", "--offload-budget", options.budget]
        command += ["--events", str(work / "events.jsonl"), "--summary", str(work / "summary.json")]
        with subprocess.Popen(command) as process:
            ended.wait()
            process.send_signal(signal.SIGTERM)
    subprocess.run([sys.executable, "-m", "cloud.kept", str(work / "kept"), "--out", str(work / "labelled")], check=True)
    kept = sorted((work / "labelled").rglob("*.jpg"))

    (work / "second.pt").unlink(missing_ok=True)
    arguments = {"name": LOCAL, "data": data, "weights": work / "second.pt", "kept": work / "labelled"}
    quantized(work / "second.edge", data, "int8-tflite", **arguments)
    rows["second"] = accuracies(work / "second.edge", places)
    summary = json.loads((work / "summary.json").read_text())
    print(f"\n{summary['frames']} pictures at dusk, {summary['offloaded']} asked about, {len(kept)} kept\n")
    print("| top-1 | clear | dusk |\n|---|---|---|")
    titles = (f"{CLOUD} float32 in the cloud", f"{LOCAL} int8 as deployed", "the same after one round")
    for title, (clear, later) in zip(titles, rows.values(), strict=True):
        print(f"| {title} | {clear:.1%} | {later:.1%} |")


if __name__ == "__main__":
    main()
