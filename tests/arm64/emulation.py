"""Boards to pretend to be, and ways to run the installed wheel on one: by chroot, or with a plugin that counts."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantize.instructions import CPUS, machine_files

HERE = Path(__file__).parent
SITE = "/opt/site"
LIMIT_S = 300.0
STAGES = {2: "engine", 3: "capture", 4: "prepare", 5: "decode", 6: "hand-over", 1: "loop", 7: "sink", 0: "foreign threads"}
"""Numbers of staged_run.py → what they count."""


@dataclass(frozen=True)
class Emulated:
    """A board: what its kernel says of it, the processor to emulate, and the name that `devices` must give it."""

    name: str
    cpu: str
    model: str
    compatible: tuple[str, ...]
    memory_mb: int
    thermal_zone: str


BOARDS = (
    Emulated(
        "raspberry-pi-zero-2w",
        "cortex-a53",
        "Raspberry Pi Zero 2 W Rev 1.0",
        ("raspberrypi,model-zero-2-w", "brcm,bcm2837"),
        512,
        "cpu-thermal",
    ),
    Emulated(
        "raspberry-pi-4",
        "cortex-a72",
        "Raspberry Pi 4 Model B Rev 1.4",
        ("raspberrypi,4-model-b", "brcm,bcm2711"),
        4096,
        "cpu-thermal",
    ),
    Emulated(
        "raspberry-pi-5",
        "cortex-a76",
        "Raspberry Pi 5 Model B Rev 1.0",
        ("raspberrypi,5-model-b", "brcm,bcm2712"),
        8192,
        "cpu-thermal",
    ),
    Emulated(
        "jetson-nano",
        "cortex-a57",
        "NVIDIA Jetson Nano Developer Kit",
        ("nvidia,p3450-0000", "nvidia,jetson-nano", "nvidia,tegra210"),
        4096,
        "CPU-therm",
    ),
)
ZERO_2W, PI_4, PI_5, NANO = BOARDS


def board_files(board: Emulated) -> dict[str, str]:
    """Path → text of what the board's kernel would show under /proc and /sys."""
    zone = "sys/class/thermal/thermal_zone0"
    return machine_files(CPUS[board.cpu], board.model) | {
        "proc/device-tree/compatible": "".join(f"{name}\0" for name in board.compatible),
        "proc/meminfo": f"MemTotal: {board.memory_mb * 1024} kB\nMemAvailable: {board.memory_mb * 700} kB\n",
        "proc/loadavg": "0.10 0.10 0.10 1/100 1000\n",
        f"{zone}/type": f"{board.thermal_zone}\n",
        f"{zone}/temp": "45000\n",
    }


def become(root: Path, board: Emulated) -> None:
    """Write the board's files into a root, plain ones where a kernel would have its own."""
    for name, text in board_files(board).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def in_root(root: Path, board: Emulated, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python on that board, which the root already is."""
    environment = {
        "PATH": f"{SITE}/bin:/usr/bin:/bin",
        "QEMU_CPU": board.cpu,
        "PYTHONPATH": SITE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
    }
    return subprocess.run(
        ["/usr/sbin/chroot", root, "/usr/bin/python3", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def beside(root: Path, board: Emulated, folder: Path) -> tuple[list[str], list[str], dict[str, str]]:
    """qemu, what follows its own options, and the environment: Python of the root with this machine's /proc under it."""
    prefix = folder / "root"
    prefix.mkdir(parents=True)
    for entry in root.iterdir():
        if entry.name in ("bin", "etc", "lib", "opt", "sbin", "usr", "var"):
            (prefix / entry.name).symlink_to(entry)
    become(prefix, board)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "PYTHONHASHSEED": "0",
        "PYTHONHOME": "/usr",
        "PYTHONPATH": SITE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    fixed = (
        ["setarch", "-R"] if subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False).returncode == 0 else []
    )
    return (
        [*fixed, "qemu-aarch64", "-cpu", board.cpu, "-seed", "0"],
        ["-L", str(prefix), str(prefix / "usr" / "bin" / "python3")],
        environment,
    )


def counted_run(root: Path, board: Emulated, folder: Path, frames: int, options: Sequence[str]) -> dict[str, float]:
    """Millions of instructions a frame by stage of `edge-run OPTIONS`, after a few frames."""
    qemu, python, environment = beside(root, board, folder)
    plugin = folder / "count_stages.so"
    version = subprocess.run(["qemu-aarch64", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)", version)
    api = 2 if found and int(found[1]) >= 9 else 1
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", f"-DAPI={api}", "-o", plugin, HERE / "count_stages.c"], check=True, text=True
    )
    script = folder / "staged_run.py"
    shutil.copy(HERE / script.name, script)
    command = [*qemu, "-plugin", str(plugin), *python, str(script), "3", str(frames), *options]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    counts = {int(stage): int(count) for stage, count in re.findall(r"^stage (\d+) (\d+)$", ran.stderr, re.MULTILINE)}
    assert ran.returncode == 0, ran.stderr
    assert counts, ran.stderr
    return {name: counts[stage] / frames / 1e6 for stage, name in STAGES.items()}


def peak_memory_mb(root: Path, board: Emulated, folder: Path, options: Sequence[str]) -> tuple[float, float]:
    """Largest resident memory of `edge-run OPTIONS`, in MB of 2^20 bytes: the guest's own, and with the emulator's.

    qemu-user puts the guest's memory below 2^40 and its own above, which a position-independent qemu guarantees; the
    kernel's account of the former is sampled.
    """
    qemu, python, environment = beside(root, board, folder)
    command = [*qemu, *python, "-m", "edge.commands.run", *options]
    guest = whole = 0.0
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        while process.poll() is None:
            now = resident_mb(process.pid)
            guest, whole = max(guest, now[0]), max(whole, now[1])
            try:
                process.wait(SAMPLED_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
    assert process.returncode == 0, (folder / "log").read_text()
    return guest, whole


SAMPLED_EVERY_S = 0.05
GUEST_BELOW = 1 << 40


def resident_mb(process: int) -> tuple[float, float]:
    """Resident memory below GUEST_BELOW, and all, in MB of 2^20 bytes."""
    guest = whole = start = 0
    try:
        lines = Path(f"/proc/{process}/smaps").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    for line in lines:
        if found := re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line):
            start = int(found[1], 16)
        elif line.startswith("Rss:"):
            size = int(line.split()[1])
            whole += size
            guest += size if start < GUEST_BELOW else 0
    return guest / 1024, whole / 1024
