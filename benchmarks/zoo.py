"""The models that edge-train knows by name: parameters, multiplications, file sizes, and int8 time against Lite0's.

    python -m benchmarks.zoo [--size 224] [NAME ...]

Weights are random, which changes neither size nor time. Each model is built in a process of its own, for VGG16 takes
gigabytes; times are CPU time on one thread, in turns with Lite0, medians. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from edge.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "efficientnet-lite0"
INT8 = ("int8-x86", "int8-tflite")


def build(name: str, size: int, folder: Path) -> str:
    """Write a model's float32 and int8 files into a folder; parameters, multiplications and sizes as columns."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from edge.card import Label
    from quantize.float_model import float_model
    from quantize.store import Store
    from quantize.targets import Settings, target
    from quantize.workshop import Workshop
    from train import models

    torch.set_num_threads(2)
    model = models.named(name)
    network = models.load(name, pretrained=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    labels = tuple(Label(id=str(index), name=str(index)) for index in range(1000))
    geometry = models.geometry(name, (size, size))
    made = models.Classifier(name, network, geometry, model.mean, model.std, labels, "benchmarks/zoo.py", model.license)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (1, size, size, 3), dtype=np.uint8) for _ in range(2)]
    workshop = Workshop(float_model(made), pictures, 2, Store(None), lambda line: None)
    sizes = [len(workshop.float32()) / 1e6]
    for kind in INT8:
        data = target(kind, workshop).build(Settings(calibrator="minmax", rounding="nearest"))
        (folder / f"{name}.{kind}").write_bytes(data)
        sizes.append(len(data) / 1e6)
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    columns = [f"{parameters:.2f}", f"{counter.get_total_flops() / 2e6:.0f}", *(f"{value:.1f}" for value in sizes)]
    return " | ".join(columns)


def times(name: str, size: int, folder: Path) -> str:
    """How many times Lite0's time the model takes, for each int8 file, with the quartiles."""
    import numpy as np

    from quantize.speed import paired
    from quantize.targets import KINDS, variant_of

    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    columns = []
    for kind in INT8:
        files = [(folder / f"{one}.{kind}").read_bytes() for one in (REFERENCE, name)]
        _, speed = paired([(data, variant_of(KINDS[kind], data, "logits")) for data in files], picture)
        columns.append(f"{1 / speed.ratio:.2f} ({1 / speed.high:.2f} to {1 / speed.low:.2f})")
    return " | ".join(columns)


def main() -> None:
    """Build and measure one model after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step = {"build": build, "times": times}[args.step[0]]
        print(step(args.names[0], args.size, Path(args.step[1])))
        return
    from train.models import MODELS

    print("| model | parameters, M | MACs, M | float32, MB | int8-x86, MB | int8-tflite, MB | int8-x86 | int8-tflite |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        for name in dict.fromkeys([REFERENCE, *(args.names or MODELS)]):
            columns = []
            with Progress("zoo.py") as progress:
                for step in ("build", "times"):
                    progress(f"{name}: {step}")
                    command = [sys.executable, "-m", "benchmarks.zoo", name, "--size", str(args.size), "--step", step, folder]
                    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
                    if done.returncode:
                        raise SystemExit(f"zoo.py: {name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
                    columns.append(done.stdout.strip().splitlines()[-1])
            print(f"| `{name}` | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
