"""The int8 variants that can be made: for which engine and processors, and how one is built from settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from edge.bundle import sha256
from edge.card import TensorInput, Variant
from quantize import onnx_int8, tflite_int8
from quantize.blocks import Block, blocks
from quantize.calibrate import silu
from quantize.onnx_graph import OnnxGraph, operators
from quantize.qdq import Scheme
from quantize.workshop import Weights, Workshop
from train.draft import INPUT

ARM = ("aarch64", "armv7l")


@dataclass(frozen=True, slots=True)
class Kind:
    """A variant that can be made; `machines` as in the card, `cpus` those on which its instructions are counted."""

    name: str
    file: str
    engine: str
    scheme: str
    weight_bits: int
    machines: tuple[str, ...]
    cpus: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("int8-arm", "int8-arm.onnx", "onnx", onnx_int8.S8S8.name, 8, ARM, ("cortex-a72", "cortex-a76")),
        Kind("int8-x86", "int8-x86.onnx", "onnx", onnx_int8.U8S8.name, 7, ()),
        Kind("int8-tflite", "int8.tflite", "tflite", "s8s8", 8, (), ("cortex-a72", "cortex-a76")),
        Kind("float32", "float32.onnx", "onnx", "float32", 32, (), ("cortex-a72", "cortex-a76")),
    )
}
"""By name, in order of preference where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the search varies: the calibrator, the rounding of weights, layers left in float, SiLU as one float operator."""

    calibrator: str = "error"
    rounding: str = "gptq"
    float_layers: tuple[str, ...] = field(default=())
    float_silu: bool = False

    def weights(self, limit: int) -> Weights:
        """Its weights for a target whose largest one is `limit`; the network's own are the same whatever stays in float."""
        weights = Weights(limit, self.rounding)
        return weights if weights.is_own else Weights(limit, self.rounding, self.float_layers)

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


class Target(Protocol):
    """One int8 variant of one model, built from settings."""

    kind: Kind

    def blocks(self) -> Sequence[Block]: ...
    def has_silu(self) -> bool: ...
    def build(self, settings: Settings) -> bytes: ...


class OnnxTarget:
    """Int8 for ONNX Runtime, by `scheme`."""

    def __init__(self, kind: Kind, scheme: Scheme, workshop: Workshop) -> None:
        self.kind = kind
        self._scheme = scheme
        self._workshop = workshop
        self._graph = OnnxGraph(workshop.core())
        self._blocks = blocks(operators(self._graph))

    def blocks(self) -> Sequence[Block]:
        """The units that can be left in float."""
        return self._blocks

    def has_silu(self) -> bool:
        """Whether `float_silu` makes a difference."""
        return silu in onnx_int8.functions(self._graph).values()

    def build(self, settings: Settings) -> bytes:
        """The file."""
        weights = settings.weights(self._scheme.weight_limit)
        return onnx_int8.to_int8(
            self._workshop.onnx_with(weights),
            self._workshop.ranges("onnx", weights, settings.calibrator, onnx_int8.functions(self._graph)),
            self._workshop.front,
            self._workshop.model.size_wh,
            self._scheme,
            float_nodes=_operators(self._blocks, settings.float_layers),
            float_silu=settings.float_silu,
        )


class TfliteTarget:
    """Int8 for LiteRT."""

    def __init__(self, kind: Kind, workshop: Workshop) -> None:
        self.kind = kind
        self._workshop = workshop
        self._graph = workshop.tflite_graph()
        self._blocks = blocks(self._graph.operators)

    def blocks(self) -> Sequence[Block]:
        """The units that can be left in float."""
        return self._blocks

    def has_silu(self) -> bool:
        """LiteRT's integer operators are the faster ones."""
        return False

    def build(self, settings: Settings) -> bytes:
        """The file."""
        weights = settings.weights(tflite_int8.WEIGHT_LIMIT)
        return tflite_int8.to_int8(
            self._workshop.tflite_with(weights),
            self._workshop.ranges("tflite", weights, settings.calibrator, tflite_int8.functions(self._graph)),
            self._workshop.front,
            self._workshop.model.role,
            _operators(self._blocks, settings.float_layers),
        )


def target(name: str, workshop: Workshop) -> Target:
    """The int8 variant of this name."""
    kind = KINDS[name]
    if kind.engine == "tflite":
        return TfliteTarget(kind, workshop)
    return OnnxTarget(kind, onnx_int8.S8S8 if kind.scheme == "s8s8" else onnx_int8.U8S8, workshop)


def variant_of(kind: Kind, data: bytes, role: str, tolerance: float = 0.0) -> Variant:
    """The variant that a file is, before it is measured."""
    return Variant(
        name=kind.name,
        file=kind.file,
        engine=kind.engine,  # type: ignore[arg-type]
        precision="float32" if kind.scheme == "float32" else "int8",
        scheme=kind.scheme,  # type: ignore[arg-type]
        machines=kind.machines,
        weight_bits=kind.weight_bits,  # type: ignore[arg-type]
        sha256=sha256(data),
        bytes=len(data),
        input=TensorInput(name=INPUT),
        outputs={role: role},
        tolerance=tolerance,
    )


def _operators(known: Sequence[Block], layers: Sequence[str]) -> frozenset[str]:
    return frozenset(name for block in known if block.layer in layers for name in block.operators)
