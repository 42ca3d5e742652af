"""edge-train check: what is wrong with a data set before anything is trained on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from edge.card import Label
from edge.commands import SETTINGS, OneLineCommand, speaker
from edge.errors import UsageError, one_line
from edge.label_files import read_text
from edge.lists import place_of, write_list
from edge.places import check_writable
from edge.progress import Progress
from train.check import Check
from train.check import check as check_data
from train.check_findings import Finding
from train.check_shards import check_shards
from train.shard_cache import ShardCache, is_url
from train.shard_sets import is_shards

NAME = "edge-train check"
SHOWN = 3
"""Cases of a finding in the table."""
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@click.argument("data", metavar="DATA")
@click.option("--labels", "labels_file", metavar="FILE", type=Path, help="Class names, one a line.  [default: the data set's]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every case, instead of a table.")
@click.option("--all", "show_all", is_flag=True, help=f"Show every case in the table, not {SHOWN} of each.")
@click.option("--fix", "fixed", metavar="OUT.txt", type=Path, help="Write a list of the pictures that are fit to be used.")
@click.option("--cache", metavar="DIR", type=Path, help="Where shards of http servers are kept while they are read.")
@click.option("--cache-mb", type=click.FloatRange(0, min_open=True), default=4096, show_default=True, help="At most so much.")
def check(
    data: str,
    labels_file: Path | None,
    as_json: bool,
    show_all: bool,
    fixed: Path | None,
    cache: Path | None,
    cache_mb: float,
) -> int:
    """Read every picture and label of DATA, and say what is wrong with them. Nothing in DATA is changed.

    DATA is class folders, or pictures with boxes in COCO, VOC or YOLO files, or what edge-cloud --keep kept, or a list of
    --fix, or WebDataset shards. It is told which pictures cannot be read; which are copies, exact or near, and leak from
    train into val; labels that contradict each other; boxes that cannot be; classes that are rare or missing; and pictures
    of odd sizes. Of shards near copies and boxes are not looked at. Exit code 3 when there are errors, but for those that
    the list of --fix leaves out.

    The list that --fix writes, its folder made where it is not there, is used as --data of every command. Of copies it
    keeps one, in val rather than in train.
    """
    shards = is_shards(data)
    if fixed is not None and shards:
        raise UsageError(f"--fix {fixed}: a list is of pictures in a folder; correct the folder and edge-train pack it again")
    if fixed is not None:
        check_writable(fixed, "--fix")
    if cache is not None and not is_url(data):
        raise UsageError(f"--cache {cache}: is for shards of http servers, which {data} has none of; leave it out")
    if cache is not None:
        check_writable(cache, "--cache", inside=True)
    labels = None if labels_file is None else read_labels(labels_file)
    with Progress(NAME) as progress:

        def told(done: int, total: int) -> None:
            progress("pictures", done, total)

        if shards:
            report = check_shards(data, labels, told, None if cache is None else ShardCache(cache, cache_mb))
        else:
            report = check_data(Path(data), labels, told)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(as_record(report)), indent=1) + b"\n")
    else:
        for line in table(report, None if show_all else SHOWN):
            click.echo(line)
    for remark in report.remarks:
        say(remark, level="warning")
    left = [item for item in report.findings if item.severity == "error"]
    if fixed is not None:
        _fix(report, fixed)
        left = [item for item in left if not _left_out(item, report)]
    elif not as_json and report.dropped:
        say(f"{len(report.dropped)} pictures are better left out: {NAME} {data} --fix OUT.txt writes a list without them")
    return 3 if left else 0


def read_labels(path: Path) -> list[Label]:
    """Labels of a file of a name a line. Raises UsageError when there is none."""
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise UsageError(f"--labels {path}: no names in it; write one a line")
    return [Label(id=name, name=name) for name in names]


def _fix(report: Check, out: Path) -> None:
    if not report.kept:
        raise UsageError(f"--fix {out}: no picture of {report.data} is fit to be used; the table says why")
    write_list(out, place_of(Path(report.data)).folder, report.kept, report.dropped.items())
    say(f"{out}: {len(report.kept)} of {len(report.kept) + len(report.dropped)} pictures; give it as --data")


def _left_out(item: Finding, report: Check) -> bool:
    """Whether the list has none of what an error is about."""
    return item.kind in ("leak", "two-labels", "label") or (
        bool(item.paths) and all(path in report.dropped for path in item.paths)
    )


def table(report: Check, shown: int | None) -> list[str]:
    """The lines of the table; of each finding `shown` cases, or all."""
    counts = ", ".join(f"{count} in {part}" if part != "all" else f"{count}" for part, count in report.counts.items())
    what = "boxes" if report.task == "detect" else "pictures"
    classes = "1 class" if len(report.classes) == 1 else f"{len(report.classes)} classes"
    lines = [f"{report.data}: {classes}, pictures: {counts}"]
    totals = ", ".join(
        f"{name} {'/'.join(str(n) for n in found.values())}" for name, found in list(report.classes.items())[:12]
    )
    more = f", and {len(report.classes) - 12} more" if len(report.classes) > 12 else ""
    lines += [f"{what} of each class: {one_line(totals)}{more}", ""]
    for item in report.findings:
        lines.append(f"{item.severity:<8} {item.count:>6}  {item.what}")
        cases = item.cases if shown is None else item.cases[:shown]
        lines += [f"{'':<17}{one_line(case)}" for case in cases]
        if len(cases) < item.count:
            lines.append(f"{'':<17}and {item.count - len(cases)} more")
    if report.findings:
        lines.append("")
    counted = [(report.count("error"), "error"), (report.count("warning"), "warning"), (report.count("note"), "note")]
    said = [f"{count} kind{'s' if count != 1 else ''} of {word}" for count, word in counted if count]
    lines.append(", ".join(said) if said else "nothing to remark")
    return lines


def as_record(report: Check) -> dict[str, Any]:
    """The report as JSON has it; `cases` are whole, but of shards at most NAMED."""
    return {
        "data": str(report.data),
        "task": report.task,
        "pictures": report.counts,
        "classes": report.classes,
        "findings": [
            {"kind": item.kind, "severity": item.severity, "what": item.what, "count": item.count, "cases": item.cases}
            for item in report.findings
        ],
        "remarks": report.remarks,
        "dropped": {str(path): reason for path, reason in report.dropped.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command by itself."""
    check.main(None if arguments is None else list(arguments))


if __name__ == "__main__":
    main()
