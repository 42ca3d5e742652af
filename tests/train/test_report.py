"""The report of an evaluation: what stands in it, that names cannot harm it, and that it is the same for the same answers."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("faster_coco_eval")

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.errors import UsageError
from edge.types import Detections, UInt8
from tests.html_page import Page
from tests.samples import encoded, picture
from train.evaluation import Boxes, Classification
from train.loop import Row
from train.report import presentable, render, write_report
from train.summary import Facts, Summary, evaluation_schema, summarize
from train.words import headline, sentences
from train.worst import worst_boxes, worst_classes

HOSTILE = "\"><script>alert(1)</script>&'\x00\u202e{{ 7 * 7 }}"


def facts(**changes: Any) -> Facts:
    """Everything that may be said, and nothing that depends on the moment or the machine."""
    made = Facts(
        model="tiny",
        data="pictures",
        pictures={"train": 80, "val": 40},
        counts={"train": {"c0": 50, "c1": 30}, "val": {"c0": 20, "c1": 20}},
        skipped=["pictures/train/c0/7.png: not a picture"],
        settings={"epochs": 3, "rate": 5e-4, "patience": None, "augment": {"flip": True}},
        seed=4,
        command="edge-train --data pictures --model tiny --out run",
        seconds=75.0,
        created="2026-01-02T03:04:05Z",
        machine="a machine",
        versions={"torch": "2.0"},
        notes=["a note"],
    )
    return msgspec.structs.replace(made, **changes)


HISTORY = [
    Row(epoch=epoch, step=10 * epoch, loss=2 / epoch, rate=1e-3, metric=metric, seconds=1.0, images_per_s=9.0)
    for epoch, metric in ((1, 0.5), (2, 0.75), (3, 0.7))
]


def classified(folder: Path, classes: int = 3, count: int = 40, name: str = "class {}") -> Classification:
    """Pictures of each class in turn; every fifth is taken for the next class, the later the surer."""
    folder.mkdir(exist_ok=True)
    labels = tuple(Label(id=f"c{index}", name=name.format(index)) for index in range(classes))
    truth = np.arange(count) % classes
    logits = np.zeros((count, classes), np.float32)
    paths = []
    for index in range(count):
        answer = (truth[index] + (index % 5 == 4)) % classes
        logits[index, answer] = 2 + index / 20
        path = folder / f"{index}.png"
        if index % 5 == 4:
            path.write_bytes(encoded(picture(40, 30, seed=index), ".png"))
        paths.append(path)
    odds = np.exp(logits)
    samples = tuple(Sample(path, class_id) for path, class_id in zip(paths, truth.tolist(), strict=True))
    return Classification(labels, samples, logits, odds / odds.sum(axis=1, keepdims=True))


def with_truth(evaluation: Classification, truth: list[int]) -> Classification:
    """The same answers to pictures of other classes."""
    samples = zip(evaluation.samples, truth, strict=True)
    return replace(evaluation, samples=tuple(Sample(sample.path, class_id) for sample, class_id in samples))


def boxed(folder: Path) -> Boxes:
    """Three pictures: all found, one missed beside one that is not there, and one that is ignored."""
    labels = (Label(id="cat", name="cat"), Label(id="dog", name="dog"))
    box, other = [4.0, 4.0, 20.0, 20.0], [30.0, 10.0, 50.0, 40.0]
    truth, found = [], []
    for index, (boxes, ids, ignored, seen) in enumerate(
        [
            ([box, other], [0, 1], [False, False], [(box, 0.9, 0), (other, 0.8, 1)]),
            ([box], [0], [False], [(other, 0.7, 1)]),
            ([box], [0], [True], []),
        ]
    ):
        path = folder / f"{index}.png"
        path.write_bytes(encoded(picture(64, 48, seed=index), ".png"))
        truth.append(BoxSample(path, np.array(boxes, np.float32), np.array(ids), np.array(ignored)))
        found.append(
            Detections(
                np.array([one for one, _, _ in seen], np.float32).reshape(-1, 4),
                np.array([score for _, score, _ in seen], np.float32),
                np.array([class_id for _, _, class_id in seen], np.int64),
                tuple(labels[class_id].name for _, _, class_id in seen),
            )
        )
    return Boxes(labels, tuple(truth), tuple(found), tuple(found), 0.25)


def shown(summary: Summary) -> Page:
    return Page(render(presentable(summary)))


def test_both_files_are_written_and_the_json_is_the_summary(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    summary = write_report(out / "report.html", classified(tmp_path / "data"), HISTORY, facts())
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json"]
    written = (out / "report.json").read_bytes()
    assert msgspec.json.decode(written, type=Summary) == summary
    jsonschema.validate(json.loads(written), evaluation_schema())
    assert (out / "report.html").stat().st_mode & 0o777 == 0o644
    page = Page((out / "report.html").read_text())
    for words in ("tiny", "pictures", "edge-train --data pictures", "a machine", "torch 2.0", "a note", "augment: flip yes"):
        assert words in page.words
    assert "1 min 15 s" in page.words
    assert "patience" not in page.words


def test_a_name_that_is_no_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.html"):
        write_report(tmp_path / "report.json", classified(tmp_path / "data"), [], facts())
    assert not (tmp_path / "report.json").exists()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("before")
    evaluation = classified(tmp_path / "data")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path / "report.html", evaluation, [], facts())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "report.html"]
    assert (tmp_path / "report.html").read_text() == "before"


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    evaluation = classified(tmp_path / "data")
    texts = {render(presentable(summarize(evaluation, HISTORY, facts()))) for _ in range(2)}
    assert len(texts) == 1


def test_nothing_is_fetched(tmp_path: Path) -> None:
    for evaluation in (classified(tmp_path), boxed(tmp_path)):
        text = render(presentable(summarize(evaluation, HISTORY, facts())))
        page = Page(text)
        assert not page.all("link")
        assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in page.all("img"))
        assert "http:" not in text.replace("http://www.w3.org", "")
        assert "https:" not in text
        assert "default-src 'none'" in text


@pytest.mark.parametrize("kind", ["classes", "boxes"])
def test_names_cannot_harm_the_page(tmp_path: Path, kind: str) -> None:
    labels = tuple(Label(id=f"{index}{HOSTILE}", name=HOSTILE) for index in range(3))
    evaluation = replace(classified(tmp_path), labels=labels) if kind == "classes" else replace(boxed(tmp_path), labels=labels)
    said = facts(
        model=HOSTILE,
        data=HOSTILE,
        skipped=[HOSTILE],
        settings={HOSTILE: HOSTILE},
        counts={HOSTILE: {HOSTILE: 3}},
        pictures={HOSTILE: 3},
        command=HOSTILE,
        notes=[HOSTILE],
    )
    page = shown(summarize(evaluation, [], said))
    assert len(page.all("script")) == 1
    assert "<script>alert(1)</script>" in page.words  # as text
    assert "{{ 7 * 7 }}" in page.words
    assert "\x00" not in page.words
    assert "\u202e" not in page.words


def test_figures_in_the_page_are_the_answers(tmp_path: Path) -> None:
    summary = summarize(classified(tmp_path), HISTORY, facts())
    assert summary.figures["top1"].value == 32 / 40
    assert (summary.wrong, len(summary.worst)) == (8, 8)
    page = shown(summary)
    assert headline(summary) == "80.0% of 40 pictures are answered right."
    assert headline(summary) in page.words
    assert "lies from 65.2% to 89.5% (95% interval)" in page.words
    assert "Always answering class 0, the largest class, would be right for 35.0%." in page.words
    assert "top-5" not in page.words  # of three classes it says nothing
    assert "recall, mean of the classes" in page.words


def test_the_square_of_confusions(tmp_path: Path) -> None:
    page = shown(summarize(classified(tmp_path), [], facts()))
    cells = [attributes["title"] for attributes in page.all("td") if "title" in attributes]
    assert len(cells) == 9
    assert "11 of class 0 answered as class 0" in cells
    assert "3 of class 0 answered as class 1" in cells


def test_of_many_classes_the_most_frequent_confusions_are_listed(tmp_path: Path) -> None:
    summary = summarize(classified(tmp_path, classes=59, count=600), [], facts())
    text = render(presentable(summary))
    page = Page(text)
    assert not [attributes for attributes in page.all("td") if "title" in attributes]
    assert "The most frequent 40 of 59 kinds" in page.words
    assert sum(one.count for one in summary.confusions) == 120
    assert "Recall of the classes" in page.words


def test_the_worst_class_comes_first(tmp_path: Path) -> None:
    evaluation = classified(tmp_path)
    truth = [2 if class_id == 1 else class_id for class_id in evaluation.truth.tolist()]  # answered as 1 four times in five
    summary = summarize(with_truth(evaluation, truth), [], facts())
    text = render(presentable(summary))
    body = text[text.index('id="classes"') :]
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th>', body[: body.index("</table>")])
    assert rows == ["class 2", "class 0", "class 1"]  # of class 1 there is none
    assert "The worst class is class 2: " in " ".join(sentences(summary))


def test_without_history_or_errors(tmp_path: Path) -> None:
    evaluation = classified(tmp_path)
    summary = summarize(with_truth(evaluation, evaluation.tally.answers.tolist()), [], Facts(model="tiny"))
    page = shown(summary)
    assert "No epochs were noted." in page.words
    assert "None of the pictures is answered wrong." in page.words
    assert "Nothing is taken for anything else." in page.words
    assert "Nothing was left out." in page.words
    assert not page.all("img")
    assert summary.facts.machine
    assert "torch" in summary.facts.versions
    assert summary.facts.seed is None


def test_learning_curves_ring_the_best_epoch(tmp_path: Path) -> None:
    page = shown(summarize(classified(tmp_path), HISTORY, facts()))
    alts = [str(attributes["aria-label"]) for attributes in page.all("div") if attributes.get("role") == "img"]
    assert "top-1 by epoch: from 0.5 at epoch 1 to 0.7 at epoch 3. The best, 0.75, at epoch 2 has a ring." in alts
    assert any(alt.startswith("training loss by epoch: from 2 at epoch 1") for alt in alts)


def test_history_may_be_lines_of_json_and_a_metric_may_be_missing(tmp_path: Path) -> None:
    rows: list[Any] = [{"epoch": 1, "step": 5, "loss": 1.5}, {"epoch": 2, "step": 9, "loss": float("nan"), "metric": None}]
    summary = presentable(summarize(classified(tmp_path), rows, facts()))
    assert [(row.epoch, row.step, row.loss, row.metric) for row in summary.history] == [(1, 5, 1.5, None), (2, 9, None, None)]
    assert "No epochs were noted." in shown(summary).words  # one point is no curve


def test_pictures_that_chose_are_said_to_be(tmp_path: Path) -> None:
    summary = summarize(classified(tmp_path), [], facts(chose=True))
    assert "these figures are too good" in next(sentences(summary))
    assert "too good" not in " ".join(sentences(summarize(classified(tmp_path), [], facts())))


def test_calibration_says_on_what_the_temperature_was_fitted(tmp_path: Path) -> None:
    summary = summarize(classified(tmp_path), [], facts())
    assert sum(summary.calibration.fitted_to) == 40
    assert summary.calibration.scaled is not None
    page = shown(summary)
    assert "split in two by a hash of their names" in page.words
    few = summarize(classified(tmp_path, count=10), [], facts())
    assert few.calibration.scaled is None
    assert "too few pictures to fit a temperature" in shown(few).words


# the worst pictures


def test_the_surest_of_the_wrong_come_first(tmp_path: Path) -> None:
    evaluation = classified(tmp_path)
    found = worst_classes(evaluation, most=3)
    assert [one.picture.rpartition("/")[2] for one in found] == ["39.png", "34.png", "29.png"]
    assert found[0].truth.startswith("class 0 ")
    assert found[0].answer.startswith("class 1 ")
    assert found[0].confidence == pytest.approx(float(evaluation.probabilities[39].max()))
    image = cv2.imdecode(np.frombuffer(base64.b64decode(found[0].jpeg_base64), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert max(image.shape[:2]) == 224


def test_a_picture_that_is_gone_is_left_out_of_the_worst(tmp_path: Path) -> None:
    evaluation = classified(tmp_path)
    (tmp_path / "39.png").unlink()
    assert [one.picture.rpartition("/")[2] for one in worst_classes(evaluation, most=2)] == ["34.png", "29.png"]


@dataclass(frozen=True, slots=True)
class Unfiled(Sample):
    """A picture that lies in no file of its own, as in a shard."""

    def read(self) -> UInt8:
        return picture(50, 50)


def test_pictures_without_files_have_thumbnails_too(tmp_path: Path) -> None:
    evaluation = classified(tmp_path)
    samples = tuple(Unfiled(Path(f"shard.tar/{index}"), one.class_id) for index, one in enumerate(evaluation.samples))
    found = worst_classes(replace(evaluation, samples=samples), most=2)
    assert [one.picture for one in found] == ["shard.tar/39", "shard.tar/34"]


def test_missed_and_false_boxes_are_drawn(tmp_path: Path) -> None:
    wrong, found = worst_boxes(boxed(tmp_path))
    assert wrong == len(found) == 1
    assert (found[0].truth, found[0].answer) == ("cat", "dog, 70% sure")
    assert found[0].confidence == pytest.approx(0.7)
    image = cv2.imdecode(np.frombuffer(base64.b64decode(found[0].jpeg_base64), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    scale = 320 / 64
    assert near(image[round(12 * scale), round(4 * scale)], (0, 200, 255))  # the left edge of the missed one
    assert near(image[round(25 * scale), round(30 * scale)], (40, 40, 235))


def near(pixel: Any, color: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - color).max() < 70)


def test_boxes_have_their_own_page(tmp_path: Path) -> None:
    summary = summarize(boxed(tmp_path), HISTORY, facts())
    assert summary.score_threshold == 0.25
    assert {row.id: (row.support, row.answered, row.right) for row in summary.classes} == {"cat": (2, 1, 1), "dog": (1, 2, 1)}
    page = shown(summary)
    assert headline(summary).startswith("AP50 is 0.")
    assert "Precision and recall by score threshold" in page.words
    assert "id" in page.all("h2")[0]
    assert "confusions" not in [attributes.get("id") for attributes in page.all("h2")]
    assert "1 picture has an object that is missed" in page.words
    assert "66.7% of what it reports is there, and it reports 66.7% of what is there" in page.words


def test_a_detector_that_finds_nothing(tmp_path: Path) -> None:
    evaluation = boxed(tmp_path)
    none = tuple(one[np.zeros(len(one), np.bool_)] for one in evaluation.found)
    summary = summarize(replace(evaluation, found=none, reported=none), [], facts())
    assert summary.figures["ap50"].value == 0.0
    assert summary.curve == []
    page = shown(summary)
    assert "AP50 is 0.000 on 3 pictures." in page.words
    assert "Precision and recall by score threshold" not in page.words


def test_importing_the_report_loads_neither_matplotlib_nor_jinja() -> None:
    code = "import sys, train.report; sys.exit(any(name in sys.modules for name in ('matplotlib', 'jinja2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.integration
def test_the_page_fits_a_phone(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or pytest.skip("no chromium; apt install chromium")
    write_report(tmp_path / "report.html", classified(tmp_path / "data", classes=25, count=300), HISTORY, facts())
    page = tmp_path / "report.html"
    measure = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text()).replace("</body>", measure)
    page.write_text(text)
    given = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*given, "--window-size=500,900", "--dump-dom", f"file://{page}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    width = re.search(r"<title>(\d+)</title>", done.stdout)
    assert width is not None
    assert int(width[1]) <= 500
