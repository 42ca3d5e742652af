"""What an inference costs on a processor that is not here, in instructions counted by emulating it.

qemu-user runs the engine's own code for that processor, and a plugin counts (count_instructions.c). It says nothing of
caches, memory bandwidth or heat, and it repeats to 0.1%, which no clock does. ARM needs a root made by arm64_root.sh;
x86 without VNNI (`haswell`) runs this machine's own Python and engines.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

import devices
import edge
from edge.bundle import sha256
from edge.card import Variant
from edge.errors import EngineError, UsageError
from edge.extras import EXTRAS
from edge.types import Outputs, UInt8

HERE = Path(__file__).parent
ROOT_SCRIPT = HERE / "arm64_root.sh"
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor to emulate: qemu's name for it and what its cpuinfo must say, or an engine picks instructions it lacks."""

    qemu: str
    machine: str
    part: str = ""
    features: str = ""


CPUS = {
    "cortex-a53": Cpu("cortex-a53", "aarch64", "0xd03", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a57": Cpu("cortex-a57", "aarch64", "0xd07", "fp asimd evtstrm aes pmull sha1 sha2 crc32"),
    "cortex-a72": Cpu("cortex-a72", "aarch64", "0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": Cpu(
        "cortex-a76",
        "aarch64",
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
    "haswell": Cpu("Haswell", "x86_64"),
}
"""By the name that a caller gives. The A76 has dot products, the other Cortex do not; Haswell has AVX2 and no VNNI."""

GETPPID = {"aarch64": 173, "x86_64": 110}
"""Machine → the number of the system call that marks."""


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """One emulated inference: millions of instructions, and what it answered by role."""

    millions: float
    outputs: Outputs


def cache_folder() -> Path:
    """Where the arm64 root and the figures are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-run"


def arm64_root() -> Path:
    """The root that arm64_root.sh makes."""
    return cache_folder() / "arm64-root"


def machine_files(cpu: Cpu, model: str = "") -> dict[str, str]:
    """Path → text of the kernel's files by which engines and `devices` know an ARM processor and its board."""
    core = f"Features\t: {cpu.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {cpu.part}\n"
    cores = "".join(f"processor\t: {number}\n{core}\n" for number in range(4))
    return {
        "proc/cpuinfo": cores + f"Model\t\t: {model}\n",
        "proc/device-tree/model": model + "\0",
        **{f"sys/devices/system/cpu/{name}": "0-3\n" for name in ("possible", "present", "online")},
    }


def why_not(cpu: str) -> str:
    """What is missing to count on that processor and what to run, in one line; nothing when it can be done.

    Raises UsageError for a processor that CPUS does not have.
    """
    machine = _target(cpu).machine
    make_root = f"run `make arm64-root`, which is `PYTHON={sys.executable} bash {ROOT_SCRIPT}`"
    if machine == "x86_64" and platform.machine() != "x86_64":
        return f"instructions on {cpu} can be counted on an x86-64 machine only"
    for tool in (f"qemu-{machine}", "gcc"):
        if shutil.which(tool) is None:
            hint = "apt install qemu-user gcc libc6-dev" if machine == "x86_64" else make_root
            return f"instructions on {cpu} cannot be counted without {tool}; {hint}"
    if machine == "x86_64" and _qemu_version(machine) < (7, 2):
        return f"instructions on {cpu} cannot be counted: qemu-x86_64 knows no AVX2 before 7.2; upgrade qemu-user"
    if machine == "aarch64" and not (arm64_root() / ".complete").exists():
        return f"instructions on {cpu} cannot be counted: there is no arm64 root in {arm64_root()}; {make_root}"
    if machine == "aarch64" and not any(_engine_version("onnx", machine)):
        return f"instructions on {cpu} cannot be counted: no engine in {arm64_root()}; {make_root}"
    return ""


def open_counter(cpus: Sequence[str] = ("cortex-a72", "cortex-a76"), *, processes: int = 2) -> Counter | None:
    """A counter for those processors, or None where `why_not` says why for one of them."""
    return None if any(why_not(cpu) for cpu in cpus) else Counter(processes)


class Counter:
    """Counts, `processes` at a time, and remembers what it counted in instructions.json in the cache folder."""

    def __init__(self, processes: int = 2, timeout_s: float = TIMEOUT_S) -> None:
        self._processes = processes
        self._timeout_s = timeout_s
        self._memory = cache_folder() / "instructions.json"

    def millions(self, data: bytes, variant: Variant, picture: UInt8, cpus: Sequence[str]) -> dict[str, float]:
        """Millions of instructions of an inference after the first, one thread, by processor; `picture` as in `infer`."""
        keys = {cpu: _key(data, variant, picture, cpu) for cpu in cpus}
        known = _read(self._memory)
        missing = [cpu for cpu in keys if keys[cpu] not in known]
        with ThreadPoolExecutor(self._processes) as pool:
            counted = pool.map(lambda cpu: self.infer(data, variant, picture, cpu).millions, missing)
            found = {keys[cpu]: millions for cpu, millions in zip(missing, counted, strict=True)}
        if found:
            _remember(self._memory, found)
        return {cpu: (known | found)[key] for cpu, key in keys.items()}

    def infer(self, data: bytes, variant: Variant, picture: UInt8, cpu: str) -> Counted:
        """Run a variant's file on `picture`, uint8 [1, h, w, 3], as the engine would on that processor. Raises EngineError."""
        reason = why_not(cpu)
        if reason:
            raise EngineError(reason)
        target = _target(cpu)
        with tempfile.TemporaryDirectory(prefix="edge-count-") as name, _kept(arm64_root()):
            folder = Path(name)
            (folder / "model").write_bytes(data)
            (folder / "variant.json").write_bytes(msgspec.json.encode(variant))
            np.save(folder / "picture.npy", picture)
            shutil.copy(HERE / "counted_inference.py", folder / "counted_inference.py")
            for package in (edge, devices):  # beside the script, so that they go before any in the root
                (folder / package.__name__).symlink_to(Path(package.__path__[0]).resolve())
            python, environment, options = _guest(folder, target)
            command = [
                *(("setarch", "-R") if _can_fix_addresses() else ()),
                *(f"qemu-{target.machine}", "-cpu", target.qemu, "-seed", "0", "-plugin", str(_plugin(folder, target.machine))),
                *(*options, python, str(folder / "counted_inference.py"), str(folder)),
            ]
            return Counted(self._count(command, environment, f"{variant.file} on an emulated {cpu}"), _outputs(folder))

    def _count(self, command: list[str], environment: dict[str, str], what: str) -> float:
        try:
            ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=self._timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise EngineError(
                f"{what} took more than {self._timeout_s:g} s; leave the count out, or try a smaller input"
            ) from None
        marks = re.findall(r"^marked (\d+)$", ran.stderr, re.MULTILINE)
        if ran.returncode or len(marks) != 1:
            raise EngineError(f"{what} cannot be counted: {_last_words(ran)}")
        return int(marks[0]) / 1e6


def _target(cpu: str) -> Cpu:
    if cpu not in CPUS:
        raise UsageError(f"instructions cannot be counted on {cpu!r:.80}; choose from {', '.join(CPUS)}")
    return CPUS[cpu]


def _guest(folder: Path, target: Cpu) -> tuple[str, dict[str, str], list[str]]:
    """The Python to run, its environment and qemu's options for where it finds its files."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    if target.machine == platform.machine() == "x86_64":
        return sys.executable, environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, []
    # a root of its own, of links and this processor's cpuinfo: counts side by side do not disturb each other
    prefix = folder / "root"
    prefix.mkdir()
    for entry in arm64_root().iterdir():
        if entry.name in ("bin", "etc", "lib", "opt", "sbin", "usr", "var"):
            (prefix / entry.name).symlink_to(entry)
    for name, text in machine_files(target).items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    python = str(prefix / "usr" / "bin" / "python3")
    return python, environment | {"PYTHONHOME": "/usr", "PYTHONPATH": "/opt/site"}, ["-L", str(prefix)]


def _plugin(folder: Path, machine: str) -> Path:
    """The counting plugin, compiled into `folder`."""
    path = folder / "count_instructions.so"
    api = 1 if _qemu_version(machine) < (9, 0) else 2
    defines = [f"-DAPI={api}", f"-DGETPPID={GETPPID[machine]}"]
    command = ["gcc", "-O2", "-shared", "-fPIC", *defines, "-o", str(path), str(HERE / "count_instructions.c")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise EngineError(f"gcc cannot build count_instructions.c: {_last_words(ran)}; apt install gcc libc6-dev")
    return path


def _outputs(folder: Path) -> Outputs:
    with np.load(folder / "outputs.npz", allow_pickle=False) as arrays:
        return {role: arrays[role] for role in arrays.files}


def _last_words(ran: subprocess.CompletedProcess[str]) -> str:
    """Why a program ended: its last line without the exception's class, or the signal."""
    if ran.returncode < 0:
        return f"it was killed by {signal.Signals(-ran.returncode).name}"
    lines = [line for line in ran.stderr.splitlines() if line.strip() and not line.startswith("marked ")]
    return re.sub(r"^[\w.]+: ", "", lines[-1].strip()) if lines else f"it ended with {ran.returncode} and said nothing"


def _qemu_version(machine: str) -> tuple[int, int]:
    said = subprocess.run([f"qemu-{machine}", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _can_fix_addresses() -> bool:
    """Whether a program may ask for the same addresses every time; some containers forbid it, and counts repeat less well."""
    return subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False).returncode == 0


def _engine_version(engine: str, machine: str) -> tuple[str, ...]:
    """Name and version of the packages for this engine that the emulated Python has."""
    if machine == "aarch64":
        names = (name for package in EXTRAS[engine] for name in (arm64_root() / "opt" / "site").glob(f"{package}-*.dist-info"))
        return tuple(sorted(name.name.removesuffix(".dist-info") for name in names))
    versions = []
    for package in EXTRAS[engine]:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package}-{importlib.metadata.version(package)}")
    return tuple(versions)


@contextmanager
def _kept(root: Path) -> Iterator[None]:
    """Hold arm64_root.sh off from changing the root meanwhile."""
    try:
        lock = open(root.with_name(root.name + ".lock"), "rb")  # noqa: SIM115
    except OSError:  # no root was ever made
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _key(data: bytes, variant: Variant, picture: UInt8, cpu: str) -> str:
    """What a count depends on."""
    how = msgspec.json.encode([variant.precision, variant.scheme, variant.weight_bits, variant.input, variant.outputs])
    counting = b"".join((HERE / name).read_bytes() for name in ("count_instructions.c", "counted_inference.py"))
    inputs = hashlib.sha256(how + counting + str(picture.shape).encode() + picture.tobytes()).hexdigest()
    engine = "+".join(_engine_version(variant.engine, _target(cpu).machine))
    return f"{sha256(data)} {inputs[:16]} {cpu} {engine} edge-{edge.__version__}"


def _read(path: Path) -> dict[str, float]:
    """What was counted before; nothing when the file is absent or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except (OSError, msgspec.DecodeError):
        return {}


def _remember(path: Path, found: dict[str, float]) -> None:
    """Add to the file, whole or not at all; a cache that cannot be written is done without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(_read(path) | found, indent=1))
            fresh.replace(path)
