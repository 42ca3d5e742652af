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


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class Label(_Strict, frozen=True, kw_only=True):
    """One class: a stable id (for ImageNet its WordNet id) and the name that people read."""

    id: str
    name: str


class InputGeometry(_Strict, frozen=True, kw_only=True):
    """How a picture becomes the model's input of `width` x `height` pixels.

    `crop` takes the largest centred rectangle of the model's shape, shrunk by `crop_fraction`, and resizes it;
    `letterbox` fits the whole picture and pads with `pad_value`; `stretch` ignores the aspect.
    """

    width: Pixels
    height: Pixels
    color: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["crop", "letterbox", "stretch"] = "crop"
    crop_fraction: Fraction = 1.0
    interpolation: Literal["nearest", "linear", "cubic", "area"] = "linear"
    pad_value: Annotated[int, Meta(ge=0, le=255)] = 114


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
    """What the build measured through the device code: fractions in [0, 1], over `images` pictures of `data`."""

    data: str
    images: Annotated[int, Meta(ge=1)]
    top1: Annotated[float, Meta(ge=0.0, le=1.0)]
    top5: Annotated[float, Meta(ge=0.0, le=1.0)]
    ece: Annotated[float, Meta(ge=0.0, le=1.0)]


class Variant(_Strict, frozen=True, kw_only=True):
    """One file of the model, made for some processors.

    `machines` are `platform.machine()` names that it was made for (empty: any). `scheme` says whether activations are
    unsigned (u8s8) or signed (s8s8) beside signed weights; products of 8-bit weights saturate on x86 without VNNI unless
    computed with care, which the ONNX engine does, products of 7-bit weights never do. `tolerance` is the
    largest absolute difference from the golden outputs that a device may show. `temperature` calibrates this variant's
    own confidence: softmax(logits / temperature).
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
    outputs: dict[Literal["logits"], str]
    temperature: Positive = 1.0
    tolerance: Annotated[float, Meta(ge=0.0)]
    accuracy: Accuracy | None = None


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
    """The whole card; `variants` stand in order of preference."""

    schema_version: Literal[1] = 1
    name: Name
    task: Literal["classify"]
    head: Literal["softmax"]
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
    for variant in card.variants:
        if "logits" not in variant.outputs:
            raise BundleError(f"{where}: card.json: variant {variant.name} names no output for 'logits'")


def encode_card(card: Card) -> bytes:
    """The card as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n"


def card_schema() -> dict[str, Any]:
    """The published JSON Schema of a card."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-run bundle card"} | msgspec.json.schema(
        Card
    )
