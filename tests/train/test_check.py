"""edge-train check: each kind of trouble is found where it was put, and none where it was not; the list is fit to be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.boxes_data import labelled_boxes
from edge.card import Label
from edge.datasets import class_folders
from tests.conftest import Finished
from tests.test_boxes_data import turned
from tests.test_kept import write
from tests.train.pictured import class_set, jpeg, put, scene
from train.check import Check, check
from train.check_command import check as command_of

LABELS = (Label(id="a", name="a"), Label(id="b", name="b"))


def kinds(report: Check) -> dict[str, list[str]]:
    return {item.kind: [case.partition(":")[0] for case in item.cases] for item in report.findings}


def test_a_clean_set_has_nothing_to_remark(tmp_path: Path, command: Callable[..., Finished]) -> None:
    ended = command(command_of, class_set(tmp_path / "set"))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == f"{tmp_path / 'set'}: 2 classes, pictures: 24 in train, 24 in val"
    assert ended.out.splitlines()[-1] == "nothing to remark"


def png16() -> bytes:
    return cv2.imencode(".png", scene(70).astype(np.uint16) * 257)[1].tobytes()


BROKEN = {
    "empty.jpg": (b"", "empty, 0 bytes"),
    "cut.jpg": (jpeg(scene(60))[:1500], "a JPEG that is cut short"),
    "cut.png": (cv2.imencode(".png", scene(61))[1].tobytes()[:3000], "a PNG that is cut short"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "no picture: it begins with"),
    "moving.jpg": (b"GIF89a" + bytes(40), "a GIF, which is not read"),
    "noise.webp": (b"RIFF\x10\0\0\0WEBPnoise...", "a WEBP that is cut short or damaged"),
}


def test_what_cannot_be_read_is_an_error_and_left_out(tmp_path: Path, command: Callable[..., Finished]) -> None:
    folder = class_set(tmp_path / "set")
    for name, (raw, _) in BROKEN.items():
        put(folder / "train" / "a" / name, raw)
    ended = command(command_of, folder, "--json")
    assert ended.code == 3
    (finding,) = json.loads(ended.out)["findings"]
    assert (finding["kind"], finding["severity"], finding["count"]) == ("unreadable", "error", len(BROKEN))
    said = dict(case.split(": ", 1) for case in finding["cases"])
    for name, (_, words) in BROKEN.items():
        assert said[f"train/a/{name}"].startswith(words)
    fixed = command(command_of, folder, "--fix", tmp_path / "cleaned.txt")
    assert fixed.code == 0
    assert "48 of 54 pictures" in fixed.err
    again = command(command_of, tmp_path / "cleaned.txt")
    assert again.code == 0
    assert again.out.endswith("nothing to remark\n")


def test_copies_leaks_and_two_labels(tmp_path: Path) -> None:
    folder = class_set(tmp_path / "set")
    shutil.copy(folder / "train/a/1.jpg", folder / "train/a/1-copy.jpg")
    shutil.copy(folder / "train/a/2.jpg", folder / "val/a/2-leak.jpg")
    shutil.copy(folder / "train/a/3.jpg", folder / "train/b/3-other.jpg")
    put(folder / "train/a/0-near.jpg", jpeg(scene(0), 60))
    put(folder / "val/a/0-near.jpg", jpeg(scene(0), 40))
    put(folder / "train/b/4-near.jpg", jpeg(scene(4), 40))
    put(folder / "val/a/5-near.jpg", jpeg(scene(1005), 40))
    report = check(folder)
    assert kinds(report) == {
        "two-labels": ["train/a/3.jpg = train/b/3-other.jpg"],
        "leak": ["train/a/2.jpg = val/a/2-leak.jpg"],
        "near-leak": kinds(report)["near-leak"],
        "duplicate": ["train/a/1-copy.jpg = train/a/1.jpg"],
        "near-two-labels": ["train/a/4.jpg ~ train/b/4-near.jpg"],
        "near-duplicate": kinds(report)["near-duplicate"],
    }
    severities = {item.kind: item.severity for item in report.findings}
    assert [kind for kind, severity in severities.items() if severity == "error"] == ["two-labels", "leak"]
    dropped = {path.relative_to(folder).as_posix() for path in report.dropped}
    assert dropped == {
        *("train/a/3.jpg", "train/b/3-other.jpg"),  # nobody knows which is right
        "train/a/2.jpg",  # that in val is kept
        "train/a/1.jpg",
        *("train/a/0.jpg", "train/a/0-near.jpg"),  # near one in val
        "train/b/5.jpg",
    }


def test_a_fixed_camera_keeps_its_pictures(tmp_path: Path, command: Callable[..., Finished]) -> None:
    for part, first in (("train", 0), ("val", 12)):
        for i in range(first, first + 12):
            image = scene(1)
            image[:4, i * 4 : i * 4 + 4] = 255
            put(tmp_path / "set" / part / "a" / f"{i}.jpg", jpeg(image))
    ended = command(command_of, tmp_path / "set", "--fix", tmp_path / "cleaned.txt")
    assert ended.code == 0
    assert "fixed camera" in ended.err
    assert "24 of 24 pictures" in ended.err


def test_odd_pictures(tmp_path: Path) -> None:
    folder = class_set(tmp_path / "set", 30)
    alpha = np.dstack([scene(80), np.full((64, 96), 9, np.uint8)])
    raw = {
        "depth.png": png16(),
        "alpha.png": cv2.imencode(".png", alpha)[1].tobytes(),
        "named.jpg": cv2.imencode(".png", scene(81))[1].tobytes(),
        "turned.jpg": turned(scene(82), 6),
        "small.jpg": jpeg(scene(83, 20, 24)),
        "long.jpg": jpeg(scene(84, 400, 64)),
    }
    grey = scene(85)
    grey[40:] = 128
    raw["grey.jpg"] = jpeg(grey, 100)
    for name, content in raw.items():
        put(folder / "train" / "a" / name, content)
    found = kinds(check(folder))
    for kind in ("depth", "alpha", "turned", "small", "long", "grey"):
        assert found[kind] == [f"train/a/{kind}.{'png' if kind in ('depth', 'alpha') else 'jpg'}"], kind
    assert found["name"] == ["train/a/named.jpg"]
    [named] = [item for item in check(folder).findings if item.kind == "name"]
    assert named.cases == ("train/a/named.jpg: a PNG",)
    assert set(found["size"]) == {f"train/a/{name}.jpg" for name in ("turned", "small", "long")}
    assert set(found) == {"depth", "alpha", "turned", "small", "long", "grey", "name", "size"}


def test_classes(tmp_path: Path) -> None:
    folder = class_set(tmp_path / "set", 30, ("train",), "ab")
    class_set(folder, 12, ("train",), "a")
    for i in range(3):
        put(folder / "train" / "rare" / f"{i}.jpg", jpeg(scene(300 + i)))
        put(folder / "val" / "new" / f"{i}.jpg", jpeg(scene(400 + i)))
    for i in range(5):
        put(folder / "val" / "a" / f"{i}.jpg", jpeg(scene(500 + i)))
    (folder / "train" / "hollow").mkdir()
    put(folder / "train" / "a" / "notes.txt", "mine")
    put(folder / "train" / "a" / "phone.heic", "not read")
    put(folder / "val" / "loose.jpg", jpeg(scene(600)))
    put(folder / "loose.jpg", jpeg(scene(601)))
    (folder / "train" / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "train" / "c").symlink_to("nowhere")
    report = check(folder)
    assert kinds(report) == {
        "missing-train": ["new"],
        "empty-class": ["train/hollow"],
        "missing": ["hollow"],
        "missing-val": ["b", "rare"],
        "few": ["rare"],
        "imbalance": ["a"],
        "not-read": ["train/a/notes.txt", "train/a/phone.heic"],
        "loose": ["loose.jpg", "val/loose.jpg"],
        "dangling": ["train/a/gone.jpg", "train/c"],
    }
    assert report.classes["rare"] == {"train": 3, "val": 0}


def test_pictures_deeper_than_their_class_folder(tmp_path: Path) -> None:
    folder = class_set(tmp_path, 12, ("train", "val"))
    (folder / "train" / "a" / "sub").mkdir()
    for number in (3, 4):
        shutil.move(folder / f"train/a/{number}.jpg", folder / f"train/a/sub/{number}.jpg")
    report = check(folder)
    [found] = [item for item in report.findings if item.kind == "nested"]
    assert (found.severity, found.cases) == ("note", ("train/a/sub: 2",))
    assert found.what.endswith("whose pictures are read as that class; move them up if they are classes")
    assert report.classes["a"]["train"] == 12


def test_one_class_is_none(tmp_path: Path, command: Callable[..., Finished]) -> None:
    class_set(tmp_path, 12, (), "a")
    (tmp_path / "b").mkdir()
    assert kinds(check(tmp_path)) == {"one-class": ["a"], "empty-class": ["b"], "missing": ["b"]}


def test_parts_are_compared_whatever_val_is_called(tmp_path: Path) -> None:
    folder = class_set(tmp_path / "set", 12, ("train", "valid"))
    shutil.copy(folder / "train/a/2.jpg", folder / "valid/a/2-leak.jpg")
    report = check(folder)
    assert report.counts == {"train": 24, "val": 25}
    assert kinds(report) == {"leak": ["train/a/2.jpg = valid/a/2-leak.jpg"]}


def test_links_to_nothing_beside_boxes(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", {})
    (root / "images" / "gone.jpg").symlink_to("nowhere.jpg")
    assert kinds(check(root)) == {"dangling": ["images/gone.jpg"]}


def test_a_list_cannot_be_written(tmp_path: Path, command: Callable[..., Finished]) -> None:
    folder = class_set(tmp_path / "set", 3)
    put(tmp_path / "file", "mine")
    said = command(command_of, folder, "--fix", tmp_path / "file" / "x.txt").refused(2)
    assert "--fix" in said
    assert f"{tmp_path / 'file'}: Not a directory; choose another path" in said
    assert command(command_of, folder, "--fix", tmp_path / "new" / "folder" / "x.txt").code == 0


def yolo(root: Path, lines: dict[int, str]) -> Path:
    """YOLO pictures of 96 x 64; those without a line of their own have one good box."""
    put(root / "classes.txt", "a\nb\n")
    for i in range(24):
        put(root / "images" / f"{i:02d}.jpg", jpeg(scene(600 + i)))
        put(root / "labels" / f"{i:02d}.txt", lines.get(i, f"{i % 2} 0.5 0.5 0.4 0.4\n"))
    return root


def test_boxes(tmp_path: Path, command: Callable[..., Finished]) -> None:
    root = yolo(
        tmp_path / "set",
        {
            0: "0 0.5 0.5 0.4\n",
            1: "7 0.5 0.5 0.4 0.4\n",
            2: "0 0.5 0.5 0 0.4\n0 0.5 0.5 0.5 0.5\n",
            3: "0 0.95 0.5 0.4 0.4\n",
            4: "0 0.5 0.5 0.4 0.4\n0 0.5 0.5 0.41 0.4\n1 0.5 0.5 0.4 0.4\n",
            5: "0 0.5 0.5 0.02 0.4\n",
            6: "0 0.5 0.5 1 1\n",
            7: "",
            8: "0 1.005 0.5 0.009 0.4\n",
        },
    )
    put(root / "labels" / "alone.txt", "0 0.5 0.5 0.4 0.4\n")
    put(root / "images" / "bare.jpg", jpeg(scene(700)))
    report = check(root)
    found = kinds(report)
    assert found["label"] == ["labels/00.txt, line 1", "labels/01.txt, line 1"]
    for kind, name in {"empty": "02", "beyond": "03", "twice": "04", "tiny": "05", "whole": "06", "outside": "08"}.items():
        assert found[f"box-{kind}"] == [f"images/{name}.jpg"], kind
    assert found["background"] == ["images/07.jpg"]
    assert found["label-alone"] == ["labels/alone.txt"]
    assert found["picture-alone"] == ["images/bare.jpg"]
    errors = {item.kind for item in report.findings if item.severity == "error"}
    assert errors == {"label", "box-empty", "box-outside"}
    assert {path.name for path in report.dropped} == {"00.jpg", "01.jpg", "02.jpg", "08.jpg"}
    assert command(command_of, root).code == 3
    assert command(command_of, root, "--fix", tmp_path / "cleaned.txt").code == 0
    assert command(command_of, tmp_path / "cleaned.txt").code == 0
    assert len(labelled_boxes(tmp_path / "cleaned.txt", LABELS)) == 21


def test_copies_with_other_boxes(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", {1: "0 0.2 0.2 0.2 0.2\n", 3: "0 0.5 0.5 0.42 0.4\n"})
    shutil.copy(root / "images/00.jpg", root / "images/01.jpg")
    shutil.copy(root / "images/02.jpg", root / "images/03.jpg")
    report = check(root)
    assert kinds(report)["two-labels"] == ["images/00.jpg = images/01.jpg"]
    assert kinds(report)["duplicate"] == ["images/02.jpg = images/03.jpg"]
    assert {path.name for path in report.dropped} == {"01.jpg", "03.jpg"}


def voc_xml(name: str, box: tuple[int, int, int, int]) -> str:
    sides = "".join(f"<{side}>{at}</{side}>" for side, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<annotation><filename>{name}</filename><object><name>a</name><bndbox>{sides}</bndbox></object></annotation>"


def test_voc_and_coco(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path / "voc/JPEGImages" / f"{i}.jpg", jpeg(scene(800 + i)))
        put(tmp_path / "voc/Annotations" / f"{i}.xml", voc_xml(f"{i}.jpg", (1, 1, 50, 50)))
    put(tmp_path / "voc/Annotations" / "0.xml", voc_xml("0.jpg", (1, 1, 300, 50)))
    put(tmp_path / "voc/Annotations" / "1.xml", "<annotation>")
    put(tmp_path / "voc/Annotations" / "2.xml", voc_xml("2.jpg", (50, 1, 20, 50)))
    put(tmp_path / "voc/Annotations" / "alone.xml", voc_xml("alone.jpg", (1, 1, 50, 50)))
    put(tmp_path / "voc/JPEGImages" / "bare.jpg", jpeg(scene(900)))
    found = kinds(check(tmp_path / "voc"))
    assert found["label"] == ["Annotations/1.xml, line 1", "Annotations/2.xml"]
    assert found["box-beyond"] == ["JPEGImages/0.jpg"]
    assert found["label-alone"] == ["Annotations/alone.xml"]
    assert found["unreadable"] == ["alone.jpg"]
    assert found["picture-alone"] == ["JPEGImages/1.jpg", "JPEGImages/bare.jpg"]

    data: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(12)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 40, 40]} for i in range(12)],
        "categories": [{"id": 1, "name": "a"}],
    }
    data["annotations"][0]["bbox"] = [5, 5, -1, 40]
    data["annotations"][1]["image_id"] = 99
    shutil.copytree(tmp_path / "voc/JPEGImages", tmp_path / "coco/images")
    put(tmp_path / "coco/annotations/instances.json", json.dumps(data))
    found = kinds(check(tmp_path / "coco"))
    assert [case.partition(": ")[0] for case in found["label"]] == ["annotations/instances.json"] * 2
    assert found["background"] == ["images/1.jpg"]
    assert found["picture-alone"] == ["images/bare.jpg"]


def test_one_picture_in_two_files_is_kept(tmp_path: Path) -> None:
    data: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(12)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 40, 40]} for i in range(12)],
        "categories": [{"id": 1, "name": "a"}],
    }
    for i in range(12):
        put(tmp_path / "images" / f"{i}.jpg", jpeg(scene(i)))
    for part in ("first", "second"):
        put(tmp_path / "annotations" / f"instances_{part}.json", json.dumps(data))
    report = check(tmp_path)
    assert len(kinds(report)["duplicate"]) == 12
    assert report.dropped == {}


def test_numbers_without_names(tmp_path: Path, command: Callable[..., Finished]) -> None:
    root = yolo(tmp_path / "set", {})
    (root / "classes.txt").unlink()
    ended = command(command_of, root)
    assert ended.code == 0
    assert "checked by number" in ended.err
    assert "0 12, 1 12" in ended.out
    labels = put(tmp_path / "names.txt", "cat\ndog\nowl\n")
    named = command(command_of, root, "--labels", labels)
    assert "cat 12, dog 12, owl 0" in named.out
    assert named.err == ""


def test_what_an_endpoint_kept(tmp_path: Path, command: Callable[..., Finished]) -> None:
    for i in range(12):
        write(tmp_path / "kept", f"{i}", KEPT | {"label_ids": [f"c{i % 2}"]}, jpeg(scene(i)))
    ended = command(command_of, tmp_path / "kept")
    assert (ended.code, ended.err) == (0, "")
    assert "pictures of each class: c0 6, c1 6" in ended.out  # of one name, so told by their ids
    torn = write(tmp_path / "kept", "torn", KEPT | {"label_ids": ["c0"]}, b"\xff\xd8torn")
    assert command(command_of, tmp_path / "kept", "--fix", tmp_path / "cleaned.txt").code == 0
    assert f"# dropped {torn}: cannot be read" in (tmp_path / "cleaned.txt").read_text()
    assert command(command_of, tmp_path / "cleaned.txt").out.startswith(
        f"{tmp_path / 'cleaned.txt'}: 2 classes, pictures: 12\n"
    )


KEPT: dict[str, Any] = {"task": "classify", "answer": {"classes": [{"label": "cat", "score": 0.5}]}}


def test_progress_is_told_on_a_terminal_when_it_takes_long(
    tmp_path: Path, command: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_set(tmp_path / "set", 3)
    monkeypatch.setattr("edge.progress.rewrites", lambda: True)
    monkeypatch.setattr("edge.progress.PATIENCE_S", 3600.0)
    assert command(command_of, folder).err == ""
    monkeypatch.setattr("edge.progress.PATIENCE_S", 0.0)
    monkeypatch.setattr("edge.progress.PERIOD_S", 0.0)
    err = command(command_of, folder).err
    assert "edge-train check: pictures 1 of 12" in err
    assert "edge-train check: pictures 12 of 12" in err
    assert err.endswith("\r\x1b[K")


def test_what_is_no_data_set(tmp_path: Path, command: Callable[..., Finished]) -> None:
    assert "no such folder" in command(command_of, tmp_path / "gone").refused(2)
    put(tmp_path / "x" / "notes.md", "hello")
    assert "neither class folders" in command(command_of, tmp_path / "x").refused(2)
    assert "no names in it" in command(command_of, tmp_path / "x", "--labels", put(tmp_path / "empty.txt", "\n")).refused(2)


def test_the_originals_are_left_alone(tmp_path: Path, command: Callable[..., Finished]) -> None:
    folder = class_set(tmp_path / "set", 3)
    put(folder / "train/a/cut.jpg", b"\xff\xd8")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    mine = put(tmp_path / "mine.txt", "mine")
    ended = command(command_of, folder, "--fix", mine)
    assert ended.code == 2
    assert "no picture list" in ended.err
    assert mine.read_text() == "mine"
    command(command_of, folder, "--fix", folder / "cleaned.txt")
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before}
    assert after == before
    assert len(class_folders(folder / "cleaned.txt" / "train", LABELS)) == 6


@pytest.mark.slow
def test_real_pictures(shared_data: Path, tmp_path: Path, command: Callable[..., Finished]) -> None:
    raccoons = check(shared_data / "raccoon")
    assert len(kinds(raccoons)["duplicate"]) == 4
    assert len(raccoons.dropped) == 4
    pets = check(shared_data / "cats_dogs")
    assert kinds(pets) == {"near-duplicate": ["train/dog/dog.0074.jpg ~ train/dog/dog.0180.jpg"]}
    folder = class_set(tmp_path / "set")
    shutil.copy(shared_data / "bad" / "truncated.jpg", folder / "train" / "a")
    assert kinds(check(folder)) == {"unreadable": ["train/a/truncated.jpg"]}


def test_it_needs_no_torch() -> None:
    code = "import sys, train.check_command, train.pack_command, train.shards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
