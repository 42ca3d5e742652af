"""edge-train as a person runs it: a run from pictures to a quantizable model, gone on from, refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge.bundle import open_bundle  # noqa: E402
from edge.card import Label  # noqa: E402
from edge.datasets import class_folders  # noqa: E402
from edge.engines import EngineOptions  # noqa: E402
from edge.errors import UsageError  # noqa: E402
from edge.evaluate import evaluate  # noqa: E402
from edge.model import load_variant  # noqa: E402
from quantize.cli import main as quantize  # noqa: E402
from tests.conftest import Finished  # noqa: E402
from tests.quantize import tiny  # noqa: E402
from train.cli import main  # noqa: E402
from train.models import Classifier  # noqa: E402
from train.run import load_run, read_parts, read_plan  # noqa: E402
from train.sources import merged  # noqa: E402

Command = Callable[..., Finished]
TINY = "tests.quantize.tiny:classifier"
QUICKLY = ("--budget-minutes", 0, "--no-cache", "--no-arm-instructions", "--trust")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and val parts of tinted noise."""
    folder = tmp_path_factory.mktemp("tinted") / "tinted"
    for part, each, seed in (("train", 10, 0), ("val", 6, 1)):
        random = np.random.default_rng(seed)
        for channel, name in enumerate(tiny.CLASSES):
            (folder / part / name).mkdir(parents=True)
            for index in range(each):
                picture = random.integers(0, 160, (40, 48, 3), dtype=np.uint8)
                picture[..., channel] += 90
                cv2.imwrite(str(folder / part / name / f"{index}.png"), picture)
    return folder


def train(command: Command, *arguments: object) -> Finished:
    return command(main, "--threads", 1, *arguments)


def lines(finished: Finished) -> list[str]:
    assert finished.code == 0, finished
    return [line.removeprefix("edge-train: ") for line in finished.err.splitlines()]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny network."""
    out = tmp_path_factory.mktemp("runs") / "tinted-run"
    words = ["--data", data, "--model", TINY, "--out", out, "--epochs", 6, "--batch", 8, "--rate", 0.02, "--freeze", 0]
    with pytest.raises(SystemExit) as end:
        main.main([str(word) for word in (*words, "--threads", 1)])
    assert end.value.code == 0
    return out


def test_a_run_leaves_all_that_comes_next(run: Path, data: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {
        *("run.json", "train.txt", "val.txt", "checkpoint.pt", "model.pt", "report.html", "report.json", "tensorboard")
    }
    plan = read_plan(run)
    assert (plan.task, [label.id for label in plan.labels]) == ("classify", list(tiny.CLASSES))
    assert plan.recipe.epochs == 6
    parts = read_parts(run, plan)
    fit, val = parts.fit, parts.val
    assert (len(fit), len(val)) == (30, 18)
    report = json.loads((run / "report.json").read_text())
    assert report["images"] == 18
    assert report["figures"]["top1"]["value"] > 0.9
    assert [row["epoch"] for row in report["history"]] == [1, 2, 3, 4, 5, 6]
    assert any((run / "tensorboard").iterdir())


def test_what_it_trained_is_quantized_without_being_told_of_data_and_agrees(
    run: Path, data: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "tinted.edge"
    finished = command(quantize, run, "--out", out, "--variants", "float32", *QUICKLY)
    assert finished.code == 0, finished
    assert "tinted-run: 15 pictures to calibrate, 15 to choose, 18 to measure" in finished.err
    assert "preparing: 15 pictures to calibrate on, and float32 on" in finished.err
    bundle = open_bundle(out)
    [variant] = bundle.card.variants
    measured = evaluate(
        load_variant(bundle, variant, EngineOptions(1, False)), class_folders(data / "val", load_run(run, trust=True).labels)
    )
    report = json.loads((run / "report.json").read_text())
    assert measured.top1 == pytest.approx(report["figures"]["top1"]["value"])
    assert measured.images == report["images"]


def test_a_data_set_in_one_part_keeps_some_apart_and_never_measures_on_what_was_learned(
    data: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "run"
    said = lines(train(command, "--data", data / "train", "--model", TINY, "--out", out, "--epochs", 1, "--val-count", 6))
    assert "has no val part; keeping 6 of its 30 pictures apart" in said[0]
    parts = read_parts(out, read_plan(out))
    fit, val = parts.fit, parts.val
    assert (len(fit), len(val)) == (24, 6)
    assert not {sample.path for sample in fit} & {sample.path for sample in val}
    from quantize.cli import _split
    from quantize.resolve import from_name

    for given in (None, data / "train"):
        _, split = _split(given, from_name(str(out), trust=True), str(out), 8)
        assert {sample.path for sample in split.measure} == {sample.path for sample in val}
        assert not {sample.path for sample in split.training} & {sample.path for sample in val}


def test_shards_train_and_are_quantized_as_the_folder_they_were_packed_of(data: Path, tmp_path: Path, command: Command) -> None:
    shards, out = tmp_path / "shards", tmp_path / "run"
    assert command(main, "pack", data, "--out", shards, "--shard-mb", "0.05").code == 0
    assert len(list(shards.glob("train-*.tar"))) > 1
    lines(train(command, "--data", shards, "--model", TINY, "--out", out, "--epochs", 2, "--rate", 0.02, "--batch", 8))
    report = json.loads((out / "report.json").read_text())
    assert report["facts"]["pictures"] == {"train": 30, "val": 18}
    assert report["facts"]["counts"]["val"] == {"blue": 6, "green": 6, "red": 6}
    bundle = tmp_path / "tinted.edge"
    finished = command(quantize, out, "--out", bundle, "--variants", "float32", *QUICKLY)
    assert finished.code == 0, finished
    measured = open_bundle(bundle).card.variants[0].accuracy
    assert measured is not None
    assert measured.top1 == pytest.approx(report["figures"]["top1"]["value"])


def test_what_it_has_never_seen_chooses_and_measures() -> None:
    from edge.datasets import Sample
    from quantize.data import of_run

    fit, many, few = (
        [Sample(Path(f"{part}/{i}.jpg"), i % 2) for i in range(n)] for part, n in (("t", 400), ("v", 300), ("w", 80))
    )
    split = of_run(fit, many, 128, "classify", Path("x"))
    assert (len(split.calibration), len(split.choice), len(split.measure)) == (128, 150, 150)
    assert {*split.choice, *split.measure} == set(many)
    assert set(split.training) == set(fit)
    split = of_run(fit, few, 128, "classify", Path("x"))
    assert set(split.measure) == set(few)
    assert set(split.choice) < set(fit)


def test_a_run_is_found_from_elsewhere_and_data_through_a_link(
    data: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    lines(train(command, "--data", "link", "--model", TINY, "--out", "runs/a", "--epochs", 1))
    (tmp_path / "runs" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "runs" / "deep")
    parts = read_parts(Path("../a"), read_plan(Path("../a")))
    assert (len(parts.fit), len(parts.val)) == (30, 18)


def test_several_data_sets_are_one(data: Path, tmp_path: Path, command: Command) -> None:
    more = tiny.pictures(tmp_path / "more", each=5)
    for path in more.rglob("*.png"):
        cv2.imwrite(str(path), cv2.flip(cv2.imread(str(path)), 1))  # no copies of what is there
    out = tmp_path / "run"
    train(command, "--data", data, "--data", more, "--model", TINY, "--out", out, "--epochs", 1)
    parts = read_parts(out, read_plan(out))
    fit, val = parts.fit, parts.val
    assert (len(fit), len(val)) == (30 + 12, 18 + 3)


def test_a_run_is_gone_on_from_with_its_classes_even_where_data_has_fewer(run: Path, tmp_path: Path, command: Command) -> None:
    few = tiny.pictures(tmp_path / "few", each=5)
    for path in (few / "green").iterdir():
        path.unlink()
    (few / "green").rmdir()
    out = tmp_path / "next"
    said = lines(train(command, "--data", few, "--weights", run, "--trust", "--out", out, "--epochs", 1, "--rate", 1e-4))
    assert not any("last layer first" in line for line in said)
    assert [label.id for label in read_plan(out).labels] == list(tiny.CLASSES)
    before, after = (load_run(folder, trust=True).network.state_dict() for folder in (run, out))
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=0.05) for name in before)


def test_what_is_stopped_goes_on_to_the_same_weights(run: Path, data: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of an epoch; then --resume."""
    out = tmp_path / "run"
    arguments = ["--data", data, "--model", TINY, "--out", out, "--epochs", "30", "--batch", "2", "--threads", "1"]
    program = "import sys; from train.cli import main; main.main(sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}

    def start(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, words)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    process = start(*arguments)
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 1:" in line:
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1] == f"edge-train: stopped; go on with edge-train --resume --out {out}"
    assert not (out / "model.pt").exists()
    again = start("--resume", "--trust", "--out", out, "--threads", "1")
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "last layer first" not in said
    whole = tmp_path / "whole"
    arguments[arguments.index(out)] = whole
    through = start(*arguments)
    assert through.communicate(timeout=300)[1]
    assert through.returncode == 0
    one, other = (load_run(folder, trust=True).network.state_dict() for folder in (out, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_same_command_by_torchrun_gives_the_same_losses(data: Path, tmp_path: Path) -> None:
    """Two processes, each with half of every batch."""
    arguments = ["--data", data, "--model", TINY, "--epochs", "3", "--batch", "8", "--rate", "0.01", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    losses = []
    for processes in (1, 2):
        out = tmp_path / f"by-{processes}"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", "train.cli", *map(str, arguments), "--out", str(out)]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr.count("epoch 3:") == 1, finished.stderr
        report = json.loads((out / "report.json").read_text())
        losses.append([(row["loss"], row["metric"]) for row in report["history"]])
    assert [row[0] for row in losses[1]] == pytest.approx([row[0] for row in losses[0]], rel=1e-3)
    assert losses[1][-1][0] < losses[1][0][0]


def test_a_teacher_is_a_run_of_the_same_classes(run: Path, data: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "student"
    train(command, "--data", data, "--model", TINY, "--teacher", run, "--trust", "--out", out, "--epochs", 1)
    assert read_plan(out).recipe.distill == 0.5
    refused = train(
        command, "--data", tiny.pictures(tmp_path / "a"), "--teacher", "efficientnet-lite0", "--out", tmp_path / "b"
    )
    assert "has 1000 classes, which are not the data's 3" in refused.err


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--out", "NEW"], "give --data DIR", 2),
        (["--data", "DATA"], "Missing option '--out'", 2),
        (["--data", "absent", "--out", "NEW"], "--data absent: no such folder, list of pictures or shards", 2),
        (["--data", "DATA", "--out", "RUN"], "has a run; go on with it by --resume", 2),
        (["--data", "DATA", "--out", "DATA"], "is there and not an empty folder", 2),
        (["--data", "DATA/train/red", "--out", "NEW"], "has neither class folders", 2),
        (
            ["--data", "DATA", "--out", "NEW", "--model", "resnet51"],
            "no model named 'resnet51'; there are efficientnet-lite0",
            2,
        ),
        (["--data", "DATA", "--out", "NEW", "--model", "resnet18"], "no ImageNet weights", 2),
        (
            ["--data", "DATA", "--out", "NEW", "--model", "efficientnet-lite0-det"],
            "is a detector, and the data has no boxes",
            2,
        ),
        (["--data", "DATA", "--out", "NEW", "--model", "tests.quantize.tiny:detector"], "only our own know how to learn", 2),
        (["--data", "DATA", "--out", "NEW", "--size", "224"], "--size 224: give WIDTHxHEIGHT", 2),
        (["--data", "DATA", "--out", "NEW", "--name", "a b"], "--name 'a b'", 2),
        (["--data", "DATA", "--out", "NEW", "--from-scratch", "--weights", "RUN"], "leave one out", 2),
        (["--data", "DATA", "--out", "NEW", "--weights", "absent.pt"], "--weights absent.pt: no such file or folder", 2),
        (["--data", "DATA", "--out", "NEW", "--weights", "RUN", "--model", "efficientnet-lite0"], "is a run of", 2),
        (["--data", "DATA", "--out", "NEW", "--distill", "0.3"], "--distill is the share of --teacher", 2),
        (["--data", "DATA", "--out", "NEW", "--teacher", "DATA"], "no run of edge-train; a teacher is the folder of a run", 2),
        (["--data", "DATA", "--out", "NEW", "--teacher", "resnet18"], "has no published weights; a teacher is the folder", 2),
        (["--data", "DATA", "--out", "FILE/x"], "Not a directory; choose another path", 2),
        (["--data", "DATA", "--out", "NEW", "--cache", "NEW"], "which --data has none of; leave it out", 2),
        (["--data", "DATA", "--out", "NEW", "--val-share", "0.3", "--val-count", "3"], "leave one out", 2),
        (["--data", "DATA", "--out", "NEW", "--model", TINY, "--val-count", "3"], "--val-count: DATA has a val part", 2),
        (["--data", "DATA", "--out", "NEW", "--model", TINY, "--val-share", "0.3"], "--val-share: DATA has a val part", 2),
        (
            ["--data", "DATA", "--out", "NEW", "--weights", "RUN"],
            "its network is made by calling tests.quantize.tiny:classifier",
            2,
        ),
        (["--data", "DATA", "--out", "NEW", "--teacher", "RUN"], "give --trust if the run is yours", 2),
        (["--data", "DATA", "--data", "DATA", "--out", "NEW"], "one data set is given twice", 2),
        (["--data", "DATA", "--out", "NEW", "--arg", "a=1"], "--arg a=1: is for package.module:factory", 2),
        (["--data", "DATA", "--out", "NEW a"], "the name that --out gives the model is 'new a': give --name", 2),
        (["--data", "DATA", "--out", "NEW", "--epochs", "nan"], "nan is not a finite number", 2),
        (["--data", "DATA", "--out", "NEW", "--mixup", "inf"], "inf is not a finite number", 2),
        (["--data", "DATA", "--out", "NEW", "--size", "²x3"], "give WIDTHxHEIGHT", 2),
        (["--data", "DATA", "--out", "NEW", "--batch", "4", "--accumulate", "5"], "one a part at least; change one of them", 2),
        (["--resume", "--out", "RUN"], "give --trust if the run is yours", 2),
        (["--data", "DATA", "--out", "NEW", "--device", "gpu"], "--device gpu: give auto, cpu, cuda or cuda:N", 2),
        (["--data", "DATA", "--out", "NEW", "--val-share", "0"], "--val-share", 2),
        (["--resume", "--out", "NEW"], "no run of edge-train", 2),
        (["--resume", "--out", "RUN", "--epochs", "9"], "--resume goes on as the run began; leave out --epochs", 2),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str], says: str, code: int, run: Path, data: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "file").write_text("mine")
    places = {"DATA": str(data), "RUN": str(run), "NEW": str(tmp_path / "new"), "FILE": str(tmp_path / "file")}
    for name, place in places.items():
        arguments = [word.replace(name, place) if word.startswith(name) else word for word in arguments]
        says = says.replace(name, place)
    assert says in command(main, *arguments).refused(code)
    assert not (tmp_path / "new").exists()


def test_classes_without_a_picture_to_learn_from_are_said(data: Path, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "set"
    shutil.copytree(data, folder)
    shutil.rmtree(folder / "train" / "red")
    (folder / "train" / "hollow").mkdir()
    said = lines(train(command, "--data", folder, "--model", TINY, "--out", tmp_path / "run", "--epochs", 1))
    assert "no pictures in train, and some in val, of 'red': they measure what nothing teaches; move some there" in said
    assert "no pictures of 'hollow' to learn from: add some, or remove the class" in said


def test_what_shards_do_not_say_of_their_classes_is_not_counted_for_a_line(tmp_path: Path) -> None:
    from tests.train.sharded import LABELS, places, ten_shards
    from train.shards import Shards
    from train.sources import known_counts

    folder = ten_shards(tmp_path)
    assert known_counts(Shards(places(folder), LABELS, counts=[3] * 10), 2) is None
    labelled = [[2, 1], [1, 2]] * 5
    assert known_counts(Shards(places(folder), LABELS, counts=[3] * 10, labelled=labelled), 2).tolist() == [15, 15]


def test_a_picture_s_name_may_have_a_line_break(tmp_path: Path, command: Command) -> None:
    folder, out = tiny.pictures(tmp_path / "set", each=5), tmp_path / "run"
    for path in (folder / "red").iterdir():
        path.rename(path.with_name(f"a\n{path.name}"))
    lines(train(command, "--data", folder, "--model", TINY, "--out", out, "--epochs", 1))
    parts = read_parts(out, read_plan(out))
    assert sum("\n" in sample.path.name for sample in [*parts.fit, *parts.val]) == 5


def test_a_run_without_its_lists_measures_on_nothing_rather_than_on_what_it_learned(
    run: Path, tmp_path: Path, command: Command
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "val.txt").unlink()
    assert "val.txt: is missing" in command(quantize, broken, "--trust", "--out", tmp_path / "b.edge").refused(2)
    assert "val.txt: is missing" in command(main, "--resume", "--trust", "--out", broken).refused(2)


def test_data_that_has_changed_cannot_be_resumed(tmp_path: Path, command: Command) -> None:
    folder, out = tiny.pictures(tmp_path / "set", each=5), tmp_path / "run"
    lines(train(command, "--data", folder, "--model", TINY, "--out", out, "--epochs", 1))
    next((folder / "red").iterdir()).unlink()
    refused = train(command, "--resume", "--trust", "--out", out).refused(2)
    assert "pictures or labels are not what the run began with" in refused


def test_a_run_is_never_measured_on_what_it_learned_whatever_its_data_is_called(
    data: Path, tmp_path: Path, command: Command
) -> None:
    from quantize.cli import _split
    from quantize.resolve import from_name

    out, link = tmp_path / "run", tmp_path / "link"
    lines(train(command, "--data", data / "train", "--model", TINY, "--out", out, "--epochs", 1))
    link.symlink_to(data / "train")
    learned = {sample.path.resolve() for sample in read_parts(out, read_plan(out)).fit}
    for given in (link, data):
        _, split = _split(given, from_name(str(out), trust=True), str(out), 8)
        assert split.measure
        assert not {sample.path.resolve() for sample in split.measure} & learned


def test_other_classes_get_a_new_last_layer_even_where_they_are_as_many(run: Path, tmp_path: Path, command: Command) -> None:
    folder, out = tiny.pictures(tmp_path / "set", each=5), tmp_path / "other"
    (folder / "green").rename(folder / "azure")
    said = lines(train(command, "--data", folder, "--weights", run, "--trust", "--out", out, "--epochs", 1))
    assert any("last layer first" in line for line in said)
    assert [label.id for label in read_plan(out).labels] == ["azure", "blue", "red"]


def test_the_next_run_has_the_size_and_arguments_of_the_one_it_starts_from(
    data: Path, tmp_path: Path, command: Command
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    lines(train(command, "--data", data, "--model", TINY, "--size", "48x40", "--out", first, "--epochs", 1))
    lines(train(command, "--data", data, "--weights", first, "--model", TINY, "--out", second, "--epochs", 1))
    model = load_run(second, trust=True)
    assert (model.input.width, model.input.height) == (48, 40)


def test_a_next_run_does_not_measure_on_what_the_first_learned(data: Path, tmp_path: Path, command: Command) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    lines(train(command, "--data", data / "train", "--model", TINY, "--out", first, "--epochs", 1, "--val-share", 0.5))
    options = ("--weights", first, "--trust", "--seed", 5, "--val-share", 0.5, "--epochs", 1)
    said = lines(train(command, "--data", data / "train", "--out", second, *options))
    assert any("has learned; they are learned from again" in line for line in said)
    learned, measured = read_parts(first, read_plan(first)).fit, read_parts(second, read_plan(second)).val
    assert measured
    assert not {sample.path for sample in learned} & {sample.path for sample in measured}


def test_copies_of_one_sets_val_are_not_learned_from_in_another(data: Path, tmp_path: Path, command: Command) -> None:
    copy, out = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(data / "val", copy)
    said = lines(train(command, "--data", data, "--data", copy, "--model", TINY, "--out", out, "--epochs", 1))
    assert any("are in another data set's val part, too, and are not learned from" in line for line in said)
    parts = read_parts(out, read_plan(out))
    assert not {sample.path.read_bytes() for sample in parts.fit} & {sample.path.read_bytes() for sample in parts.val}


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([["a", "b"], ["b", "c"]], ["a", "b", "c"]),
        ([["n01:tabby", "n02:lynx"], ["tabby", "Lynx"]], ["n01", "n02"]),
        ([["tabby"], ["n01:tabby", "n02:lynx"]], ["tabby", "n02"]),
    ],
)
def test_a_class_of_several_data_sets_is_one(sets: list[list[str]], expected: list[str]) -> None:
    def label(text: str) -> Label:
        return Label(id=text.split(":")[0], name=text.split(":")[-1])

    assert [one.id for one in merged([[label(text) for text in texts] for texts in sets])] == expected


def test_a_class_that_is_two_of_another_set() -> None:
    with pytest.raises(UsageError, match="class 'a' \\(b\\) is both of 'a', 'b'; rename one of them"):
        merged([[Label(id="a", name="a"), Label(id="b", name="b")], [Label(id="a", name="b")]])


def test_a_batch_is_no_larger_than_the_data(data: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "run"
    said = lines(train(command, "--data", data, "--model", TINY, "--out", out, "--epochs", 1, "--batch", 65536))
    assert "--batch 65536: there are 30 pictures to learn from; taking 30" in said
    assert read_plan(out).recipe.batch == 30


def test_a_gpu_that_is_not_there(data: Path, tmp_path: Path, command: Command) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    refused = command(main, "--data", data, "--out", tmp_path / "new", "--device", "cuda:0").refused(2)
    assert "torch sees no GPU here" in refused


def test_a_run_that_is_not_finished_or_damaged_cannot_be_quantized(run: Path, tmp_path: Path, command: Command) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_bytes((run / "run.json").read_bytes())
    assert "the run is not finished" in command(quantize, broken, "--trust", "--out", tmp_path / "b.edge").refused(2)
    (broken / "model.pt").write_bytes((run / "model.pt").read_bytes()[:-300])
    assert "model.pt: not a file of weights" in command(quantize, broken, "--trust", "--out", tmp_path / "b.edge").refused(2)
    (broken / "run.json").write_text('{"version": 2}')
    assert "not what this edge-train writes" in command(quantize, broken, "--trust", "--out", tmp_path / "b.edge").refused(2)


def test_rare_classes_weigh_more(data: Path, tmp_path: Path) -> None:
    from train.session import _class_weights

    class Plan:
        labels = tiny.classifier().labels

    from edge.datasets import Sample

    samples = [Sample(Path("x"), 0)] * 6 + [Sample(Path("x"), 1)] * 2
    assert _class_weights(Plan(), samples).tolist() == pytest.approx([8 / 18, 8 / 6, 1.0])  # type: ignore[arg-type]


def test_the_run_is_a_classifier_that_knows_where_it_comes_from(run: Path) -> None:
    model = load_run(run, trust=True)
    assert isinstance(model, Classifier)
    assert model.name == "tinted-run"
    assert model.source == "tests/quantize/tiny.py; trained on tinted"
    assert not model.network.training
