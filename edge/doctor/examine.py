"""Gathers the facts and runs the checks, those that take time side by side."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from devices import MACHINE_ALIASES, Board, Sensors, detect, system
from devices.files import read
from edge.doctor import machine, v4l2
from edge.doctor.cameras import PicameraFacts, camera_checks, picamera_check
from edge.doctor.check import Check, guarded
from edge.doctor.engines import Attempt, EngineFacts, attempts_of, bundle_check, deadly, engine_check, package_of
from edge.doctor.known_bad import Here
from edge.doctor.packages import installed_versions, packages_check
from edge.doctor.probe import Probe, ending, has_packages, probe
from edge.doctor.storage import storage_checks, storage_facts
from edge.extras import EXTRAS, is_there

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.offload.address import Address
    from edge.offload.credentials import Credentials

TIME_ERROR = 5
"""What adjtimex returns while nothing has set the clock: adjtimex(2)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to examine: a bundle, the camera at a path, the folder of events, an endpoint; `root` holds /proc, /sys and /dev."""

    bundle: Path
    camera: str | None = None
    events: Path = Path()
    endpoint: tuple[Address, Credentials] | None = None
    root: Path = Path("/")


class Machine:
    """What is known of the machine under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        here = root == Path("/")
        self.kernel = platform.release() if here else read(root / "proc/sys/kernel/osrelease") or "unknown"
        self.machine = platform.machine() if here else read(root / "proc/sys/kernel/arch") or platform.machine()
        self.board: Board = detect(root, self.machine)
        self.cpu = system.cpu(root)

    @cached_property
    def python(self) -> machine.PythonFacts:
        """The Python that runs this."""
        version = sys.version_info[:3]
        return machine.PythonFacts(version, struct.calcsize("P") * 8, self.machine, sys.prefix != sys.base_prefix)

    @cached_property
    def here(self) -> Here:
        """What installed packages meet."""
        alike = MACHINE_ALIASES.get(self.machine, self.machine)
        wheels = "armv7l" if self.python.bits == 32 and alike == "aarch64" else alike
        mounted = bool(read(self.root / "sys/devices/system/cpu/possible"))
        return Here(wheels, self.python.version, self.cpu.features, installed_versions(), mounted)


def examine(question: Question) -> list[Check]:
    """Every check, in the order to read them; never raises for what it finds."""
    found = Machine(question.root)
    with ThreadPoolExecutor(max_workers=8) as pool:
        chosen = ("chosen",) if question.root == Path("/") else ()
        modules = {engine: next(filter(is_there, names), "") for engine, names in EXTRAS.items()}
        running = {
            engine: pool.submit(
                probe,
                ("engine", engine, module, str(question.bundle.absolute()), found.machine, str(found.board.threads), *chosen),
            )
            for engine, module in modules.items()
            if module
        }
        spare = None if running else pool.submit(probe, ("packages",))
        picamera = pool.submit(_picamera, found.board)
        endpoint = pool.submit(_endpoint, question)
        quick = _quick(question, found)
        told = {engine: job.result() for engine, job in running.items()}
        tried = _tried(question, found, modules, told, next(iter(told.values())) if spare is None else spare.result())
        return [*quick, *tried, *_cameras(question, found.board, picamera.result()), *endpoint.result()]


def _quick(question: Question, found: Machine) -> list[Check]:
    """What a few small files tell."""
    root, board = found.root, found.board
    reading = Sensors(board, root).read()
    total_mb, available_mb = system.memory(root)
    tegra = read(root / "etc/nv_tegra_release")
    driver = read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver")

    def clock() -> Iterable[Check]:
        has_rtc = (root / "sys/class/rtc/rtc0").exists()
        return [machine.clock_check(time.gmtime().tm_year, _synchronized(root), has_rtc)]

    checks: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("board", lambda: [machine.board_check(board, found.cpu, total_mb)]),
        ("system", lambda: [machine.system_check(system.os_release(root), found.kernel, found.machine, tegra)]),
        ("pages", lambda: [machine.pages_check(os.sysconf("SC_PAGESIZE"))]),
        ("python", lambda: [machine.python_check(found.python)]),
        ("power", lambda: [machine.power_check(reading, board)]),
        ("temperature", lambda: [machine.temperature_check(reading, board)]),
        ("governor", lambda: [machine.governor_check(reading, driver)]),
        ("memory", lambda: [machine.memory_check(total_mb, available_mb, system.swap_mb(root))]),
        (
            "events",
            lambda: storage_checks(storage_facts(question.events, read(root / "proc/mounts"), read(root / "proc/cmdline"))),
        ),
        ("clock", clock),
    ]
    return [check for name, asked in checks for check in guarded(name, asked)]


def _tried(question: Question, found: Machine, modules: dict[str, str], told: dict[str, Probe], packages: Probe) -> list[Check]:
    """Packages, engines and the bundle."""
    facts = [EngineFacts(engine, module, told.get(engine)) for engine, module in modules.items()]
    sound = [each.engine for each in facts if each.told is not None and each.told.steps[-1:] == ({"step": "end"},)]

    def bundle() -> Iterable[Check]:
        if not has_packages(packages):  # which may not only raise, but die
            return [Check("bundle", "fail", "was not tried: NumPy or OpenCV does not load", "see packages")]
        from edge.bundle import open_bundle
        from edge.choice import remembered

        opened = open_bundle(question.bundle)
        card = opened.card
        attempts: list[Attempt] = [attempt for each in facts for attempt in attempts_of(each)]
        orders = [step["variants"] for probe in told.values() for step in probe.steps if step["step"] == "order"]
        order = orders[0] if orders else [variant.name for variant in card.variants]
        missing = sorted({variant.engine for variant in card.variants if not modules.get(variant.engine)})
        packages_missing = [package_of(engine, found.here) for engine in missing]
        stale: list[str] = []
        choice = remembered(found.board, opened, stale.append) if found.root == Path("/") else None
        ends = {each.engine: deadly(each) for each in facts}
        fatal = {variant.name: ends[variant.engine] for variant in card.variants if ends.get(variant.engine)}
        return [
            bundle_check(
                card.name,
                order,
                attempts,
                missing=packages_missing,
                fatal=fatal,
                choice=choice,
                stale=stale[0] if stale else "",
                damaged=_damages(opened),
            )
        ]

    def engines() -> Iterable[Check]:
        for each in facts:
            yield engine_check(each, found.here, found.board, [engine for engine in sound if engine != each.engine])

    return [
        *guarded("packages", lambda: [packages_check(found.here.versions, found.here, packages)]),
        *guarded("engines", engines),
        *guarded("bundle", bundle),
    ]


def _damages(bundle: Bundle) -> list[str]:
    """What is wrong with the files that a bundle's card names, a line each without what mends it."""
    from edge.errors import BundleError

    found: dict[str, None] = {}
    for variant in bundle.card.variants:
        for read_one in (bundle.model_bytes, bundle.golden):
            try:
                read_one(variant)
            except BundleError as error:
                found[str(error).removeprefix(f"{bundle.where}: ").rpartition("; ")[0] or str(error)] = None
    return list(found)


def _cameras(question: Question, board: Board, picamera: PicameraFacts | None) -> list[Check]:
    def checks() -> Iterable[Check]:
        wanted = question.camera
        there = wanted is not None and os.path.exists(question.root / wanted.lstrip("/"))
        found = camera_checks(v4l2.nodes(question.root), wanted, there=there, raw_elsewhere=picamera is not None)
        yield from found
        if picamera is not None and question.camera is None:
            yield picamera_check(picamera, board, others=any(check.status == "ok" for check in found))

    return guarded("camera", checks)


def _picamera(board: Board) -> PicameraFacts | None:
    """None where the board has no use for it."""
    if "picamera2" not in board.cameras:
        return None
    if not is_there("picamera2"):
        return PicameraFacts(False)
    told = probe(("picamera",))
    step = next((step for step in told.steps if step["step"] == "cameras"), None)
    return PicameraFacts(True, error=f"picamera2 {ending(told)}") if step is None else PicameraFacts(True, step["count"])


def _endpoint(question: Question) -> list[Check]:
    if question.endpoint is None:
        return []
    from edge.doctor.endpoint import endpoint_checks

    address, credentials = question.endpoint
    return guarded("endpoint", lambda: endpoint_checks(address, credentials))


def _synchronized(root: Path) -> bool | None:
    """Whether systemd-timesyncd, or the kernel by adjtimex, says that the network has set the clock; None: cannot say."""
    if (root / "run/systemd/timesync/synchronized").exists():
        return True
    if root != Path("/"):
        return False
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR
