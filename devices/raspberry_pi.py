"""Raspberry Pis with 64-bit cores."""

from __future__ import annotations

from devices.board import Board, Cluster, EngineChoice, Thermal

DTS = "https://github.com/raspberrypi/linux/tree/rpi-6.12.y/arch/arm64/boot/dts/broadcom"
HEAT = "https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#frequency-management-and-thermal-control"
PROCESSORS = "https://www.raspberrypi.com/documentation/computers/processors.html"
CLOCKS = "https://www.raspberrypi.com/documentation/computers/config_txt.html#overclocking-options"
MEMORY = "https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#new-style-revision-codes"

CPU = (EngineChoice("onnx"), EngineChoice("tflite"))  # LiteRT runs on XNNPACK by itself
CAMERAS = ("picamera2", "v4l2", "gstreamer")
HOT = Thermal(zones=("cpu-thermal",), throttle_c=80.0, critical_c=85.0, limit_c=75.0)

SUPPLY = "use the board's official power supply and a short cable; see vcgencmd get_throttled"
SYSTEMS = ("bookworm", "trixie", "bookworm-32")

ZERO_2W = Board(
    name="raspberry-pi-zero-2w",
    title="Raspberry Pi Zero 2 W",
    machine="aarch64",
    clusters=(Cluster("cortex-a53", 4, 1000),),
    memory_mb=(512,),
    features=frozenset({"asimd"}),
    integers="s8s8",
    engines=CPU,
    cameras=CAMERAS,
    threads=3,
    spin=False,
    thermal=HOT,
    power=("rpi-volt",),
    models=("Raspberry Pi Zero 2",),
    compatible=("raspberrypi,model-zero-2-w", "raspberrypi,model-zero-2"),
    sources=(PROCESSORS, CLOCKS, HEAT, MEMORY, DTS),
    supply=SUPPLY,
    systems=SYSTEMS,
)

PI_3 = Board(
    name="raspberry-pi-3",
    title="Raspberry Pi 3",
    machine="aarch64",
    clusters=(Cluster("cortex-a53", 4, 1200),),
    memory_mb=(1024,),
    features=frozenset({"asimd"}),
    integers="s8s8",
    engines=CPU,
    cameras=CAMERAS,
    threads=3,
    spin=False,
    thermal=HOT,
    power=("rpi-volt",),
    models=("Raspberry Pi 3", "Raspberry Pi Compute Module 3"),
    compatible=(
        *("raspberrypi,3-model-b", "raspberrypi,3-compute-module"),
        *("raspberrypi,3-compute-module-plus", "raspberrypi,3-plus-compute-module"),
    ),
    sources=(PROCESSORS, CLOCKS, HEAT, MEMORY, DTS),
    supply=SUPPLY,
    systems=SYSTEMS,
)

PI_3_PLUS = Board(
    name="raspberry-pi-3-plus",
    title="Raspberry Pi 3B+",
    machine="aarch64",
    clusters=(Cluster("cortex-a53", 4, 1400),),
    memory_mb=(512, 1024),  # the smaller one is the 3A+
    features=frozenset({"asimd"}),
    integers="s8s8",
    engines=CPU,
    cameras=CAMERAS,
    threads=3,
    spin=False,
    thermal=Thermal(zones=("cpu-thermal",), throttle_c=60.0, critical_c=85.0, limit_c=58.0),  # from 60, 1.2 GHz
    power=("rpi-volt",),
    models=(
        *("Raspberry Pi 3 Model B Plus", "Raspberry Pi 3 Model B+"),
        *("Raspberry Pi 3 Model A Plus", "Raspberry Pi 3 Model A+"),
    ),
    compatible=("raspberrypi,3-model-b-plus", "raspberrypi,3-model-a-plus"),
    sources=(PROCESSORS, CLOCKS, HEAT, MEMORY, DTS),
    supply=SUPPLY,
    systems=SYSTEMS,
)

PI_4 = Board(
    name="raspberry-pi-4",
    title="Raspberry Pi 4",
    machine="aarch64",
    clusters=(Cluster("cortex-a72", 4, 1800),),  # 1500 where the board's revision has no turbo
    memory_mb=(1024, 2048, 4096, 8192),
    features=frozenset({"asimd"}),
    integers="s8s8",
    engines=CPU,
    cameras=CAMERAS,
    threads=3,
    spin=False,
    thermal=HOT,
    power=("rpi-volt",),
    models=("Raspberry Pi 4", "Raspberry Pi Compute Module 4"),
    compatible=(
        *("raspberrypi,4-model-b", "raspberrypi,400"),
        *("raspberrypi,4-compute-module", "raspberrypi,4-compute-module-s", "raspberrypi,4s-compute-module"),
    ),
    sources=(PROCESSORS, CLOCKS, HEAT, MEMORY, DTS),
    supply=SUPPLY,
    systems=SYSTEMS,
)

PI_5 = Board(
    name="raspberry-pi-5",
    title="Raspberry Pi 5",
    machine="aarch64",
    clusters=(Cluster("cortex-a76", 4, 2400),),
    memory_mb=(1024, 2048, 4096, 8192, 16384),
    features=frozenset({"asimd", "asimdhp", "asimddp"}),
    integers="s8s8",
    engines=CPU,
    cameras=CAMERAS,
    threads=3,
    spin=True,
    thermal=HOT,
    power=("rpi-pmic", "rpi-volt"),
    models=("Raspberry Pi 5", "Raspberry Pi Compute Module 5"),
    compatible=("raspberrypi,5-model-b", "raspberrypi,500", "raspberrypi,5-compute-module"),
    sources=(PROCESSORS, CLOCKS, HEAT, MEMORY, DTS),
    supply=SUPPLY,
    systems=SYSTEMS,
)

RASPBERRY_PIS = (ZERO_2W, PI_3, PI_3_PLUS, PI_4, PI_5)
