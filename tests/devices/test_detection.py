"""Which board this is, from pretended roots."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import BOARDS, MACHINE_ALIASES, detect
from devices.board import Cluster
from devices.coral import EDGE_TPU
from tests.devices.faked import machine as faked


def root(folder: Path, model: bytes | None, place: str = "proc/device-tree/model") -> Path:
    if model is not None:
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(model)
    return folder


REAL = [
    (b"Raspberry Pi 5 Model B Rev 1.0\0", "raspberry-pi-5"),
    (b"Raspberry Pi Compute Module 5 Rev 1.0\0", "raspberry-pi-5"),
    (b"Raspberry Pi 500 Rev 1.0\0", "raspberry-pi-5"),
    (b"Raspberry Pi 4 Model B Rev 1.4\0", "raspberry-pi-4"),
    (b"Raspberry Pi 400 Rev 1.0\0", "raspberry-pi-4"),
    (b"Raspberry Pi Compute Module 4 Rev 1.1\0", "raspberry-pi-4"),
    (b"Raspberry Pi 3 Model B Plus Rev 1.3\0", "raspberry-pi-3-plus"),
    (b"Raspberry Pi 3 Model B+\0", "raspberry-pi-3-plus"),
    (b"Raspberry Pi 3 Model A Plus Rev 1.0\0", "raspberry-pi-3-plus"),
    (b"Raspberry Pi 3 Model B Rev 1.2\0", "raspberry-pi-3"),
    (b"Raspberry Pi Compute Module 3 Plus Rev 1.0\0", "raspberry-pi-3"),
    (b"Raspberry Pi Zero 2 W Rev 1.0\0", "raspberry-pi-zero-2w"),
    (b"NVIDIA Jetson Nano Developer Kit\0", "jetson-nano"),
    (b"NVIDIA Jetson Orin Nano Developer Kit\0", "jetson-orin-nano"),
    (b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0", "jetson-orin-nano"),
    (b"NVIDIA Jetson AGX Orin Developer Kit\0", "jetson-agx-orin"),
    (b"Google i.MX8MQ Phanbell\0", "coral-dev-board"),
    (b"Freescale i.MX8MQ Phanbell\0", "coral-dev-board"),
]


@pytest.mark.parametrize(("model", "name"), REAL)
@pytest.mark.parametrize("place", ["proc/device-tree/model", "sys/firmware/devicetree/base/model"])
def test_known_boards(tmp_path: Path, model: bytes, name: str, place: str) -> None:
    board = detect(root(tmp_path, model, place), "aarch64", 16)
    assert board.name == name
    assert board == next(known for known in BOARDS if known.name == name)


def test_every_board_is_known_by_its_own_models(tmp_path: Path) -> None:
    for number, board in enumerate(BOARDS):
        for place, model in enumerate(board.models):
            folder = tmp_path / f"{number}-{place}"
            assert detect(root(folder, model.encode() + b" Rev 9\0"), board.machine, 64).name == board.name


@pytest.mark.parametrize(
    "model",
    [
        None,
        b"",
        b"\0",
        b"Raspberry",
        b"Orange Pi 5\0",
        b"My Raspberry Pi 5\0",
        b"raspberry pi 5\0",
        b"\xff\xfe\x00\x80garbage\x00\xff",
        b"Raspberry\0 Pi 5",
        b"x" * 100_000,
        b"\n\n",
    ],
)
def test_anything_else_is_generic(tmp_path: Path, model: bytes | None) -> None:
    board = detect(root(tmp_path, model), "aarch64", 6)
    assert (board.name, board.cores, board.threads, board.spin) == ("generic-arm64", 6, 4, False)


@given(st.binary(max_size=60))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, model: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "board"
    (folder / "proc/device-tree").mkdir(parents=True, exist_ok=True)
    (folder / "proc/device-tree/model").write_bytes(model)
    assert detect(folder, "aarch64", 4).threads >= 1


def test_things_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree/model").mkdir(parents=True)
    second = tmp_path / "sys/firmware/devicetree/base"
    second.mkdir(parents=True)
    assert detect(tmp_path, "aarch64", 4).name == "generic-arm64"
    (second / "model").write_bytes(b"Raspberry Pi 5 Model B\0")
    assert detect(tmp_path, "aarch64", 4).name == "raspberry-pi-5"
    assert detect(tmp_path / "nowhere", "aarch64", 4).name == "generic-arm64"


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "generic-x86-64"),
        ("amd64", "generic-x86-64"),
        ("AMD64", "generic-x86-64"),
        ("aarch64", "generic-arm64"),
        ("arm64", "generic-arm64"),
        ("ARM64", "generic-arm64"),
        ("armv7l", "generic-armv7"),
        ("armv8l", "generic-armv7"),
        ("riscv64", "generic-riscv64"),
        ("weird", "generic-weird"),
    ],
)
def test_machines_and_their_other_names(tmp_path: Path, machine: str, name: str) -> None:
    board = detect(tmp_path, machine, 2)
    assert board.name == name
    assert board.machine == MACHINE_ALIASES.get(machine.lower(), machine.lower())


def test_a_board_s_name_on_another_machine_is_not_believed(tmp_path: Path) -> None:
    """A 32-bit system on a Pi 4 runs other code than the board's literal is about."""
    assert detect(root(tmp_path, b"Raspberry Pi 4 Model B\0"), "armv7l", 4).name == "generic-armv7"
    assert detect(tmp_path, "arm64", 4).name == "raspberry-pi-4"


@pytest.mark.parametrize(
    ("model", "machine", "cores", "threads"),
    [
        (b"Raspberry Pi 5 Model B\0", "aarch64", 4, 3),
        (b"Raspberry Pi 5 Model B\0", "aarch64", 2, 2),
        (b"Raspberry Pi 5 Model B\0", "aarch64", 1, 1),
        (b"NVIDIA Jetson AGX Orin\0", "aarch64", 12, 4),
        (None, "x86_64", 1, 1),
        (None, "x86_64", 2, 2),
        (None, "x86_64", 64, 4),
        (None, "armv7l", 4, 4),
    ],
)
def test_threads_stay_within_the_cores(tmp_path: Path, model: bytes | None, machine: str, cores: int, threads: int) -> None:
    assert detect(root(tmp_path, model), machine, cores).threads == threads


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.detection.os.sched_getaffinity", lambda process: {0, 5, 9}, raising=False)
    assert detect(tmp_path, "x86_64").cores == 3
    monkeypatch.delattr("devices.detection.os.sched_getaffinity")
    monkeypatch.setattr("devices.detection.os.cpu_count", lambda: None)
    assert (detect(tmp_path, "x86_64").cores, detect(tmp_path, "x86_64").threads) == (1, 1)


def test_this_machine() -> None:
    board = detect()
    assert board.threads >= 1
    assert board.cores >= 1
    assert board.name


COMPATIBLE = [
    (b"raspberrypi,4-model-b\0brcm,bcm2711\0", "raspberry-pi-4"),
    (b"raspberrypi,model-zero-2-w\0brcm,bcm2837\0", "raspberry-pi-zero-2w"),
    (b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0", "jetson-orin-nano"),
    (b"nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0", "jetson-orin-nano"),
    (b"nvidia,p3737-0000+p3701-0000\0nvidia,p3701-0000\0nvidia,tegra234\0", "jetson-agx-orin"),
    (b"nvidia,p3450-0000\0nvidia,tegra210\0", "jetson-nano"),
    (b"google,imx8mq-phanbell\0fsl,imx8mq\0", "coral-dev-board"),
    (b"acme,carrier\0nvidia,p3767-0005\0", "jetson-orin-nano"),
    (b"acme,board\0brcm,bcm2711\0", "generic-arm64"),
    (b"\0\0", "generic-arm64"),
    (b"", "generic-arm64"),
]


@pytest.mark.parametrize(("compatible", "name"), COMPATIBLE)
@pytest.mark.parametrize("tree", ["proc/device-tree", "sys/firmware/devicetree/base"])
def test_a_board_whose_model_says_nothing_is_known_by_what_it_is_compatible_with(
    tmp_path: Path, compatible: bytes, name: str, tree: str
) -> None:
    faked(tmp_path, {f"{tree}/model": b"Somebody's own board\0", f"{tree}/compatible": compatible})
    assert detect(tmp_path, "aarch64", 4).name == name


def test_every_board_is_known_by_each_of_its_compatible_strings(tmp_path: Path) -> None:
    pairs = [(known, string) for known in BOARDS for string in known.compatible]
    for number, (board, string) in enumerate(pairs):
        folder = faked(tmp_path / str(number), {"proc/device-tree/compatible": f"{string}\0soc,some\0".encode()})
        assert detect(folder, "aarch64", 64) == board


def test_the_model_is_believed_before_the_compatible_strings(tmp_path: Path) -> None:
    files = {"proc/device-tree/model": b"Raspberry Pi 5 Model B\0", "proc/device-tree/compatible": b"raspberrypi,4-model-b\0"}
    assert detect(faked(tmp_path, files), "aarch64", 4).name == "raspberry-pi-5"


X86 = "processor\t: 0\nmodel name\t: Acme CPU\nflags\t\t: fpu avx2{more}\n\n"


@pytest.mark.parametrize(
    ("more", "name", "dotprod"),
    [
        ("", "generic-x86-64", False),
        (" avx512f", "generic-x86-64", False),
        (" avx_vnni", "generic-x86-64-vnni", True),
        (" avx512f avx512_vnni", "generic-x86-64-vnni", True),
        (" amx_int8", "generic-x86-64-vnni", True),
    ],
)
def test_x86_by_its_features(tmp_path: Path, more: str, name: str, dotprod: bool) -> None:
    board = detect(faked(tmp_path, {"proc/cpuinfo": X86.format(more=more)}), "x86_64", 1)
    assert (board.name, board.dotprod, board.integers) == (name, dotprod, "u8s8")
    assert board.features == {"fpu", "avx2", *more.split()}
    assert board.clusters == (Cluster("Acme CPU", 1, 0),)


def rk3588(root: Path) -> Path:
    core = "processor\t: {}\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: {}\n\n"
    parts = ["0xd05"] * 4 + ["0xd0b"] * 4
    files: dict[str, str | bytes | int] = {"proc/cpuinfo": "".join(core.format(*pair) for pair in enumerate(parts))}
    for number, part in enumerate(parts):
        khz = 1_800_000 if part == "0xd05" else 2_400_000
        files[f"sys/devices/system/cpu/cpu{number}/cpufreq/cpuinfo_max_freq"] = khz
    return faked(root, {**files, "proc/meminfo": "MemTotal:  8000000 kB\nMemAvailable: 7000000 kB"})


def test_a_generic_board_tells_its_clusters_memory_and_features(tmp_path: Path) -> None:
    board = detect(rk3588(tmp_path), "aarch64", 8)
    assert board.clusters == (Cluster("cortex-a76", 4, 2400), Cluster("cortex-a55", 4, 1800))
    assert board.memory_mb == (7812,)
    assert (board.name, board.cores, board.threads, board.dotprod) == ("generic-arm64", 8, 4, True)


def test_cores_that_this_process_may_not_use_do_not_count(tmp_path: Path) -> None:
    board = detect(rk3588(tmp_path), "aarch64", 2)
    assert (board.clusters, board.cores, board.threads) == ((Cluster("", 2, 2400),), 2, 2)


def test_trip_points_are_a_generic_board_s_limits(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    trips: dict[str, str | bytes | int] = {
        f"{zone}0/type": "soc-thermal",
        f"{zone}0/trip_point_0_type": "passive",
        f"{zone}0/trip_point_0_temp": 75_000,
        f"{zone}0/trip_point_1_type": "critical",
        f"{zone}0/trip_point_1_temp": 115_000,
        f"{zone}0/trip_point_2_type": "passive",
        f"{zone}0/trip_point_2_temp": -274_000,
        f"{zone}1/type": "battery",
        f"{zone}1/trip_point_0_type": "passive",
        f"{zone}1/trip_point_0_temp": 51_000,
    }
    thermal = detect(faked(tmp_path, trips), "aarch64", 4).thermal
    assert (thermal.throttle_c, thermal.critical_c, thermal.limit_c) == (75.0, 115.0, 70.0)
    faked(tmp_path, {f"{zone}0/trip_point_1_temp": 70_000})  # critical below throttling: nobody's limits
    assert detect(tmp_path, "aarch64", 4).thermal.critical_c == 90.0


@pytest.mark.parametrize("ids", [("1a6e", "089a"), ("18d1", "9302")])
@pytest.mark.parametrize("model", [b"Raspberry Pi 4 Model B\0", b"something\0"])
def test_an_edge_tpu_on_usb_is_tried_first_on_any_board(tmp_path: Path, ids: tuple[str, str], model: bytes) -> None:
    faked(tmp_path, {"proc/device-tree/model": model})
    without = detect(tmp_path, "aarch64", 4)
    faked(tmp_path, {"sys/bus/usb/devices/2-1/idVendor": ids[0], "sys/bus/usb/devices/2-1/idProduct": ids[1]})
    found = detect(tmp_path, "aarch64", 4)
    assert found.engines == (EDGE_TPU, *without.engines)
    assert found.name == without.name


def test_an_edge_tpu_is_not_listed_twice(tmp_path: Path) -> None:
    faked(tmp_path, {"proc/device-tree/model": b"Google i.MX8MQ Phanbell\0", "sys/class/apex/apex_0/status": "ALIVE"})
    assert detect(tmp_path, "aarch64", 4) in BOARDS


READ = [
    "proc/device-tree/model",
    "proc/device-tree/compatible",
    "proc/cpuinfo",
    "proc/meminfo",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    "sys/class/thermal/thermal_zone0/type",
    "sys/class/thermal/thermal_zone0/trip_point_0_type",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp",
    "sys/bus/usb/devices/1-1/idVendor",
    "sys/bus/usb/devices/1-1/idProduct",
]

WORDS = [
    b"processor",
    b":",
    b"0",
    b"\n",
    b"flags",
    b"CPU part",
    b"MemTotal",
    b"cpu-thermal",
    b"passive",
    b"9" * 40,
    b"-1",
    b"\0",
]


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(READ), st.binary(max_size=40) | st.lists(st.sampled_from(WORDS)).map(b" ".join)))
def test_no_contents_of_any_file_raise(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    faked(folder, {name: files.get(name, b"") for name in READ})
    for machine in ("aarch64", "x86_64", "riscv64"):
        board = detect(folder, machine, 4)
        assert 1 <= board.threads <= 4
        assert board.thermal.limit_c < board.thermal.throttle_c < board.thermal.critical_c


def test_folders_in_the_place_of_files(tmp_path: Path) -> None:
    for name in READ:
        (tmp_path / name).mkdir(parents=True)
    assert detect(tmp_path, "aarch64", 4).name == "generic-arm64"
