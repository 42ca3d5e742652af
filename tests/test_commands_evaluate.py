"""edge-eval, end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, open_bundle
from edge.card import Variant
from edge.classification_metrics import Tally
from edge.commands.evaluate import main
from edge.datasets import Sample
from edge.engines import EngineOptions
from edge.evaluate import Report, Scored
from edge.lists import write_list
from edge.model import Model, load_variant, open_model
from tests.conftest import Finished
from tests.samples import encoded, entries_of, frame, picture, squares, with_expected, with_file, write_entries

Command = Callable[..., Finished]


@pytest.fixture
def data(tmp_path: Path, tiny_edge: Path) -> Path:
    """Eight pictures, of which the tiny model has the first six right: their folders are its own answers."""
    model = open_model(open_bundle(tiny_edge), variant="float32")
    for number in range(8):
        image = picture(40, 40, seed=number)
        tensor = model.task.prepare(frame(image))
        best = int(model.task.decode(model.engine.infer(tensor), tensor).class_ids[0])
        class_id = best if number < 6 else (best + 1) % 10
        folder = tmp_path / "val" / (f"c{class_id}" if number % 2 else f"Class_{class_id}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(image, ".png"))
    (tmp_path / "train" / "c0").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def evaluate(command: Command, tiny_edge: Path) -> Command:
    return lambda *arguments: command(main, "--model", tiny_edge, *arguments)


def test_json(evaluate: Command, data: Path) -> None:
    done = evaluate("--data", data, "--json", "--threads", 1)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["model"], found["task"], found["images"]) == ("tiny", "classify", 8)
    assert set(found["variants"]) == {"float32", "int8-x86"}
    for row in found["variants"].values():
        assert {"top1", "top5", "ece", "ms_per_image", "engine", "threads"} <= set(row)
        assert row["top1"] == 0.75
        assert row["top1"] <= row["top5"] <= 1
        assert 0 <= row["ece"] <= 1
        assert row["ms_per_image"] > 0
        assert (row["engine"], row["threads"]) == ("onnx", 1)


def test_table(evaluate: Command, data: Path) -> None:
    done = evaluate("--data", data / "val")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "tiny" in lines[0]
    assert "8 pictures" in lines[0]
    assert [line.split()[0] for line in lines[2:4]] == ["float32", "int8-x86"]
    assert all("75.00%" in line for line in lines[2:4])


def test_classes_and_confusion_in_json(evaluate: Command, data: Path) -> None:
    plain = json.loads(evaluate("--data", data, "--variant", "float32", "--json").out)["variants"]["float32"]
    row = json.loads(evaluate("--data", data, "--variant", "float32", "--json", "--confusion").out)["variants"]["float32"]
    assert "confusion" not in plain
    assert row["classes"] == plain["classes"]
    square = np.array(row["confusion"])
    assert square.sum() == 8
    assert np.trace(square) == 6
    assert [one["support"] for one in row["classes"]] == square.sum(axis=1).tolist()
    assert [one["answered"] for one in row["classes"]] == square.sum(axis=0).tolist()
    assert [one["right"] for one in row["classes"]] == np.diagonal(square).tolist()
    for one in row["classes"]:
        assert one["recall"] == (round(one["right"] / one["support"], 6) if one["support"] else None)
        assert one["precision"] == (round(one["right"] / one["answered"], 6) if one["answered"] else None)
    low, high = row["top1_interval"]
    assert 0.4 < low < 0.75 < high < 0.95


def test_the_worst_classes_as_a_table(evaluate: Command, data: Path) -> None:
    lines = evaluate("--data", data, "--variant", "float32").out.splitlines()[3:]
    worst = [line for line in lines if line.startswith("class ")]
    assert lines[0] == ""
    assert lines[1].startswith("float32, ")
    assert lines[2].split() == ["class", "recall", "prec.", "count"]
    recalls = [float(line.split()[2].rstrip("%")) for line in worst[1:]]
    assert recalls == sorted(recalls)
    assert len(recalls) <= 5
    assert "taken for class " in worst[1]
    everything = evaluate("--data", data, "--variant", "float32", "--per-class").out.splitlines()[3:]
    assert len(everything) >= len(lines)
    assert everything[1].startswith("float32, all ")


def test_a_confusion_that_nobody_would_see(evaluate: Command, command: Command, data: Path, tiny_detector: Path) -> None:
    assert "--confusion is for the --json of a classifier" in evaluate("--data", data, "--confusion").refused(2)
    line = command(main, "--model", tiny_detector, "--data", data, "--json", "--confusion").refused(2)
    assert "--confusion is for the --json of a classifier" in line


def test_one_variant_and_exact(evaluate: Command, data: Path) -> None:
    found = json.loads(evaluate("--data", data, "--variant", "int8-x86", "--exact", "--json").out)
    assert list(found["variants"]) == ["int8-x86"]
    assert found["exact"] is True
    both = json.loads(evaluate("--data", data, "--variant", "int8-x86", "--variant", "float32", "--json").out)
    assert list(both["variants"]) == ["int8-x86", "float32"]
    assert both["exact"] is False


@pytest.mark.parametrize(("limit", "images"), [(1, 1), (4, 4), (8, 8), (100, 8)])
def test_limit(evaluate: Command, data: Path, limit: int, images: int) -> None:
    assert json.loads(evaluate("--data", data, "--limit", limit, "--json").out)["images"] == images


def test_a_picture_list(evaluate: Command, data: Path) -> None:
    kept = sorted((data / "val").rglob("*.png"))[:3]
    write_list(data / "three.txt", data, kept)
    found = json.loads(evaluate("--data", data / "three.txt", "--json", "--variant", "float32").out)
    assert found["images"] == 3
    assert sum(one["support"] for one in found["variants"]["float32"]["classes"]) == 3


def test_a_limit_is_spread_over_all_of_it(evaluate: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Sample]] = []

    def look(model: Model, samples: list[Sample], bad: Callable[[str], None], heard: Callable[..., None]) -> Report:
        seen.append(list(samples))
        right = np.ones(1, np.bool_)
        tally = Tally(np.zeros(1, np.int64), np.zeros(1, np.int64), right)
        return Report(len(seen[-1]), 0, 1.0, 1.0, 0.0, 1.0, Scored(np.ones(1, np.float32), right), tally)

    monkeypatch.setattr("edge.commands.evaluate.evaluate", look)
    assert evaluate("--data", data, "--variant", "float32").code == 0
    assert evaluate("--data", data, "--variant", "float32", "--limit", 3).code == 0
    assert seen[1] == [seen[0][number] for number in (0, 2, 5)]


@pytest.mark.parametrize("exact", [True, False])
def test_exact_reaches_the_engine(evaluate: Command, data: Path, monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    seen: list[EngineOptions] = []

    def look(bundle: Bundle, variant: Variant, options: EngineOptions) -> Model:
        seen.append(options)
        return load_variant(bundle, variant, options)

    monkeypatch.setattr("edge.commands.evaluate.load_variant", look)
    evaluate("--data", data, "--threads", 2, *(["--exact"] if exact else []))
    assert [(options.exact, options.threads) for options in seen] == [(exact, 2)] * 2


def test_unreadable_pictures_are_named_once(evaluate: Command, data: Path) -> None:
    path = next((data / "val").rglob("3.png"))
    path.write_bytes(b"")
    done = evaluate("--data", data, "--json")
    assert done.code == 0
    assert json.loads(done.out)["images"] == 7
    assert done.err.count(str(path)) == 1
    assert all(row["skipped"] == 1 for row in json.loads(done.out)["variants"].values())
    assert "1 skipped" in evaluate("--data", data).out


def test_a_variant_that_disagrees_is_left_out_aloud(command: Command, tiny_edge: Path, data: Path, tmp_path: Path) -> None:
    entries = with_expected(entries_of(tiny_edge), {"float32": [[99] * 10], "int8-x86": [[99] * 10]})
    bundle = write_entries(tmp_path / "x.edge", with_file(entries, "int8-x86.onnx", b"no model"))
    done = command(main, "--model", bundle, "--data", data)
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert "float32 disagrees with its golden check" in lines[0]
    assert "int8-x86.onnx" in lines[1]
    assert "none of its variants can run here" in lines[2]
    assert "disagrees" in command(main, "--model", bundle, "--data", data, "--variant", "float32").refused(2)
    assert "refuses" in command(main, "--model", bundle, "--data", data, "--variant", "int8-x86").refused(1)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--data"),
        (["--data", "nothing"], "nothing: no such folder"),
        (["--data", "x" * 300], "no such folder"),
        (["--data", "{tmp}/val/c1"], "has no class folders"),
        (["--data", "{tmp}"], "folder 'bad' matches no label"),
        (["--data", "{tmp}/val", "--variant", "gold"], "no variant named 'gold'"),
        (["--data", "{tmp}/val", "--limit", "0"], "--limit"),
        (["--data", "{tmp}/val", "--model", "nothing.edge"], "no such bundle"),
        (["--data", "{tmp}/val", "--bad"], "--bad"),
        (["--data", "{tmp}/bad"], "none of 1 pictures could be read"),
    ],
)
def test_user_errors(evaluate: Command, tmp_path: Path, arguments: list[str], part: str) -> None:
    (tmp_path / "val" / "c1").mkdir(parents=True)
    (tmp_path / "val" / "c1" / "1.png").write_bytes(encoded(suffix=".png"))
    (tmp_path / "stray").mkdir()
    (tmp_path / "bad" / "c1").mkdir(parents=True)
    (tmp_path / "bad" / "c1" / "1.png").write_bytes(b"")
    done = evaluate(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    if part.startswith("none of"):  # the picture is named first
        done = Finished(done.code, done.out, done.err.split("\n", 1)[1])
    line = done.refused(2)
    assert line.startswith("edge-eval: ")
    assert part in line


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_full_disk_behind_standard_output(tiny_edge: Path, data: Path, json_too: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        given = [sys.executable, "-m", "edge.commands.evaluate", "--model", tiny_edge, "--data", data, *json_too]
        done = subprocess.run(given, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_help(command: Command) -> None:
    done = command(main, "--help")
    assert (done.code, done.err) == (0, "")
    for word in ("--data", "--exact", "--json", "--variant", "--limit"):
        assert word in done.out


def test_real_pictures_by_their_ids(command: Command, shared_data: Path, tmp_path: Path) -> None:
    """Folders named by WordNet id against labels with those ids."""
    from tests.tiny import tiny_bundle

    names = sorted(path.name for path in (shared_data / "imagenette" / "val").iterdir() if path.is_dir())

    def relabel(card: dict) -> None:  # type: ignore[type-arg]
        for label, name in zip(card["labels"], names, strict=True):
            label["id"] = name

    from tests.samples import with_card

    entries = entries_of(tiny_bundle(tmp_path / "tiny.edge", classes=len(names)))
    bundle = write_entries(tmp_path / "wordnet.edge", with_card(entries, relabel))
    done = command(main, "--model", bundle, "--data", shared_data / "imagenette", "--limit", 20, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["images"] == 20


# a detector


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """Four pictures with a red square each, of which the last is labelled blue; YOLO with names."""
    for number in range(4):
        for part in ("images", "labels"):
            (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / "images" / f"{number}.png").write_bytes(encoded(squares(("red", number, 0)), ".png"))
        x = (8 * number + 4) / 32
        (tmp_path / "labels" / f"{number}.txt").write_text(f"{int(number == 3)} {x} 0.125 0.25 0.25\n")
    (tmp_path / "names").write_text("red\nblue\n")
    return tmp_path


def test_a_detector(command: Command, tiny_detector: Path, boxes: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    done = command(main, "--model", tiny_detector, "--data", boxes, "--json", "--threads", 1)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["model"], found["task"], found["images"]) == ("squares", "detect", 4)
    (row,) = found["variants"].values()
    figures = ["ap50", "ap", "ece", "ms_per_image", "engine", "threads", "images", "skipped"]
    assert list(row) == [*figures, "macro", "classes"]
    assert row["ap50"] == row["ap"] == 0.5  # all of red, none of blue
    assert row["ece"] == 0.25
    table = command(main, "--model", tiny_detector, "--data", boxes, "--limit", 2)
    assert (table.code, table.err) == (0, "")
    assert table.out.splitlines()[1].split() == ["variant", "AP50", "AP", "ECE", "ms", "engine,", "threads"]
    assert table.out.splitlines()[2].split()[:3] == ["only", "100.00%", "100.00%"]
    assert len(table.out.splitlines()) == 3  # two classes need no table of their own


def test_a_detector_s_classes(command: Command, tiny_detector: Path, boxes: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    (row,) = json.loads(command(main, "--model", tiny_detector, "--data", boxes, "--json").out)["variants"].values()
    assert row["classes"] == [
        {"id": "r", "name": "red", "ap50": 1.0, "precision": 0.75, "recall": 1.0, "f1": 0.857143}
        | {"support": 3, "answered": 4, "right": 3},
        {"id": "b", "name": "blue", "ap50": 0.0, "precision": None, "recall": 0.0, "f1": 0.0}
        | {"support": 1, "answered": 0, "right": 0},
    ]
    assert row["macro"] == {"precision": 0.375, "recall": 0.5, "f1": 0.428571}
    table = command(main, "--model", tiny_detector, "--data", boxes, "--per-class")
    assert (table.code, table.err) == (0, "")
    assert [line.split() for line in table.out.splitlines()[4:]] == [
        ["only,", "all", "2", "classes", "by", "recall,", "at", "the", "score", "threshold", "of", "the", "card:"],
        ["class", "recall", "prec.", "AP50", "count"],
        ["blue", "0.0%", "-", "0.0%", "1"],
        ["red", "100.0%", "75.0%", "100.0%", "3"],
    ]


def test_a_detector_on_data_without_boxes(command: Command, tiny_detector: Path, data: Path) -> None:
    assert "no labelled boxes found" in command(main, "--model", tiny_detector, "--data", data).refused(2)
    assert "no such folder" in command(main, "--model", tiny_detector, "--data", data / "gone").refused(2)


def test_a_detector_on_boxes_of_other_things(command: Command, tiny_detector: Path, boxes: Path) -> None:
    (boxes / "names").write_text("red\nraccoon\n")
    line = command(main, "--model", tiny_detector, "--data", boxes).refused(2)
    assert "labels/3.txt, line 1: class 'raccoon'" in line


def test_average_precision_without_its_package(
    command: Command, tiny_detector: Path, boxes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert "pip install faster-coco-eval" in command(main, "--model", tiny_detector, "--data", boxes).refused(2)


def test_a_remote_bundle_answers_for_the_least_certain(evaluate: Command, data: Path, tiny_edge: Path) -> None:
    done = evaluate("--data", data, "--json", "--variant", "float32", "--remote", tiny_edge, "--remote-variant", "int8-x86")
    assert (done.code, done.err) == (0, "")
    row = json.loads(done.out)["variants"]["float32"]
    curve = row["offload"]
    assert (curve["model"], curve["variant"]) == ("tiny", "int8-x86")
    assert curve["share"] == [step / 10 for step in range(11)]
    assert (curve["accuracy"][0], curve["accuracy"][-1]) == (row["top1"], curve["top1"])
    assert -1 <= curve["efficiency"] <= 1


def test_the_curve_as_a_table(evaluate: Command, data: Path, tiny_edge: Path) -> None:
    done = evaluate("--data", data, "--variant", "float32", "--remote", tiny_edge)
    assert "float32, asking tiny float32 (ECE 0." in done.out
    assert "offloaded     0%    10%" in done.out
    assert "deferral efficiency 0.000: 0 is choosing by chance" in done.out


def test_a_remote_of_another_task(evaluate: Command, data: Path, tiny_detector: Path) -> None:
    done = evaluate("--data", data, "--remote", tiny_detector)
    assert done.code == 2
    assert "its task is detect, that of " in done.err


def test_a_variant_of_no_remote(evaluate: Command, data: Path) -> None:
    done = evaluate("--data", data, "--remote-variant", "float32")
    assert (done.code, "--remote-variant does nothing without --remote" in done.err) == (2, True)
