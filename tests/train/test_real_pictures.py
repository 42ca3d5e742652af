"""The whole of a training on photographs: a part of the cats and dogs, to an int8 bundle that still tells them apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from edge.commands.evaluate import main as evaluate
from edge.datasets import picture_files
from edge.lists import write_list
from quantize.cli import main as quantize
from tests.conftest import Finished
from train.cli import main

EACH = 60


@pytest.mark.slow
def test_a_few_photographs_are_enough_and_eight_bits_keep_it(
    command: Callable[..., Finished], shared_data: Path, tmp_path: Path
) -> None:
    """60 of each to learn from, all 300 of val to measure: measured 97.7%; by chance half."""
    data = shared_data / "cats_dogs"
    chosen = [path for animal in ("cat", "dog") for path in picture_files(data / "train" / animal)[:EACH]]
    few = tmp_path / "few.txt"
    write_list(few, data, [*chosen, *picture_files(data / "val")])
    run, bundle = tmp_path / "run", tmp_path / "pets.edge"
    trained = command(main, "--data", few, "--out", run, "--epochs", 2)
    assert trained.code == 0, trained.err
    report = json.loads((run / "report.json").read_text())
    assert report["facts"]["pictures"] == {"train": 2 * EACH, "val": 300}
    assert report["figures"]["top1"]["value"] >= 0.95
    options = ("--variants", "int8-tflite,float32", "--budget-minutes", 1, "--no-cache", "--no-arm-instructions")
    built = command(quantize, run, "--out", bundle, *options)
    assert built.code == 0, built.err
    found = json.loads(command(evaluate, "--model", bundle, "--data", few, "--json").out)
    assert found["images"] == 300
    figures = {name: variant["top1"] for name, variant in found["variants"].items()}
    assert figures["float32"] == pytest.approx(report["figures"]["top1"]["value"], abs=0.004)  # one picture, by rounding
    assert figures["int8-tflite"] >= figures["float32"] - 0.01
