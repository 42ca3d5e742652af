"""edge-doctor: what this machine can run, what is wrong with it, and the command that mends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from edge.commands import SETTINGS, OneLineCommand, bundle_option, version_option
from edge.doctor.check import Check, Status
from edge.doctor.examine import Question, examine
from edge.doctor.probe import has_packages, probe
from edge.errors import BundleError, UsageError
from edge.progress import Progress
from edge.terminal import has_colours

NAME = "edge-doctor"
COLOURS: dict[Status, str] = {"ok": "32", "warn": "33", "fail": "31"}
"""Status → the terminal's number of its colour."""


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@bundle_option
@click.option("--camera", metavar="N|PATH", help="Examine this camera only.  [default: all]")
@click.option("--events", "events", metavar="DIR", type=Path, default=Path(), help="Where events will go.  [default: here]")
@click.option("--offload", metavar="URL", help="Also examine the way to this endpoint.")
@click.option("--offload-ca", metavar="FILE", help="Trust the certificates of this PEM file, as edge-run does.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of checks as JSON.")
@click.option("--root", type=Path, default=Path("/"), hidden=True, help="The folder that holds proc, sys, dev and etc.")
@version_option
def main(
    model_path: Path,
    camera: str | None,
    events: Path,
    offload: str | None,
    offload_ca: str | None,
    as_json: bool,
    root: Path,
) -> int:
    """Examine this machine: board, system, engines, bundle, cameras, heat and power, storage, clock and network.

    Each line is ok, warn or fail; below a warn or fail stands what mends it. Engines are loaded and run in processes of
    their own, so that one that dies is named. Exit code 1 when something failed; warnings leave it 0.
    """
    question = Question(model_path, _camera_path(camera), events, root=root)
    if offload is not None:
        question = _with_endpoint(question, offload, offload_ca)
    elif offload_ca is not None:
        raise UsageError("--offload-ca does nothing without --offload; give both or neither")
    with Progress(NAME) as progress:
        progress("engines are loaded and run, each in a process of its own")
        checks = examine(question)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(checks), indent=1) + b"\n")
    else:
        for line in lines(checks, coloured=has_colours(sys.stdout)):
            click.echo(line)
    return 1 if any(check.status == "fail" for check in checks) else 0


def lines(checks: Sequence[Check], *, coloured: bool) -> Iterator[str]:
    """A line a check, what mends it on the next, and a line of sums."""
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        status = f"{check.status:<4}"
        shown = f"\x1b[{COLOURS[check.status]}m{status}\x1b[0m" if coloured else status
        yield f"{shown}  {check.name:<{width}}  {check.text}"
        if check.mend:
            yield f"{' ' * (width + 8)}→ {check.mend}"
    counts = {status: sum(check.status == status for check in checks) for status in COLOURS}
    yield f"{len(checks)} checks: {counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed"


def _camera_path(camera: str | None) -> str | None:
    if camera is None:
        return None
    if camera.startswith("picamera"):
        raise UsageError(
            f"--camera {camera}: cameras on the ribbon are under the check picamera2; leave out --camera here, "
            "and give edge-run --source picamera:0"
        )
    path = f"/dev/video{camera}" if camera.isascii() and camera.isdigit() else os.path.realpath(camera)
    if not path.startswith("/dev/"):
        raise UsageError(f"--camera {camera}: expected the N of /dev/videoN, or a path below /dev")
    return path


def _with_endpoint(question: Question, url: str, ca: str | None) -> Question:
    if not has_packages(probe(("packages",))):
        raise UsageError("--offload: is not examined while NumPy or OpenCV does not load; edge-doctor without it says why")
    from edge.bundle import open_bundle
    from edge.offload.address import parse_address
    from edge.offload.credentials import Credentials

    try:
        model = open_bundle(question.bundle).card.name
    except BundleError:
        model = "model"  # the bundle's own check says what is wrong
    address, credentials = parse_address(url, model), Credentials(ca=ca)
    credentials.check(address)
    return replace(question, endpoint=(address, credentials))


if __name__ == "__main__":
    main()
