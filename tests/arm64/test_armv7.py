"""The wheel on emulated 32-bit ARM, with tflite-runtime and Debian's NumPy 1 and OpenCV 4."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantize.instructions import cache_folder
from tests.arm64.conftest import REPOSITORY
from tests.arm64.emulation import LIMIT_S, SITE
from tests.quantize.tiny import squares

pytestmark = pytest.mark.arm64
ROOT_SCRIPT = Path(__file__).with_name("armv7_root.sh")
FEATURES = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32"
MODEL = "Raspberry Pi 3 Model B Rev 1.2"


@pytest.fixture(scope="module")
def armv7(wheel: Path) -> Path:
    """An armhf root with the wheel, and a Raspberry Pi 3's files."""
    root = cache_folder() / "armv7-root"
    subprocess.run(["bash", ROOT_SCRIPT, root, wheel], check=True, env=os.environ | {"PYTHON": sys.executable})
    core = f"model name\t: ARMv7 Processor rev 4 (v7l)\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n"
    cores = "".join(f"processor\t: {number}\n{core}\n" for number in range(4))
    files = {"proc/cpuinfo": f"{cores}Model\t\t: {MODEL}\n", "proc/device-tree/model": f"{MODEL}\0"}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def in_root(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "QEMU_CPU": "cortex-a15",
        "PYTHONPATH": f"{SITE}:/usr/lib/python3/dist-packages",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
    }
    command = ["/usr/sbin/chroot", str(root), "/usr/bin/python3", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_a_classifier_that_tflite_runtime_gets_wrong_is_refused(armv7: Path, short_video: Path) -> None:
    """Where a float layer has int8 weights with a scale for each class, it multiplies by 0: the bias alone is left."""
    shutil.copy(short_video, armv7 / "tmp" / "short.avi")
    ran = in_root(armv7, "-m", "edge.commands.run", "--source", "/tmp/short.avi", "--events", "-")
    assert ran.returncode == 2, ran.stderr
    assert "int8-tflite disagrees with its golden check on this machine" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_a_detector_gives_the_workstations_objects(armv7: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "detector.edge"
    folder = squares(tmp_path / "squares")
    command = ["quantize.cli", "tests.quantize.tiny:detector", "--data", str(folder), "--out", str(bundle)]
    limits = ["--variants", "int8-tflite", "--max-drop", "100", "--min-speedup", "0", "--no-cache"]
    subprocess.run([sys.executable, "-m", *command, *limits], check=True, cwd=REPOSITORY)
    shutil.copy(bundle, armv7 / "opt" / "detector.edge")
    shutil.rmtree(armv7 / "tmp" / "squares", ignore_errors=True)
    (armv7 / "tmp" / "squares").mkdir()
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))[:6]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in found:
        shutil.copy(path, pictures)
        shutil.copy(path, armv7 / "tmp" / "squares")
    ran = in_root(
        armv7, "-m", "edge.commands.run", "--model", "/opt/detector.edge", "--source", "/tmp/squares", "--events", "-"
    )
    assert ran.returncode == 0, ran.stderr
    options = ["--model", str(bundle), "--variant", "int8-tflite", "--source", str(pictures), "--events", "-"]
    here = subprocess.run([sys.executable, "-m", "edge.commands.run", *options], check=True, capture_output=True, text=True)
    there, expected = objects(ran.stdout), objects(here.stdout)
    assert len(there) == len(found)
    assert [one[:-1] for one in there] == [one[:-1] for one in expected]
    for mine, theirs in zip(there, expected, strict=True):
        assert mine[-1] == pytest.approx(theirs[-1], abs=1e-5)


def objects(lines: str) -> list[tuple[Any, ...]]:
    """Labels, boxes and scores of each event."""
    found = [json.loads(line)["result"]["objects"] for line in lines.splitlines()]
    return [tuple([one[key] for one in event] for key in ("label", "box_xyxy", "score")) for event in found]


def test_edge_doctor_runs(armv7: Path) -> None:
    ran = in_root(armv7, "-m", "edge.commands.doctor", "--json")
    assert 0 <= ran.returncode <= 3, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "armv7" in json.dumps(json.loads(ran.stdout))
