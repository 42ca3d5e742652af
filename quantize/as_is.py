"""A .tflite file packed as it is: nothing is changed, everything is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge.bundle import pack_golden, sha256, write_bundle
from edge.card import FIGURES_OF_TASK, ROLES_OF_HEAD, Accuracy, Card, Golden, Provenance, TensorInput, Variant
from edge.commands import Skipped
from edge.datasets import Sample, labelled_frames
from edge.engines import EngineOptions, open_engine
from edge.errors import InputError, UsageError
from edge.evaluate import evaluate
from edge.model import Model
from edge.pictures import read_picture
from edge.protocols import Engine
from edge.tasks import TASKS
from edge.types import Frame
from quantize.data import Picture, load_split
from quantize.described import Described
from quantize.pack import created, tools
from quantize.quiet import quiet
from quantize.resolve import bundle_name
from quantize.temperature import fit_temperature

TOLERANCE = 1e-2
"""Of outputs: integer models answer alike everywhere, float sums differ in order."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """A file's input and outputs as LiteRT tells them: name, shape and type."""

    input: dict[str, Any]
    outputs: tuple[dict[str, Any], ...]


def pack_tflite(
    path: Path,
    said: Described,
    data: Path,
    out: Path,
    name: str | None,
    golden: Path,
    threads: int,
    say: Callable[[str], None],
    command: str,
) -> Card:
    """Write a bundle of one variant, measured on the pictures of `data` that are kept for it.

    Raises InputError for a file that LiteRT cannot run or that is not a model of one picture, UsageError for a head
    that does not fit it, BundleError and DataError.
    """
    try:
        model = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    found = _tensors(model, path)
    variant = _variant(model, found, said, path)
    _, height, width, _ = (int(side) for side in found.input["shape"])
    if said.size_wh not in (None, (width, height)):
        raise UsageError(f"--size: {path} takes {width}x{height}; leave --size out")
    card = Card(
        name=name or said.name or bundle_name(path),
        task=said.task,  # type: ignore[arg-type]
        head=said.head,  # type: ignore[arg-type]
        detect=said.detect,
        labels=said.labels,
        input=said.geometry((width, height), str(path)),
        variants=(variant,),
        golden=Golden(sha256="0" * 64, bytes=1),
        provenance=Provenance(
            source=said.source,
            license=said.license,
            created=created(),
            command=command,
            tools=tools(),
            calibration="none of ours",
        ),
    )
    split = load_split(data, card.labels, 1, said.task)
    bad = Skipped(say)
    task = TASKS[card.task](card, variant)
    tensor = task.prepare(Frame(read_picture(golden), 0, 0.0, "golden"))
    with closing(open_engine(model, variant, EngineOptions(threads))) as engine:
        variant = msgspec.structs.replace(variant, temperature=_temperature(card, variant, engine, split.choice, bad))
        task = TASKS[card.task](card, variant)
        report: Any = evaluate(Model(card.name, variant, engine, task), split.measure, bad)  # type: ignore[arg-type]
        expected = engine.infer(tensor)
    figures = {figure: getattr(report, figure) for figure in FIGURES_OF_TASK[card.task]}
    accuracy = Accuracy(data=data.resolve().name, images=report.images, ece=report.ece, **figures)
    packed = pack_golden(tensor.data, {variant.name: expected})
    variant = msgspec.structs.replace(variant, accuracy=accuracy)
    card = msgspec.structs.replace(card, variants=(variant,), golden=Golden(sha256=sha256(packed), bytes=len(packed)))
    write_bundle(out, card, {card.golden.file: packed, variant.file: model})
    said_figures = ", ".join(f"{figure} {value:.2%}" for figure, value in figures.items())
    say(f"{card.name}: packed as it is; {said_figures}, calibration error {report.ece:.3f} on {report.images} pictures")
    say(f"wrote {out}: {variant.name}; try it: edge-run --model {out} --source demo")
    return card


def _temperature(card: Card, variant: Variant, engine: Engine, samples: Sequence[Picture], bad: Callable[[str], None]) -> float:
    """What calibrates a classifier's confidence, whether it gives logits or probabilities; 1 for a detector."""
    if card.task != "classify":
        return 1.0
    task = TASKS[card.task](card, variant)
    outputs, truth = [], []
    for frame, sample in labelled_frames(samples, bad):
        assert isinstance(sample, Sample)
        outputs.append(engine.infer(task.prepare(frame))["logits"].reshape(-1))
        truth.append(sample.class_id)
        if len(outputs[0]) != len(card.labels):
            raise InputError(
                f"{card.name}: the model gives {len(outputs[0])} classes, there are {len(card.labels)} labels; correct --labels"
            )
    return round(fit_temperature(np.stack(outputs), np.array(truth, np.int64)), 4) if truth else 1.0


def _tensors(model: bytes, path: Path) -> Tensors:
    """Raises InputError."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        with quiet():
            interpreter = Interpreter(model_content=model)
            interpreter.allocate_tensors()
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: LiteRT cannot run it ({reason}); convert it again, or give the .onnx file it came from"
        ) from None
    if len(inputs) != 1:
        raise InputError(f"{path}: takes {len(inputs)} inputs, expected one picture")
    shape = [int(side) for side in inputs[0]["shape"]]
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or np.dtype(inputs[0]["dtype"]) not in (np.uint8, np.float32):
        kind = np.dtype(inputs[0]["dtype"]).name
        raise InputError(f"{path}: takes {kind} {shape}, expected uint8 or float32 [1, height, width, 3]")
    return Tensors(inputs[0], tuple(outputs))


def _variant(model: bytes, found: Tensors, said: Described, path: Path) -> Variant:
    is_float = np.dtype(found.input["dtype"]) == np.float32
    red, green, blue = said.std
    mean = said.mean if is_float else (0.0, 0.0, 0.0)
    scale = (1 / red, 1 / green, 1 / blue) if is_float else (1.0, 1.0, 1.0)
    return Variant(
        name="tflite",
        file="model.tflite",
        engine="tflite",
        precision="float32" if is_float else "int8",
        scheme="float32" if is_float else "s8s8",
        weight_bits=32 if is_float else 8,
        sha256=sha256(model),
        bytes=len(model),
        input=TensorInput(
            name=str(found.input["name"]),
            dtype="float32" if is_float else "uint8",
            layout="nhwc",
            mean=mean,
            scale=scale,
        ),
        outputs=_roles(found.outputs, said.head, path),
        tolerance=TOLERANCE,
    )


def _roles(outputs: Sequence[dict[str, Any]], head: str, path: Path) -> dict[str, str]:
    """Which output is what to the head; those of TensorFlow's detection post-processing come in the order of the roles."""
    roles = ROLES_OF_HEAD[head]
    if len(outputs) != len(roles):
        raise UsageError(
            f"{path}: gives {len(outputs)} outputs, head {head} reads {len(roles)} ({', '.join(roles)}); choose another --head"
        )
    ordered = sorted(outputs, key=lambda output: str(output["name"])) if len(roles) > 1 else outputs
    return {role: str(output["name"]) for role, output in zip(roles, ordered, strict=True)}
