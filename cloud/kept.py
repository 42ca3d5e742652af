"""`python -m cloud.kept DIR --out FOLDER`: kept examples as a dataset that edge.datasets and edge.boxes_data read."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from cloud.examples import INDEX, Example, Store
from edge.commands import SETTINGS, OneLineCommand, speaker
from edge.errors import DataError, UsageError
from edge.pictures import decode_picture, upright_size

NAME = "cloud.kept"
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@click.argument("folder", metavar="DIR", type=Path)
@click.option("--out", metavar="FOLDER", type=Path, required=True, help="Where to; must not be there yet, or be empty.")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures, those the opinions differ most on.")
@click.option("--model", metavar="NAME", help="Those asked of this model.  [default: the only one]")
def main(folder: Path, out: Path, limit: int | None, model: str | None) -> None:
    """Lay out what `edge-cloud --keep DIR` kept for training: the endpoint's answer is the label.

    Of a classifier, class folders named by label id; of a detector, YOLO's images/, labels/ and classes.txt.
    """
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder}: nothing was kept there; give the folder of edge-cloud --keep")
    store = Store(folder, 1 << 62)
    try:
        count = export(store.examples(), out, limit=limit, model=model)
    finally:
        store.close()
    say(f"{count} pictures in {out}")


def export(examples: Iterable[tuple[Path, Example]], out: Path, *, limit: int | None = None, model: str | None = None) -> int:
    """Write the first `limit` examples of a model to `out`; how many there were. Raises UsageError and DataError."""
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"--out {out}: is not empty; give a new folder")
    chosen = [(path, example) for path, example in examples if model in (None, example.model)]
    models = sorted({example.model for _, example in chosen})
    if len(models) != 1:
        known = f"examples of {', '.join(models)}; choose one by --model" if models else "no examples of such a model"
        raise DataError(f"there are {known}")
    usable = [(path, example) for path, example in chosen if example.label_ids or example.task == "detect"][:limit]
    (_class_folders if usable and usable[0][1].task == "classify" else _yolo)(usable, out)
    return len(usable)


def _class_folders(examples: Sequence[tuple[Path, Example]], out: Path) -> None:
    for path, example in examples:
        label = example.label_ids[0]
        if "/" in label or label.startswith("."):
            raise DataError(f"{example.picture}: the label id {label!r} cannot name a folder; give the model other ids")
        (out / label).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / label / path.name)


def _yolo(examples: Sequence[tuple[Path, Example]], out: Path) -> None:
    """Boxes in parts of the picture as it is shown, centre, width and height."""
    ids = sorted({label for _, example in examples for label in example.label_ids})
    for part in ("images", "labels"):
        (out / part).mkdir(parents=True, exist_ok=True)
    (out / "classes.txt").write_text("".join(f"{label}\n" for label in ids))
    for path, example in examples:
        width, height = _shown_size(path)
        lines = []
        for label, item in zip(example.label_ids, example.answer.objects or [], strict=True):
            left, top, right, bottom = item.box_xyxy
            centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
            size = ((right - left) / width, (bottom - top) / height)
            lines.append(" ".join([str(ids.index(label)), *(f"{value:.6f}" for value in (*centre, *size))]))
        shutil.copyfile(path, out / "images" / path.name)
        (out / "labels" / f"{path.stem}.txt").write_text("".join(f"{line}\n" for line in lines))


def _shown_size(path: Path) -> tuple[int, int]:
    raw = path.read_bytes()
    size_wh = upright_size(raw)
    if size_wh is None:
        height, width = decode_picture(raw, str(path)).shape[:2]
        return width, height
    return size_wh


if __name__ == "__main__":
    main()
