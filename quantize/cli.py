"""edge-quantize: a trained classifier to a bundle of measured variants that a device can run."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.commands import SETTINGS, OneLineCommand, speaker, version_option
from edge.errors import UsageError
from edge.pictures import read_picture

if TYPE_CHECKING:
    from train.models import Classifier

NAME = "edge-quantize"
VARIANTS = ("int8-arm", "int8-x86", "int8-tflite", "float32")
GOLDEN_PICTURE = Path(__file__).parent.parent / "edge" / "data" / "photos" / "chelsea.jpg"
BUNDLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
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
    a train.models.Classifier. Exits with 3 when no int8 variant is within --max-drop points of float32.
    """
    names = _chosen(variants)
    if name is not None and not BUNDLE_NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: give letters, digits, '.', '_' and '-', at most 100")
    if not data.is_dir():
        raise UsageError(f"--data {data}: no such folder; give class folders of pictures, or train/ and val/ of them")
    _check_writable(out)
    classifier = resolve(model)
    threads = threads or len(os.sched_getaffinity(0))

    import torch

    from quantize.build import build
    from quantize.data import load_split
    from quantize.pack import pack

    torch.set_num_threads(threads)
    named: set[str] = set()

    def bad(line: str) -> None:
        if line not in named:
            named.add(line)
            say(f"skipped {line}")

    split = load_split(data, classifier.labels, calibration_images)
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
        bad=bad,
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


def _check_writable(out: Path) -> None:
    """Better refused now than after minutes of work."""
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK) or (out.suffix == ".edge" and out.is_dir()):
        raise UsageError(f"--out {out}: cannot be written there; choose another path")


def resolve(model: str) -> Classifier:
    """The classifier that MODEL names. Raises UsageError, or InputError when its weights are not installed."""
    try:
        from train.models import MODELS, Classifier, pretrained
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed; pip install 'edge-run[quantize]'") from None
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
    except Exception as error:  # it is the user's code: anything can come out of it
        raise UsageError(f"{model}: {type(error).__name__}: {error}; check that the factory runs in python") from None
    if not isinstance(classifier, Classifier):
        raise UsageError(f"{model}: returned {type(classifier).__name__}, expected train.models.Classifier")
    return classifier


def _command() -> str:
    return shlex.join([NAME, *sys.argv[1:]])


if __name__ == "__main__":
    main()
