"""edge-quantize: a trained model to a bundle of measured variants that a device can run."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.card import FIGURES_OF_TASK, HEADS_OF_TASK, is_name
from edge.commands import SETTINGS, OneLineCommand, Skipped, fail, speaker, version_option
from edge.errors import DataError, EdgeError, GateError, UsageError
from edge.lists import is_data_set
from edge.pictures import read_picture
from edge.sources.demo import PHOTOS
from quantize.outputs import check_out, report_path

if TYPE_CHECKING:
    from quantize.build import Built
    from quantize.data import Split
    from quantize.described import Described
    from quantize.float_model import FloatModel

NAME = "edge-quantize"
VARIANTS = ("int8-arm", "int8-x86", "int8-tflite", "float32")
GOLDEN_PICTURE = PHOTOS / "chelsea.jpg"
BUNDLE_NAME_RULE = "letters, digits, '.', '_' and '-', a letter or digit first, at most 100"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "matplotlib", "jinja2")
MODEL_FILES = (".onnx", ".pt", ".pth", ".pt2", ".tflite")
TFLITE_PACKAGES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@click.argument("model")
@click.option(
    "--data",
    metavar="DIR",
    type=Path,
    help="Labelled pictures: class folders, or YOLO, COCO or VOC boxes; train and val, or one set of which half measures.  "
    "[default: what a run learned from, and measured on] "
    "Not for heads yolov8-pose and argmax, which are packed as they are.",
)
@click.option("--out", metavar="BUNDLE", type=Path, required=True, help="The bundle to write: NAME.edge, or a folder.")
@click.option("--name", metavar="NAME", help="The bundle's name.  [default: the model's]")
@click.option("--task", type=click.Choice(list(HEADS_OF_TASK)), help="What a model file does.  [default: classify]")
@click.option(
    "--head",
    metavar="HEAD",
    help="How a model file's output is read: softmax, yolox, yolov8, nanodet, fastestdet, ssd, yolov8-pose, argmax.",
)
@click.option("--labels", metavar="FILE|SET", help="A model file's classes: a file with a name a line, imagenet, or coco.")
@click.option("--size", metavar="WxH", help="A model file's input, where it does not say it.")
@click.option(
    "--color", type=click.Choice(["rgb", "bgr"]), help="The order of a model file's channels.  [default: as the head's authors]"
)
@click.option(
    "--resize", type=click.Choice(["crop", "letterbox", "stretch"]), help="How pictures become that size.  [default: as above]"
)
@click.option("--mean", metavar="M[,M,M]", help="Of pixels from 0 to 255: (x - mean) / std.  [default: as above]")
@click.option("--std", metavar="S[,S,S]", help="See --mean.")
@click.option("--output", metavar="NAME", help="The output to take of a model file that gives several.")
@click.option("--config", metavar="TOML", type=Path, help="A description of a model file, which flags override.")
@click.option(
    "--arg", "arguments", metavar="NAME=VALUE", multiple=True, help="A keyword argument of the factory; may be given again."
)
@click.option(
    "--trust",
    is_flag=True,
    help="Load a .pt file that runs code of its own when it is read; call the function that a run's network is made by.",
)
@click.option(
    "--max-drop",
    metavar="POINTS",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Leave out variants that lose more of the metric than this, top-1 or AP50.",
)
@click.option(
    "--min-speedup",
    metavar="X",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Leave out variants that are less than so many times as fast as float32.",
)
@click.option("--max-mb", metavar="MB", type=click.FloatRange(min=0), help="Leave out variants that are larger.")
@click.option("--max-ece", metavar="E", type=click.FloatRange(0, 1), help="Leave out variants with a larger calibration error.")
@click.option(
    "--prune",
    metavar="macs=R|speedup=X",
    help="First prune channels to a share R of the multiplications, or until it is X times as fast; classifiers only.",
)
@click.option(
    "--qat",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Train with fake quantization when rounding alone misses a gate, always, or never.",
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
@click.option(
    "--budget-minutes",
    metavar="M",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Prepare and search for at most so long; what was found by then is used.",
)
@click.option(
    "--arm-instructions/--no-arm-instructions",
    default=None,
    help="Count instructions on emulated Cortex-A72 and A76.  [default: where make arm64-root was run]",
)
@click.option(
    "--report", metavar="HTML", type=Path, help="Where the report goes, its data beside it as JSON.  [default: beside --out]"
)
@click.option(
    "--cache",
    metavar="DIR",
    type=Path,
    help="Where finished steps are kept, for the same command to go on from.  [default: ~/.cache/edge-run/quantize]",
)
@click.option("--no-cache", is_flag=True, help="Keep and take nothing.")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads to work with.  [default: all cores]")
@click.option("--verbose", is_flag=True, help="Say every candidate.")
@version_option
def main(model: str, data: Path | None, out: Path, name: str | None, **options: Any) -> int:
    """Quantize MODEL, search for what keeps its accuracy, and measure every variant through the device's own code.

    MODEL is the folder of a run of edge-train, which needs no --data; efficientnet-lite0, -lite1 or -lite2; an .onnx file
    of any exporter; a .pt2, .pt or .pth file; a .tflite file, which is packed as it is, as an .onnx file of task pose or
    segment is; or package.module:factory, a function that returns a train.models.Classifier or Detector. Exits with 3
    when int8 variants were asked for and none passes the gates.
    """
    names = _chosen(options["variants"])
    if name is not None and not is_name(name):
        raise UsageError(f"--name {name!r}: give {BUNDLE_NAME_RULE}")
    if data is not None and not is_data_set(data):
        raise UsageError(f"--data {data}: no such folder, nor a list of pictures; give labelled pictures")
    check_out(out)
    report = report_path(options["report"], out)
    _check_installed(names)
    threads = options["threads"] or len(os.sched_getaffinity(0))
    said = _described(model, options) if model.lower().endswith(MODEL_FILES) else None
    if said is not None and (said.task not in FIGURES_OF_TASK or model.lower().endswith(".tflite")):
        from quantize.as_is import pack_as_is

        pack_as_is(Path(model), said, data, out, name, GOLDEN_PICTURE, threads, say, _command())
        return 0

    import torch

    from train.run import is_run

    if data is None and not is_run(Path(model)):
        raise UsageError("give --data DIR: labelled pictures, to calibrate on and to measure with")

    torch.set_num_threads(threads)
    float_model = _resolved(model, said, options)
    if name is None and not is_name(float_model.name):
        raise UsageError(f"{model}: the model's name is {float_model.name!r}; give {BUNDLE_NAME_RULE}, or set --name")

    from quantize.check import check_model
    from quantize.pack import pack
    from quantize.table import summary_lines

    check_model(float_model, model)
    data_name, split = _split(data, float_model, model, options["calibration_images"])
    say(
        f"{float_model.name}: {len(split.calibration)} pictures to calibrate, {len(split.choice)} to choose, "
        f"{len(split.measure)} to measure"
    )
    bad = Skipped(say)
    if options["prune"]:
        from edge.progress import Progress as Shown
        from quantize.progress import Progress
        from quantize.pruned import pruned

        pruning = Progress(say, Shown(NAME), options["budget_minutes"], False)
        try:
            float_model = pruned(float_model, split, options["prune"], names, threads, say, pruning.show)
        finally:
            pruning.done()
    picture = read_picture(GOLDEN_PICTURE)
    built = _build(float_model, split, names, options, threads, picture, data_name, bad)
    _write_report(built, report)
    for line in summary_lines(built.record):
        say(line, aligned=True)
    int8 = [name for name in names if name != "float32"]
    if int8 and not any(one.variant.precision == "int8" for one in built.variants):
        best = built.record.left_out[0]
        raise GateError(
            f"{float_model.name}: no int8 variant passes the gates; only {report} is written; {best.variant}: {best.why}"
        )
    calibration = f"{len(split.calibration)} pictures of {data_name}"
    card = pack(out, float_model, name or float_model.name, built.variants, picture, calibration, _command())
    kept = ", ".join(variant.name for variant in card.variants)
    say(f"wrote {out}: {kept}; report {report}; try it: edge-run --model {out} --source demo")
    return 0


def _build(
    model: FloatModel,
    split: Split,
    names: tuple[str, ...],
    options: dict[str, Any],
    threads: int,
    picture: Any,
    data_name: str,
    bad: Skipped,
) -> Built:
    from edge.progress import Progress as Shown
    from quantize.build import Ears, Plan, build
    from quantize.pack import tools
    from quantize.progress import Progress
    from quantize.search import Gates
    from quantize.store import Store

    gates = Gates(
        max_drop=options["max_drop"] / 100,
        min_speedup=options["min_speedup"],
        max_bytes=None if options["max_mb"] is None else round(options["max_mb"] * 1e6),
        max_ece=options["max_ece"],
    )
    minutes = options["budget_minutes"]
    progress = Progress(say, Shown(NAME), minutes, options["verbose"])
    store = Store(None if options["no_cache"] else options["cache"] or _cache_folder())
    try:
        built = build(
            model,
            split,
            Plan(names, gates, minutes, threads, options["qat"]),
            golden=picture,
            data_name=data_name,
            store=store,
            counter=_counter(options["arm_instructions"]),
            ears=Ears(say, bad, progress.candidate, progress.show),
        )
    except KeyboardInterrupt:
        progress.done()
        kept = "nothing was kept" if options["no_cache"] else "the same command goes on from here"
        fail(NAME, f"interrupted; {kept}", 130)
    finally:
        progress.done()
    built.record.command = _command()
    built.record.tools = tools()
    built.record.notes += sorted(f"skipped {line}" for line in bad.lines)
    return built


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-run" / "quantize"


def _counter(wanted: bool | None) -> Any:
    from quantize.instructions import open_counter, why_not

    if wanted is False:
        return None
    counter = open_counter()
    if counter is None and wanted:
        raise UsageError(f"--arm-instructions: {why_not('cortex-a72') or why_not('cortex-a76')}")
    if counter is None:
        say("speed on ARM is not judged: no emulated processor is set up here; run `make arm64-root` for that")
    return counter


def _chosen(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise UsageError(
            f"--variants {text!r}: {'no variant named ' + repr(unknown[0]) if unknown else 'names none'}; "
            f"there are {', '.join(VARIANTS)}"
        )
    return names


def _write_report(built: Built, path: Path) -> None:
    from quantize.report import write_report

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(built.record, path)
    except OSError as error:
        say(f"report {path}: {error.strerror or error}; the bundle does not need it", level="warning")


def _check_installed(names: tuple[str, ...]) -> None:
    for package in PACKAGES + (TFLITE_PACKAGES if "int8-tflite" in names else ()):
        if find_spec(package) is None:
            raise EdgeError(f"{package} is not installed; pip install 'edge-run[quantize]'")


def _described(model: str, options: dict[str, Any]) -> Described:
    from quantize.described import described, read_description

    fields = ("task", "head", "labels", "size", "color", "resize", "output")
    flags = {field: options[field] for field in fields} | {field: _numbers(field, options[field]) for field in ("mean", "std")}
    return described(read_description(options["config"], flags), model)


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | float | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise UsageError(f"--{flag} {text!r:.60}: give one number, or three with commas between")
    return values if len(values) == 3 else values[0]


def _resolved(model: str, said: Described | None, options: dict[str, Any]) -> FloatModel:
    from quantize.resolve import from_file, from_name

    if said is None:
        for flag in ("task", "head", "labels", "size", "color", "resize", "mean", "std", "output", "config"):
            if options[flag] is not None:
                raise UsageError(f"--{flag}: is for model files; {model} says itself what it is")
        return from_name(model, options["arguments"], trust=options["trust"])
    if options["arguments"]:
        raise UsageError(f"--arg {options['arguments'][0]}: is for package.module:factory; {model} is a file")
    float_model, notes = from_file(Path(model), said, trust=options["trust"])
    for line in notes:
        say(line)
    return float_model


def _split(data: Path | None, model: FloatModel, name: str, calibration_images: int) -> tuple[str, Split]:
    """The data's name, and which pictures do what: of a run, it never measures on what the run has learned from."""
    from quantize.data import load_split, of_run, unseen_split
    from train.models import MODELS
    from train.run import data_name, is_run, read_parts, read_plan

    if is_run(Path(name)):
        plan = read_plan(Path(name))
        learned = read_parts(Path(name), plan)
        if data is None:
            return data_name(plan), of_run(learned.fit, learned.val, calibration_images, model.task, Path(plan.data[0]))
        split = unseen_split(data, model.labels, calibration_images, model.task, learned.fit)
        if split is not None:
            return data.resolve().name, split
    assert data is not None
    try:
        return data.resolve().name, load_split(data, model.labels, calibration_images, model.task)
    except DataError as error:
        if name in MODELS and "matches no label" in str(error):
            raise DataError(
                f"{error}; the published models know ImageNet's classes only; train your own with edge-train"
            ) from None
        raise


def _command() -> str:
    return shlex.join([NAME, *sys.argv[1:]])


if __name__ == "__main__":
    main()
