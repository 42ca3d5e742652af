"""The flags of edge-run, and which of them go together."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from edge.commands import bundle_option, option_checks, publish_options, second_look_option, threads_option
from edge.commands.configured import CONFIG_OPTIONS, given_as
from edge.commands.option_types import Budget, Celsius, Checked, Hours, Number, Pixels, Size
from edge.commands.options import RunOptions
from edge.commands.publish_options import MQTT_OPTIONS, WEB_OPTIONS
from edge.errors import UsageError

OPTIONS = (
    click.option(
        "--camera",
        metavar="N|PATH",
        type=Checked(option_checks.check_camera),
        multiple=True,
        help="Read the V4L2 camera /dev/videoN; may be given again.",
    ),
    click.option(
        "--source",
        metavar="URI",
        type=Checked(option_checks.check_source),
        multiple=True,
        help="Read a video file, a picture, a folder, camera:N, picamera:N, rtsp://, http://, 'gst:PIPELINE' or 'demo'; "
        "may be given again: all share one engine, by turns.",
    ),
    click.option("--size", type=Size(), default=(0, 0), help="Ask cameras for this size.  [default: the camera's]"),
    click.option("--rate", type=Number(0, 1000), help="Ask cameras for this many frames a second.  [default: the camera's]"),
    click.option("--pixels", type=Pixels(), default="", help="Ask for this pixel format.  [default: MJPG from 800 wide]"),
    click.option(
        "--camera-timeout",
        metavar="S",
        type=Number(0.1, 600),
        help="Open a camera or stream anew after S seconds without a frame.  [default: 3]",
    ),
    click.option(
        "--frozen-after",
        metavar="S",
        type=Number(0, 3600),
        help="Take the same picture, bit for bit, for S seconds as a fault; 0: never.  [default: 10]",
    ),
    bundle_option,
    click.option("--variant", metavar="NAME", help="Run this variant of the bundle and no other."),
    threads_option,
    click.option(
        "--lanes",
        type=click.IntRange(1, 64),
        help="Infer this many frames at once, sharing the threads.  [default: 1 for cameras, one a thread for files]",
    ),
    click.option(
        "--spin/--no-spin",
        default=None,
        help="Let engine threads spin within an inference: lower latency, more power.  [default: the board's profile]",
    ),
    click.option(
        "--engine-timeout",
        metavar="S",
        type=Number(0.1, 3600),
        help="Give up an inference after S seconds.  [default: 10, or 20 times the usual]",
    ),
    second_look_option,
    click.option(
        "--score-threshold",
        metavar="[CLASS=]X",
        type=Checked(option_checks.check_score_threshold),
        multiple=True,
        help="Report a detector's objects, or those of one class, from this score.  [default: the bundle's]",
    ),
    click.option("--classes", metavar="A,B,...", help="Report these classes only."),
    click.option(
        "--roi",
        metavar="[N:]X,Y,...",
        type=Checked(option_checks.check_region),
        multiple=True,
        help="Look only within this polygon, or rectangle of two corners, in fractions of the picture; N: of source N only.",
    ),
    click.option(
        "--mask",
        metavar="[N:]X,Y,...",
        type=Checked(option_checks.check_region),
        multiple=True,
        help="Paint this polygon black before anything sees the picture; may be given again.",
    ),
    click.option("--motion-gate/--no-motion-gate", default=False, help="Skip inference while the scene is still."),
    click.option(
        "--refresh",
        metavar="S",
        type=Number(0.1, 3600),
        default=2.0,
        show_default=True,
        help="Infer at least this often behind the motion gate.",
    ),
    click.option("--track/--no-track", default=False, help="Give objects an identity; tell when they enter and leave."),
    click.option(
        "--events",
        metavar="PATH|-",
        help="Append events as JSON lines; '-' is standard output.  [default: '-' unless it is a terminal]",
    ),
    click.option(
        "--rotate-mb",
        type=Number(0),
        default=0.0,
        help="Begin a new events file at this size; 0: never.  [default: 0]",
    ),
    click.option("--keep", type=click.IntRange(1, 1000), default=5, show_default=True, help="Keep so many older events files."),
    click.option(
        "--video",
        metavar="PATH",
        type=Checked(option_checks.check_video),
        help="Write an annotated video (.mp4, .avi, .mkv).",
    ),
    click.option(
        "--webhook",
        metavar="URL",
        type=Checked(option_checks.check_webhook),
        help="POST events as JSON to this address.",
    ),
    click.option(
        "--webhook-on",
        type=click.Choice(["changes", "all"]),
        default="changes",
        show_default=True,
        help="POST what enters, leaves or changes, and notices; or every event.",
    ),
    click.option("--store", metavar="PATH", help="Keep events in this SQLite file."),
    click.option("--keep-days", type=Number(0.001, 36500), default=30.0, show_default=True, help="... for so many days."),
    click.option("--summary", "summary_path", metavar="PATH|-", help="Write the summary as JSON."),
    click.option(
        "--offload",
        metavar="URL",
        type=Checked(option_checks.check_endpoint),
        help="Ask this Open Inference Protocol v2 endpoint about uncertain frames.",
    ),
    click.option(
        "--policy",
        type=click.Choice(["threshold", "budget", "guarantee"]),
        default="threshold",
        show_default=True,
        help="Which frames (with --track: objects, each once) are uncertain: those below --threshold; the least certain "
        "within --offload-budget; or so many that the error rate of the others stays below --max-error.",
    ),
    click.option(
        "--threshold",
        type=Number(0, 1),
        help="The confidence below which a frame is offloaded.  [default: 0.5; with a budget 1]",
    ),
    click.option(
        "--offload-budget",
        metavar="X%|N/h|XMB/h",
        type=Budget(),
        help="Offload at most this share of frames, number of frames an hour (with --offload-price: of money) or MB an hour.",
    ),
    click.option("--offload-price", metavar="X", type=Number(0, min_open=True), help="What one offloaded frame costs."),
    click.option(
        "--max-error",
        metavar="X",
        type=Number(0, 1, min_open=True, max_open=True),
        help="The error rate that --policy guarantee promises for frames that are not offloaded, or the nearest below that "
        "the bundle has.  [default: 0.05]",
    ),
    click.option(
        "--offload-deadline",
        metavar="S",
        type=Number(0.1, 3600),
        default=5.0,
        show_default=True,
        help="Drop an answer that comes later than this after the capture.",
    ),
    click.option(
        "--offload-send",
        type=click.Choice(["frame", "crop", "tensor"]),
        default="frame",
        show_default=True,
        help="Send the frame as JPEG, with --track the part of it around the objects asked about, or a raw tensor as the "
        "endpoint's metadata says.",
    ),
    click.option("--redact", metavar="A,B,...", help="Grey out objects of these classes in what is sent; else send nothing."),
    click.option("--spool", metavar="DIR", help="Keep frames that could not be sent here, and send them when they can be."),
    click.option("--spool-mb", type=Number(0.1), default=200.0, show_default=True, help="... at most so many MB."),
    click.option("--spool-days", type=Number(0.001, 36500), default=7.0, show_default=True, help="... for so many days."),
    click.option("--offload-ca", metavar="FILE", help="Trust certificates signed by these (PEM) instead of the system's."),
    click.option(
        "--offload-pin",
        metavar="sha256:HEX",
        type=Checked(option_checks.check_pin),
        help="Trust only the certificate of this fingerprint, whoever signed it.",
    ),
    click.option("--offload-cert", metavar="FILE", help="Show the endpoint this certificate (PEM)."),
    click.option("--offload-key", metavar="FILE", help="... whose key is here, unless it is in the same file."),
    click.option(
        "--offload-token-file", metavar="FILE", help="Send the bearer token in this file.  [default: EDGE_OFFLOAD_TOKEN]"
    ),
    click.option(
        "--max-temp",
        metavar="C|auto",
        type=Celsius(20, 120, expected="a number of °C, or auto"),
        help="Take fewer frames to keep the board below this temperature; auto: the limit in its profile.",
    ),
    click.option(
        "--max-watts",
        metavar="W",
        type=Number(0.1, 1000, expected="a number of watts"),
        help="Take fewer frames to keep the board below this power.",
    ),
    click.option(
        "--target-fps",
        metavar="F",
        type=Number(0.01, 1000, expected="a number of frames a second"),
        help="Take at most F frames a second of each source.",
    ),
    click.option(
        "--quiet-hours",
        metavar="HH:MM-HH:MM",
        type=Hours(),
        help="Do the least from then to then, local time, and ask no endpoint.",
    ),
    click.option(
        "--min-battery",
        metavar="PERCENT",
        type=Number(1, 99, expected="a percentage without the sign, as 25"),
        help="Do the least while the board runs on a battery that holds less.",
    ),
    *WEB_OPTIONS,
    *MQTT_OPTIONS,
    click.option("--max-frames", type=click.IntRange(min=1), help="Stop after this many frames."),
    *CONFIG_OPTIONS,
)


IDLE_WITHOUT = {
    "refresh": "motion_gate",
    "rotate_mb": "events",
    "keep": "rotate_mb",
    "webhook_on": "webhook",
    "keep_days": "store",
    "policy": "offload",
    "threshold": "offload",
    "offload_budget": "offload",
    "offload_price": "offload_budget",
    "offload_deadline": "offload",
    "offload_send": "offload",
    "redact": "offload",
    "spool": "offload",
    "spool_mb": "spool",
    "spool_days": "spool",
    "offload_ca": "offload",
    "offload_pin": "offload",
    "offload_cert": "offload",
    "offload_key": "offload_cert",
    "offload_token_file": "offload",
    **publish_options.IDLE_WITHOUT,
}
"""Parameter → the one without which it does nothing."""


def check_idle(context: click.Context) -> None:
    """Refuse what was given and would do nothing, for it was meant to. Raises UsageError."""
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name, needed in IDLE_WITHOUT.items():
        given = context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT
        if given and not context.params[needed]:
            raise UsageError(f"{given_as(context, name)} does nothing without {flags[needed]}; give both or neither")


def check_options(context: click.Context, *, all_sources: bool = True) -> None:
    """Refuse what needs neither a file, the network nor the model to be known as wrong, and says where it comes from.

    The types of the options have checked each value by itself. `all_sources`: no others are read than those that the
    options name. Raises UsageError.
    """
    check_idle(context)
    try:
        option_checks.check_together(RunOptions(**context.params), all_sources=all_sources)
    except UsageError as error:
        raise UsageError(_placed(context, str(error))) from None


def _placed(context: click.Context, line: str) -> str:
    """The line with the place in which an option was given instead of the flag that it begins with."""
    flag, rest = re.fullmatch(r"(--[a-z-]+)?(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    name = next((parameter.name for parameter in context.command.params if flag in parameter.opts), None)
    return line if name is None else f"{given_as(context, name)}{rest}"


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function all of edge-run's options, in order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
