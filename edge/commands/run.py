"""edge-run: the camera loop."""

from __future__ import annotations

from typing import Any

import click

from edge.commands import SETTINGS, interruptible_import, version_option
from edge.commands.configured import ConfiguredCommand, print_config
from edge.commands.options import RunOptions
from edge.commands.run_options import check_options, run_options

NAME = "edge-run"


@click.command(NAME, cls=ConfiguredCommand, context_settings=SETTINGS)
@run_options
@version_option
def main(**given: Any) -> int:
    """Run a vision model on every frame of cameras or files, and ask the cloud about the uncertain ones.

    Every frame gets a local answer as a JSON event. With --offload, a frame whose confidence (a classifier's best
    score, a detector's lowest) is below --threshold is also sent to the endpoint, and its answer follows as a second
    event with the same seq and revises: true. A camera that fails is opened again until it is back, an engine that
    fails is reopened; both are said and are lines of the events, too. Ctrl-C or SIGTERM finishes the frame, flushes
    what was written and prints the summary.
    """
    options = RunOptions(**given)
    context = click.get_current_context()
    check_options(context)
    if print_config(context):
        return 0
    with interruptible_import(NAME):  # only now: --help, --version and completion do without OpenCV and NumPy
        from edge.commands.run_loop import loop
    return loop(options)


if __name__ == "__main__":
    main()
