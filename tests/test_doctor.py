"""edge-doctor as a command, on machines that are faked under a folder, with child processes that tell what a test says."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace as replace_struct

import edge.doctor.examine as examining
from devices import detect
from edge.bundle import open_bundle
from edge.choice import Choice, remember
from edge.commands.doctor import lines, main
from edge.doctor import storage
from edge.doctor.check import Check, doctor_schema, failure, guarded
from edge.doctor.examine import Machine, Question, examine
from edge.doctor.probe import Probe
from edge.doctor.storage import StorageFacts, storage_checks, storage_facts
from edge.errors import BundleError
from tests.devices.faked import machine

ROOT = Path(__file__).parent.parent
A53 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"
MOUNTS = "/dev/mmcblk0p2 / ext4 rw,noatime 0 0"


def arm(root: Path, model: str, features: str = A53, total_mb: int = 3792, **more: str | int) -> Path:
    """A board with 4 cores and half its memory free; `more` are files."""
    cpuinfo = "\n".join(f"processor\t: {core}\nFeatures\t: {features}\n" for core in range(4))
    files: dict[str, str | int] = {
        "proc/sys/kernel/arch": "aarch64",
        "proc/sys/kernel/osrelease": "6.12.47+rpt-rpi-v8",
        "proc/device-tree/model": f"{model}\0",
        "proc/cpuinfo": cpuinfo,
        "proc/meminfo": f"MemTotal: {total_mb * 1024} kB\nMemAvailable: {total_mb * 512} kB\nSwapTotal: 524288 kB",
        "proc/mounts": MOUNTS,
        "proc/cmdline": "console=tty1 root=PARTUUID=x rootwait",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
        "sys/devices/system/cpu/possible": "0-3",
        "run/systemd/timesync/synchronized": "",
    }
    return machine(root, files | more)


def ran(variant: str, accelerators: Sequence[str] = ()) -> Probe:
    """A child process in which everything went well."""
    return Probe(
        (
            {"step": "packages"},
            {"step": "packaged", "numpy": "2.1.0", "cv2": "4.11.0"},
            {"step": "load"},
            {"step": "loaded", "accelerators": list(accelerators)},
            {"step": "open", "variant": variant},
            {"step": "ran", "variant": variant, "ms": 10},
            {"step": "end"},
        ),
        0,
        "",
    )


def died(code: int | None = -4, output: str = "") -> Probe:
    """One whose engine died while it was loaded."""
    return Probe(
        ({"step": "packages"}, {"step": "packaged", "numpy": "2.1.0", "cv2": "4.11.0"}, {"step": "load"}), code, output
    )


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Check]]:
    """Examine a faked machine: what its engines told by name, and which versions are installed; the checks by name."""

    def run(
        root: Path, told: Mapping[str, Probe] | None = None, versions: Mapping[str, str] | None = None, **question: Any
    ) -> dict[str, Check]:
        answers = {"onnx": ran("float32"), "tflite": ran("none")} if told is None else told

        def probe(arguments: Sequence[str], timeout_s: float = 1) -> Probe:
            return answers[arguments[1]] if arguments[0] == "engine" else ran("none")

        there = {"onnxruntime": "onnx", "ai_edge_litert": "tflite"}
        monkeypatch.setattr(examining, "probe", probe)
        monkeypatch.setattr(examining, "is_there", lambda module: there.get(module) in answers)
        monkeypatch.setattr(
            examining, "installed_versions", lambda: dict(versions or {"onnxruntime": "1.22.1", "numpy": "2.1.0"})
        )
        return {check.name: check for check in examine(Question(root=root, **question))}

    return run


@pytest.mark.parametrize(
    ("model", "features", "said"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", A53, "Raspberry Pi Zero 2 W, 4 Cortex-A53"),
        ("Raspberry Pi 3 Model B Rev 1.2", A53, "profile raspberry-pi-3"),
        ("Raspberry Pi 4 Model B Rev 1.5", A53, "Raspberry Pi 4, 4 Cortex-A72 at 1800 MHz, 3792 MiB; profile raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0", A76, "Cortex-A76 at 2400 MHz"),
        ("NVIDIA Jetson Nano Developer Kit", A53, "profile jetson-nano"),
        ("Somebody's board", A53, "no profile of its own"),
    ],
)
def test_the_board_is_named(
    model: str, features: str, said: str, tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path
) -> None:
    checks = on(arm(tmp_path, model, features), bundle=tiny_edge, events=tmp_path)
    assert said in checks["board"].text
    assert checks["board"].status == "ok"
    assert checks["system"].text == "Debian GNU/Linux 12 (bookworm), Linux 6.12.47+rpt-rpi-v8 aarch64"
    assert {check.status for name, check in checks.items() if name not in ("camera", "picamera2", "clock", "engine onnx")} == {
        "ok"
    }


def test_an_engine_that_dies_on_a_pi_4_is_named(tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path) -> None:
    root = arm(tmp_path, "Raspberry Pi 4 Model B Rev 1.5")
    versions = {"onnxruntime": "1.21.0", "ai-edge-litert": "2.3.0"}
    checks = on(root, {"onnx": died(), "tflite": ran("none")}, versions, bundle=tiny_edge)
    assert checks["engine onnx"].status == "fail"
    assert checks["engine onnx"].text.startswith("onnxruntime 1.21.0 dies of SIGILL (illegal instruction) while it is loaded: ")
    assert "issues/23957" in checks["engine onnx"].text
    assert checks["engine onnx"].mend == "pip install 'onnxruntime>=1.22'"
    assert checks["engine tflite"].status == "ok"
    assert checks["bundle"].status == "fail"


def test_on_a_jetson_the_gpu_is_missed(tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path) -> None:
    release = {"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"}
    root = arm(tmp_path, "NVIDIA Jetson Orin Nano Developer Kit", A76, **release)
    checks = on(root, {"onnx": ran("float32", ["CPUExecutionProvider"])}, bundle=tiny_edge)
    engine = checks["engine onnx"]
    assert ", L4T 36.4.3, Linux" in checks["system"].text
    assert engine.status == "warn"
    assert "without tensorrt and cuda" in engine.text or "without cuda and tensorrt" in engine.text
    assert "NVIDIA's wheel" in engine.mend
    accelerated = ran("float32", ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"])
    assert on(root, {"onnx": accelerated}, bundle=tiny_edge)["engine onnx"].status == "ok"


def test_a_pi_that_is_thirsty_hot_and_capped(tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path) -> None:
    root = arm(
        tmp_path, "Raspberry Pi 4 Model B Rev 1.5", **{FIRMWARE: "50005", f"{ZONE}/type": "cpu-thermal", f"{ZONE}/temp": 82500}
    )
    checks = on(root, bundle=tiny_edge)
    assert checks["power"].status == "fail"
    assert checks["power"].text.startswith("now throttled, under-voltage")
    assert "official power supply" in checks["power"].mend
    assert (checks["temperature"].status, checks["temperature"].text[:20]) == ("warn", "82 °C (cpu-thermal),")
    machine(root, {FIRMWARE: "50000", f"{ZONE}/temp": 50000})
    checks = on(root, bundle=tiny_edge)
    assert (checks["power"].status, checks["power"].text) == ("warn", "since boot throttled, under-voltage")
    assert checks["temperature"].status == "ok"


def test_a_board_whose_proc_is_broken(tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path) -> None:
    root = machine(tmp_path, {"proc/cpuinfo/a/folder": "x", "proc/meminfo": b"\xff\0\xfe" * 500, "proc/mounts": "?"})
    machine(root, {"proc/sys/kernel/arch": "vax", "sys/class/thermal/thermal_zone0/temp/x": 1, "etc/os-release": b"\x80=\x81"})
    checks = on(root, bundle=tiny_edge, events=root)
    assert checks["memory"].status == checks["root"].status == checks["system"].status == "warn"
    assert all(check.mend for check in checks.values() if check.status != "ok")
    assert not any("could not be examined" in check.text for check in checks.values())


def test_storage_and_clock(tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path) -> None:
    root = arm(tmp_path, "Raspberry Pi 3 Model B Rev 1.2", total_mb=906)
    (root / "run/systemd/timesync/synchronized").unlink()
    machine(root, {"proc/mounts": "/dev/root / squashfs ro 0 0\ntmpfs /var tmpfs rw 0 0"})
    checks = on(root, bundle=tiny_edge, events=tmp_path / "not there")
    assert (checks["events"].status, checks["events"].mend) == ("fail", f"mkdir -p '{tmp_path}/not there'")
    (tmp_path / "events.jsonl").touch()
    assert on(root, bundle=tiny_edge, events=tmp_path / "events.jsonl")["events"].text.endswith(f" in {tmp_path}")
    assert checks["root"].text.startswith("squashfs, read-only")
    assert "not set by the network; without a battery-backed clock" in checks["clock"].text
    machine(root, {"proc/mounts": "overlay / overlay rw 0 0", "proc/cmdline": "rootwait boot=overlay quiet"})
    assert "lost at the next start" in on(root, bundle=tiny_edge)["root"].text


@pytest.mark.parametrize(
    ("told", "text", "mend"),
    [
        ({"there": False}, "/e is no folder", "mkdir -p /e"),
        ({"there": False, "makeable": False}, "/e is no folder", "sudo install -d -o $USER /e"),
        ({"there": False, "blocked": "/f"}, "/f is no folder", "another folder"),
        ({"writable": False, "yours": True}, "/e cannot be written to by pi", "sudo chown $USER /e, or"),
        (
            {"writable": False},
            "/e cannot be written to by pi",
            "give --events a folder of yours, or sudo install -d -o $USER /e/edge-run",
        ),
        ({"denied": True, "there": False}, "/e cannot be looked into by pi", "run it as the account that edge-run has"),
        ({"device": "/dev/full"}, "/dev/full is a device, which keeps nothing", "give --events a folder"),
        ({"file": "/e/x.jsonl"}, "/e/x.jsonl cannot be written to by pi", "another file"),
        (
            {"mounts": "x / ext4 rw 0 0\nx /e proc rw 0 0"},
            "/e cannot be written to: it is the kernel's own (proc)",
            "on a disk",
        ),
        ({"writable": False, "read_only": True}, "/e is on a read-only file system", "another file system"),
        ({"free_mb": 19}, "19 MiB free in /e", "free some space"),
        ({"free_mb": 499}, "499 MiB free in /e", "free some space"),
        ({"free_mb": 500}, "500 MiB free in /e", ""),
    ],
)
def test_where_events_go(told: dict[str, Any], text: str, mend: str) -> None:
    facts = StorageFacts(Path("/e"), there=True, writable=True, read_only=False, free_mb=9999, mounts="", cmdline="", user="pi")
    check = storage_checks(replace(facts, **told))[0]
    assert check.text == text
    assert mend in check.mend
    assert (check.status == "ok") == (check.mend == "")


def test_a_file_stands_for_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "afile").touch()
    for name in ("events.jsonl", "afile"):
        facts = storage_facts(tmp_path / name, "", "")
        assert (facts.folder, facts.there, facts.writable, facts.device, facts.file) == (tmp_path, True, True, "", "")
    assert storage_facts(tmp_path / "afile" / "deeper", "", "").blocked == str(tmp_path / "afile")
    assert storage_facts(Path("/dev/full"), "", "").device == "/dev/full"
    assert not storage_facts(tmp_path / "new", "", "").there
    assert not storage_facts(tmp_path, "", "").denied

    def refuses(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage, "os", SimpleNamespace(**{**vars(os), "stat": refuses}))
    assert storage_facts(Path("/root/x"), "", "").denied


def test_a_damaged_file_of_any_variant_fails(tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path) -> None:
    bundle = tmp_path / "damaged"
    with zipfile.ZipFile(tiny_edge) as archive:
        archive.extractall(bundle)
    variants = json.loads((bundle / "card.json").read_text())["variants"]
    file = bundle / next(variant["file"] for variant in variants if variant["name"] == "int8-x86")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    check = on(arm(tmp_path / "root", "Raspberry Pi 4"), bundle=bundle)["bundle"]
    assert (check.status, check.mend) == ("fail", "copy the bundle again, or rebuild it with edge-quantize")
    assert check.text.endswith(f": {file.name} differs from its card (another sha256); float32 would run")
    file.write_bytes(data[:-1])
    text = on(tmp_path / "root", bundle=bundle)["bundle"].text
    assert f"{file.name} differs from its card ({len(data) - 1} bytes for {len(data)}); " in text
    (bundle / "golden.npz").write_bytes(b"")
    assert "more of its files; " in on(tmp_path / "root", bundle=bundle)["bundle"].text


def test_edge_benchs_choice_is_what_would_run(
    command: Any, tiny_edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice = Choice(variant="float32", engine="onnx", threads=1, frame_ms=1.0, measured="2026-11-30")

    def line(choice: Choice) -> str:
        remember(detect(), open_bundle(tiny_edge), choice)
        out: str = command(main, "--model", tiny_edge).out
        return next(line for line in out.splitlines() if " bundle " in line)

    assert line(choice).endswith(": float32 would run, edge-bench's choice of 2026-11-30; its golden check agrees")
    absent = line(replace_struct(choice, variant="gone"))
    assert absent.startswith("warn")
    assert "int8-x86 would run, gone, edge-bench's choice of 2026-11-30, passed over: the bundle has no such" in absent
    assert "float32 with edgetpu, edge-bench's choice of 2026-11-30, passed over: " in line(
        replace_struct(choice, accelerator="edgetpu")
    )


def test_no_engine_at_all(tmp_path: Path, on: Callable[..., dict[str, Check]], tiny_edge: Path) -> None:
    checks = on(arm(tmp_path, "Raspberry Pi 4 Model B Rev 1.5"), {}, {"numpy": "2.1.0"}, bundle=tiny_edge)
    assert checks["engine onnx"].status == checks["engine tflite"].status == checks["bundle"].status == "fail"
    assert checks["bundle"].mend == "pip install onnxruntime"
    assert checks["packages"].status == "ok"


def test_a_bundle_that_is_none(tmp_path: Path, on: Callable[..., dict[str, Check]]) -> None:
    (tmp_path / "bad.edge").write_bytes(b"PK")
    check = on(arm(tmp_path, "Raspberry Pi 4"), bundle=tmp_path / "bad.edge")["bundle"]
    assert (check.status, check.mend) == ("fail", "copy it again")


def test_wheels_are_for_the_userland(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining.struct, "calcsize", lambda text: 4)
    found = Machine(arm(tmp_path, "Raspberry Pi 4"))
    assert (found.python.bits, found.here.machine) == (32, "armv7l")
    check = examining.machine.python_check(found.python)
    assert check.status == "warn"
    assert "32-bit" in check.text
    assert "64-bit kernel" in check.text


def test_an_error_that_nobody_expected_is_a_line() -> None:
    def broken() -> list[Check]:
        raise ZeroDivisionError("of\nit")

    def refused() -> list[Check]:
        raise BundleError("x.edge: is missing; copy it again")

    assert guarded("clock", broken) == [
        Check("clock", "warn", "could not be examined: ZeroDivisionError: of it", "report this line to edge-run")
    ]

    def after_one() -> Iterator[Check]:
        yield Check("a", "ok", "fine")
        raise KeyError("x")

    assert [check.name for check in guarded("rest", after_one)] == ["a", "rest"]
    assert guarded("bundle", refused) == [Check("bundle", "fail", "x.edge: is missing", "copy it again")]
    assert failure("a", "no semicolon") == Check("a", "fail", "no semicolon")


def test_lines() -> None:
    checks = [Check("a", "ok", "fine"), Check("longer", "fail", "broken", "mend it")]
    assert list(lines(checks, coloured=False)) == [
        "ok    a       fine",
        "fail  longer  broken",
        "              → mend it",
        "2 checks: 1 ok, 0 to look at, 1 failed",
    ]
    assert next(lines(checks, coloured=True)).startswith("\x1b[32mok  \x1b[0m  a")


def test_json_is_as_its_schema_says(command: Any, tiny_edge: Path) -> None:
    done = command(main, "--model", tiny_edge, "--json")
    checks = json.loads(done.out)
    jsonschema.validate(checks, doctor_schema())
    assert {"board", "engine onnx", "bundle", "clock"} <= {check["name"] for check in checks}
    assert done.code == int(any(check["status"] == "fail" for check in checks))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{"name": "x", "status": "perhaps", "text": ""}], doctor_schema())


@pytest.mark.parametrize(
    ("package", "body", "said"),
    [
        (
            "onnxruntime",
            "import os; os.kill(os.getpid(), 4)",
            ["dies of SIGILL (illegal instruction) while it is loaded", "edge-run --variant int8-tflite"],
        ),
        ("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')", ["fails: ImportError: libGL.so.1"]),
    ],
)
def test_a_package_that_does_not_load(package: str, body: str, said: list[str], tmp_path: Path) -> None:
    machine(tmp_path, {f"{package}/__init__.py": body})
    code = "from edge.commands.doctor import main; main.main([])"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    for words in said:
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--camera", "picamera:0"],
            "under the check picamera2; leave out --camera here, and give edge-run --source picamera:0",
        ),
        (["--camera", "front"], "expected the N of /dev/videoN"),
        (["--offload", "host:8000"], "try --offload http://host:8000"),
        (["--offload-ca", "x.pem"], "does nothing without --offload"),
        (["--offload", "https://h", "--offload-ca", "/nonexistent.pem"], "give a PEM file"),
        (["--frobnicate"], "No such option"),
    ],
)
def test_bad_usage(command: Any, arguments: list[str], said: str) -> None:
    assert said in command(main, *arguments).refused(2)


def test_a_camera_that_is_not_there_fails(command: Any, tiny_edge: Path) -> None:
    done = command(main, "--model", tiny_edge, "--camera", "97")
    assert done.code == 1
    assert "fail  camera" in done.out
    assert "/dev/video97 is not there; cameras here: " in done.out
    assert "/dev/null is no camera; cameras here: " in command(main, "--model", tiny_edge, "--camera", "/dev/null").out


def test_on_this_machine_it_takes_little_and_loads_no_engine() -> None:
    """The target is 1.5 s on two cores; under a loaded test run only what it computes says something."""
    code = (
        "import sys\nfrom edge.commands.doctor import main\n"
        "try:\n    main.main([])\nfinally:\n"
        "    print([name for name in ('onnxruntime', 'ai_edge_litert', 'cv2', 'urllib3', 'grpc') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"NO_COLOR": "1", "XDG_CACHE_HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "int8-x86 would run; its golden check agrees" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [("raise ImportError('no')", 1, "fails: "), ("import os; os.kill(os.getpid(), 4)", 1, "dies of SIGILL")],
)
def test_a_numpy_that_cannot_be_imported_ends_no_command(body: str, code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(body)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge.commands.doctor", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment, check=False)

    done = run()
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout
    done = run("--offload", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "--offload: is not examined while NumPy" in done.stderr


def test_a_numpy_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('libopenblas.so.0: cannot open shared object file')")
    command = [sys.executable, "-m", "edge.commands.doctor", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["packages"]["mend"] == "sudo apt install libopenblas0"
    assert (checks["bundle"]["status"], checks["bundle"]["mend"]) == ("fail", "see packages")
