"""A folder that edge-cloud kept, read as a dataset: what is a label, what is left out, and what a review makes of it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.boxes_data import labelled_boxes
from edge.card import Label
from edge.commands.evaluate import main as evaluate
from edge.datasets import class_folders
from edge.errors import DataError
from edge.kept import INDEX, is_kept, kept_boxes, kept_classes, kept_labels, kept_pictures, records
from edge.lists import write_list
from quantize.data import load_split
from tests.conftest import Finished
from tests.samples import encoded, picture, squares

LABELS = (Label(id="c0", name="cat"), Label(id="c1", name="dog"), Label(id="c2", name="fox"))
HEADER = "picture,object,suggested,decision,label"


def stem(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def write(folder: Path, name: str, record: dict[str, Any], image: bytes | None = None) -> str:
    """A kept picture; its file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    file = f"{stem(name)}.jpg"
    common = {"picture": file, "model": "big", "variant": "v", "local": None, "disagreement": 0.0, "confidence": 0.5}
    (folder / file).write_bytes(encoded() if image is None else image)
    (folder / f"{stem(name)}.json").write_text(json.dumps(common | record))
    return file


def a_class(folder: Path, name: str, *labels: Label, **more: Any) -> str:
    answer = {"classes": [{"label": label.name, "score": 0.5} for label in labels]}
    return write(folder, name, {"task": "classify", "answer": answer, "label_ids": [label.id for label in labels]} | more)


def an_object(label: str, *box: float) -> dict[str, Any]:
    return {"label": label, "score": 0.5, "box_xyxy": box or (1, 2, 11, 22), "track": None}


def objects(folder: Path, name: str, *found: tuple[Label, Sequence[float]], **more: Any) -> str:
    answer = {"objects": [an_object(label.name, *box) for label, box in found]}
    return write(folder, name, {"task": "detect", "answer": answer, "label_ids": [label.id for label, _ in found]} | more)


CAT, DOG, FOX = LABELS


def test_a_classifiers_pictures_are_a_dataset(tmp_path: Path) -> None:
    sure = a_class(tmp_path, "a", CAT, DOG, confidence=0.9)
    differs = a_class(tmp_path, "b", DOG, CAT, disagreement=0.7)
    doubtful = a_class(tmp_path, "c", CAT, confidence=0.2)
    (tmp_path / "holiday.jpg").write_bytes(encoded())
    (tmp_path / "notes.json").write_text("{}")
    samples = class_folders(tmp_path, LABELS)
    assert [(sample.path.name, sample.class_id) for sample in samples] == [(differs, 1), (doubtful, 0), (sure, 0)]
    assert kept_labels(tmp_path) == (CAT, DOG)
    a_class(tmp_path, "d", CAT)
    split = load_split(tmp_path, LABELS, 10)
    assert (len(split.training), len(split.measure)) == (2, 2)
    write_list(tmp_path / "some.txt", tmp_path, [tmp_path / sure])
    assert [sample.path.name for sample in class_folders(tmp_path / "some.txt", LABELS)] == [sure]


def test_a_detectors_pictures_are_a_dataset(tmp_path: Path) -> None:
    objects(tmp_path, "a", (CAT, (-3, 0, 10, 20)), (FOX, (5, 5, 5, 9)), (DOG, (1, 1, 4, 4)), disagreement=0.5)
    objects(tmp_path, "b")
    first, second = labelled_boxes(tmp_path, LABELS, split="val")
    np.testing.assert_array_equal(first.boxes_xyxy, [[0, 0, 10, 20], [1, 1, 4, 4]])
    assert first.class_ids.tolist() == [0, 1]
    assert len(second.class_ids) == 0
    assert kept_labels(tmp_path) == (CAT, DOG)
    write_list(tmp_path / "some.txt", tmp_path, [first.path])
    assert [sample.path for sample in labelled_boxes(tmp_path / "some.txt", LABELS)] == [first.path]


def test_what_a_kept_folder_is(tmp_path: Path) -> None:
    assert not is_kept(tmp_path / "none")
    assert not is_kept(tmp_path)
    (tmp_path / INDEX).touch()
    assert is_kept(tmp_path)
    with pytest.raises(DataError, match="nothing was kept there"):
        class_folders(tmp_path, LABELS)
    file = a_class(tmp_path / "copied", "a", CAT)
    assert is_kept(tmp_path / "copied")
    (tmp_path / "copied" / file).unlink()
    assert not is_kept(tmp_path / "copied")  # a file of another program, for all one can tell


def test_labels_match_by_id_then_by_name_and_others_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a_class(tmp_path, "a", Label(id="c1", name="hound"))
    a_class(tmp_path, "b", Label(id="n02", name="FOX"))
    a_class(tmp_path, "c", Label(id="n03", name="owl"))
    with caplog.at_level(logging.WARNING):
        assert sorted(sample.class_id for sample in kept_classes(tmp_path, LABELS)) == [1, 2]
        kept_classes(tmp_path, LABELS)
    assert caplog.messages == [f"{tmp_path}: 1 pictures are of none of the labels and left out, most of them 'owl'"]
    with pytest.raises(DataError, match="no kept picture is of one of the labels, which are like c0"):
        kept_classes(tmp_path, LABELS[:1])
    objects(tmp_path / "boxes", "a", (Label(id="x", name="owl"), (1, 1, 2, 2)))
    said: list[str] = []
    with pytest.raises(DataError, match="no kept picture shows one of the labels"):
        kept_boxes(tmp_path / "boxes", LABELS, said.append)
    assert said == [f"{tmp_path / 'boxes'}: 1 objects are of none of the labels and left out, most of them 'owl'"]


def test_of_several_models_one_is_to_be_chosen(tmp_path: Path) -> None:
    a_class(tmp_path, "a", CAT)
    a_class(tmp_path, "b", DOG, model="small")
    with pytest.raises(DataError, match=r"holds examples of big, small; choose one by python -m cloud\.kept --model NAME"):
        class_folders(tmp_path, LABELS)
    assert [one.labels for one in kept_pictures(tmp_path, model="small")] == [(DOG,)]
    with pytest.raises(DataError, match="no examples of such a model, other"):
        kept_pictures(tmp_path, model="other")
    with pytest.raises(DataError, match="holds the answers of a classifier, this is for a detector"):
        kept_pictures(tmp_path, "detect", model="big")


TAMPERED: list[tuple[dict[str, Any], str]] = [
    ({"label_ids": ["c0", "c1"]}, "2 label_ids do not fit its answer"),
    ({"answer": {"objects": [an_object("cat")]}}, "1 label_ids do not fit its answer"),
    ({"answer": {"classes": []}, "label_ids": []}, "its answer has no class"),
    ({"picture": "../secret.jpg"}, "its picture is '../secret.jpg', not the one beside it"),
    ({"picture": f"{stem('b')}.jpg"}, "not the one beside it"),
    ({"task": "segment"}, "its task is 'segment'"),
    ({"task": "detect", "answer": {"objects": [an_object("cat", 0, 0, 1e300, 1)]}}, "its boxes are of no picture"),
    ({"answer": 3}, "not a record of edge-cloud"),
    ({"confidence": "high"}, "not a record of edge-cloud"),
]


@pytest.mark.parametrize(("changes", "message"), TAMPERED)
def test_a_tampered_record_is_left_out_with_a_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded())
    folder = tmp_path / "kept"
    good = a_class(folder, "b", DOG)
    a_class(folder, "a", CAT, **changes)
    said: list[str] = []
    assert [path.name for path, _ in records(folder, said.append)] == [good]
    assert len(said) == 1
    assert said[0].startswith(f"{folder / stem('a')}.json: left out, ")
    assert message in said[0]


def test_what_an_endpoint_has_just_let_go_of_is_no_error(tmp_path: Path) -> None:
    good = a_class(tmp_path, "a", CAT)
    (tmp_path / a_class(tmp_path, "b", CAT)).unlink()
    assert [path.name for path, _ in records(tmp_path, pytest.fail)] == [good]


def test_pictures_with_greyed_out_objects_teach_a_detector_nothing(tmp_path: Path) -> None:
    objects(tmp_path, "a", (CAT, (1, 1, 5, 5)), redacted=["person", "car"], disagreement=0.9)
    said: list[str] = []
    with pytest.raises(DataError, match="in all of its pictures objects were greyed out"):
        kept_boxes(tmp_path, LABELS, said.append)
    whole = objects(tmp_path, "b", (DOG, (1, 1, 5, 5)))
    said.clear()
    assert [sample.path.name for sample in kept_boxes(tmp_path, LABELS, said.append)] == [whole]
    assert said == [
        f"{tmp_path}: 1 pictures are left out, in which the devices greyed out car, person: a detector would learn that such "
        "objects are background"
    ]
    assert kept_pictures(tmp_path, with_redacted=True)[0].path.name == whole
    a_class(tmp_path / "classes", "a", CAT, redacted=["person"])
    assert len(kept_classes(tmp_path / "classes", LABELS, pytest.fail)) == 1


def reviewed(folder: Path, *rows: str, header: str = HEADER) -> None:
    (folder / "review.csv").write_text("\n".join([header, *rows]) + "\n")


def test_a_review_of_classes(tmp_path: Path) -> None:
    wrong, bad, good, new = (a_class(tmp_path, name, CAT, DOG) for name in "abcd")
    reviewed(tmp_path, f"{wrong},,cat,correct,Dog", f"{bad},,cat,DROP,", f"{good},,cat, accept ,", f"{new},,cat,correct,c2")
    assert {sample.path.name: sample.class_id for sample in class_folders(tmp_path, LABELS)} == {wrong: 1, good: 0, new: 2}
    (tmp_path / "review.csv").write_bytes(
        f"\ufeffDecision;Picture;Label\r\ndrop;{wrong};\r\n;;\r\n;{good};\r\ncorrect;{new};dog\r\n".encode()
    )
    assert {sample.path.name: sample.class_id for sample in class_folders(tmp_path, LABELS)} == {bad: 0, good: 0, new: 1}
    reviewed(tmp_path, *(f"{name},,,drop," for name in (wrong, bad, good, new)))
    with pytest.raises(DataError, match="none of its 4 pictures is left after the review"):
        class_folders(tmp_path, LABELS)


def test_a_correction_to_what_only_the_device_said(tmp_path: Path) -> None:
    name = a_class(tmp_path, "a", CAT, local={"classes": [{"label": "fox", "score": 1.0}]})
    reviewed(tmp_path, f"{name},,,correct,fox")
    assert kept_labels(tmp_path) == (Label(id="fox", name="fox"),)
    assert [sample.class_id for sample in class_folders(tmp_path, LABELS)] == [2]


def test_a_review_of_objects(tmp_path: Path) -> None:
    box = (1, 1, 5, 5)
    mixed, gone, empty = (objects(tmp_path, name, (CAT, box), (CAT, box), (DOG, box)) for name in "abc")
    reviewed(
        tmp_path,
        f"{mixed},,,accept,",
        *(f"{mixed},{number},,{rest}" for number, rest in ((1, "correct,fox"), (2, "drop,"), (3, ","))),
        f"{gone},,,drop,",
        *(f"{empty},{number},,drop," for number in (1, 2, 3)),
    )
    found = {sample.path.name: sample.class_ids.tolist() for sample in labelled_boxes(tmp_path, LABELS)}
    assert found == {mixed: [2, 1], empty: []}


A = f"{stem('a')}.jpg"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"{A},,,maybe,"], "line 2: decision 'maybe', expected accept, correct, drop or nothing"),
        ([f"{A},,,correct,"], "line 2: correct without a label"),
        ([f"{A},,,,dog"], "line 2: a label, 'dog', without the decision correct"),
        ([f"{A},,,accept,dog"], "line 2: a label, 'dog', without the decision correct"),
        (["", f"{A},,,correct,wolf"], "line 3: label 'wolf' is no label's id, nor the name of just one; write one, like cat"),
        (["../secret.jpg,,,drop,"], "line 2: picture '../secret.jpg' is no kept picture's file name"),
        ([f"{A},one,,drop,"], "line 2: object 'one', expected its number from 1"),
        ([f"{A},0,,drop,"], "line 2: object '0', expected its number from 1"),
        ([f"{A},1,,drop,"], "line 2: object 1, the answer has 0"),
        ([f"{A},,,drop,", f"{A},,,accept,"], "line 3: decided on before, in line 2"),
        ([f'{A},,,"drop,'], "not CSV"),
    ],
)
def test_a_review_that_cannot_be_names_file_and_line(tmp_path: Path, rows: list[str], message: str) -> None:
    a_class(tmp_path, "a", CAT)
    reviewed(tmp_path, *rows)
    with pytest.raises(DataError) as caught:
        class_folders(tmp_path, LABELS)
    assert str(caught.value).startswith(f"{tmp_path / 'review.csv'}")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"picture,label\n", "line 1: has no column 'decision'"),
        (b"\xff\xfe\x00", "not UTF-8 text; save it as CSV UTF-8"),
    ],
)
def test_a_review_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    a_class(tmp_path, "a", CAT)
    (tmp_path / "review.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        class_folders(tmp_path, LABELS)


def test_objects_are_corrected_in_their_own_rows(tmp_path: Path) -> None:
    name = objects(tmp_path, "a", (CAT, (1, 1, 5, 5)))
    for row, message in (
        (f"{name},,,correct,dog", "write it in an object's row"),
        (f"{name},2,,drop,", "object 2, the answer has 1"),
    ):
        reviewed(tmp_path, row)
        with pytest.raises(DataError, match=message):
            labelled_boxes(tmp_path, LABELS)


def test_edge_eval_on_a_kept_folder(tmp_path: Path, tiny_edge: Path, tiny_detector: Path, command: Any) -> None:
    for number in range(4):
        label = Label(id=f"c{number}", name=f"class {number}")
        write(
            tmp_path / "classes",
            str(number),
            {"task": "classify", "answer": {"classes": [{"label": label.name, "score": 0.5}]}, "label_ids": [label.id]},
            encoded(picture(seed=number)),
        )
    done: Finished = command(evaluate, "--model", tiny_edge, "--data", tmp_path / "classes", "--json")
    assert (done.code, json.loads(done.out)["images"]) == (0, 4), done
    red = Label(id="red", name="red")
    file = objects(tmp_path / "boxes", "a", (red, (8, 16, 16, 24)))
    (tmp_path / "boxes" / file).write_bytes(encoded(squares(("red", 1, 2)), ".png"))
    done = command(evaluate, "--model", tiny_detector, "--data", tmp_path / "boxes", "--json")
    (row,) = json.loads(done.out)["variants"].values()
    assert row["ap50"] == 1.0
    assert "holds the answers of a detector, this is for a classifier" in command(
        evaluate, "--model", tiny_edge, "--data", tmp_path / "boxes"
    ).refused(2)
