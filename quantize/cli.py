"""edge-quantize: a trained classifier to a bundle of measured variants that a device can run."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.bundle import check_target
from edge.card import is_name
from edge.commands import SETTINGS, OneLineCommand, Skipped, speaker, version_option
from edge.errors import BundleError, DataError, EdgeError, UsageError
from edge.pictures import read_picture
from edge.sources.demo import PHOTOS

if TYPE_CHECKING:
    from quantize.data import Split
    from train.models import Classifier

NAME = "edge-quantize"
VARIANTS = ("int8-arm", "int8-x86", "int8-tflite", "float32")
GOLDEN_PICTURE = PHOTOS / "chelsea.jpg"
BUNDLE_NAME_RULE = "letters, digits, '.', '_' and '-', a letter or digit first, at most 100"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
TFLITE_PACKAGES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
LONGEST_FILE_NAME = 240
"""In bytes; file systems allow 255, and a bundle is written beside its place first."""
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@click.argument("model")
@click.option(
    "--data",
    metavar="DIR",
    type=Path,
    required=True,
    help="Pictures in class folders, under train/ and val/ or in one set, half of which is kept to measure.",
)
@click.option("--out", metavar="BUNDLE", type=Path, required=True, help="The bundle to write: NAME.edge, or a folder.")
@click.option("--name", metavar="NAME", help="The bundle's name.  [default: the model's]")
@click.option(
    "--max-drop",
    metavar="POINTS",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Leave out variants that lose more top-1 than this.",
)
@click.option(
    "--variants",
    metavar="LIST",
    default=",".join(VARIANTS),
    show_default=True,
    help="Which to pack, with commas between. float32 is measured in any case.",
)
@click.option(
    "--calibration-images",
    metavar="N",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Pictures to calibrate on.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads to work with.  [default: all cores]")
@version_option
def main(
    model: str,
    data: Path,
    out: Path,
    name: str | None,
    max_drop: float,
    variants: str,
    calibration_images: int,
    threads: int | None,
) -> int:
    """Quantize MODEL and measure every variant through the code that runs on the device.

    MODEL is efficientnet-lite0, -lite1 or -lite2, or package.module:factory, a function without arguments that returns
    a train.models.Classifier. Exits with 3 when int8 variants were asked for and none is within --max-drop points of
    float32.
    """
    names = _chosen(variants)
    if name is not None and not is_name(name):
        raise UsageError(f"--name {name!r}: give {BUNDLE_NAME_RULE}")
    if not data.is_dir():
        raise UsageError(f"--data {data}: no such folder; give class folders of pictures, or train/ and val/ of them")
    _check_out(out)
    _check_installed(names)
    classifier = resolve(model)
    if name is None and not is_name(classifier.name):
        raise UsageError(f"{model}: the classifier's name is {classifier.name!r}; give {BUNDLE_NAME_RULE}, or set --name")
    threads = threads or len(os.sched_getaffinity(0))

    import torch

    from quantize.build import build
    from quantize.check import check_classifier
    from quantize.pack import pack

    torch.set_num_threads(threads)
    check_classifier(classifier, model)
    split = _split(data, classifier, model, calibration_images)
    say(
        f"{classifier.name}: {len(split.calibration)} pictures to calibrate, {len(split.temperature)} to fit temperatures, "
        f"{len(split.measure)} to measure"
    )
    picture = read_picture(GOLDEN_PICTURE)
    built = build(
        classifier,
        split,
        names,
        golden=picture,
        data_name=data.resolve().name,
        max_drop=max_drop / 100,
        threads=threads,
        say=say,
        bad=Skipped(say),
    )
    calibration = f"{len(split.calibration)} pictures of {data.resolve().name}"
    card = pack(out, classifier, name or classifier.name, built, picture, calibration, _command())
    say(f"wrote {out}: {', '.join(variant.name for variant in card.variants)}; try it: edge-run --model {out} --source demo")
    return 0


def _chosen(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise UsageError(
            f"--variants {text!r}: {'no variant named ' + repr(unknown[0]) if unknown else 'names none'}; "
            f"there are {', '.join(VARIANTS)}"
        )
    return names


def _check_out(out: Path) -> None:
    """Better refused now than after minutes of work. Raises UsageError or, for a folder of something else, BundleError."""
    if out.name in ("", "..") or out.suffix not in ("", ".edge"):
        raise UsageError(f"--out {out}: give NAME.edge, or the name of a folder, without a suffix")
    refused = f"--out {out}: cannot be written there"
    if out.suffix == ".edge":
        if out.is_dir():
            raise UsageError(f"{refused}: it is a folder; choose another path")
    else:
        try:
            check_target(out)
        except BundleError as error:
            raise UsageError(f"--out {error}") from None
        except OSError as error:
            raise UsageError(f"{refused}: {error.strerror or error}; choose another path") from None
    if any(len(os.fsencode(part)) > LONGEST_FILE_NAME for part in out.parts):
        raise UsageError(f"{refused}: a name is longer than {LONGEST_FILE_NAME} bytes; choose a shorter one")
    parent = next(folder for folder in out.absolute().parents if os.path.exists(folder))
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent, prefix=".edge-quantize-"))  # asking for permission alone misses full disks
    except OSError as error:
        raise UsageError(f"{refused}: {parent}: {error.strerror or error}; choose another path") from None


def _check_installed(names: tuple[str, ...]) -> None:
    for package in PACKAGES + (TFLITE_PACKAGES if "int8-tflite" in names else ()):
        if find_spec(package) is None:
            raise EdgeError(f"{package} is not installed; pip install 'edge-run[quantize]'")


def _split(data: Path, classifier: Classifier, model: str, calibration_images: int) -> Split:
    from quantize.data import load_split
    from train.models import MODELS

    try:
        return load_split(data, classifier.labels, calibration_images)
    except DataError as error:
        if model in MODELS and "matches no label" in str(error):
            raise DataError(
                f"{error}; the published models know ImageNet's classes only; train your own and give package.module:factory"
            ) from None
        raise


def resolve(model: str) -> Classifier:
    """The classifier that MODEL names. Raises UsageError, or InputError when its weights are not installed."""
    from train.models import MODELS, Classifier, pretrained

    if model in MODELS:
        return pretrained(model)
    if model.endswith((".pt", ".pth", ".onnx")) or Path(model).is_dir():
        raise UsageError(
            f"{model}: files and runs cannot be quantized yet, only {', '.join(MODELS)} and package.module:factory; "
            "write a factory that loads it"
        )
    module_name, colon, attribute = model.partition(":")
    if not colon or not attribute:
        raise UsageError(f"no model named {model!r}; there are {', '.join(MODELS)}, or give package.module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a factory beside the person who runs us, as `python -m` would find it
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        classifier = factory()
    except (Exception, SystemExit) as error:  # it is the user's code: anything can come out of it
        raise UsageError(f"{model}: {type(error).__name__}: {error}; check that the factory runs in python") from None
    if not isinstance(classifier, Classifier):
        raise UsageError(f"{model}: returned {type(classifier).__name__}, expected train.models.Classifier")
    if not isinstance(classifier.name, str):
        raise UsageError(f"{model}: the classifier's name is {type(classifier.name).__name__}, expected str")
    return classifier


def _command() -> str:
    return shlex.join([NAME, *sys.argv[1:]])


if __name__ == "__main__":
    main()
