"""The wheel on emulated ARM boards: the board is known, the golden checks pass, and the answers are those of x86."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.arm64
REPOSITORY = Path(__file__).parents[2]
PHOTOS = REPOSITORY / "edge" / "data" / "photos"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge-run"


@dataclass(frozen=True)
class Emulated:
    """A board to pretend to be: qemu's CPU must have what its cpuinfo says, or an engine picks absent instructions."""

    model: str
    cpu: str
    part: str
    features: str
    name: str


PI_4 = Emulated("Raspberry Pi 4 Model B Rev 1.4", "cortex-a72", "0xd08", "fp asimd evtstrm crc32 cpuid", "raspberry-pi-4")
PI_5 = Emulated(
    "Raspberry Pi 5 Model B Rev 1.0",
    "cortex-a76",
    "0xd0b",
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    "raspberry-pi-5",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm64 root with a wheel of this tree."""
    wheels = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--outdir", wheels, REPOSITORY], check=True, stdout=subprocess.DEVNULL)
    folder = CACHE / "arm64-root"
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([Path(__file__).with_name("root.sh"), folder, next(wheels.glob("*.whl"))], check=True)
    return folder


def become(root: Path, board: Emulated) -> None:
    """Write the board's files into the root, plain ones where a kernel would have its own."""
    cpu = f"Features\t: {board.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {board.part}\n"
    files = {
        "proc/cpuinfo": "".join(f"processor\t: {core}\n{cpu}\n" for core in range(4)) + f"Model\t\t: {board.model}\n",
        "proc/device-tree/model": board.model + "\0",
        "sys/devices/system/cpu/possible": "0-3\n",
        "sys/devices/system/cpu/present": "0-3\n",
        "sys/devices/system/cpu/online": "0-3\n",
    }
    for name, text in files.items():
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
        ["chroot", root, "/usr/bin/python3", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def scores(lines: str) -> list[list[tuple[str, float]]]:
    return [[(c["label"], c["score"]) for c in json.loads(line)["result"]["classes"]] for line in lines.splitlines()]


def on_x86(variant: str) -> list[list[tuple[str, float]]]:
    command = [sys.executable, "-m", "edge.commands.run", "--source", str(PHOTOS), "--variant", variant, "--events", "-"]
    return scores(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("board", [PI_4, PI_5], ids=lambda board: board.name)
@pytest.mark.parametrize("variant", ["int8-arm", "int8-tflite"])
def test_a_board_gives_the_workstations_answers(root: Path, board: Emulated, variant: str) -> None:
    become(root, board)
    photos = "/opt/site/edge/data/photos"
    ran = in_root(
        root, board, "-m", "edge.commands.run", "--source", photos, "--variant", variant, "--threads", "1", "--events", "-"
    )
    assert ran.returncode == 0, ran.stderr
    there, here = scores(ran.stdout), on_x86(variant)
    assert len(there) == len(here) == 3
    for arm, x86 in zip(there, here, strict=True):
        assert [label for label, _ in arm] == [label for label, _ in x86]
        assert [score for _, score in arm] == pytest.approx([score for _, score in x86], abs=1e-5)


def test_the_board_is_known_and_chooses_its_variant(root: Path) -> None:
    become(root, PI_5)
    known = in_root(root, PI_5, "-c", "import devices; print(devices.detect().name)")
    assert known.stdout.strip() == PI_5.name, known.stderr
    ran = in_root(
        root, PI_5, "-m", "edge.commands.run", "--source", "demo", "--max-frames", "2", "--threads", "1", "--events", "-"
    )
    assert ran.returncode == 0, ran.stderr
    assert {json.loads(line)["variant"] for line in ran.stdout.splitlines()} == {"int8-arm"}
