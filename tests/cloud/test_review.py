"""Kept pictures as files and as a table for a person, and what became of the two once a person has decided."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.examples import Keeper, Store
from cloud.kept import main
from cloud.metrics import Metrics
from cloud.served import Served
from edge.boxes_data import labelled_boxes
from edge.bundle import open_bundle
from edge.card import Label
from edge.datasets import class_folders
from edge.kept import records
from edge.model import open_model
from edge.oip import NamedTensor, encode_request
from tests.cloud.conftest import in_process
from tests.conftest import Finished
from tests.samples import encoded, squares
from tests.test_kept import CAT, DOG, FOX, LABELS, a_class, an_object, objects, stem, write

Run = Callable[..., Finished]
BOX = (1, 1, 11, 11)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def decide(path: Path, decided: Iterable[dict[str, str]]) -> None:
    """Save the table as a spreadsheet would."""
    table = list(decided)
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(table)


def test_a_table_of_classes_that_a_person_fills_in(tmp_path: Path, command: Run) -> None:
    kept = tmp_path / "kept"
    local = {"classes": [{"label": "=fox", "score": 0.7}]}
    names = [a_class(kept, "a", CAT, DOG, local=local, disagreement=0.8, confidence=0.25), a_class(kept, "b", DOG)]
    done = command(main, "review", kept)
    table = kept / "review.csv"
    assert (done.code, done.out, done.err) == (
        0,
        "",
        f"cloud.kept: 2 pictures in {table}; fill in its column decision\n",
    )
    first, second = rows(table)
    assert first == {
        "picture": names[0],
        "suggested": "cat",
        "local": "'=fox",
        "confidence": "0.250",
        "disagreement": "0.800",
        "decision": "",
        "label": "",
    }
    assert (second["picture"], second["suggested"], second["local"], second["disagreement"]) == (names[1], "dog", "", "")
    assert [sample.class_id for sample in class_folders(kept, LABELS)] == [0, 1]

    decide(table, [first | {"decision": "Correct", "label": "FOX"}, second | {"decision": "drop"}])
    assert [sample.class_id for sample in class_folders(kept, LABELS)] == [2]
    said = command(main, kept, "--out", tmp_path / "out").refused(2)
    assert f"{table}, line 2: label 'FOX' is no label's id, nor the name of just one; write one, like cat" in said
    decide(table, [first | {"decision": "correct", "label": "c1"}, second | {"decision": "drop"}])
    assert command(main, kept, "--out", tmp_path / "out").code == 0
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg")] == [f"c1/{names[0]}"]

    a_class(kept, "c", CAT, confidence=0.9)
    said = command(main, "review", kept).refused(2)
    assert said == f"cloud.kept review: --out {table}: is there already; give a new name, what {kept} has decided is taken over"
    done = command(main, "review", kept, "--out", tmp_path / "later.csv")
    assert f"3 pictures in {tmp_path / 'later.csv'}; fill in its column decision, save it as {table}" in done.err
    decisions = [(row["decision"], row["label"]) for row in rows(tmp_path / "later.csv")]
    assert decisions == [("correct", "c1"), ("drop", ""), ("", "")]


def test_a_table_of_objects_that_a_person_fills_in(tmp_path: Path, command: Run) -> None:
    kept = tmp_path / "kept"
    local = {"objects": [an_object("dog", 1, 1, 11, 12), an_object("fox", 1, 1, 1e300, 1e300)]}
    name = objects(kept, "a", (CAT, BOX), (CAT, (30, 30, 40, 40)), local=local)
    assert command(main, "review", kept, "--out", tmp_path / "table.csv").code == 0
    table = rows(tmp_path / "table.csv")
    seen = [(row["picture"], row["object"], row["suggested"], row["local"], row["box"]) for row in table]
    assert seen == [
        (name, "", "2 cat", "1 dog, 1 fox", ""),
        (name, "1", "cat", "dog", "1 1 11 11"),
        (name, "2", "cat", "", "30 30 40 40"),
    ]
    whole, first, second = table
    decide(kept / "review.csv", [whole, first | {"decision": "correct", "label": "dog"}, second | {"decision": "drop"}])
    (sample,) = labelled_boxes(kept, LABELS)
    assert sample.class_ids.tolist() == [1]
    assert command(main, kept, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "classes.txt").read_text() == "dog\n"
    (exported,) = labelled_boxes(tmp_path / "out", LABELS)
    np.testing.assert_allclose(exported.boxes_xyxy, sample.boxes_xyxy, atol=0.05)


def test_what_the_device_greyed_out_is_recorded_and_left_out(tiny_detector: Path, tmp_path: Path, command: Run) -> None:
    kept, bundle = tmp_path / "kept", open_bundle(tiny_detector)
    keeper = Keeper(Store(kept, 1 << 20), Metrics(), pytest.fail)
    endpoint = in_process(Served(open_model(bundle), bundle.card), keeper=keeper)
    picture = encoded(squares(("red", 1, 2)), ".png")
    for key, parameters in (("a", {"redacted": " blue,green, "}), ("b", {"redacted": ""}), ("c", {})):
        body, headers = encode_request([NamedTensor.of("image", [picture])], parameters={"key": key, **parameters})
        assert endpoint("POST", "/v2/models/squares/infer", body, headers).status == 200
    endpoint.close()
    keeper.close()
    assert sorted((example.key, example.redacted) for _, example in records(kept)) == [
        ("a", ["blue", "green"]),
        ("b", []),
        ("c", []),
    ]
    done = command(main, kept, "--out", tmp_path / "out")
    assert done.err == (
        f"cloud.kept: {kept}: 1 pictures are left out, in which the devices greyed out blue, green: a detector would learn "
        f"that such objects are background\ncloud.kept: 2 pictures in {tmp_path / 'out'}\n"
    )
    assert command(main, kept, "--out", tmp_path / "all", "--with-redacted").err == (
        f"cloud.kept: 3 pictures in {tmp_path / 'all'}\n"
    )


def test_no_box_at_all_is_no_dataset(tmp_path: Path, command: Run) -> None:
    objects(tmp_path / "kept", "a")
    said = command(main, tmp_path / "kept", "--out", tmp_path / "out").refused(2)
    assert "none of its 1 pictures shows an object; collect others" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "cannot be used: Not a directory"),
        ("file/below", "Not a directory"),
        ("full", "is not empty; give a new folder"),
    ],
)
def test_where_nothing_can_be_written(tmp_path: Path, command: Run, out: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full" / "of").mkdir(parents=True)
    a_class(tmp_path / "kept", "a", CAT)
    assert message in command(main, tmp_path / "kept", "--out", tmp_path / out).refused(2)
    if out != "full":
        assert f"--out {tmp_path / out}" in command(main, "review", tmp_path / "kept", "--out", tmp_path / out).refused(2)


def test_a_tampered_record_is_skipped_with_a_line(tmp_path: Path, command: Run) -> None:
    kept = tmp_path / "kept"
    (tmp_path / "secret.jpg").write_bytes(encoded())
    objects(kept, "a", (CAT, BOX), label_ids=["c0", "c1"])
    objects(kept, "b", (CAT, BOX), picture="../secret.jpg")
    objects(kept, "c", (DOG, (1, 1, 1e5, 1e5)))
    done = command(main, kept, "--out", tmp_path / "out")
    assert done.code == 0
    assert f"{kept / stem('a')}.json: left out, 2 label_ids do not fit its answer" in done.err
    assert f"{kept / stem('b')}.json: left out, its picture is '../secret.jpg'" in done.err
    assert done.err.count("\n") == 3
    (sample,) = labelled_boxes(tmp_path / "out", LABELS)  # its box is cut off at the picture's edge
    assert sample.class_ids.tolist() == [1]


def test_an_id_that_cannot_name_a_folder(tmp_path: Path, command: Run) -> None:
    a_class(tmp_path / "kept", "a", Label(id="../up", name="up"))
    assert "label id '../up' cannot name a class" in command(main, tmp_path / "kept", "--out", tmp_path / "o").refused(2)
    objects(tmp_path / "boxes", "a", (Label(id="tv/monitor", name="tv"), BOX))
    assert command(main, tmp_path / "boxes", "--out", tmp_path / "yolo").code == 0


def test_one_of_several_models(tmp_path: Path, command: Run) -> None:
    a_class(tmp_path / "kept", "a", CAT)
    write(tmp_path / "kept", "b", {"task": "detect", "answer": {"objects": []}, "label_ids": [], "model": "boxes"})
    a_class(tmp_path / "kept", "c", FOX, model="small")
    for words in ((), ("review",)):
        said = command(main, *words, tmp_path / "kept", "--out", tmp_path / "out").refused(2)
        assert "holds examples of big, boxes, small; choose one by python -m cloud.kept --model NAME" in said
    assert command(main, tmp_path / "kept", "--out", tmp_path / "out", "--model", "small").code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["c2"]
    assert command(main, "review", tmp_path / "kept", "--out", tmp_path / "t.csv", "--model", "big").code == 0
    assert [row["suggested"] for row in rows(tmp_path / "t.csv")] == ["cat"]


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    sharp, grey = a_class(kept, "a", CAT), a_class(kept, "b", DOG, redacted=["person"], disagreement=0.9)
    with sqlite3.connect(kept / "index.sqlite") as database:
        database.execute("CREATE TABLE kept (stem TEXT PRIMARY KEY, picture TEXT, bytes INT, disagreement REAL, doubt REAL)")
        database.execute("INSERT INTO kept VALUES ('gone', 'gone.jpg', 9, 0.5, 0.5)")
    database.close()
    sizes = [sum(path.stat().st_size for path in kept.glob(f"{Path(name).stem}.*")) for name in (sharp, grey)]
    Store(kept, max(sizes) + 100).close()
    assert [path.name for path, _ in records(kept)] == [sharp]  # what was greyed out goes first, whatever it is worth else


def help_of(command: Run, *words: Any) -> str:
    return str(command(main, *words, "--help").out)


def test_help(command: Run) -> None:
    assert "python -m cloud.kept review --help" in help_of(command)
    assert "accept, drop or correct" in help_of(command, "review")
