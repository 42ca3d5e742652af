"""The bundle's card: everything that a device must do the same way as the workstation, as typed JSON.

Unknown fields, missing fields and unknown schema versions are errors, so a card is either understood whole or refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge.errors import BundleError

SCHEMA_VERSION = 1

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?![\s\S])")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
Pixels = Annotated[int, Meta(ge=1, le=8192)]
Fraction = Annotated[float, Meta(gt=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Count = Annotated[int, Meta(ge=0)]
Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
KeypointName = Annotated[str, Meta(min_length=1, max_length=100)]

HEADS_OF_TASK = {
    "classify": ("softmax", "probability"),
    "detect": ("yolox", "yolov8", "ssd", "nanodet", "fastestdet"),
    "pose": ("yolov8-pose",),
    "segment": ("argmax",),
}
"""Task → the heads it can have."""

ROLES_OF_HEAD = {
    "softmax": ("logits",),
    "probability": ("probabilities",),
    "yolox": ("predictions",),
    "yolov8": ("predictions",),
    "nanodet": ("predictions",),
    "fastestdet": ("predictions",),
    "ssd": ("boxes", "classes", "scores", "count"),
    "yolov8-pose": ("predictions",),
    "argmax": ("logits",),
}
"""Head → the roles for which each variant's `outputs` names a tensor; no more and no fewer."""

FIGURES_OF_TASK = {"classify": ("top1", "top5"), "detect": ("ap50", "ap")}
"""Task → the figures that an `Accuracy` has beside `ece`; the others are not measured."""

ANSWERED_TASKS = ("classify", "detect")
"""The tasks that an endpoint answers for."""

BACKGROUND = "background"
"""The name of the first label of a segmentation whose cells are of nothing."""


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class Label(_Strict, frozen=True, kw_only=True):
    """One class: a stable id (for ImageNet its WordNet id) and the name that people read."""

    id: str
    name: str


class InputGeometry(_Strict, frozen=True, kw_only=True):
    """How a picture becomes the model's input of `width` x `height` pixels.

    `crop` takes the largest centred rectangle of the model's shape, shrunk by `crop_fraction`, and resizes it;
    `letterbox` fits the whole picture and pads with `pad_value`, on all sides or, anchored `topleft` as YOLOX has it,
    at the right and the bottom only; `stretch` ignores the aspect.
    """

    width: Pixels
    height: Pixels
    color: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["crop", "letterbox", "stretch"] = "crop"
    crop_fraction: Fraction = 1.0
    interpolation: Literal["nearest", "linear", "cubic", "area"] = "linear"
    pad_value: Annotated[int, Meta(ge=0, le=255)] = 114
    letterbox_anchor: Literal["center", "topleft"] = "center"


class DetectOptions(_Strict, frozen=True, kw_only=True):
    """How a detection or pose head is decoded, and which of its boxes are reported.

    `strides` are the pixels a cell of each grid, in the order of the predictions (yolox, nanodet); `cell_offset` is
    where in its cell a nanodet prior sits, 0.5 for NanoDet and 0 for NanoDet-Plus; `class_offset` is added to an ssd
    class number to give the index of its label. Boxes whose calibrated score is below `score_threshold` are left out,
    as are those that overlap a better one of their class by more than `iou_threshold`; `max_detections` remain.
    `keypoints` names a pose head's, in the order of its output; a detection head has none.
    """

    strides: Annotated[tuple[Annotated[int, Meta(ge=1, le=1024)], ...], Meta(min_length=1, max_length=8)] = (8, 16, 32)
    score_threshold: Unit = 0.25
    iou_threshold: Unit = 0.65
    max_detections: Annotated[int, Meta(ge=1, le=10_000)] = 100
    class_offset: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    cell_offset: Unit = 0.5
    keypoints: Annotated[tuple[KeypointName, ...], Meta(min_length=1, max_length=1000)] | None = None


class TensorInput(_Strict, frozen=True, kw_only=True):
    """What the variant's file wants: its name, type and layout; `(x - mean) * scale` per channel where it is float32.

    Variants that edge-quantize makes are uint8 NHWC with the identity; other people's float models say more here, and
    the engine adapter does it.
    """

    name: str
    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Accuracy(_Strict, frozen=True, kw_only=True):
    """What the build measured through the device code: fractions in [0, 1], over `images` pictures of `data`.

    A classifier has `top1` and `top5`; a detector has `ap50`, its average precision at an IoU of 0.5, and `ap`, the mean
    over IoU 0.5 to 0.95 as COCO defines it. `ece` is the calibration error of either.
    """

    data: str
    images: Annotated[int, Meta(ge=1)]
    top1: Unit | None = None
    top5: Unit | None = None
    ap50: Unit | None = None
    ap: Unit | None = None
    ece: Unit


class Promise(_Strict, frozen=True, kw_only=True):
    """Accepting answers of a confidence of at least `threshold` keeps their error rate below `alpha`.

    `coverage` is the share of the calibration's answers that were accepted.
    """

    alpha: Fraction
    threshold: Unit
    coverage: Fraction


SelectionUnit = Literal["frame", "object"]


class Selection(_Strict, frozen=True, kw_only=True):
    """What may be promised of local answers (edge.selection), and how confident those were from which that was learnt.

    An answer is a classifier's best class, a detector's `object` of at least the card's score threshold, or all of a
    `frame`'s objects at once, as confident as the least certain of them; frames without any object are no answers. It
    is wrong when its best class is, or when one of its objects is none. Each promise fails with a probability of at most
    `delta`, over the choice of the `answers` that calibrated. `quantiles` of their confidence are equally spaced, the
    least and the greatest among them.
    """

    unit: SelectionUnit
    answers: Annotated[int, Meta(ge=1)]
    delta: Fraction
    promises: tuple[Promise, ...]
    quantiles: Annotated[tuple[Unit, ...], Meta(min_length=2, max_length=1001)]


class Variant(_Strict, frozen=True, kw_only=True):
    """One file of the model, made for some processors.

    `machines` are `platform.machine()` names that it was made for (empty: any). `scheme` says whether activations are
    unsigned (u8s8) or signed (s8s8) beside signed weights; products of 8-bit weights saturate on x86 without VNNI unless
    computed with care, which the ONNX engine does, products of 7-bit weights never do. `tolerance` is the
    largest absolute difference from the golden outputs that a device may show. `temperature` calibrates this variant's
    own confidence: softmax(logits / temperature), where the logarithm stands for logits of a head that gives
    probabilities, or sigmoid(logit(score) / temperature) of a detection, for
    which a class of which there was enough has one of its own in `class_temperatures`, by its label's id. `outputs` are
    tensor names by role; the head says which roles there are. `speedup` is how many times as fast as the bundle's
    float32 variant the build measured it to be, one thread, on the machine that its report names. `selections` say for
    which confidences its answers may be accepted with a promise.
    """

    name: Name
    file: Name
    engine: Literal["onnx", "tflite"]
    precision: Literal["float32", "int8"]
    scheme: Literal["float32", "u8s8", "s8s8"]
    machines: tuple[str, ...] = ()
    weight_bits: Literal[32, 16, 8, 7]
    sha256: Sha256
    bytes: Annotated[int, Meta(ge=1)]
    input: TensorInput
    outputs: dict[str, str]
    temperature: Positive = 1.0
    class_temperatures: dict[str, Positive] = {}
    tolerance: Annotated[float, Meta(ge=0.0)]
    accuracy: Accuracy | None = None
    selections: tuple[Selection, ...] = ()
    speedup: Positive | None = None


class Golden(_Strict, frozen=True, kw_only=True):
    """The golden check's file: array `input`, and `VARIANT/ROLE` for each variant's expected outputs."""

    file: Literal["golden.npz"] = "golden.npz"
    sha256: Sha256
    bytes: Annotated[int, Meta(ge=1)]


class Provenance(_Strict, frozen=True, kw_only=True):
    """Where the weights came from, under which licence, what calibrated them and which tools wrote the bundle."""

    source: str
    license: str
    created: str
    calibration: str = ""
    command: str = ""
    tools: dict[str, str] = {}


class Card(_Strict, frozen=True, kw_only=True):
    """The whole card; `variants` stand in order of preference, and `detect` is there for the tasks detect and pose only."""

    schema_version: Literal[1] = 1
    name: Name
    task: Literal["classify", "detect", "pose", "segment"]
    head: Literal["softmax", "probability", "yolox", "yolov8", "ssd", "nanodet", "fastestdet", "yolov8-pose", "argmax"]
    detect: DetectOptions | None = None
    labels: tuple[Label, ...]
    input: InputGeometry
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)]
    golden: Golden
    provenance: Provenance

    def variant(self, name: str) -> Variant:
        """The variant of that name. Raises BundleError naming those there are."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        known = ", ".join(variant.name for variant in self.variants)
        raise BundleError(f"{self.name}: no variant named {name!r}; it has {known}")


def is_name(text: object) -> bool:
    """Whether this can name a bundle, a variant or a file in one."""
    try:
        msgspec.convert(text, Name)
    except msgspec.ValidationError:
        return False
    return True


class _Version(msgspec.Struct):
    schema_version: Any = None


def decode_card(raw: bytes, where: str) -> Card:
    """Parse and check a card's JSON. Raises BundleError naming the field and `where`."""
    try:
        version = msgspec.json.decode(raw, type=_Version).schema_version
        if version != SCHEMA_VERSION and version is not None:
            raise BundleError(
                f"{where}: card.json has schema version {version!r:.40}, this edge-run reads {SCHEMA_VERSION}; "
                "upgrade edge-run or rebuild the bundle with edge-quantize"
            )
        if version is None:
            raise BundleError(f"{where}: card.json lacks schema_version; rebuild the bundle with edge-quantize")
        card = msgspec.json.decode(raw, type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: card.json is not a valid card: {error}") from None
    _check_consistency(card, where)
    return card


def _check_consistency(card: Card, where: str) -> None:
    names = [variant.name for variant in card.variants]
    files = [variant.file for variant in card.variants]
    for what, values in (("variant name", names), ("variant file", files), ("label id", [x.id for x in card.labels])):
        twice = next((value for value in values if values.count(value) > 1), None) if len(set(values)) < len(values) else None
        if twice is not None:
            raise BundleError(f"{where}: card.json has the {what} {twice!r} twice; rebuild the bundle with edge-quantize")
    reserved = {"card.json", card.golden.file} & set(files)
    if reserved:
        raise BundleError(f"{where}: card.json names {reserved.pop()} as a variant's file; rebuild it with edge-quantize")
    problem = _task_problem(card) or next(filter(None, (_variant_problem(card, variant) for variant in card.variants)), "")
    if problem:
        raise BundleError(f"{where}: card.json: {problem}; rebuild the bundle with edge-quantize")


def _task_problem(card: Card) -> str:
    """What head and options have against the task; nothing when they fit it."""
    heads = HEADS_OF_TASK[card.task]
    if card.head not in heads:
        return f"task {card.task} has no head {card.head!r}, it has {', '.join(heads)}"
    if card.task == "segment" and len(card.labels) < 2:
        return f"a segmentation has two labels at least, this one {len(card.labels)}"
    if (card.detect is not None) != (card.task in ("detect", "pose")):
        return f"task {card.task} {'lacks' if card.detect is None else 'has no'} 'detect'"
    keypoints = None if card.detect is None else card.detect.keypoints
    if (keypoints is not None) != (card.task == "pose"):
        return f"task {card.task} {'lacks' if keypoints is None else 'has no'} 'detect.keypoints'"
    names = keypoints or ()
    twice = next((name for name in names if names.count(name) > 1), None)
    return f"the keypoint {twice!r} stands twice" if twice is not None else ""


def _variant_problem(card: Card, variant: Variant) -> str:
    """What a variant's outputs and figures have against head and task; nothing when they fit."""
    for role in ROLES_OF_HEAD[card.head]:
        if role not in variant.outputs:
            return f"variant {variant.name} names no output for {role!r}"
    stray = sorted(set(variant.outputs) - set(ROLES_OF_HEAD[card.head]))
    if stray:
        return f"variant {variant.name} names an output for {stray[0]!r}, of which head {card.head} knows nothing"
    strange = sorted(set(variant.class_temperatures) - {label.id for label in card.labels})
    if strange or (variant.class_temperatures and card.task != "detect"):
        of = repr(strange[0]) if strange else "classes"
        return f"variant {variant.name} has a temperature for {of}, task {card.task} has none"
    if variant.accuracy is None:
        return ""
    for task, figures in FIGURES_OF_TASK.items():
        for figure in figures:
            if (getattr(variant.accuracy, figure) is not None) != (task == card.task):
                has = "lacks" if task == card.task else "has"
                return f"the accuracy of variant {variant.name} {has} {figure!r}, and the task is {card.task}"
    return ""


def encode_card(card: Card) -> bytes:
    """The card as indented JSON; what is None is left out."""
    return msgspec.json.format(msgspec.json.encode(_without_none(msgspec.to_builtins(card))), indent=1) + b"\n"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value


def card_schema() -> dict[str, Any]:
    """The published JSON Schema of a card."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-run bundle card"} | msgspec.json.schema(
        Card
    )
