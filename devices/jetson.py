"""NVIDIA Jetsons."""

from __future__ import annotations

from devices.board import Board, Cluster, EngineChoice, Thermal

ORIN_HEAT = (
    "https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/PlatformPowerAndPerformance/"
    "JetsonOrinNanoSeriesJetsonOrinNxSeriesAndJetsonAgxOrinSeries.html"
)
TENSORRT = "https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html"
ORIN_NANO_CLOCKS = "https://developer.nvidia.com/blog/nvidia-jetson-orin-nano-developer-kit-gets-a-super-boost/"
NANO_POWER = "https://developer.nvidia.cn/embedded/dlc/l4t-documentation-32-1"
NANO_HEAT = "https://github.com/torvalds/linux/blob/master/arch/arm64/boot/dts/nvidia/tegra210.dtsi"
ORIN_NANO_HEAT = "https://github.com/torvalds/linux/blob/master/arch/arm64/boot/dts/nvidia/tegra234-p3767.dtsi"
DTS = "https://github.com/torvalds/linux/tree/master/arch/arm64/boot/dts/nvidia"

GPU = (  # the engine adds what depends on the model and the machine: int8, and the folder of the engines it built
    EngineChoice("onnx", "tensorrt", (("trt_fp16_enable", "1"),)),
    EngineChoice("onnx", "cuda"),
    EngineChoice("onnx"),
    EngineChoice("tflite"),
)
ZONES = ("cpu-therm", "gpu-therm", "tj-therm", "CPU-therm", "GPU-therm")  # NVIDIA's kernels wrote them large up to 5.10
CAMERAS = ("gstreamer", "v4l2")

NANO = Board(
    name="jetson-nano",
    title="Jetson Nano",
    machine="aarch64",
    clusters=(Cluster("cortex-a57", 4, 1479),),
    memory_mb=(2048, 4096),
    features=frozenset({"asimd"}),
    integers="s8s8",
    engines=(EngineChoice("onnx"), EngineChoice("tflite")),
    cameras=CAMERAS,
    threads=3,
    spin=False,
    thermal=Thermal(zones=ZONES, throttle_c=98.5, critical_c=102.5, limit_c=85.0),
    power=("ina3221",),
    models=("NVIDIA Jetson Nano",),
    compatible=("nvidia,jetson-nano", "nvidia,p3450-0000", "nvidia,p3541-0000"),
    sources=(NANO_POWER, NANO_HEAT, DTS),
    systems=("jetpack-4",),
)

ORIN_NANO = Board(
    name="jetson-orin-nano",
    title="Jetson Orin Nano",
    machine="aarch64",
    clusters=(Cluster("cortex-a78ae", 6, 1728),),  # 1510 before JetPack 6.2
    memory_mb=(4096, 8192),
    features=frozenset({"asimd", "asimdhp", "asimddp"}),
    integers="s8s8",
    engines=GPU,
    cameras=CAMERAS,
    threads=4,
    spin=True,
    thermal=Thermal(zones=ZONES, throttle_c=99.0, critical_c=104.5, limit_c=85.0),
    power=("ina3221",),
    models=("NVIDIA Jetson Orin Nano", "NVIDIA Orin Nano"),
    compatible=(
        *("nvidia,p3767-0003", "nvidia,p3767-0004", "nvidia,p3767-0005"),
        *("nvidia,p3768-0000+p3767-0003-super", "nvidia,p3768-0000+p3767-0004-super", "nvidia,p3768-0000+p3767-0005-super"),
    ),
    sources=(ORIN_NANO_CLOCKS, ORIN_NANO_HEAT, ORIN_HEAT, TENSORRT, DTS),
    systems=("jetpack-6", "jetpack-5"),
)

AGX_ORIN = Board(
    name="jetson-agx-orin",
    title="Jetson AGX Orin",
    machine="aarch64",
    clusters=(Cluster("cortex-a78ae", 12, 2201),),
    memory_mb=(32768, 65536),
    features=frozenset({"asimd", "asimdhp", "asimddp"}),
    integers="s8s8",
    engines=GPU,
    cameras=CAMERAS,
    threads=4,
    spin=True,
    thermal=Thermal(zones=ZONES, throttle_c=99.0, critical_c=104.5, limit_c=85.0),
    power=("ina3221",),
    models=("NVIDIA Jetson AGX Orin", "Jetson AGX Orin"),
    compatible=("nvidia,p3701-0000", "nvidia,p3701-0004", "nvidia,p3701-0005"),
    sources=(ORIN_HEAT, TENSORRT, DTS),
    systems=("jetpack-6", "jetpack-5"),
)

JETSONS = (NANO, ORIN_NANO, AGX_ORIN)
