"""Picture lists: written, read, and used wherever a data set is, without what they leave out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.boxes_data import labelled_boxes
from edge.card import Label
from edge.datasets import class_folders, evaluation_split, has_parts
from edge.errors import DataError, UsageError
from edge.layouts import labels_of, parts_of, task_of
from edge.lists import HEADER, is_data_set, is_list, place_of, write_list
from tests.samples import encoded, picture
from tests.test_boxes_data import LABELS as BOX_LABELS
from tests.test_boxes_data import coco, coco_of, voc, write, yolo_names

LABELS = (Label(id="cat", name="cat"), Label(id="dog", name="dog"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(2):
                write(tmp_path / "set" / part / name / f"{number}.png", encoded(picture(), ".png"))
    return tmp_path / "set"


def test_a_list_is_its_folder_without_what_it_leaves_out(folder: Path) -> None:
    cleaned = folder.parent / "lists" / "cleaned.txt"
    kept = [folder / "train/cat/0.png", folder / "train/dog/1.png", folder / "val/dog/0.png"]
    write_list(cleaned, folder, kept, [(folder / "val/cat/0.png", "cannot\nbe read")])
    lines = cleaned.read_text().splitlines()
    assert lines == [
        "# edge-run picture list of ../set",
        "# dropped val/cat/0.png: cannot be read",
        "train/cat/0.png",
        "train/dog/1.png",
        "val/dog/0.png",
    ]
    assert is_list(cleaned)
    assert is_data_set(cleaned)
    assert has_parts(cleaned)
    assert (task_of(cleaned), labels_of(cleaned)) == ("classify", LABELS)
    train, val = parts_of(cleaned, LABELS, "classify")
    assert val is not None
    assert [sample.path.relative_to(folder).as_posix() for sample in [*train, *val]] == lines[2:]
    assert class_folders(evaluation_split(cleaned), LABELS) == val


def test_the_list_moves_with_its_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list(tmp_path / "cleaned.txt", folder / "train", [folder / "train/cat/0.png"])
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere" / "set")
    (tmp_path / "cleaned.txt").rename(tmp_path / "elsewhere" / "cleaned.txt")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (sample,) = class_folders(Path("cleaned.txt"), LABELS)
    assert sample.path.is_file()


def test_folders_that_a_list_leaves_out_need_no_label(folder: Path) -> None:
    write(folder / "train" / "owl" / "0.png", encoded(picture(), ".png"))
    with pytest.raises(DataError, match="'owl' matches no label"):
        class_folders(folder / "train", LABELS)
    write_list(folder / "cleaned.txt", folder, [folder / "train/cat/0.png"])
    assert len(class_folders(folder / "cleaned.txt" / "train", LABELS)) == 1


@pytest.mark.parametrize("layout", [yolo_names, coco, voc])
def test_labels_of_what_is_left_out_are_not_read(tmp_path: Path, layout: object) -> None:
    root = layout(tmp_path / "set")  # type: ignore[operator]
    paths = {sample.path.name: sample.path for sample in labelled_boxes(root, BOX_LABELS)}
    if layout is yolo_names:
        write(root / "labels" / "a.txt", "nonsense")
    elif layout is voc:
        write(root / "Annotations" / "a.xml", "<annotation>")
        write(root / "Annotations" / "alone.xml", "<annotation>")
    else:
        data = coco_of()
        data["annotations"][0]["category_id"] = 99
        data["annotations"].append({**data["annotations"][0], "image_id": 99})
        write(root / "annotations" / "instances_val2017.json", json.dumps(data))
    with pytest.raises(DataError):
        labelled_boxes(root, BOX_LABELS)
    write_list(tmp_path / "cleaned.txt", root, [paths["b.png"], paths["c.png"]])
    found = labelled_boxes(tmp_path / "cleaned.txt", BOX_LABELS)
    assert [(sample.path, len(sample.boxes_xyxy)) for sample in found] == [(paths["b.png"], 0), (paths["c.png"], 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train/cat/0.png\n", "nor a picture list"),
        (f"{HEADER}nowhere\ntrain/cat/0.png\n", "nowhere, which is no folder"),
        (f"{HEADER}.\n# nothing\n\n", "lists no pictures"),
        (f"{HEADER}.\ngone.png\n", "hold no pictures"),
    ],
)
def test_lists_that_cannot_be_used(folder: Path, text: str, said: str) -> None:
    path = write(folder / "train" / "list.txt", text)
    with pytest.raises(DataError, match=said):
        class_folders(path, LABELS)


def test_names_that_look_like_comments(folder: Path) -> None:
    odd = write(folder / "train" / "cat" / "#1.png", encoded(picture(), ".png"))
    write_list(folder / "list.txt", folder / "train" / "cat", [odd])
    assert (folder / "list.txt").read_text().endswith("\n./#1.png\n")
    assert place_of(folder / "list.txt").keeps(odd)


@pytest.mark.parametrize("name", ["a\nb.png", "a\u2028b.png", "a.png ", '"a".png', " \udce9.png", '"a.png', "a\\nb.png"])
def test_any_name_can_be_listed(folder: Path, name: str) -> None:
    write(folder / name, encoded(picture(), ".png"))
    write_list(folder / "list.txt", folder, [folder / name, folder / "train/cat/0.png"])
    assert place_of(folder / "list.txt").kept == {str(folder / name), str(folder / "train/cat/0.png")}
    assert len((folder / "list.txt").read_bytes().splitlines()) == 3


def test_a_folder_with_a_line_break(folder: Path) -> None:
    odd = folder.rename(folder.with_name("s\net"))
    write_list(odd.parent / "list.txt", odd, [odd / "train/cat/0.png"])
    assert place_of(odd.parent / "list.txt").keeps(odd / "train/cat/0.png")


def test_a_quote_in_a_list_by_hand_is_a_quote(folder: Path) -> None:
    write(folder / "list.txt", f'{HEADER}.\n"a" b.png\n')
    assert place_of(folder / "list.txt").kept == {str(folder / '"a" b.png')}


def test_only_lists_are_written_over(folder: Path) -> None:
    notes = write(folder / "notes.txt", "mine")
    with pytest.raises(UsageError, match="no picture list"):
        write_list(notes, folder, [])
    assert notes.read_text() == "mine"
    for _ in range(2):
        write_list(folder / "list.txt", folder, [folder / "train/cat/0.png"])


def test_a_path_that_is_nothing_stays_what_it_is(tmp_path: Path) -> None:
    assert not is_data_set(tmp_path / "gone")
    assert place_of(tmp_path / "gone").folder == tmp_path / "gone"
