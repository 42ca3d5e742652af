"""edge-train pack: a data set as WebDataset shards, for what reads a few large files faster than many small ones."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edge.commands import SETTINGS, OneLineCommand, speaker
from edge.errors import UsageError
from edge.layouts import labels_of, parts_of, task_of
from edge.lists import place_of
from edge.places import check_writable
from edge.progress import Progress
from train.check_command import read_labels
from train.pack import write_shards
from train.split import split

NAME = "edge-train pack"
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@click.argument("data", metavar="DATA", type=Path)
@click.option("--out", metavar="DIR", type=Path, required=True, help="Where to; must not be there yet, or be empty.")
@click.option("--shard-mb", type=click.FloatRange(min=0.001), default=256, show_default=True, help="Size of a shard.")
@click.option("--labels", "labels_file", metavar="FILE", type=Path, help="Class names, one a line.  [default: the data set's]")
def pack(data: Path, out: Path, shard_mb: float, labels_file: Path | None) -> None:
    """Write the pictures and labels of DATA as WebDataset shards, mixed, the pictures' files as they are.

    DATA is what edge-train trains on: class folders, or pictures with boxes in COCO, VOC or YOLO files, or a list of
    edge-train check --fix. Shards are train-000000.tar, ... and val-000000.tar, ...; where DATA has no val part, a fifth is
    made one, as edge-train would. Beside them are classes.txt and index.json. What cannot be read is named and left out.
    """
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: is there and not an empty folder; give another")
    check_writable(out, "--out", inside=True)
    task = task_of(data)
    labels = labels_of(data) if labels_file is None else read_labels(labels_file)
    train, val = parts_of(data, labels, task)
    if val is None:
        train, val = split(train, say=say)
    total = len(train) + len(val)
    with Progress(NAME) as progress:
        counts = write_shards(
            {"train": train, "val": val},
            labels,
            out,
            int(shard_mb * 1e6),
            place_of(data).folder,
            say.at("warning"),
            told=lambda done: progress("pictures", done, total),
        )
    say(f"{out}: {sum(counts.values())} pictures in {len(counts)} shards; give it as --data")
