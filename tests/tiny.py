"""Tiny bundles for tests that need a real model but not a good one.

A classifier of random weights; a detector of squares, one that gives them keypoints, and one that paints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import pack_golden, sha256, write_bundle
from edge.card import Card, DetectOptions, Golden, InputGeometry, Label, Provenance, TensorInput, Variant
from edge.engines import EngineOptions, open_engine
from edge.tasks import TASKS
from edge.types import Geometry, Tensor
from tests.samples import frame, picture

MACHINES = {"arm": ("aarch64", "armv7l"), "x86": ("x86_64",)}
"""A variant's last word → the machines it is made for; none: any."""


def tiny_onnx(*, classes: int = 10, size: int = 32, seed: int = 0) -> bytes:
    """An ONNX model: `image` uint8 [1, size, size, 3] → global average → `logits` float32 [1, classes]; the same every time."""
    rng = np.random.default_rng(seed)
    # the means of pictures differ little, so the weights are large enough for confidences that differ
    weights = rng.normal(0, 8, (3, classes)).astype(np.float32)
    bias = (-weights.sum(axis=0) / 2).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["unit"]),
        helper.make_node("GlobalAveragePool", ["unit"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, size, size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
        [
            numpy_helper.from_array(np.array(255, np.float32), "full"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_bundle(
    path: str | Path,
    *,
    classes: int = 10,
    size: int = 32,
    name: str = "tiny",
    variants: Sequence[str] = ("float32",),
    seed: int = 0,
) -> Path:
    """Write a bundle at `path` (a zip when it ends in .edge, else a folder) and return the path.

    All variants are the same ONNX bytes under names of their own: `int8-*` says int8 precision, `*-arm` and `*-x86`
    their machines. Labels are `class 0`, `class 1`, ... with ids `c0`, `c1`, ...
    """
    path = Path(path)
    model = tiny_onnx(classes=classes, size=size, seed=seed)
    made = tuple(_variant(variant, model) for variant in variants)
    picture = np.random.default_rng(seed + 1).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    engine = open_engine(model, made[0], EngineOptions())
    outputs = engine.infer(Tensor(picture, Geometry((1.0, 1.0), (0.0, 0.0), (size, size))))
    engine.close()
    golden = pack_golden(picture, {variant.name: outputs for variant in made})
    card = Card(
        name=name,
        task="classify",
        head="softmax",
        labels=tuple(Label(id=f"c{i}", name=f"class {i}") for i in range(classes)),
        input=InputGeometry(width=size, height=size),
        variants=made,
        golden=Golden(sha256=sha256(golden), bytes=len(golden)),
        provenance=Provenance(source="tests/tiny.py", license="Apache-2.0", created="1970-01-01T00:00:00Z"),
    )
    write_bundle(path, card, {"golden.npz": golden, **{variant.file: model for variant in made}})
    return path


def _variant(name: str, model: bytes) -> Variant:
    int8 = name.startswith("int8")
    return Variant(
        name=name,
        file=f"{name}.onnx",
        engine="onnx",
        precision="int8" if int8 else "float32",
        scheme="float32",
        machines=MACHINES.get(name.rpartition("-")[2], ()),
        weight_bits=8 if int8 else 32,
        sha256=sha256(model),
        bytes=len(model),
        input=TensorInput(name="image"),
        outputs={"logits": "logits"},
        temperature=1.5,
        tolerance=1e-3,
    )


SQUARES = 32
COLORS = ("red", "green", "blue")


def tiny_detector_onnx() -> bytes:
    """`image` uint8 [1, 32, 32, 3] RGB → `predictions` [1, 16, 8], YOLOX's for stride 8: each 8 x 8 cell is an object.

    Its box is the cell, its class the strongest of red, green and blue, its score (strongest / 255)².
    """
    box = np.zeros((1, 4, 4, 4), np.float32)
    box[:, :2] = 0.5
    nodes = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["unit"]),
        helper.make_node("AveragePool", ["unit"], ["classes"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("ReduceMax", ["classes"], ["objectness"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["box", "objectness", "classes"], ["grid"], axis=1),
        helper.make_node("Reshape", ["grid", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["predictions"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SQUARES, SQUARES, 3])],
        [helper.make_tensor_value_info("predictions", TensorProto.FLOAT, [1, 16, 8])],
        [
            numpy_helper.from_array(np.array(255, np.float32), "full"),
            numpy_helper.from_array(box, "box"),
            numpy_helper.from_array(np.array([1, 8, 16], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_detector_bundle(path: Path, **more: Any) -> Path:
    """The detector of squares as a bundle at `path`."""
    return write_detector(
        path,
        tiny_detector_onnx(),
        head="yolox",
        labels=tuple(Label(id=name[0], name=name) for name in COLORS),
        geometry=InputGeometry(width=SQUARES, height=SQUARES, resize="letterbox", pad_value=0),
        tensor=TensorInput(name="image"),
        outputs={"predictions": "predictions"},
        options=DetectOptions(strides=(8,)),
        **more,
    )


CORNERS = ("top left", "bottom right")


def tiny_pose_onnx() -> bytes:
    """The same squares as YOLOv8-pose's `predictions` [1, 4 + 3 + 6, 16]: scores are levels / 255.

    The keypoints are two corners of the cell, of visibility 0.875 and 0.25.
    """
    row, column = np.divmod(np.arange(16, dtype=np.float32), 4)
    left, top, ones = 8 * column, 8 * row, np.ones(16, np.float32)
    box = np.stack((left + 4, top + 4, 8 * ones, 8 * ones))[None]
    points = np.stack((left, top, 0.875 * ones, left + 8, top + 8, 0.25 * ones))[None]
    nodes = [
        helper.make_node("AveragePool", ["unit"], ["classes"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["classes", "shape"], ["scores"]),
        helper.make_node("Concat", ["box", "scores", "points"], ["predictions"], axis=1),
    ]
    constants = {"box": box, "points": points.astype(np.float32), "shape": np.array([1, 3, 16], np.int64)}
    return of_squares(nodes, constants, "predictions", [1, 13, 16])


def tiny_segmenter_onnx() -> bytes:
    """`logits` [1, 4, 8, 8] of background and the three colours, a cell for 4 x 4 pixels: 10 and 20 times its level / 255."""
    nodes = [
        helper.make_node("AveragePool", ["unit"], ["classes"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Concat", ["half", "classes"], ["levels"], axis=1),
        helper.make_node("Mul", ["levels", "twenty"], ["logits"]),
    ]
    constants = {"half": np.full((1, 1, 8, 8), 0.5, np.float32), "twenty": np.array(20, np.float32)}
    return of_squares(nodes, constants, "logits", [1, 4, 8, 8])


def of_squares(nodes: list[Any], constants: dict[str, Any], output: str, shape: list[int]) -> bytes:
    """`image` uint8 [1, 32, 32, 3] → `unit` float32 [1, 3, 32, 32] in [0, 1] → `nodes` → `output`."""
    before = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["unit"]),
    ]
    graph = helper.make_graph(
        before + nodes,
        "squares",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SQUARES, SQUARES, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in ({"full": np.array(255, np.float32)} | constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_pose_bundle(path: Path) -> Path:
    """The squares with keypoints as a bundle at `path`."""
    return write_detector(
        path,
        tiny_pose_onnx(),
        task="pose",
        head="yolov8-pose",
        labels=tuple(Label(id=name[0], name=name) for name in COLORS),
        geometry=InputGeometry(width=SQUARES, height=SQUARES, resize="letterbox", pad_value=0),
        tensor=TensorInput(name="image"),
        outputs={"predictions": "predictions"},
        options=DetectOptions(keypoints=CORNERS),
    )


def tiny_segmenter_bundle(path: Path) -> Path:
    """The painter of squares as a bundle at `path`."""
    return write_detector(
        path,
        tiny_segmenter_onnx(),
        task="segment",
        head="argmax",
        labels=tuple(Label(id=name, name=name) for name in ("background", *COLORS)),
        geometry=InputGeometry(width=SQUARES, height=SQUARES, resize="letterbox", pad_value=0),
        tensor=TensorInput(name="image"),
        outputs={"logits": "logits"},
    )


def write_detector(
    path: Path,
    model: bytes,
    *,
    head: str,
    labels: tuple[Label, ...],
    geometry: InputGeometry,
    tensor: TensorInput,
    outputs: dict[str, str],
    task: str = "detect",
    options: DetectOptions | None = None,
    engine: str = "onnx",
    **more: Any,
) -> Path:
    """A bundle of one variant, whose golden check is what the engine answers to one picture."""
    variant = Variant(
        name="only",
        file=f"model.{engine}",
        engine=engine,  # type: ignore[arg-type]
        sha256=sha256(model),
        bytes=len(model),
        input=tensor,
        outputs=outputs,
        tolerance=1e-2,
        **({"precision": "float32", "scheme": "float32", "weight_bits": 32} | more),
    )
    card = Card(
        name=path.stem,
        task=task,  # type: ignore[arg-type]
        head=head,  # type: ignore[arg-type]
        detect=options or (None if task == "segment" else DetectOptions()),
        labels=labels,
        input=geometry,
        variants=(variant,),
        golden=Golden(sha256="0" * 64, bytes=1),
        provenance=Provenance(source="tests", license="Apache-2.0", created="1970-01-01T00:00:00Z"),
    )
    given = TASKS[task](card, variant).prepare(frame(picture(320, 240)))
    opened = open_engine(model, variant, EngineOptions())
    golden = pack_golden(np.asarray(given.data), {variant.name: opened.infer(given)})
    opened.close()
    card = msgspec.structs.replace(card, golden=Golden(sha256=sha256(golden), bytes=len(golden)))
    write_bundle(path, card, {"golden.npz": golden, variant.file: model})
    return path
