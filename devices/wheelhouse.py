"""`python -m devices.wheelhouse BOARD --wheel edge_run.whl`: a folder to install from, on a board without a network."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from devices import BOARDS, GENERIC, Board
from devices.wheels import MIB, Requirement, distribution, extras_of, missing, platform_tags, unpacked_mib

OLDEST_PYTHON = (3, 10)
OLDEST_GLIBC = 17
"""Wheels are for glibc 2.17 or later."""
ROUNDS = 6
SUMS = "SHA256SUMS"
ENGINES = ("onnx", "tflite")
OFFERED = (*ENGINES, "picamera")
"""Extras that a refusal names: those that a board may want."""
SERVICE = Path(__file__).parents[1] / "docs" / "edge-run.service"


class WheelhouseError(Exception):
    """What cannot be, in one line for the person at the terminal; `exit_code` as those of edge-run."""

    def __init__(self, line: str, exit_code: int = 2) -> None:
        super().__init__(line)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class System:
    """An operating system of boards. Its C library is glibc 2.`glibc`; `machine` is there where it is not the board's own.

    `picamera` is what its own python3-picamera2 can live with. `constrained`: constraints.txt was written for its Python.
    """

    name: str
    title: str
    python: str
    glibc: int
    machine: str = ""
    picamera: tuple[Requirement, ...] = ()
    constrained: bool = False


NUMPY_1 = (Requirement("numpy", versions="<2"),)
"""bookworm's simplejpeg, which Picamera2 imports, is built for NumPy 1 (raspberrypi/picamera2#1211)."""

SYSTEMS = (
    System("bookworm", "Debian or Raspberry Pi OS 12 (bookworm)", "3.11", 36, picamera=NUMPY_1, constrained=True),
    System("trixie", "Debian or Raspberry Pi OS 13 (trixie)", "3.13", 41),
    System("bookworm-32", "Raspberry Pi OS 12 (bookworm), 32-bit", "3.11", 36, machine="armv7l", picamera=NUMPY_1),
    System("ubuntu-22.04", "Ubuntu 22.04", "3.10", 35),
    System("ubuntu-24.04", "Ubuntu 24.04", "3.12", 39),
    System("jetpack-6", "JetPack 6 (Ubuntu 22.04)", "3.10", 35),
    System("jetpack-5", "JetPack 5 (Ubuntu 20.04)", "3.8", 31),
    System("jetpack-4", "JetPack 4 (Ubuntu 18.04)", "3.6", 27),
    System("mendel", "Mendel Linux 5 (Debian 10)", "3.7", 28),
)


@dataclass(frozen=True, slots=True)
class Target:
    """Who the wheels are for."""

    board: Board
    system: System
    python: str
    extras: tuple[str, ...]

    @property
    def constrained(self) -> bool:
        """Whether constraints.txt fits."""
        return self.system.constrained and self.python == self.system.python and not self.has_picamera

    @property
    def has_picamera(self) -> bool:
        """Whether Picamera2 is to work beside it, which comes from the system's packages and no index."""
        return "picamera" in self.extras

    @property
    def from_index(self) -> tuple[str, ...]:
        """The extras that are downloaded."""
        return tuple(name for name in self.extras if name != "picamera")

    @property
    def machine(self) -> str:
        """As in `uname -m`."""
        return self.system.machine or self.board.machine

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags that the system takes, the best first (PEP 600; linux_* is what piwheels builds)."""
        glibc = range(self.system.glibc, OLDEST_GLIBC - 1, -1)
        return (*(f"manylinux_2_{n}_{self.machine}" for n in glibc), f"manylinux2014_{self.machine}", f"linux_{self.machine}")

    @property
    def environment(self) -> dict[str, str]:
        """What markers of PEP 508 are asked about."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "platform_python_implementation": "CPython",
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "platform_release": "",
            "platform_version": "",
            "sys_platform": "linux",
            "os_name": "posix",
        }


def target(board: str, extras: Sequence[str] = (), python: str = "", system: str = "") -> Target:
    """The board of this name with its usual system and engine unless others are given; raises WheelhouseError."""
    boards = {one.name: one for one in (*BOARDS, *GENERIC)}
    if board not in boards:
        raise WheelhouseError(f"BOARD {board!r} is not known; {_nearest(board, boards)}")
    names = boards[board].systems
    if system and system not in names:
        raise WheelhouseError(f"SYSTEM {system!r} is none of {board}'s; {_nearest(system, names)}")
    of = next(one for one in SYSTEMS if one.name == (system or names[0]))
    engine = "tflite" if (of.machine or boards[board].machine) == "armv7l" else "onnx"
    if engine == "tflite" and "onnx" in extras:
        raise WheelhouseError("EXTRAS onnx: onnxruntime has no wheels for 32-bit ARM; take EXTRAS=tflite")
    with_engine = extras if set(extras) & set(ENGINES) else (engine, *extras)
    chosen = Target(boards[board], of, python or of.python, tuple(with_engine))
    if not re.fullmatch(r"3\.\d{1,2}", chosen.python):
        raise WheelhouseError(f"PYTHON_VERSION {chosen.python!r} is not a version; give one as in 3.11")
    if tuple(map(int, chosen.python.split("."))) < OLDEST_PYTHON:
        newer = f"SYSTEM={names[0]}, or " if of.name != names[0] else ""
        raise WheelhouseError(
            f"{of.title} has Python {chosen.python} and edge-run needs 3.10; {newer}"
            "install a newer Python there and name it with PYTHON_VERSION=3.10"
        )
    return chosen


def _nearest(name: str, names: Sequence[str] | dict[str, Board]) -> str:
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names)}"


def pip_download(of: Target, wanted: Sequence[Requirement], folder: Path, constraints: Path | None = None) -> list[str]:
    """The command that downloads what is wanted, and what it needs, as wheels for the target and for nothing else."""
    abi = f"cp{of.python.replace('.', '')}"
    return [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", of.python),
        *(word for tag in (abi, "abi3", "none") for word in ("--abi", tag)),
        *(word for tag in of.platforms for word in ("--platform", tag)),
        *(("--constraint", str(constraints)) if constraints and of.constrained else ()),
        *("--dest", str(folder)),
        *map(str, wanted),
    ]


def download(of: Target, wheel: Path, folder: Path, constraints: Path | None = None) -> None:
    """Put `wheel` and everything that it needs on the target into the folder; raises WheelhouseError."""
    if unknown := sorted(set(of.extras) - extras_of(wheel)):
        raise WheelhouseError(f"EXTRAS {', '.join(unknown)}: {wheel.name} has no such extra; {_nearest(unknown[0], OFFERED)}")
    shutil.copy(wheel, folder)
    roots = [Requirement(distribution(wheel), frozenset(of.from_index))]
    wanted = list(of.system.picamera) if of.has_picamera else []
    for _ in range(ROUNDS):
        absent = missing(folder, roots, of.environment)
        if not absent:
            return
        wanted += absent
        ran = subprocess.run(pip_download(of, wanted, folder, constraints), capture_output=True, text=True, check=False)
        if ran.returncode:
            raise WheelhouseError(_refusal(of, ran.stderr), exit_code=1)
    raise WheelhouseError(
        f"pip downloads, but not {', '.join(map(str, absent))}; try pip download {absent[0].name}", exit_code=1
    )


def _refusal(of: Target, said: str) -> str:
    """What pip's complaint comes to."""
    lines = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.startswith("ERROR: ")]
    absent = re.search(r"No matching distribution found for ([^\s(]+)", said)
    if "Retrying" in said:
        return "pip download: the package index cannot be reached; try again with a network"
    if absent is None:
        return f"pip download: {lines[0] if lines else 'it failed'}"
    where = f"{of.machine}, Python {of.python} and glibc 2.{of.system.glibc}"
    if of.machine == "armv7l":
        return (
            f"{absent[1]}: the package index has no wheel for {where}; "
            "piwheels builds them: name its index in PIP_EXTRA_INDEX_URL, or install on the board itself (docs/install.md)"
        )
    return f"{absent[1]}: the package index has no wheel for {where}; try another PYTHON_VERSION or SYSTEM"


def install_line(of: Target, wheel: Path) -> str:
    """What installs edge-run on the board, where this folder is."""
    python = "python3" if of.python == of.system.python else f"python{of.python}"
    return (
        f"{python} -m venv --system-site-packages ~/edge && "
        f"~/edge/bin/pip install --no-index --find-links . '{distribution(wheel)}[{','.join(of.from_index)}]'"
    )


def describe(of: Target, wheel: Path, folder: Path) -> str:
    """The README.txt of a wheelhouse."""
    wheels = list(folder.glob("*.whl"))
    packed = sum(one.stat().st_size for one in wheels) / MIB
    first = "python3-venv python3-picamera2" if of.has_picamera else "python3-venv"
    first = f"the package{'s' if of.has_picamera else ''} {first}" if of.python == of.system.python else f"Python {of.python}"
    return f"""\
{wheel.name} with {", ".join(of.extras)}, and all that it needs, for {of.board.title}:
{of.system.title}, {of.machine}, Python {of.python}. The board itself needs {first}.

Check what arrived:            sha256sum --check SHA256SUMS
Install it, without a network: {install_line(of, wheel)}
Try it:                        ~/edge/bin/edge-run --source demo --max-frames 30
As a service of systemd:       put such an environment into /opt/edge (the same with sudo, and /opt/edge for ~/edge), then
                               sudo cp {SERVICE.name} /etc/systemd/system/ && sudo systemctl enable --now edge-run

{len(wheels)} wheels, {packed:.1f} MiB; installed {unpacked_mib(folder):.1f} MiB, and what Python adds of byte code.
"""


def checksums(folder: Path) -> str:
    """SHA256SUMS of the folder's files, as sha256sum checks them."""
    files = sorted(one for one in folder.iterdir() if one.name != SUMS)
    return "".join(f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in files)


def foreign(of: Target, folder: Path) -> list[str]:
    """Wheels in the folder that the target would not take."""
    takes = {"any", *of.platforms}
    return sorted(wheel.name for wheel in folder.glob("*.whl") if takes.isdisjoint(platform_tags(wheel)))


def make(of: Target, wheel: Path, out: Path, constraints: Path | None = None) -> None:
    """Make the wheelhouse in `out`, in place of one that was there once everything has come; raises WheelhouseError."""
    out = out.absolute()
    if os.path.lexists(out) and not _is_replaceable(out):
        raise WheelhouseError(f"{out}: is there and no wheelhouse; choose another --out")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        download(of, wheel, part, constraints)
        if strange := foreign(of, part):
            raise WheelhouseError(f"pip downloaded {', '.join(strange)}, not for {of.machine}; upgrade pip", exit_code=1)
        shutil.copyfile(SERVICE, part / SERVICE.name)
        (part / "README.txt").write_text(describe(of, wheel, part))
        (part / SUMS).write_text(checksums(part))
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_replaceable(out: Path) -> bool:
    """Whether it is a folder that is empty, or that this command has made."""
    return out.is_dir() and not out.is_symlink() and ((out / SUMS).is_file() or not any(out.iterdir()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m devices.wheelhouse", description=__doc__)
    parser.add_argument("board", metavar="BOARD", nargs="?", default="", help="as in raspberry-pi-4")
    parser.add_argument("--wheel", metavar="FILE", type=Path, help="edge-run's own wheel, of make wheel")
    parser.add_argument(
        "--extras", metavar="A,B,...", default="", help="onnx, tflite, picamera  [default: onnx; of a 32-bit system tflite]"
    )
    parser.add_argument("--system", metavar="NAME", default="", help=f"{', '.join(one.name for one in SYSTEMS)}")
    parser.add_argument("--python-version", metavar="3.N", default="", help="[default: the system's]")
    parser.add_argument(
        "--constraints", metavar="FILE", type=Path, help="versions to take where they were chosen for its Python"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="[default: build/wheelhouse-BOARD]")
    given = parser.parse_args(arguments)
    try:
        extras = [name for name in re.split(r"[,\s]+", given.extras) if name]
        of = target(given.board, extras, given.python_version, given.system)
        if given.wheel is None:
            raise WheelhouseError("--wheel FILE is missing; make wheel, and give what it puts into dist/")
        if given.constraints is not None and not given.constraints.is_file():
            raise WheelhouseError(f"{given.constraints}: there is no such file; give --constraints constraints.txt")
        if not SERVICE.is_file():
            raise WheelhouseError(f"{SERVICE}: is not there; run this in a clone of edge-run")
        if not given.wheel.is_file():
            raise WheelhouseError(f"{given.wheel}: there is no such wheel; make wheel")
        out = given.out or Path("build") / f"wheelhouse-{given.board}"
        make(of, given.wheel, out, given.constraints)
    except WheelhouseError as error:
        sys.stderr.write(f"wheelhouse: {error}\n")
        return error.exit_code
    except zipfile.BadZipFile:
        sys.stderr.write(f"wheelhouse: {given.wheel}: it, or one that pip downloaded, is no wheel; make wheel, and try again\n")
        return 2
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"wheelhouse: {where}{error.strerror or error}; choose another --out\n")
        return 1
    wheels = list(out.glob("*.whl"))
    packed = sum(one.stat().st_size for one in wheels) / MIB
    sys.stdout.write(
        f"{out}: {len(wheels)} wheels for {of.system.title}, {of.machine}, Python {of.python}: "
        f"{packed:.1f} MiB, installed {unpacked_mib(out):.1f} MiB\n"
        f"copy it to the board, and there, in it: {install_line(of, given.wheel)}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
