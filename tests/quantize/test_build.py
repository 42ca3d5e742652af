"""A whole build: what it records, what it refuses and with which words, and how it goes on after an interruption."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")

from edge.errors import InputError
from edge.pictures import read_picture
from quantize.build import Built, Ears, Plan, build
from quantize.cli import GOLDEN_PICTURE
from quantize.data import load_split
from quantize.float_model import FloatModel, float_model
from quantize.record import Candidate, Record
from quantize.search import Gates
from quantize.store import Store
from quantize.targets import OnnxTarget, Settings
from quantize.workshop import Workshop
from tests.quantize import tiny

ANYTHING = Gates(max_drop=1.0, min_speedup=0.0)
Files = list[Settings]


@dataclass
class Heard:
    """What a build told."""

    lines: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    progress: list[tuple[str, float | None]] = field(default_factory=list)
    stop_after: int = 1000

    def candidate(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        if len(self.candidates) == self.stop_after:
            raise KeyboardInterrupt

    def ears(self) -> Ears:
        return Ears(self.lines.append, self.bad.append, self.candidate, lambda *how: self.progress.append(how))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[FloatModel, Path, Store]:
    """A model, its pictures, and a store with its exports."""
    folder = tmp_path_factory.mktemp("classifier")
    return float_model(tiny.classifier()), tiny.pictures(folder / "data"), Store(folder / "store")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[FloatModel, Path, Store]:
    folder = tmp_path_factory.mktemp("detector")
    return float_model(tiny.detector()), tiny.squares(folder / "data", 40), Store(folder / "store")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """The settings of each file that is made."""
    made: Files = []
    real = OnnxTarget.build

    def build_and_note(self: OnnxTarget, settings: Settings) -> bytes:
        made.append(settings)
        return real(self, settings)

    monkeypatch.setattr(OnnxTarget, "build", build_and_note)
    return made


def built(
    made: tuple[FloatModel, Path, Store],
    heard: Heard,
    gates: Gates = ANYTHING,
    names: tuple[str, ...] = ("int8-x86",),
    minutes: float = 0.4,
) -> Built:
    model, data, store = made
    return build(
        model,
        load_split(data, model.labels, 8, model.task),
        Plan(names, gates, minutes, threads=1, qat="never"),
        golden=read_picture(GOLDEN_PICTURE),
        data_name="data",
        store=store,
        counter=None,
        ears=heard.ears(),
    )


def test_a_detector_keeps_what_it_finds(detector: tuple[FloatModel, Path, Store]) -> None:
    heard = Heard()
    made = built(detector, heard, Gates(max_drop=0.01, min_speedup=0.0), ("int8-arm", "int8-x86", "float32"))
    names = [one.variant.name for one in made.variants]
    assert sorted(names) == ["float32", "int8-arm", "int8-x86"]
    for one in made.variants:
        assert one.metrics["ap50"] > 0.99
        assert one.variant.accuracy is not None
        assert one.variant.accuracy.images == 20
        assert one.golden.shape == (1, 84, 8)
        assert one.variant.tolerance > 0
    record = made.record
    assert (record.metric_name, record.task) == ("ap50", "detect")
    assert record.split == {"calibration": 8, "choice": 20, "measure": 20}
    chosen = {one.variant: one.candidate for one in record.chosen}
    assert chosen.keys() == {"int8-x86", "int8-arm"}
    assert {one.id for one in record.candidates if one.chosen} == set(chosen.values())
    assert [one.id for one in heard.candidates] == [one.id for one in record.candidates]
    assert all(one.integer_operators >= 10 and (one.fidelity_db or 0) > 15 for one in record.candidates)
    again = msgspec.json.decode(msgspec.json.encode(record), type=Record)
    assert msgspec.json.encode(again) == msgspec.json.encode(msgspec.convert(msgspec.to_builtins(record), Record))


def test_a_classifiers_record_says_what_was_tried(classifier: tuple[FloatModel, Path, Store]) -> None:
    made = built(classifier, Heard())
    record = made.record
    assert [chosen.variant for chosen in record.chosen] == ["int8-x86"]
    assert record.gates == {"max_drop_points": 100.0, "min_speedup": 0.0}
    assert record.float32["top1"] == made.record.float32["top1"] <= 1
    assert {one.settings["calibrator"] for one in record.candidates} >= {"error", "minmax", "percentile", "entropy"}
    assert {one.variant for one in record.reliability} == {"float32", "int8-x86"}
    assert all(sum(one.count) == 12 for one in record.reliability)


def test_an_interrupted_build_goes_on_from_where_it_was(
    classifier: tuple[FloatModel, Path, Store], tmp_path: Path, files: Files
) -> None:
    model, data, _ = classifier
    fresh = (model, data, Store(tmp_path / "store"))
    with pytest.raises(KeyboardInterrupt):
        built(fresh, Heard(stop_after=3))
    assert len(files) == 3
    first = list(files)
    heard, again = Heard(), Heard()
    made = built(fresh, heard)
    assert not set(files[3:]) & set(first)
    assert [one.id for one in heard.candidates[:3]] == [one.id for one in made.record.candidates[:3]]
    assert not any("exporting" in line for line in heard.lines)
    count = len(files)
    built(fresh, again)
    assert len(files) == count
    assert [one.id for one in again.candidates] == [one.id for one in heard.candidates]


@pytest.mark.parametrize(
    ("gates", "says"),
    [
        (Gates(max_drop=1.0, min_speedup=1000.0), r"times float32's speed, 1000 is asked for; its time goes to \w+ \(\d+%\)"),
        (Gates(max_drop=1.0, min_speedup=0.0, max_bytes=100), r"0\.0\d MB, 0\.0001 are allowed"),
        (Gates(max_drop=1.0, min_speedup=0.0, max_ece=0.0), r"calibration error 0\.\d+, 0 is allowed; give more pictures"),
    ],
)
def test_a_gate_that_is_missed_is_named_with_what_to_blame(
    classifier: tuple[FloatModel, Path, Store], gates: Gates, says: str
) -> None:
    heard = Heard()
    record = built(classifier, heard, gates, minutes=0.0).record
    [left] = record.left_out
    assert not record.chosen
    assert left.variant == "int8-x86"
    assert left.candidate in {candidate.id for candidate in record.candidates}
    assert re.search(says, left.why), left.why
    assert f"int8-x86 left out: {left.why}" in heard.lines


def test_calibration_on_noise_is_refused_with_what_to_do(detector: tuple[FloatModel, Path, Store], tmp_path: Path) -> None:
    model, _, store = detector
    record = built(
        (model, tiny.squares_and_noise(tmp_path / "data"), store), Heard(), Gates(max_drop=0.01, min_speedup=0.0)
    ).record
    [left] = record.left_out
    assert not record.chosen
    assert record.split["calibration"] == 3
    assert "points, --max-drop allows 1" in left.why
    assert "calibrate on pictures from where the model will be used" in left.why
    assert "% of the noise)" in left.why
    assert left.metrics["ap50"] < record.float32["ap50"] - 0.01


def test_unreadable_pictures_are_named_wherever_they_are(classifier: tuple[FloatModel, Path, Store], tmp_path: Path) -> None:
    model, _, store = classifier
    data = tiny.pictures(tmp_path / "data")
    split = load_split(data, model.labels, 6)
    broken = [part[0].path for part in (split.calibration, split.choice, split.measure)]
    for path in broken:
        path.write_bytes(b"no picture")
    heard = Heard()
    record = built((model, data, store), heard).record
    assert record.split == {"calibration": 5, "choice": 10, "measure": 11}
    assert all(any(str(path) in line for line in heard.bad) for path in broken)
    assert all("\n" not in line for line in heard.bad)


def test_no_readable_picture_to_calibrate_with_is_an_error(classifier: tuple[FloatModel, Path, Store], tmp_path: Path) -> None:
    model, _, store = classifier
    data = tiny.pictures(tmp_path / "data")
    for sample in load_split(data, model.labels, 8).calibration:
        sample.path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="no calibration picture is readable; give more pictures"):
        built((model, data, store), Heard())


def test_a_budget_of_nothing_still_tries_one(classifier: tuple[FloatModel, Path, Store]) -> None:
    model, data, _ = classifier
    made = built((model, data, Store(None)), Heard(), minutes=0.0)
    assert len(made.record.candidates) == 1
    assert [one.variant.name for one in made.variants] == ["int8-x86"]


def test_the_same_network_at_another_size_is_another_file(classifier: tuple[FloatModel, Path, Store]) -> None:
    model, _, store = classifier
    smaller = replace(model, input=msgspec.structs.replace(model.input, width=16, height=16))
    keys = {Workshop(one, [], 1, store, lambda line: None).key for one in (model, smaller, model)}
    assert len(keys) == 2
