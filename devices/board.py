"""What a board is, as data: its literal says what the rest of the project would otherwise ask with an `if`."""

from __future__ import annotations

from dataclasses import dataclass

DOT_PRODUCTS = frozenset({"asimddp", "avx_vnni", "avx512_vnni", "amx_int8"})


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores that are alike: `count` of them, at `mhz` when nothing holds them back."""

    core: str
    count: int
    mhz: int


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine ("onnx" or "tflite") on an accelerator ("cpu", "cuda", "tensorrt", "edgetpu"); `options` go to the engine."""

    engine: str
    accelerator: str = "cpu"
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Thermal:
    """Which thermal zones count, by the start of their `type`, and what happens at which temperature.

    At `throttle_c` the firmware or kernel slows the board down, at `critical_c` it does all it can, or shuts down.
    `limit_c` is what to hold when nobody asks for another.
    """

    zones: tuple[str, ...]
    throttle_c: float
    critical_c: float
    limit_c: float


@dataclass(frozen=True, slots=True)
class Board:
    """What the runtime needs to know of a machine.

    `models` are prefixes of the device tree's model string and `compatible` its compatible strings. `memory_mb` are the
    sizes it is sold with. `features` are named as the kernel names them in /proc/cpuinfo. `integers` is the scheme that
    its integer kernels want, activations then weights. `engines` are in the order to try, `cameras` in the order to
    prefer. `threads` is how many the engine gets. `spin` keeps them hot between the operators of one inference, never
    between frames (docs/decisions/0006-spinning.md). `power` names the sensors, `supply` is what to do where their voltage
    is too low, `systems` are those of devices.wheelhouse that it runs, the usual one first, and `sources` is where the
    figures stand.
    """

    name: str
    title: str
    machine: str
    clusters: tuple[Cluster, ...]
    memory_mb: tuple[int, ...]
    features: frozenset[str]
    integers: str
    engines: tuple[EngineChoice, ...]
    cameras: tuple[str, ...]
    threads: int
    spin: bool
    thermal: Thermal
    power: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    supply: str = "use a stronger power supply"
    systems: tuple[str, ...] = ("bookworm", "trixie", "ubuntu-22.04", "ubuntu-24.04")

    @property
    def generic(self) -> bool:
        """Whether it stands for machines that no literal names."""
        return not self.models and not self.compatible

    @property
    def cores(self) -> int:
        """Cores of all clusters."""
        return sum(cluster.count for cluster in self.clusters)

    @property
    def dotprod(self) -> bool:
        """Whether it multiplies and adds four 8-bit integers in one instruction."""
        return not DOT_PRODUCTS.isdisjoint(self.features)
