"""`python -m cloud.kept`: what the endpoint kept, laid out as a dataset of files, or as a table for a person to review."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from cloud.review import write_review
from edge.commands import SETTINGS, OneLineCommand, speaker
from edge.errors import DataError, UsageError
from edge.kept import Kept, kept_pictures
from edge.pictures import decode_picture, upright_size
from edge.progress import Progress
from edge.review import REVIEW

NAME = "cloud.kept"
say = speaker(NAME)
model_option = click.option("--model", metavar="NAME", help="Those asked of this model.  [default: the only one]")


class _WithReview(OneLineCommand):
    """The command, or its other one where the first word is `review`; a folder of that name is `./review`."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        words = list(args[0]) if args else sys.argv[1:]
        if words[:1] == ["review"]:
            review.main(words[1:], **kwargs)
        super().main(words, **kwargs)


@click.command(NAME, cls=_WithReview, context_settings=SETTINGS)
@click.argument("folder", metavar="DIR", type=Path)
@click.option("--out", metavar="FOLDER", type=Path, required=True, help="Where to; must not be there yet, or be empty.")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures, those the opinions differ most on.")
@click.option("--with-redacted", is_flag=True, help="Also a detector's pictures in which the device greyed out objects.")
@model_option
def main(folder: Path, out: Path, limit: int | None, with_redacted: bool, model: str | None) -> None:
    """Lay out what `edge-cloud --keep DIR` kept as files, with the endpoint's answers or what DIR/review.csv says as labels.

    Of a classifier, class folders named by label id; of a detector, YOLO's images/, labels/ and classes.txt. Training,
    quantizing and evaluating read DIR itself; this is for other programs, for a part of it, or where several models answered.

    `python -m cloud.kept review --help` tells of the table for a person.
    """
    warn = say.at("warning")
    with Progress(NAME) as progress:
        count = export(folder, out, limit=limit, model=model, with_redacted=with_redacted, bad=warn, progress=progress)
    say(f"{count} pictures in {out}")


@click.command(f"{NAME} review", cls=OneLineCommand, context_settings=SETTINGS)
@click.argument("folder", metavar="DIR", type=Path)
@click.option("--out", metavar="FILE", type=Path, help=f"Where to; must not be there yet.  [default: {REVIEW} in DIR]")
@model_option
def review(folder: Path, out: Path | None, model: str | None) -> None:
    """Write a table of what `edge-cloud --keep DIR` kept, for a person with a spreadsheet: CSV, most disagreement first.

    A row is a picture; of a detector, a picture's row is followed by one of each object, numbered in the column object. Write
    accept, drop or correct into the column decision, and with correct the right label, its name or id, into the column label;
    a row without a decision is accepted. Training, quantizing, evaluating and `python -m cloud.kept` go by DIR/review.csv.
    What that says already is taken over.
    """
    out = out or folder / REVIEW
    count = write_review(folder, out, model, say.at("warning"))
    then = "" if out.resolve() == (folder / REVIEW).resolve() else f", save it as {folder / REVIEW}"
    say(f"{count} pictures in {out}; fill in its column decision{then}")


def export(
    folder: Path,
    out: Path,
    *,
    limit: int | None = None,
    model: str | None = None,
    with_redacted: bool = False,
    bad: Callable[[str], None] = say,
    progress: Progress | None = None,
) -> int:
    """Write the first `limit` pictures of a model to `out`; how many there were. Raises UsageError and DataError."""
    try:
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out {out}: is not empty; give a new folder")
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be used: {error.strerror}; give a new folder") from None
    found = kept_pictures(folder, model=model, with_redacted=with_redacted, say=bad)[:limit]
    ids = sorted({label.id for one in found for label in one.labels})
    if not ids:
        raise DataError(f"{folder}: none of its {len(found)} pictures shows an object; collect others, or raise --limit")
    is_classifier = found[0].example.task == "classify"
    wrong = next((name for name in ids if not name.isprintable() or (is_classifier and not _names_folder(name))), None)
    if wrong is not None:
        raise DataError(f"{folder}: the label id {wrong!r} cannot name a class in files; give the model other ids")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be made: {error.strerror}; give another folder") from None
    kept = found if progress is None else progress.over(found, "pictures")
    return _class_folders(kept, out) if is_classifier else _yolo(kept, ids, out)


def _class_folders(kept: Iterable[Kept], out: Path) -> int:
    count = 0
    for one in kept:
        (out / one.labels[0].id).mkdir(exist_ok=True)
        count += _copied(one.path, out / one.labels[0].id)
    return count


def _names_folder(label_id: str) -> bool:
    return "/" not in label_id and not label_id.startswith(".")


def _yolo(kept: Iterable[Kept], ids: Sequence[str], out: Path) -> int:
    """Boxes in parts of the picture as it is shown, centre, width and height."""
    for part in ("images", "labels"):
        (out / part).mkdir(exist_ok=True)
    (out / "classes.txt").write_text("".join(f"{label}\n" for label in ids), "utf-8")
    count = 0
    for one in kept:
        if not _copied(one.path, out / "images"):
            continue
        count += 1
        width, height = _shown_size(out / "images" / one.path.name)
        lines = []
        for label, box in zip(one.labels, one.boxes_xyxy, strict=True):
            left, top, right, bottom = (min(side, most) for side, most in zip(box, (width, height) * 2, strict=True))
            centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
            size = ((right - left) / width, (bottom - top) / height)
            lines.append(" ".join([str(ids.index(label.id)), *(f"{value:.6f}" for value in (*centre, *size))]))
        (out / "labels" / f"{one.path.stem}.txt").write_text("".join(f"{line}\n" for line in lines))
    return count


def _copied(path: Path, into: Path) -> bool:
    """Whether the picture was still there."""
    try:
        shutil.copyfile(path, into / path.name)
    except FileNotFoundError:  # the endpoint has just let go of it
        return False
    return True


def _shown_size(path: Path) -> tuple[int, int]:
    raw = path.read_bytes()
    size_wh = upright_size(raw)
    if size_wh is None:
        height, width = decode_picture(raw, str(path)).shape[:2]
        return width, height
    return size_wh


if __name__ == "__main__":
    main()
