"""What a model file does not say of itself and its owner does: task, head, labels, geometry; from flags and a TOML file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from edge.card import HEADS_OF_TASK, DetectOptions, InputGeometry, Label
from edge.errors import InputError, UsageError
from edge.sizes import parse_size
from train.models import imagenet_labels

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)
COCO_KEYPOINTS = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow", "right elbow"),
    *("left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle"),
)


@dataclass(frozen=True, slots=True)
class Preset:
    """What models with a head are fed as their authors publish them; flags and the TOML file override it."""

    input: dict[str, Any]
    mean: Triple
    std: Triple
    detect: dict[str, Any]


PRESETS = {
    "softmax": Preset({"color": "rgb", "resize": "crop", "crop_fraction": 0.875}, IMAGENET_MEAN, IMAGENET_STD, {}),
    "yolox": Preset({"color": "bgr", "resize": "letterbox", "letterbox_anchor": "topleft"}, (0, 0, 0), (1, 1, 1), {}),
    "yolov8": Preset({"color": "rgb", "resize": "letterbox"}, (0, 0, 0), (255, 255, 255), {"iou_threshold": 0.7}),
    "nanodet": Preset(
        {"color": "bgr", "resize": "stretch"},
        (103.53, 116.28, 123.675),
        (57.375, 57.12, 58.395),
        {"strides": (8, 16, 32, 64), "cell_offset": 0.0, "iou_threshold": 0.6},
    ),
    "fastestdet": Preset({"color": "bgr", "resize": "stretch"}, (0, 0, 0), (255, 255, 255), {"iou_threshold": 0.45}),
    "ssd": Preset({"color": "rgb", "resize": "stretch"}, (0, 0, 0), (1, 1, 1), {}),
    "yolov8-pose": Preset(
        {"color": "rgb", "resize": "letterbox"},
        (0, 0, 0),
        (255, 255, 255),
        {"iou_threshold": 0.7, "keypoints": COCO_KEYPOINTS},
    ),
    "argmax": Preset({"color": "rgb", "resize": "stretch"}, IMAGENET_MEAN, IMAGENET_STD, {}),
}
"""By head."""


class Description(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The TOML file, every key of which has a flag of the same name or is a table of the card's own fields.

    `labels` are names, or the path of a file with one a line, or `imagenet` or `coco`. `mean` and `std` are of pixels
    from 0 to 255. `output` names the tensor to take when a model gives several.
    """

    name: str | None = None
    task: str | None = None
    head: str | None = None
    labels: list[str] | str | None = None
    size: str | None = None
    color: str | None = None
    resize: str | None = None
    mean: Triple | float | None = None
    std: Triple | float | None = None
    output: str | None = None
    source: str | None = None
    license: str | None = None
    input: dict[str, Any] = {}
    detect: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Described:
    """A description with every gap filled; `size_wh` is None where the file has to say it."""

    task: str
    head: str
    labels: tuple[Label, ...]
    size_wh: tuple[int, int] | None
    input: dict[str, Any]
    mean: Triple
    std: Triple
    detect: DetectOptions | None
    output: str | None
    source: str
    license: str
    name: str | None = None

    def geometry(self, size_wh: tuple[int, int], where: str) -> InputGeometry:
        """The input of a model of this size. Raises UsageError for fields that cannot be."""
        fields = {"width": size_wh[0], "height": size_wh[1]} | self.input
        geometry: InputGeometry = _converted(fields, InputGeometry, f"{where}: input")
        return geometry


def read_description(path: Path | None, flags: dict[str, Any]) -> Description:
    """The TOML file with the flags that were given over it. Raises InputError for the file, UsageError for flags."""
    fields: dict[str, Any] = {}
    if path is not None:
        try:
            fields = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"--config {path}: {error.strerror or error}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"--config {path}: not TOML: {error}") from None
        labels = fields.get("labels")
        if isinstance(labels, str) and labels not in LABEL_SETS:
            fields["labels"] = str(path.parent / labels)  # a path in a file is relative to that file
        _converted(fields, Description, f"--config {path}", InputError)
    given = {name: value for name, value in flags.items() if value is not None}
    description: Description = _converted(fields | given, Description, "flags")
    return description


def described(given: Description, where: str) -> Described:
    """The description with what its head's authors publish in place of what it does not say. Raises UsageError, InputError."""
    heads = {head: task for task, known in HEADS_OF_TASK.items() for head in known if head in PRESETS}
    possible = [head for head, task in heads.items() if task == (given.task or "classify")]
    head = possible[0] if given.head is None and len(possible) == 1 else given.head
    if head is None:
        raise UsageError(f"{where}: --task detect needs --head, one of {', '.join(HEADS_OF_TASK['detect'])}")
    if head not in heads:
        raise UsageError(f"{where}: no head {head!r:.40}; there are {', '.join(heads)}")
    task = heads[head]
    if given.task not in (None, task):
        raise UsageError(
            f"{where}: head {head} is for --task {task}, not {given.task!r:.40}; there are {', '.join(HEADS_OF_TASK)}"
        )
    preset = PRESETS[head]
    chosen = {key: value for key, value in (("color", given.color), ("resize", given.resize)) if value is not None}
    detect = None
    if task in ("detect", "pose"):
        detect = _converted(preset.detect | given.detect, DetectOptions, f"{where}: detect")
    elif given.detect:
        raise UsageError(f"{where}: task {task} has no table 'detect'")
    return Described(
        task=task,
        head=head,
        labels=_labels(given.labels, head, where),
        size_wh=None if given.size is None else _size(given.size),
        input=preset.input | given.input | chosen,
        mean=preset.mean if given.mean is None else _triple(given.mean),
        std=preset.std if given.std is None else _triple(given.std),
        detect=detect,
        output=given.output,
        source=given.source or f"{Path(where).name}, whose makers the build was not told",
        license=given.license or "unknown",
        name=given.name,
    )


def _coco() -> tuple[Label, ...]:
    names = files("quantize").joinpath("coco_labels.txt").read_text(encoding="utf-8").splitlines()
    return tuple(Label(id=str(index), name=name) for index, name in enumerate(names))


def _imagenet_after_background() -> tuple[Label, ...]:
    return (Label(id="background", name="background"), *imagenet_labels())


LABEL_SETS = {"imagenet": imagenet_labels, "imagenet1001": _imagenet_after_background, "coco": _coco}
"""Labels that --labels may name instead of a file."""


def _labels(given: list[str] | str | None, head: str, where: str) -> tuple[Label, ...]:
    if given is None:
        raise UsageError(
            f"{where}: which classes does it tell apart? give --labels FILE, a name a line, or {' or '.join(LABEL_SETS)}"
        )
    if isinstance(given, str):
        if given in LABEL_SETS:
            return LABEL_SETS[given]()
        try:
            names = Path(given).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--labels {given}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
        given = [name.strip() for name in names]
        while given and not given[-1]:
            given.pop()
    gaps = head == "ssd"  # whose class numbers count places without a name
    kept = [(index, name) for index, name in enumerate(given) if gaps or name not in ("", "n/a")]
    if not kept:
        raise InputError(f"{where}: the labels name no class; give one a line")
    return tuple(Label(id=str(index), name=name) for index, name in kept)


def _size(text: str) -> tuple[int, int]:
    size_wh = parse_size(text if "x" in text.lower() else f"{text}x{text}")
    if size_wh is None:
        raise UsageError(f"--size {text!r:.40}: give WIDTHxHEIGHT in pixels, such as 416x416")
    return size_wh


def _triple(value: Triple | float) -> Triple:
    return value if isinstance(value, tuple) else (value, value, value)


def _converted(fields: dict[str, Any], kind: Any, where: str, error: type[InputError] | type[UsageError] = UsageError) -> Any:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as problem:
        raise error(f"{where}: {problem}") from None
