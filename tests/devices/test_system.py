"""What the operating system says, from pretended roots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import processor, system
from devices.files import number, read, scan
from tests.devices.faked import machine


def test_memory(tmp_path: Path) -> None:
    machine(tmp_path, {"proc/meminfo": "MemTotal:        3884288 kB\nMemFree: 1 kB\nMemAvailable:    2048000 kB\nHuge"})
    assert system.memory(tmp_path) == (3793, 2000)
    assert system.memory(tmp_path / "nowhere") == (0, 0)


def test_cpu(tmp_path: Path) -> None:
    core = "processor\t: {}\nFeatures\t: fp asimd crc32\nCPU part\t: 0xd08\n\n"
    machine(tmp_path, {"proc/cpuinfo": core.format(0) + core.format(1) + "Model\t\t: Raspberry Pi 4\n"})
    assert system.cpu(tmp_path) == system.CpuInfo("cortex-a72", 2, frozenset({"fp", "asimd", "crc32"}))
    assert system.core_kinds(tmp_path) == [("cortex-a72", 0)] * 2
    unknown = system.cpu(tmp_path / "nowhere")
    assert unknown.name
    assert (unknown.cores, unknown.features) == (os.cpu_count(), frozenset())


def test_an_unknown_part_keeps_its_number(tmp_path: Path) -> None:
    machine(tmp_path, {"proc/cpuinfo": "CPU part: early\nprocessor: 0\nCPU part: 0xfff\nprocessor: 1\nmodel name: Acme"})
    assert system.core_kinds(tmp_path) == [("0xfff", 0), ("Acme", 0)]


def test_os_release(tmp_path: Path) -> None:
    usual = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n# A=comment\nID=debian\nnothing\n=\n'
    machine(tmp_path, {"usr/lib/os-release": usual})
    assert system.os_release(tmp_path)["PRETTY_NAME"] == "Debian GNU/Linux 12 (bookworm)"
    assert "# A" not in system.os_release(tmp_path)
    machine(tmp_path, {"etc/os-release": "ID='ubuntu'"})
    assert system.os_release(tmp_path) == {"ID": "ubuntu"}
    assert system.os_release(tmp_path / "nowhere") == {}


def test_disk(tmp_path: Path) -> None:
    free = system.disk_free_mb(tmp_path)
    assert free is not None
    assert free > 0
    assert system.disk_free_mb(tmp_path / "nowhere") is None


def test_edge_tpus(tmp_path: Path) -> None:
    assert not system.coral_usb(tmp_path)
    assert not system.coral_pci(tmp_path)
    machine(tmp_path, {"sys/bus/usb/devices/1-1/idVendor": "1a6e", "sys/bus/usb/devices/1-1/idProduct": "9302"})
    assert not system.coral_usb(tmp_path)  # one's vendor and the other's product
    machine(tmp_path, {"sys/bus/usb/devices/1-1/idProduct": "089a", "sys/class/apex/apex_0/temp": 50_000})
    assert system.coral_usb(tmp_path)
    assert system.coral_pci(tmp_path)


def test_this_processor() -> None:
    assert f"{os.cpu_count()} cores" in processor()


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "system"
    machine(root, dict.fromkeys(("proc/meminfo", "proc/cpuinfo", "etc/os-release", "sys/bus/usb/devices/1/idVendor"), data))
    assert all(mb >= 0 for mb in system.memory(root))
    assert system.cpu(root).cores >= 1
    system.core_kinds(root)
    system.os_release(root)
    assert not system.coral_usb(root)


def test_reading_what_is_no_usual_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("1")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "folder", "loop", "nowhere", "nul\0", "x" * 5000):
        assert read(tmp_path / name) == ""
        assert number(tmp_path / name) is None
    if os.geteuid() != 0:
        assert read(tmp_path / "secret") == ""
    assert scan(tmp_path / "pipe") == scan(tmp_path / "nowhere") == []


def test_reading_is_limited_and_whole(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"a" * 300_000)
    assert len(read(tmp_path / "long")) == 65536
    assert len(read(tmp_path / "long", 1 << 20)) == 300_000
    if Path("/proc/self/maps").exists():  # the kernel hands it out by the page
        assert read("/proc/self/maps", 1 << 20).count("\n") > 40


@pytest.mark.parametrize(
    ("text", "value"), [("45000\n", 45000), (" -3 ", -3), ("", None), ("1.5", None), ("x", None), ("9" * 32, int("9" * 32))]
)
def test_numbers(tmp_path: Path, text: str, value: int | None) -> None:
    (tmp_path / "n").write_text(text)
    assert number(tmp_path / "n") == value
