"""The wheel on emulated ARM boards: the board is known, the golden checks pass, and the answers are those of x86."""

from __future__ import annotations

import functools
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle, open_bundle
from edge.engines import EngineOptions
from edge.model import load_variant
from edge.packaged import DEFAULT_BUNDLE
from edge.types import Geometry, Tensor
from tests.arm64.conftest import PHOTOS, REPOSITORY
from tests.arm64.emulation import BOARDS, PI_5, SITE, Emulated, become, in_root
from tests.quantize.tiny import pictures

pytestmark = [pytest.mark.arm64, pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)]
INSTALLED = f"{SITE}/edge/data/efficientnet-lite0.edge"
VARIANTS = ("int8-x86", "int8-tflite")
NUMPY_EXP = 3e-6
"""NumPy's exponential is not the same code on every processor, and an event's score has six digits."""


@pytest.fixture(scope="module")
def tiny_signed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a signed variant, which x86 computes otherwise unless told not to; also in the root, as /opt/tiny.edge."""
    folder = tmp_path_factory.mktemp("tiny")
    bundle = folder / "tiny.edge"
    data = pictures(folder / "pictures")
    command = ["-m", "quantize.cli", "tests.quantize.tiny:classifier", "--data", str(data), "--out", str(bundle)]
    limits = ["--variants", "int8-arm", "--max-drop", "100", "--min-speedup", "0", "--no-cache"]
    subprocess.run([sys.executable, *command, *limits], check=True, cwd=REPOSITORY)
    shutil.copy(bundle, root / "opt" / "tiny.edge")
    return bundle


def test_the_same_tensors_give_the_same_logits_to_the_last_bit(root: Path, board: Emulated, tiny_signed: Path) -> None:
    become(root, board)
    asked = [(INSTALLED, variant) for variant in VARIANTS] + [("/opt/tiny.edge", "int8-arm")]
    code = IMPORTS + inspect.getsource(noise) + ON_ARM
    ran = in_root(root, board, "-c", code, *(text for pair in asked for text in pair))
    assert ran.returncode == 0, ran.stderr
    there = json.loads(ran.stdout)
    assert there["board"] == board.name
    assert there["logits"] == [*(on_x86(DEFAULT_BUNDLE, variant) for variant in VARIANTS), on_x86(tiny_signed, "int8-arm")]


def test_a_video_gives_the_workstations_events(root: Path, board: Emulated, short_video: Path) -> None:
    """As edge-run chooses variant and threads on that board; its frames are cut, not resized."""
    become(root, board)
    shutil.copy(short_video, root / "tmp" / "short.avi")
    ran = in_root(root, board, f"{SITE}/bin/edge-run", "--source", "/tmp/short.avi", "--events", "-")
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    here = x86_events(short_video, events[0]["variant"])
    assert [event["seq"] for event in events] == list(range(6))
    assert_same(answers(events), answers(here), within=NUMPY_EXP)


def test_photographs_give_the_workstations_labels(root: Path, board: Emulated) -> None:
    """From a large picture: cubic resizing differs by one grey level between processors."""
    if board is not PI_5:
        pytest.skip("one board is enough")
    become(root, board)
    for variant in VARIANTS:
        options = ["--variant", variant, "--events", "-"]
        ran = in_root(root, board, f"{SITE}/bin/edge-run", "--source", f"{SITE}/edge/data/photos", *options)
        assert ran.returncode == 0, ran.stderr
        there, here = answers([json.loads(line) for line in ran.stdout.splitlines()]), answers(x86_events(PHOTOS, variant))
        assert len(there) == 3
        assert_same([best[:1] for best in there], [best[:1] for best in here], within=0.03)


def test_edge_eval_gives_the_workstations_figures(root: Path, board: Emulated, class_folders: Path) -> None:
    become(root, board)
    folder = root / "tmp" / "classes"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(class_folders, folder)
    ran = in_root(root, board, f"{SITE}/bin/edge-eval", "--data", "/tmp/classes", "--json")
    assert ran.returncode == 0, ran.stderr
    there, here = json.loads(ran.stdout), x86_figures(class_folders)
    assert (there["images"], sorted(there["variants"])) == (4, sorted(VARIANTS))
    for variant in VARIANTS:
        mine, theirs = there["variants"][variant], here["variants"][variant]
        for figure in ("top1", "top5", "images", "skipped", "macro", "classes"):
            assert mine[figure] == theirs[figure], (variant, figure)
        assert mine["ece"] == pytest.approx(theirs["ece"], abs=1e-5)


@pytest.mark.skipif(not (REPOSITORY / "edge" / "commands" / "doctor.py").exists(), reason="there is no edge-doctor yet")
def test_edge_doctor_names_the_board(root: Path, board: Emulated) -> None:
    """Its exit code says how well the board is; whatever it finds in a bare root, it tells."""
    become(root, board)
    ran = in_root(root, board, "-m", "edge.commands.doctor", "--json")
    assert 0 <= ran.returncode <= 3, ran.stderr
    assert "Traceback" not in ran.stderr
    told = json.dumps(json.loads(ran.stdout))
    assert board.name in told


def assert_same(there: list[list[tuple[str, float]]], here: list[list[tuple[str, float]]], within: float) -> None:
    assert [[label for label, _ in one] for one in there] == [[label for label, _ in one] for one in here]
    for mine, theirs in zip(there, here, strict=True):
        assert [score for _, score in mine] == pytest.approx([score for _, score in theirs], abs=within)


def answers(events: list[dict[str, Any]]) -> list[list[tuple[str, float]]]:
    """Each event's labels and scores, best first."""
    return [[(one["label"], one["score"]) for one in event["result"]["classes"]] for event in events]


@functools.cache
def x86_events(source: Path, variant: str) -> list[dict[str, Any]]:
    """What edge-run tells here."""
    command = [sys.executable, "-m", "edge.commands.run", "--source", str(source), "--variant", variant, "--events", "-"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


@functools.cache
def x86_figures(data: Path) -> dict[str, Any]:
    """What edge-eval measures here, in ARM's arithmetic."""
    command = [sys.executable, "-m", "edge.commands.evaluate", "--data", str(data), "--json", "--exact"]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


@functools.cache
def on_x86(path: Path, variant: str) -> list[list[float]]:
    """Logits for noise, here, in ARM's arithmetic."""
    bundle = open_bundle(path)
    model = load_variant(bundle, bundle.card.variant(variant), EngineOptions(exact=True))
    return [model.engine.infer(tensor)["logits"].ravel().tolist() for tensor in noise(bundle)]


def noise(bundle: Bundle) -> list[Tensor]:
    size = (bundle.card.input.height, bundle.card.input.width)
    geometry = Geometry((1.0, 1.0), (0.0, 0.0), size)
    seeds = range(3)
    return [Tensor(np.random.default_rng(n).integers(0, 256, (1, *size, 3), dtype=np.uint8), geometry) for n in seeds]


IMPORTS = """
from __future__ import annotations
import json, sys
import numpy as np
import devices
from edge.bundle import open_bundle
from edge.engines import EngineOptions
from edge.model import load_variant
from edge.types import Geometry, Tensor
"""
ON_ARM = """
logits = []
for path, name in zip(sys.argv[1::2], sys.argv[2::2]):
    bundle = open_bundle(path)
    model = load_variant(bundle, bundle.card.variant(name), EngineOptions())
    logits.append([model.engine.infer(tensor)["logits"].ravel().tolist() for tensor in noise(bundle)])
print(json.dumps({"board": devices.detect().name, "logits": logits}))
"""
