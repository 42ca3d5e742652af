"""The wheel on emulated ARM boards: the board is known, the golden checks pass, and the answers are those of x86."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, Bundle, open_bundle
from edge.engines import EngineOptions
from edge.model import load_variant
from edge.types import Geometry, Tensor
from quantize.instructions import CPUS, ROOT_SCRIPT, arm64_root, machine_files
from tests.quantize.tiny import pictures

pytestmark = pytest.mark.arm64
REPOSITORY = Path(__file__).parents[2]
PHOTOS = REPOSITORY / "edge" / "data" / "photos"


@dataclass(frozen=True)
class Emulated:
    """A board to pretend to be."""

    model: str
    cpu: str
    name: str


PI_4 = Emulated("Raspberry Pi 4 Model B Rev 1.4", "cortex-a72", "raspberry-pi-4")
PI_5 = Emulated("Raspberry Pi 5 Model B Rev 1.0", "cortex-a76", "raspberry-pi-5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm64 root with a wheel of this tree."""
    wheels = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--outdir", wheels, REPOSITORY], check=True, stdout=subprocess.DEVNULL)
    command = [
        "bash",
        ROOT_SCRIPT,
        arm64_root(),
        "-c",
        REPOSITORY / "constraints.txt",
        f"{next(wheels.glob('*.whl'))}[onnx,tflite]",
    ]
    subprocess.run(command, check=True, env=os.environ | {"PYTHON": sys.executable})
    return arm64_root()


def become(root: Path, board: Emulated) -> None:
    """Write the board's files into the root, plain ones where a kernel would have its own."""
    for name, text in machine_files(CPUS[board.cpu], board.model).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def in_root(root: Path, board: Emulated, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "QEMU_CPU": board.cpu,
        "PYTHONPATH": "/opt/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
    }
    return subprocess.run(
        ["/usr/sbin/chroot", root, "/usr/bin/python3", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("board", [PI_4, PI_5], ids=lambda board: board.name)
@pytest.mark.parametrize("variant", ["int8-x86", "int8-tflite"])
def test_a_board_gives_the_workstations_answers(root: Path, board: Emulated, variant: str) -> None:
    """The same tensor gives the same logits to the last bit; from a picture, cubic resizing differs by one grey level."""
    become(root, board)
    installed = "/opt/site/edge/data/efficientnet-lite0.edge"
    assert on_arm(root, board, installed, variant) == on_x86(DEFAULT_BUNDLE, variant)

    photos = "/opt/site/edge/data/photos"
    ran = in_root(root, board, "-m", "edge.commands.run", "--source", photos, "--variant", variant, "--events", "-")
    assert ran.returncode == 0, ran.stderr
    command = [sys.executable, "-m", "edge.commands.run", "--source", PHOTOS, "--variant", variant, "--events", "-"]
    here = best(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    there = best(ran.stdout)
    assert [label for label, _ in there] == [label for label, _ in here]
    assert [score for _, score in there] == pytest.approx([score for _, score in here], abs=0.03)
    assert len(there) == 3


@pytest.mark.parametrize("board", [PI_4, PI_5], ids=lambda board: board.name)
def test_exact_is_what_arm_computes(root: Path, board: Emulated, tmp_path: Path) -> None:
    """A signed variant, which x86 computes otherwise unless told not to."""
    bundle = tmp_path / "tiny.edge"
    data = pictures(tmp_path / "pictures")
    command = ["-m", "quantize.cli", "tests.quantize.tiny:classifier", "--data", data, "--out", bundle]
    subprocess.run(
        [sys.executable, *command, "--variants", "int8-arm", "--max-drop", "100", "--min-speedup", "0", "--no-cache"],
        check=True,
        cwd=REPOSITORY,
    )
    become(root, board)
    shutil.copy(bundle, root / "opt" / "tiny.edge")
    assert on_arm(root, board, "/opt/tiny.edge", "int8-arm") == on_x86(bundle, "int8-arm")


def best(lines: str) -> list[tuple[str, float]]:
    """The best class of each event."""
    found = [json.loads(line)["result"]["classes"][0] for line in lines.splitlines()]
    return [(one["label"], one["score"]) for one in found]


def on_x86(path: Path, variant: str) -> list[list[float]]:
    """Logits for noise, here, in ARM's arithmetic."""
    bundle = open_bundle(path)
    model = load_variant(bundle, bundle.card.variant(variant), EngineOptions(exact=True))
    return [model.engine.infer(tensor)["logits"].ravel().tolist() for tensor in noise(bundle)]


def on_arm(root: Path, board: Emulated, path: str, variant: str) -> list[list[float]]:
    """Logits for the same noise on the emulated board, as the board computes them."""
    ran = in_root(root, board, "-c", IMPORTS + inspect.getsource(noise) + ON_ARM, path, variant)
    assert ran.returncode == 0, ran.stderr
    logits: list[list[float]] = json.loads(ran.stdout)
    return logits


def noise(bundle: Bundle) -> list[Tensor]:
    size = (bundle.card.input.height, bundle.card.input.width)
    geometry = Geometry((1.0, 1.0), (0.0, 0.0), size)
    seeds = range(4)
    return [Tensor(np.random.default_rng(n).integers(0, 256, (1, *size, 3), dtype=np.uint8), geometry) for n in seeds]


ON_ARM = """
bundle = open_bundle(sys.argv[1])
model = load_variant(bundle, bundle.card.variant(sys.argv[2]), EngineOptions())
print(json.dumps([model.engine.infer(tensor)["logits"].ravel().tolist() for tensor in noise(bundle)]))
"""
IMPORTS = """
from __future__ import annotations
import json, sys
import numpy as np
from edge.bundle import open_bundle
from edge.engines import EngineOptions
from edge.model import load_variant
from edge.types import Geometry, Tensor
"""


def test_the_board_is_known_and_the_command_runs_as_it_is(root: Path) -> None:
    become(root, PI_5)
    known = in_root(root, PI_5, "-c", "import devices; print(devices.detect().name)")
    assert known.stdout.strip() == PI_5.name, known.stderr
    ran = in_root(root, PI_5, "-m", "edge.commands.run", "--source", "demo", "--max-frames", "2", "--events", "-")
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["seq"] for line in ran.stdout.splitlines()] == [0, 1]
