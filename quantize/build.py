"""From a classifier and pictures to measured variants: the whole of edge-quantize but for reading flags and writing files."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor
from torch.fx import GraphModule

from edge.bundle import sha256
from edge.card import Accuracy, Card, Golden, Provenance, TensorInput, Variant
from edge.datasets import Sample, frames
from edge.engines import EngineOptions, open_engine
from edge.errors import GateError, InputError
from edge.evaluate import evaluate
from edge.model import Model
from edge.tasks import TASKS
from edge.types import Float32, Frame, UInt8
from quantize import onnx_int8, tflite_int8
from quantize.check import blamed
from quantize.data import Split
from quantize.export import INPUT, OUTPUT, to_onnx, to_tflite, uint8_nhwc, with_front
from quantize.graph import fold
from quantize.quiet import quiet
from quantize.rounding import LayerInputs, on_grid
from quantize.temperature import fit_temperature
from train.models import Classifier

Say = Callable[[str], None]

FLOAT_TOLERANCE = 1e-2
"""Of logits: float sums differ in order between processors."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A variant that can be made; `machines` as in the card."""

    name: str
    file: str
    engine: str
    scheme: str
    weight_bits: int
    machines: tuple[str, ...]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("int8-arm", "int8-arm.onnx", "onnx", onnx_int8.S8S8.name, 8, ("aarch64", "armv7l")),
        Kind("int8-x86", "int8-x86.onnx", "onnx", onnx_int8.U8S8.name, 7, ()),
        Kind("int8-tflite", "int8.tflite", "tflite", "s8s8", 8, ()),
        Kind("float32", "float32.onnx", "onnx", "float32", 32, ()),
    )
}
"""In order of preference."""


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A variant with its file and its logits for the golden picture."""

    variant: Variant
    data: bytes
    golden: Float32


class Workshop:
    """Makes each kind of variant of one classifier; what they share is computed once, when first needed."""

    def __init__(self, classifier: Classifier, split: Split, threads: int, say: Say, bad: Say) -> None:
        self._classifier = classifier
        self._split = split
        self._threads = threads
        self._say = say
        self._bad = bad
        self._size_wh = (classifier.input.width, classifier.input.height)
        self._example = torch.zeros(1, 3, classifier.input.height, classifier.input.width)
        network, self._front = with_front(classifier)
        with blamed(f"{classifier.name}: torch.export cannot capture it"), quiet():
            self._graph = fold(network, self._example)
        self._card = draft(classifier)
        self._pictures: list[UInt8] | None = None
        self._layer_inputs: LayerInputs | None = None
        self._float: onnx.ModelProto | None = None
        self._onnx_ranges: dict[str, tuple[float, float]] | None = None
        self._grids: dict[int, GraphModule] = {}

    def make(self, name: str) -> bytes:
        """The file of the variant of this name. Raises InputError when a library refuses the network."""
        hint = "" if name == "float32" else f"; leave {name} out with --variants"
        with blamed(f"{self._classifier.name}: {name} cannot be made of it", hint):
            return self._make(name)

    def _make(self, name: str) -> bytes:
        if name == "float32":
            return bytes(self._float_model().SerializeToString())
        if name == "int8-tflite":
            grid = self._grid(tflite_int8.WEIGHT_LIMIT)
            with blamed(f"{self._classifier.name}: litert-torch cannot convert it", "; leave int8-tflite out with --variants"):
                model = to_tflite(grid, self._example)
            ranges = tflite_int8.observe(model, self._calibration(), self._front, self._threads)
            return tflite_int8.to_int8(model, ranges, self._front)
        scheme = onnx_int8.S8S8 if name == "int8-arm" else onnx_int8.U8S8
        if self._onnx_ranges is None:
            self._onnx_ranges = onnx_int8.observe(self._float_model(), self._calibration(), self._threads)
        core = self._to_onnx(self._grid(scheme.weight_limit))
        return onnx_int8.to_int8(core, self._onnx_ranges, self._front, self._size_wh, scheme)

    def finish(self, kind: Kind, data: bytes, golden: UInt8, data_name: str) -> Built:
        """Fit the variant's temperature, measure it on the pictures kept for that, and note its golden outputs."""
        variant = Variant(
            name=kind.name,
            file=kind.file,
            engine=kind.engine,  # type: ignore[arg-type]
            precision="float32" if kind.name == "float32" else "int8",
            scheme=kind.scheme,  # type: ignore[arg-type]
            machines=kind.machines,
            weight_bits=kind.weight_bits,  # type: ignore[arg-type]
            sha256=sha256(data),
            bytes=len(data),
            input=TensorInput(name=INPUT),
            outputs={"logits": OUTPUT},
            tolerance=FLOAT_TOLERANCE,
        )
        with quiet():
            engine = open_engine(data, variant, EngineOptions(self._threads, spin=True, exact=True))
        try:
            model = Model(self._classifier.name, variant, engine, TASKS[self._card.task](self._card, variant))
            logits, truth = self._logits(model, self._split.temperature)
            variant = msgspec.structs.replace(variant, temperature=round(fit_temperature(logits, truth), 4))
            model = replace(model, variant=variant, task=TASKS[self._card.task](self._card, variant))
            report = evaluate(model, self._split.measure, self._bad)
            task_input = model.task.prepare(_frame(golden))
            expected = engine.infer(task_input)["logits"]
        finally:
            engine.close()
        accuracy = Accuracy(data=data_name, images=report.images, top1=report.top1, top5=report.top5, ece=report.ece)
        is_for_here = not kind.machines or platform.machine() in kind.machines  # else it is computed exactly, and slowly
        speed = f", {report.ms_per_image:.1f} ms a picture here" if is_for_here else ""
        self._say(
            f"{kind.name}: top-1 {report.top1:.2%}, top-5 {report.top5:.2%}, calibration error {report.ece:.3f}, "
            f"{len(data) / 1e6:.1f} MB{speed}"
        )
        return Built(msgspec.structs.replace(variant, accuracy=accuracy), data, expected)

    def _logits(self, model: Model, samples: Sequence[Sample]) -> tuple[Float32, npt.NDArray[np.int64]]:
        logits, truth = [], []
        for frame, class_id in frames(samples, self._bad):
            logits.append(model.engine.infer(model.task.prepare(frame))["logits"].reshape(-1))
            truth.append(class_id)
        if not truth:
            raise InputError("no readable picture is left to fit the temperature with; give more pictures")
        return np.stack(logits), np.array(truth, np.int64)

    def _calibration(self) -> list[UInt8]:
        if self._pictures is None:
            task = TASKS[self._card.task](self._card, placeholder_variant())
            self._pictures = [task.prepare(frame).data for frame, _ in frames(self._split.calibration, self._bad)]
            if not self._pictures:
                raise InputError("no calibration picture is readable; give more pictures")
        return self._pictures

    def _normalized(self) -> Iterator[Tensor]:
        for picture in self._calibration():
            pixels = torch.from_numpy(picture).permute(0, 3, 1, 2).float()
            yield (pixels - self._front.zero_point) * self._front.scale

    def _float_model(self) -> onnx.ModelProto:
        if self._float is None:
            self._float = uint8_nhwc(self._to_onnx(self._graph), self._front, self._size_wh)
        return self._float

    def _to_onnx(self, graph: GraphModule) -> onnx.ModelProto:
        with blamed(f"{self._classifier.name}: torch.onnx cannot export it"):
            return to_onnx(graph, self._example)

    def _grid(self, limit: int) -> GraphModule:
        if self._layer_inputs is None:
            self._say(f"calibrating on {len(self._calibration())} pictures ...")
            self._layer_inputs = LayerInputs(self._graph).observe(self._normalized())
        if limit not in self._grids:
            self._grids[limit] = on_grid(self._graph, self._layer_inputs, limit)
        return self._grids[limit]


def build(
    classifier: Classifier,
    split: Split,
    names: Sequence[str],
    *,
    golden: UInt8,
    data_name: str,
    max_drop: float,
    threads: int,
    say: Say,
    bad: Say,
) -> list[Built]:
    """Every named variant that loses at most `max_drop` (a fraction) of float32's top-1, in order of preference.

    `golden` is a picture uint8 BGR [h, w, 3]. A variant that loses more is left out and named to `say`. Raises
    GateError when int8 variants were asked for and none is left.
    """
    workshop = Workshop(classifier, split, threads, say, bad)
    reference = workshop.finish(KINDS["float32"], workshop.make("float32"), golden, data_name)
    kept = []
    drops = {}
    for name in (name for name in KINDS if name in names):
        if name == "float32":
            kept.append(reference)
            continue
        built = _within_float(workshop.finish(KINDS[name], workshop.make(name), golden, data_name), reference)
        drops[name] = _top1(reference) - _top1(built)
        if drops[name] <= max_drop + 1e-9:
            kept.append(built)
        else:
            say(f"{name} left out: it loses {drops[name] * 100:.2f} points of top-1, --max-drop allows {max_drop * 100:g}")
    if drops and not any(built.variant.precision == "int8" for built in kept):
        best = min(drops, key=lambda name: drops[name])
        raise GateError(
            f"{classifier.name}: no int8 variant is within {max_drop * 100:g} points of float32; the best, {best}, loses "
            f"{drops[best] * 100:.2f}; give more --calibration-images or a larger --max-drop"
        )
    return kept


def _top1(built: Built) -> float:
    assert built.variant.accuracy is not None
    return built.variant.accuracy.top1


def _within_float(built: Built, reference: Built) -> Built:
    """A processor may round otherwise, but by no more than what quantization itself changed."""
    changed = float(np.abs(built.golden - reference.golden).max())
    tolerance = round(max(changed, FLOAT_TOLERANCE), 4)
    return replace(built, variant=msgspec.structs.replace(built.variant, tolerance=tolerance))


def _frame(picture: UInt8) -> Frame:
    return Frame(picture, 0, 0.0, "golden")


def placeholder_variant() -> Variant:
    """A variant to make a card or task with before any file is there."""
    return Variant(
        name="none",
        file="none",
        engine="onnx",
        precision="float32",
        scheme="float32",
        weight_bits=32,
        sha256="0" * 64,
        bytes=1,
        input=TensorInput(name=INPUT),
        outputs={"logits": OUTPUT},
        tolerance=0.0,
    )


def draft(classifier: Classifier) -> Card:
    """The classifier's card before its variants are measured."""
    return Card(
        name=classifier.name,
        task="classify",
        head="softmax",
        labels=classifier.labels,
        input=classifier.input,
        variants=(placeholder_variant(),),
        golden=Golden(sha256="0" * 64, bytes=1),
        provenance=Provenance(source=classifier.source, license=classifier.license, created=""),
    )
