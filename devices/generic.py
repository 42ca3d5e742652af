"""What to assume of a board that no literal names; clusters, memory, features and threads come from the machine."""

from __future__ import annotations

from dataclasses import replace

from devices.board import Board, EngineChoice, Thermal

ZONES = ("cpu", "soc", "gpu", "x86_pkg_temp", "coretemp", "k10temp", "TCPU", "CPU")
CPU = (EngineChoice("onnx"), EngineChoice("tflite"))

ARM64 = Board(
    name="generic-arm64",
    title="arm64 board",
    machine="aarch64",
    clusters=(),
    memory_mb=(),
    features=frozenset({"asimd"}),
    integers="s8s8",
    engines=CPU,
    cameras=("v4l2", "gstreamer"),
    threads=0,
    spin=False,
    thermal=Thermal(ZONES, throttle_c=80.0, critical_c=90.0, limit_c=75.0),
    power=("ina3221", "ina2xx"),
)

ARMV7 = replace(
    ARM64,
    name="generic-armv7",
    title="armv7 board",
    machine="armv7l",
    features=frozenset({"neon"}),
    engines=(EngineChoice("tflite"),),  # ONNX Runtime has no wheel for armv7
    systems=("bookworm-32",),
)

X86_64 = Board(
    name="generic-x86-64",
    title="x86-64 machine",
    machine="x86_64",
    clusters=(),
    memory_mb=(),
    features=frozenset({"avx2"}),
    integers="u8s8",
    engines=CPU,
    cameras=("v4l2", "gstreamer"),
    threads=0,
    spin=True,
    thermal=Thermal(ZONES, throttle_c=95.0, critical_c=100.0, limit_c=85.0),
    power=("rapl",),
)

X86_64_VNNI = replace(
    X86_64, name="generic-x86-64-vnni", title="x86-64 machine with VNNI", features=frozenset({"avx2", "avx512_vnni"})
)

UNKNOWN = replace(ARM64, name="generic", title="machine", machine="", features=frozenset(), power=())
"""For machines of which nothing is known; its name gets the machine's behind it."""

GENERIC = (ARM64, ARMV7, X86_64, X86_64_VNNI)
