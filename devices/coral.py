"""Google's Coral: the Dev Board, and the Edge TPU that any board can have on USB."""

from __future__ import annotations

from devices.board import Board, Cluster, EngineChoice, Thermal

EDGE_TPU = EngineChoice("tflite", "edgetpu")
"""For models that edgetpu_compiler compiled."""

DEV_BOARD = Board(
    name="coral-dev-board",
    title="Coral Dev Board",
    machine="aarch64",
    clusters=(Cluster("cortex-a53", 4, 1500),),
    memory_mb=(1024, 2048, 4096),
    features=frozenset({"asimd"}),
    integers="s8s8",
    engines=(EDGE_TPU, EngineChoice("tflite"), EngineChoice("onnx")),
    cameras=("v4l2", "gstreamer"),
    threads=3,
    spin=False,
    thermal=Thermal(zones=("cpu-thermal",), throttle_c=75.0, critical_c=90.0, limit_c=70.0),
    models=("Google i.MX8MQ Phanbell", "Freescale i.MX8MQ Phanbell"),
    compatible=("google,imx8mq-phanbell", "fsl,imx8mq-phanbell"),
    sources=(
        "https://coral.ai/docs/dev-board/datasheet/",
        "https://coral.ai/docs/som/datasheet/",
        "https://github.com/torvalds/linux/blob/master/arch/arm64/boot/dts/freescale/imx8mq.dtsi",
        "https://github.com/torvalds/linux/blob/master/arch/arm64/boot/dts/freescale/imx8mq-phanbell.dts",
    ),
    systems=("mendel",),
)

CORALS = (DEV_BOARD,)
