"""A .tflite or .onnx file packed as it is: nothing is changed, and what can be measured is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edge.bundle import pack_golden, sha256, write_bundle
from edge.calibration import fit_temperature
from edge.card import FIGURES_OF_TASK, ROLES_OF_HEAD, Accuracy, Card, Golden, Provenance, TensorInput, Variant
from edge.commands import Skipped
from edge.datasets import Sample, labelled_frames
from edge.engines import EngineOptions, open_engine
from edge.engines.adapt import first_line
from edge.errors import EngineError, InputError, UsageError
from edge.evaluate import evaluate
from edge.model import Model
from edge.pictures import read_picture
from edge.protocols import Engine
from edge.selection import fit_selections
from edge.tasks import TASKS
from edge.tasks.classify import Classify, are_probabilities
from edge.types import Frame, Tensor
from quantize.data import Picture, load_split
from quantize.described import Described
from quantize.pack import created, tools
from quantize.quiet import quiet
from quantize.resolve import bundle_name

PROBABILITY_SUM = 0.05
"""As near to 1 as 8-bit probabilities of a thousand classes, each rounded, add up."""
TOLERANCE = 1e-2
"""Of outputs: integer models answer alike everywhere, float sums differ in order."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a file says of itself: its one input, uint8 or float32 of one picture, and its outputs' names, in order."""

    engine: Literal["onnx", "tflite"]
    input: str
    dtype: Literal["uint8", "float32"]
    layout: Literal["nhwc", "nchw"]
    size_wh: tuple[int, int]
    outputs: tuple[str, ...]


def pack_as_is(
    path: Path,
    said: Described,
    data: Path | None,
    out: Path,
    name: str | None,
    golden: Path,
    threads: int,
    say: Callable[[str], None],
    command: str,
) -> Card:
    """Write a bundle of one variant, measured on the pictures of `data` that are kept for it where its task is measured.

    Raises InputError for a file that its engine cannot run or that is not a model of one picture, UsageError for a head
    that does not fit it, BundleError and DataError.
    """
    if path.suffix.lower() not in READERS:
        raise UsageError(f"{path}: a model of task {said.task} is packed as it is; export it to .onnx or .tflite")
    try:
        model = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    found = READERS[path.suffix.lower()](model, path, said.size_wh)
    if said.size_wh not in (None, found.size_wh):
        raise UsageError(f"--size: {path} takes {found.size_wh[0]}x{found.size_wh[1]}; leave --size out")
    variant = _variant(model, found, said, path)
    card = Card(
        name=name or said.name or bundle_name(path),
        task=said.task,  # type: ignore[arg-type]
        head=said.head,  # type: ignore[arg-type]
        detect=said.detect,
        labels=said.labels,
        input=said.geometry(found.size_wh, str(path)),
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
    task = TASKS[card.task](card, variant)
    tensor = task.prepare(Frame(read_picture(golden), 0, 0.0, "golden"))
    if card.head == "softmax" and _gives_probabilities(model, variant, tensor):
        say(f"{path.name}: it ends in a softmax; taken as head probability")
        variant = msgspec.structs.replace(variant, outputs={"probabilities": variant.outputs["logits"]})
        card = msgspec.structs.replace(card, head="probability", variants=(variant,))
        task = TASKS[card.task](card, variant)
    with closing(open_engine(model, variant, EngineOptions(threads))) as engine:
        expected = engine.infer(tensor)
        if card.task not in FIGURES_OF_TASK:
            try:
                task.decode(expected, tensor)
            except EngineError as error:
                raise InputError(f"{path}: {error}") from None
            measured = "not measured"
        else:
            if data is None:
                raise UsageError(f"--data DIR: {path} is measured on labelled pictures; give some")
            variant, measured = _measured(card, variant, engine, data, say)
    packed = pack_golden(tensor.data, {variant.name: expected})
    card = msgspec.structs.replace(card, variants=(variant,), golden=Golden(sha256=sha256(packed), bytes=len(packed)))
    write_bundle(out, card, {card.golden.file: packed, variant.file: model})
    say(f"{card.name}: packed as it is; {measured}")
    say(f"wrote {out}: {variant.name}; try it: edge-run --model {out} --source demo")
    return card


def _measured(card: Card, variant: Variant, engine: Engine, data: Path, say: Callable[[str], None]) -> tuple[Variant, str]:
    """The variant with its temperature and accuracy, and the figures in words."""
    split = load_split(data, card.labels, 1, card.task)
    bad = Skipped(say)
    variant = msgspec.structs.replace(variant, temperature=_temperature(card, variant, engine, split.choice, bad))
    task = TASKS[card.task](card, variant)
    report: Any = evaluate(Model(card.name, variant, engine, task), split.measure, bad)  # type: ignore[arg-type]
    figures = {figure: getattr(report, figure) for figure in FIGURES_OF_TASK[card.task]}
    accuracy = Accuracy(data=data.resolve().name, images=report.images, ece=report.ece, **figures)
    said = ", ".join(f"{figure} {value:.2%}" for figure, value in figures.items())
    words = f"{said}, calibration error {report.ece:.3f} on {report.images} pictures"
    return msgspec.structs.replace(variant, accuracy=accuracy, selections=fit_selections(report)), words


def _gives_probabilities(model: bytes, variant: Variant, tensor: Tensor) -> bool:
    """Whether what it calls logits has been through a softmax."""
    with closing(open_engine(model, variant, EngineOptions())) as engine:
        values = engine.infer(tensor)["logits"]
    return values.size > 1 and are_probabilities(values, PROBABILITY_SUM)


def _temperature(card: Card, variant: Variant, engine: Engine, samples: Sequence[Picture], bad: Callable[[str], None]) -> float:
    """What calibrates a classifier's confidence, whether it gives logits or probabilities; 1 for a detector."""
    if card.task != "classify":
        return 1.0
    task = Classify(card, variant)
    outputs, truth = [], []
    for frame, sample in labelled_frames(samples, bad):
        assert isinstance(sample, Sample)
        given = engine.infer(task.prepare(frame))
        classes = next(iter(given.values())).size
        if classes != len(card.labels):
            raise InputError(
                f"{card.name}: the model gives {classes} classes, there are {len(card.labels)} labels; correct --labels"
            )
        outputs.append(task.logits(given)[0])
        truth.append(sample.class_id)
    return round(fit_temperature(np.stack(outputs), np.array(truth, np.int64)), 4) if truth else 1.0


def _tflite(model: bytes, path: Path, size_wh: tuple[int, int] | None) -> Found:
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
    kind = np.dtype(inputs[0]["dtype"]).name
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or kind not in ("uint8", "float32"):
        raise InputError(f"{path}: takes {kind} {shape}, expected uint8 or float32 [1, height, width, 3]")
    names = tuple(str(output["name"]) for output in outputs)
    dtype: Literal["uint8", "float32"] = "float32" if kind == "float32" else "uint8"
    return Found("tflite", str(inputs[0]["name"]), dtype, "nhwc", (shape[2], shape[1]), names)


def _onnx(model: bytes, path: Path, size_wh: tuple[int, int] | None) -> Found:
    """Free sides are `size_wh`. Raises InputError, and UsageError where that is missing."""
    import onnxruntime

    from edge.engines.onnx import DTYPES

    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        raise InputError(f"{path}: ONNX Runtime cannot run it ({first_line(error)}); export it again, in one file") from None
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise InputError(f"{path}: takes {len(inputs)} inputs, expected one picture")
    [given], layout, dtype = inputs, "", DTYPES.get(inputs[0].type)
    match list(given.shape):
        case [1 | str() | None, 3, height, width]:
            layout = "nchw"
        case [1 | str() | None, height, width, 3]:
            layout = "nhwc"
    if not layout or dtype is None:
        expected = "uint8 or float32 [1, 3, height, width] or [1, height, width, 3]"
        raise InputError(f"{path}: takes {given.type} {list(given.shape)}, expected {expected}")
    if not (isinstance(height, int) and isinstance(width, int)):
        if size_wh is None:
            raise UsageError(f"{path}: its height and width are free; give --size WIDTHxHEIGHT")
        width, height = size_wh
    names = tuple(output.name for output in session.get_outputs())
    return Found("onnx", given.name, dtype, layout, (width, height), names)  # type: ignore[arg-type]


READERS: dict[str, Callable[[bytes, Path, tuple[int, int] | None], Found]] = {".onnx": _onnx, ".tflite": _tflite}
"""What is packed as it is, by the file's suffix."""


def _variant(model: bytes, found: Found, said: Described, path: Path) -> Variant:
    is_float = found.dtype == "float32"
    red, green, blue = said.std
    return Variant(
        name=found.engine,
        file=f"model.{found.engine}",
        engine=found.engine,
        precision="float32" if is_float else "int8",
        scheme="float32" if is_float else "s8s8",
        weight_bits=32 if is_float else 8,
        sha256=sha256(model),
        bytes=len(model),
        input=TensorInput(
            name=found.input,
            dtype=found.dtype,
            layout=found.layout,
            mean=said.mean if is_float else (0.0, 0.0, 0.0),
            scale=(1 / red, 1 / green, 1 / blue) if is_float else (1.0, 1.0, 1.0),
        ),
        outputs=_roles(found.outputs, said, path),
        tolerance=TOLERANCE,
    )


def _roles(outputs: tuple[str, ...], said: Described, path: Path) -> dict[str, str]:
    """Which output is what to the head; those of TensorFlow's detection post-processing come in the order of the roles."""
    roles = ROLES_OF_HEAD[said.head]
    if said.output is not None and len(roles) == 1:
        if said.output not in outputs:
            raise UsageError(f"{path}: no output named {said.output!r:.60}; there are {', '.join(outputs)}")
        outputs = (said.output,)
    if len(outputs) != len(roles):
        hint = "choose another --head" if len(roles) > 1 else f"say which with --output: {', '.join(outputs[:6])}"
        raise UsageError(
            f"{path}: gives {len(outputs)} outputs, head {said.head} reads {len(roles)} ({', '.join(roles)}); {hint}"
        )
    return dict(zip(roles, sorted(outputs) if len(roles) > 1 else outputs, strict=True))
